"""The tables the user interface asks for: pages of flattened events, columns and what they hold, counts over time."""

from __future__ import annotations

import json
from typing import Any

from spoorway.micro.shapes import flattened
from tests.unit.micro_site import GEOLOCATION, LINK_CLICK, SNOWPLOW, WEB_PAGE, Site, described, entities, event_id, served

PAGE_COLUMN = "contexts_com_snowplowanalytics_snowplow_web_page_1"
CLICK_COLUMN = "unstruct_event_com_snowplowanalytics_snowplow_link_click_1"
FAILURE_COLUMN = "contexts_com_snowplowanalytics_snowplow_failure_1"


async def filled(site: Site) -> None:
    """Ids 1 to 4: two page views, a click, a failed event; and one payload that is no event at all."""
    pages = entities((WEB_PAGE, {"id": event_id(9)}), (WEB_PAGE, {"id": event_id(8)}))
    await site.track({"e": "pv", "eid": event_id(1), "aid": "shop", "vid": "2", "cookie": "1"} | pages)
    await site.track({"e": "pv", "eid": event_id(2), "aid": "Blog", "vid": "10", "cookie": "0"})
    await site.track({"eid": event_id(3), "aid": "shop"} | described({"targetUrl": "http://a.test/"}))
    await site.track({"eid": event_id(4), "aid": "shop"} | described({"no": "target"}))
    await site.post(b"not json")


async def events(site: Site, **request: Any) -> list[int]:
    answer = await site.micro_post("/micro/events", {"filters": [], **request})
    return [int(event["event_id"][-1]) for event in answer["events"]]


@served()
async def test_events_are_flattened(site: Site) -> None:
    await filled(site)
    answer = await site.micro_post("/micro/events", {"filters": []})
    assert (answer["totalPages"], answer["totalItems"]) == (1, 4)
    failed, click, _, page = answer["events"]
    assert page[PAGE_COLUMN] == [
        {"id": event_id(9), "_schema_version": "1-0-0"},
        {"id": event_id(8), "_schema_version": "1-0-0"},
    ]
    assert click[CLICK_COLUMN] == {"targetUrl": "http://a.test/"}
    assert not {"contexts", "derived_contexts", "unstruct_event"} & page.keys()
    (failure,) = failed[FAILURE_COLUMN]
    assert failure["failureType"] == "ValidationError"
    assert failure["schema"] == LINK_CLICK
    assert failure["_schema_version"] == "1-0-0"
    assert {"errors", "timestamp", "componentName", "componentVersion", "data"} <= failure.keys()


@served()
async def test_events_are_filtered(site: Site) -> None:
    await filled(site)
    assert await events(site) == [4, 3, 2, 1]
    assert await events(site, validEvents=True) == [3, 2, 1]
    assert await events(site, validEvents=False) == [4]
    assert await events(site, filters=[{"column": "app_id", "values": ["SHOP"]}]) == [4, 3, 1], "in any case"
    assert await events(site, filters=[{"column": "app_id", "values": ["sho"]}]) == [], "the whole value"
    assert await events(site, filters=[{"column": "app_id", "value": "blog"}]) == [2], "as before 4.4"
    assert await events(site, filters=[{"column": "app_id", "values": ["shop", "blog"]}]) == [4, 3, 2, 1]
    both = [{"column": "app_id", "values": ["shop"]}, {"column": "domain_sessionidx", "values": [2]}]
    assert await events(site, filters=both) == [1]
    assert await events(site, filters=[{"column": "br_cookies", "values": ["true"]}]) == [1]
    assert await events(site, filters=[{"column": PAGE_COLUMN, "values": ["x"]}]) == [4, 3, 2, 1], "no single value"


@served()
async def test_events_are_taken_from_a_time(site: Site) -> None:
    await filled(site)
    answer = await site.micro_post("/micro/events", {"filters": [], "sorting": {"column": "collector_tstamp", "desc": False}})
    first, last = (answer["events"][place]["collector_tstamp"] for place in (0, -1))
    assert await events(site, timeRange={"start": first}) == [4, 3, 2, 1]
    assert 1 not in await events(site, timeRange={"end": first})
    assert 4 not in await events(site, timeRange={"start": first, "end": last})
    assert await events(site, timeRange={"end": "2020-01-01T00:00:00Z"}) == []
    assert await events(site, timeRange={"start": 0}) == [4, 3, 2, 1]


@served()
async def test_events_are_sorted_and_paged(site: Site) -> None:
    await filled(site)
    by_session = {"column": "domain_sessionidx", "desc": True}
    assert (await events(site, sorting=by_session))[:2] == [2, 1], "as numbers, those without last"
    assert (await events(site, sorting={"column": "domain_sessionidx", "desc": False}))[:2] == [1, 2]
    assert await events(site, sorting={"column": "event_id"}, page=2, pageSize=3) == [4]
    answer = await site.micro_post("/micro/events", {"filters": [], "page": 3, "pageSize": 3})
    assert answer == {"events": [], "totalPages": 2, "totalItems": 4}
    assert (await site.micro_post("/ns/x/micro/events", {"filters": []}))["totalPages"] == 1


@served()
async def test_columns_are_those_that_hold_something(site: Site) -> None:
    await filled(site)
    columns = await site.micro_get("/micro/columns")
    assert columns == sorted(columns)
    assert {"app_id", "event_id", f"{PAGE_COLUMN}.id", f"{CLICK_COLUMN}.targetUrl", f"{FAILURE_COLUMN}.errors"} <= set(columns)
    assert not {"user_id", "contexts", PAGE_COLUMN} & set(columns)


@served()
async def test_column_stats_say_what_can_be_done_and_what_is_there(site: Site) -> None:
    await filled(site)
    await site.track(*[{"e": "pv", "page": f"{n:02}"} for n in range(30)])
    names = ["app_id", "domain_sessionidx", "collector_tstamp", f"{PAGE_COLUMN}.id", "page_title", "user_id"]
    stats = await site.micro_post("/micro/columnStats", {"columns": names})
    assert stats["app_id"] == {"sortable": True, "filterable": True, "values": ["Blog", "shop"]}
    assert stats["domain_sessionidx"]["values"] == [2, 10]
    assert stats["collector_tstamp"] == {"sortable": True, "filterable": False}
    assert stats[f"{PAGE_COLUMN}.id"] == {"sortable": False, "filterable": False}
    assert len(stats["page_title"]["values"]) == 20
    assert stats["user_id"]["values"] == []


@served()
async def test_the_timeline_counts_what_came_when(site: Site) -> None:
    await filled(site)
    found = (await site.micro_post("/micro/events", {"filters": []}))["events"]
    now = found[0]["collector_tstamp"][:4]
    buckets = [
        {"start": "2020-01-01T00:00:00Z", "end": "2020-02-01T00:00:00Z"},
        {"start": f"{now}-01-01T00:00:00Z", "end": "9999-01-01T00:00:00Z"},
    ]
    points = (await site.micro_post("/micro/timeline", {"buckets": buckets}))["points"]
    assert points == [
        {"validEvents": 0, "failedEvents": 0, "bucket": buckets[0]},
        {"validEvents": 3, "failedEvents": 1, "bucket": buckets[1]},
    ]
    at = min(record.received_ms for record in site.store.newest_first(""))
    edges = [{"start": at, "end": at + 1_000_000}, {"start": at - 1_000_000, "end": at}]
    points = (await site.micro_post("/micro/timeline", {"buckets": edges}))["points"]
    assert [point["validEvents"] for point in points] == [3, 0], "start is within, end is not"


@served()
async def test_requests_of_the_wrong_shape_are_refused(site: Site) -> None:
    wrong: list[tuple[str, object]] = [
        ("events", {}),
        ("events", {"filters": "x"}),
        ("events", {"filters": [{"column": "app_id"}]}),
        ("events", {"filters": [{"values": ["x"]}]}),
        ("events", {"filters": [], "validEvents": "yes"}),
        ("events", {"filters": [], "page": 0}),
        ("events", {"filters": [], "pageSize": -1}),
        ("events", {"filters": [], "sorting": {}}),
        ("events", {"filters": [], "timeRange": {"start": "yesterday"}}),
        ("columnStats", {}),
        ("columnStats", {"columns": [1]}),
        ("timeline", {}),
        ("timeline", {"buckets": [1]}),
        ("timeline", {"buckets": [{"start": 1}]}),
    ]
    for route, body in wrong:
        reply = await site.post(json.dumps(body).encode(), f"/micro/{route}")
        assert reply.status == 422, (route, body)


def test_names_are_flattened_as_the_sdks_do() -> None:
    geo = {"schema": GEOLOCATION, "data": {"latitude": 1}}
    camel = {"schema": "iglu:com.acme-x.Shop/addToCart/jsonschema/2-1-3", "data": {"a": 1}}
    old = {"schema": f"{SNOWPLOW}/WebPage/jsonschema/1-0-0", "data": None}
    event: dict[str, Any] = {
        "app_id": "x",
        "geo_latitude": 1.5,
        "geo_longitude": 2.0,
        "contexts": {"schema": "", "data": [geo, old]},
        "derived_contexts": {"schema": "", "data": [geo]},
        "unstruct_event": {"schema": "", "data": camel},
    }
    assert flattened(event) == {
        "app_id": "x",
        "geo_latitude": 1.5,
        "geo_longitude": 2.0,
        "geo_location": "1.5,2.0",
        "contexts_com_snowplowanalytics_snowplow_geolocation_context_1": [{"latitude": 1, "_schema_version": "1-1-0"}] * 2,
        "contexts_com_snowplowanalytics_snowplow_web_page_1": [None],
        "unstruct_event_com_acme_x_shop_add_to_cart_2": {"a": 1},
    }
