"""What the test server answers: shapes and types as Micro's clients read them, filters, refusals, namespaces, waiting."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest

from protocol import schemas
from protocol.seams import FailedKind
from protocol.tables import COLUMNS
from spoorway.micro.store import Bounds
from tests.unit.http_site import TP2, until
from tests.unit.micro_site import (
    GEOLOCATION,
    LINK_CLICK,
    SNOWPLOW,
    WEB_PAGE,
    Site,
    described,
    entities,
    event_id,
    served,
    site,
)

PAGE = {
    "e": "pv",
    "eid": event_id(1),
    "aid": "shop",
    "tna": "sp",
    "url": "https://shop.test/p?a=1#top",
    "page": "Beds",
    "dtm": "1768471200000",
    "stm": "1768471202500",
    "tid": "123456",
    "vid": "3",
    "res": "1920x1080",
    "cookie": "1",
    "f_pdf": "0",
    "tr_tt": "42.50",
    "se_va": "1E1",
    "ti_qu": "2",
} | entities((WEB_PAGE, {"id": event_id(9)}), (GEOLOCATION, {"latitude": 52.5, "longitude": 5}))
CLICK = described({"targetUrl": "http://shop.test/next"}) | {"eid": event_id(2)}
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "uuid": (str,),
    "timestamp": (str,),
    "integer": (int,),
    "decimal": (float, int),
    "float": (float, int),
    "boolean": (bool,),
}


def strictly(shape: Any, value: Any, path: str = "$") -> None:
    """Exactly these keys, and values of exactly these types; a shape is a type, a tuple of them, a list of one, or a dict."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), path
        assert value.keys() == shape.keys(), path
        for key, inner in shape.items():
            strictly(inner, value[key], f"{path}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), path
        for place, item in enumerate(value):
            strictly(shape[0], item, f"{path}[{place}]")
    else:
        assert type(value) in (shape if isinstance(shape, tuple) else (shape,)), f"{path}: {value!r}"


NULLABLE = (str, type(None))
API = {"vendor": str, "version": str}
SOURCE = {"name": str, "encoding": str, "hostname": NULLABLE}
CONTEXT = {
    "timestamp": str,
    "ipAddress": str,
    "useragent": NULLABLE,
    "refererUri": NULLABLE,
    "headers": [str],
    "userId": NULLABLE,
}
RAW_EVENT = {"api": API, "parameters": dict, "contentType": NULLABLE, "source": SOURCE, "context": CONTEXT}
GOOD_EVENT = {"rawEvent": RAW_EVENT, "eventType": str, "schema": str, "contexts": [str], "event": dict, "incomplete": bool}
PAYLOAD = {
    "api": API,
    "querystring": [str],
    "contentType": NULLABLE,
    "body": NULLABLE,
    "source": SOURCE,
    "context": CONTEXT,
}


@served()
async def test_nothing_is_there_at_first(site: Site) -> None:
    assert await site.micro_get("/micro/all") == {"total": 0, "good": 0, "bad": 0}
    assert await site.micro_get("/micro/good") == []
    assert await site.micro_post("/micro/bad", {}) == []


@served()
async def test_a_good_event_has_its_shape(site: Site) -> None:
    reply = await site.track(PAGE, User_Agent="Test/1", Referer="http://forum.test/", X_Own="1")
    (found,) = await site.micro_get("/micro/good")
    strictly(GOOD_EVENT, found)
    raw = found["rawEvent"]
    assert raw["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp2"}
    assert raw["parameters"] == {"tv": "test-1", "p": "web", **PAGE}
    assert raw["contentType"] == "application/json"
    assert (raw["source"]["encoding"], raw["source"]["hostname"]) == ("UTF-8", "events.example")
    context = raw["context"]
    assert (context["useragent"], context["refererUri"], context["ipAddress"]) == ("Test/1", "http://forum.test/", "127.0.0.1")
    assert {"User-Agent: Test/1", "X-Own: 1", "Content-Type: application/json"} <= set(context["headers"])
    assert reply["Set-Cookie"].startswith(f"sp={context['userId']};")
    assert found["eventType"] == "page_view"
    assert found["schema"] == f"{SNOWPLOW}/page_view/jsonschema/1-0-0"
    assert found["contexts"] == [WEB_PAGE, GEOLOCATION]
    assert found["incomplete"] is False


@served()
async def test_every_column_is_there_with_its_type(site: Site) -> None:
    await site.track(PAGE)
    (found,) = await site.micro_get("/micro/good")
    event = found["event"]
    assert event.keys() == {column.name for column in COLUMNS}
    assert len(event) == 131
    for column in COLUMNS:
        if column.type != "json" and event[column.name] is not None:
            assert type(event[column.name]) in TYPES[column.type], column.name
    expected = {
        "app_id": "shop",
        "event_id": event_id(1),
        "txn_id": 123456,
        "domain_sessionidx": 3,
        "dvce_screenwidth": 1920,
        "br_cookies": True,
        "br_features_pdf": False,
        "tr_total": 42.5,
        "ti_quantity": 2,
        "page_urlport": 443,
        "user_id": None,
        "dvce_created_tstamp": "2026-01-15T10:00:00Z",  # no fraction when it is zero
        "dvce_sent_tstamp": "2026-01-15T10:00:02.500Z",
        "etl_tstamp": "2026-01-15T10:00:05Z",
        "unstruct_event": None,
        "derived_contexts": {},
    }
    assert {name: event[name] for name in expected} == expected
    assert event["contexts"] == {
        "schema": f"{SNOWPLOW}/contexts/jsonschema/1-0-0",
        "data": [
            {"schema": WEB_PAGE, "data": {"id": event_id(9)}},
            {"schema": GEOLOCATION, "data": {"latitude": 52.5, "longitude": 5}},
        ],
    }


@served()
async def test_a_self_describing_event_is_wrapped(site: Site) -> None:
    await site.track(CLICK)
    (found,) = await site.micro_get("/micro/good")
    assert (found["eventType"], found["schema"], found["contexts"]) == ("unstruct", LINK_CLICK, [])
    assert found["event"]["contexts"] == {}
    assert found["event"]["unstruct_event"] == {
        "schema": f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0",
        "data": {"schema": LINK_CLICK, "data": {"targetUrl": "http://shop.test/next"}},
    }


@served()
async def test_a_struct_event_has_the_pseudo_schema(site: Site) -> None:
    await site.ask("/i?e=se&p=web&tv=x&se_ca=c&se_ac=a&se_va=2.5")
    (found,) = await site.micro_get("/micro/good")
    assert (found["eventType"], found["schema"]) == ("struct", "iglu:com.google.analytics/event/jsonschema/1-0-0")
    assert found["rawEvent"]["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp1"}
    assert found["rawEvent"]["contentType"] is None
    assert found["event"]["se_value"] == 2.5


@served()
async def test_newest_is_first_and_so_is_a_batch_s_last(site: Site) -> None:
    await site.track(*[{"e": "pv", "eid": event_id(n)} for n in (1, 2)])
    await site.track({"e": "pv", "eid": event_id(3)})
    found = await site.micro_get("/micro/good")
    assert [each["event"]["event_id"] for each in found] == [event_id(3), event_id(2), event_id(1)]


BROKEN: dict[FailedKind, tuple[str, str, bytes | None]] = {
    "collector_payload_format_violation": ("GET", "/i?e=pv&nuid=x", None),
    "adapter_failures": ("POST", "/com.acme/v9?a=1&b", b"{}"),
    "tracker_protocol_violations": ("POST", TP2, b"not json"),
    "schema_violations": ("GET", "/i?e=nonsense&p=web&aid=shop", None),
    "enrichment_failures": ("GET", "/i?e=pv&p=web&url=http://a.b/%3F_sp=x.notatime", None),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_event_has_its_shape(kind: FailedKind) -> None:
    elsewhere = {"size_violation", "journal_damage", "relay_refused"}  # which HTTP cannot bring about
    assert set(BROKEN) == set(get_args(FailedKind)) - elsewhere
    method, target, body = BROKEN[kind]

    @served()
    async def scenario(site: Site) -> None:
        assert (await site.ask(target, method, body, Content_Type="application/json")).status == 200
        assert await site.micro_get("/micro/all") == {"total": 1, "good": 0, "bad": 1}
        (found,) = await site.micro_get("/micro/bad")
        alone = kind in ("schema_violations", "enrichment_failures")
        strictly({"collectorPayload": PAYLOAD, "rawEvent": RAW_EVENT if alone else type(None), "errors": [str]}, found)
        sentence, *rows = found["errors"]
        assert len(sentence) > 20
        assert rows
        for row in map(json.loads, rows):
            assert f".badrows/{kind}/" in row["schema"]
            document = schemas.bundled(row["schema"])
            assert document is not None
            rules = {key: value for key, value in document.items() if key not in ("$schema", "self")}
            jsonschema_rs.Draft4Validator(rules).validate(row["data"])
        assert site.labels[0].startswith("BAD ")

    scenario()


@served()
async def test_a_bad_event_keeps_its_request(site: Site) -> None:
    await site.ask("/com.acme/v9?a=1&b=%20x", "POST", b'{"x":1}', Content_Type="application/json")
    (found,) = await site.micro_get("/micro/bad")
    assert found["collectorPayload"]["api"] == {"vendor": "com.acme", "version": "v9"}
    assert found["collectorPayload"]["querystring"] == ["a=1", "b= x"]
    assert found["collectorPayload"]["body"] == '{"x":1}'


@served()
async def test_a_batch_of_bad_objects_does_not_grow_by_its_square(site: Site) -> None:
    await site.track(*[{"no_such_key": "x" * 1000} for _ in range(100)])
    assert (await site.micro_get("/micro/all"))["bad"] == 100
    (newest,) = await site.micro_post("/micro/bad", {"limit": 1})
    assert len(newest["collectorPayload"]["body"]) > 100_000
    assert len(newest["errors"][1]) < 5_000


# Filters ---------------------------------------------------------------------------------------------------------------


async def filled(site: Site) -> None:
    await site.track(PAGE, CLICK, {"e": "pp", "eid": event_id(3), "aid": "other"})
    await site.ask("/com.acme/v9?x=1", "POST", b"{}")
    await site.ask("/com.acme/v10?x=1", "POST", b"{}")


async def ids(site: Site, body: object, query: str = "") -> list[int]:
    found = await site.micro_post(f"/micro/good{query}", body)
    return [int(each["event"]["event_id"][-1]) for each in found]


@served()
async def test_good_events_are_filtered(site: Site) -> None:
    await filled(site)
    assert await ids(site, {}) == [3, 2, 1]
    assert await ids(site, {"event_type": "page_view"}) == [1]
    assert await ids(site, {"event_type": "pv"}) == []
    assert await ids(site, {"schema": LINK_CLICK}) == [2]
    assert await ids(site, {"schema": LINK_CLICK, "event_type": "page_view"}) == []
    assert await ids(site, {"contexts": [GEOLOCATION]}) == [1]
    assert await ids(site, {"contexts": [GEOLOCATION, WEB_PAGE]}) == [1]
    assert await ids(site, {"contexts": [GEOLOCATION, LINK_CLICK]}) == []
    assert await ids(site, {"contexts": []}) == [3, 2, 1]
    assert await ids(site, {"limit": 2}) == [3, 2]
    assert await ids(site, {"limit": 0}) == []
    assert await ids(site, {"limit": 1, "event_type": "page_view"}) == [1], "the limit comes last"
    assert await ids(site, {"event_type": None, "schema": None, "contexts": None, "limit": None, "unknown": 1}) == [3, 2, 1]


@served()
async def test_bad_events_are_filtered_by_their_path(site: Site) -> None:
    await filled(site)

    async def versions(body: object) -> list[str]:
        return [each["collectorPayload"]["api"]["version"] for each in await site.micro_post("/micro/bad", body)]

    assert await versions({}) == ["v10", "v9"]
    assert await versions({"vendor": "com.acme", "version": "v9"}) == ["v9"]
    assert await versions({"vendor": "com.other"}) == []
    assert await versions({"limit": 1}) == ["v10"]


@served()
async def test_columns_select_in_the_query_string(site: Site) -> None:
    await filled(site)
    assert await ids(site, {}, "?app_id=shop") == [1]
    assert await ids(site, {}, "?br_cookies=true&tr_total=42.5") == [1]
    assert await ids(site, {"event_type": "page_ping"}, "?app_id=shop") == []
    assert await ids(site, {}, "?limit=1") == [3]
    assert await ids(site, {"limit": 2}, "?limit=3") == [3, 2]
    assert len(await site.micro_get(f"/micro/good?event_id={event_id(2).upper()}")) == 1
    assert await site.micro_get(f"/micro/all?event_id={event_id(2)}") == {"total": 1, "good": 1, "bad": 0}
    assert await site.micro_get(f"/micro/all?event_id={event_id(7)}") == {"total": 0, "good": 0, "bad": 0}


@served()
async def test_a_bad_event_is_found_by_its_id(site: Site) -> None:
    await site.track({"e": "nonsense", "eid": event_id(5)}, {"e": "pv", "eid": event_id(6), "unknown": "1"})
    for number in (5, 6):
        (found,) = await site.micro_get(f"/micro/bad?event_id={event_id(number)}")
        assert found["rawEvent"]["parameters"]["eid"] == event_id(number)


WRONG_BODIES = [
    ({"event_type": 1}, "event_type: expected text"),
    ({"schema": ["x"]}, "schema: expected text"),
    ({"contexts": "x"}, "contexts: expected a list"),
    ({"contexts": [1]}, "contexts: expected a list of texts"),
    ({"limit": "1"}, "limit: expected a whole number"),
    ({"limit": True}, "limit: expected a whole number"),
    ({"limit": 1.5}, "limit: expected a whole number"),
    ([], "expected an object"),
]


@served()
async def test_a_body_of_the_wrong_shape_is_refused(site: Site) -> None:
    for body, why in WRONG_BODIES:
        reply = await site.post(json.dumps(body).encode(), "/micro/good")
        assert (reply.status, why in reply.body.decode()) == (422, True), (body, reply)
    for text in (b"", b"{", b"\xff"):
        assert (await site.post(text, "/micro/good")).status == 400
    assert (await site.post(b"{}", "/micro/good", Content_Type="text/plain")).status == 415
    assert (await site.ask("/micro/bad", "POST", b"{}")).status == 415
    assert (await site.post(b"{}", "/micro/good", Content_Type="Application/JSON; charset=utf-8")).status == 200


@served()
async def test_a_query_that_selects_by_nothing_is_refused(site: Site) -> None:
    for query in ("app=shop", "limit=x", "limit=-1", "wait=1.5", "timeout_ms=", "=1"):
        assert (await site.ask(f"/micro/good?{query}")).status == 422, query
    assert (await site.ask("/micro/reset?app=shop")).status == 422, "or it would forget everything"


@served()
async def test_what_is_no_route_is_told_the_routes(site: Site) -> None:
    requests = [("GET", "/micro/nothing"), ("GET", "/micro/"), ("PUT", "/micro/good"), ("HEAD", "/micro/all")]
    requests += [("GET", "/micro/events"), ("POST", "/micro/columns"), ("GET", "/ns/a/micro/x")]
    for method, target in requests:
        reply = await site.ask(target, method)
        assert reply.status == 404, target
        assert method == "HEAD" or b"/micro/good" in reply.body
    assert (await site.micro_get("/micro/auth-config"))["enabled"] is False


@served()
async def test_every_route_of_the_gateway_is_served(site: Site) -> None:
    assert (await site.ask("/health")).body == b"ok"
    assert (await site.ask("/robots.txt")).status == 200
    assert (await site.ask("/i?e=pv"))["Content-Type"] == "image/gif"
    assert (await site.ask(TP2, "OPTIONS")).status == 200
    assert (await site.ask("/nothing")).status == 404


@served()
async def test_reset_forgets(site: Site) -> None:
    for method in ("GET", "POST"):
        await filled(site)
        reply = await site.ask("/micro/reset", method)
        assert (reply.status, json.loads(reply.body)) == (200, "Reset completed")
        assert await site.micro_get("/micro/all") == {"total": 0, "good": 0, "bad": 0}
    assert (len(site.store), site.store.bytes) == (0, 0)


@served()
async def test_reset_forgets_only_what_is_selected(site: Site) -> None:
    await filled(site)
    await site.micro_get("/micro/reset?app_id=shop")
    assert await ids(site, {}) == [3, 2]


# Answers' coding, other origins ----------------------------------------------------------------------------------------


@served()
async def test_answers_are_compressed_where_that_is_accepted(site: Site) -> None:
    await site.track(*[{"e": "pv", "eid": event_id(n)} for n in range(50)])  # more than is compressed on the spot
    plain = await site.ask("/micro/good")
    assert "Content-Encoding" not in plain
    assert plain["Content-Type"] == "application/json"
    for accepted in ("gzip", "br, gzip;q=0.5", "*"):
        packed = await site.ask("/micro/good", Accept_Encoding=accepted)
        assert packed["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
    for refused in ("br", "gzip;q=0", "identity"):
        assert "Content-Encoding" not in await site.ask("/micro/all", Accept_Encoding=refused)


@served()
async def test_filter_bodies_may_be_compressed(site: Site) -> None:
    await filled(site)
    body = gzip.compress(b'{"event_type":"page_ping"}')
    reply = await site.post(body, "/micro/good", Content_Encoding="gzip")
    assert [each["eventType"] for each in json.loads(reply.body)] == ["page_ping"]
    bomb = gzip.compress(b" " * 3_000_000)
    assert (await site.post(bomb, "/micro/good", Content_Encoding="gzip")).status == 413
    assert (await site.post(b"x", "/micro/good", Content_Encoding="gzip")).status == 400


@served()
async def test_pages_of_other_origins_are_shut_out(site: Site) -> None:
    reply = await site.ask("/micro/all", Origin="http://app.test")
    assert "Access-Control-Allow-Origin" not in reply
    assert (await site.ask("/micro/good", "OPTIONS", Origin="http://app.test")).status == 404


@served(cors=True)
async def test_pages_of_other_origins_are_let_in_on_request(site: Site) -> None:
    for target, status in (("/micro/all", 200), ("/micro/x", 404), ("/micro/good?app=x", 422)):
        reply = await site.ask(target, Origin="http://app.test")
        assert (reply.status, reply["Access-Control-Allow-Origin"]) == (status, "http://app.test")
    reply = await site.ask("/ns/run/micro/good", "OPTIONS", Origin="http://app.test")
    assert (reply.status, reply["Access-Control-Allow-Headers"]) == (200, "Content-Type")


# Schemas ---------------------------------------------------------------------------------------------------------------


@served()
async def test_schemas_are_served(site: Site) -> None:
    document = await site.micro_get("/micro/iglu/com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1")
    assert document["self"]["name"] == "link_click"
    reply = await site.ask("/micro/iglu/com.acme/none/jsonschema/1-0-0")
    assert reply.status == 404
    looked = {"errors": [{"error": "NotFound"}], "attempts": 1, "lastAttempt": "2026-01-15T10:00:05Z"}
    assert json.loads(reply.body) == {"value": {"spoorway": looked}}
    reply = await site.ask("/micro/iglu/com.acme/none/jsonschema/1-0")
    assert (reply.status, reply["Content-Type"]) == (404, "text/plain; charset=utf-8")


def test_a_schema_file_counts_as_soon_as_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    file = folder / "com.acme" / "thing" / "jsonschema" / "1-0-0"
    about = {"vendor": "com.acme", "name": "thing", "format": "jsonschema", "version": "1-0-0"}

    async def scenario() -> None:
        async with site(Bounds(), False, "", folder, {}) as running:
            uri = "iglu:com.acme/thing/jsonschema/1-0-0"
            await running.track(described({"size": "big"}, uri))
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps({"self": about, "type": "object", "properties": {"size": {"type": "string"}}}))
            await running.track(described({"size": "big"}, uri))
            file.write_text(json.dumps({"self": about, "type": "object", "properties": {"size": {"type": "integer"}}}))
            await running.track(described({"size": "big"}, uri))
            assert [label[:4] for label in running.labels] == ["BAD ", "GOOD", "BAD "]

    asyncio.run(scenario())


def test_enrichments_are_those_of_the_configuration(tmp_path: Path) -> None:
    configuration = '[enrich.enrichments.campaign]\nsource = ["from"]\n'

    async def scenario() -> None:
        async with site(Bounds(), False, configuration, tmp_path / "schemas", {}) as running:
            await running.track({"e": "pv", "url": "http://a.test/?from=letter"})
            (found,) = await running.micro_get("/micro/good")
            assert (found["event"]["mkt_source"], found["event"]["user_ipaddress"]) == ("letter", "127.0.0.1")

    asyncio.run(scenario())


# Read your writes, namespaces, waiting, memory -------------------------------------------------------------------------


@served()
async def test_what_was_acknowledged_is_visible_under_concurrency(site: Site) -> None:
    async def visit(number: int) -> None:
        reply = await site.track({"e": "pv", "eid": event_id(number)}, {"e": "nonsense", "eid": event_id(number + 500)})
        assert reply.status == 200
        assert await site.micro_get(f"/micro/all?event_id={event_id(number)}") == {"total": 1, "good": 1, "bad": 0}
        assert await site.micro_get(f"/micro/all?event_id={event_id(number + 500)}") == {"total": 1, "good": 0, "bad": 1}

    await asyncio.gather(*[visit(number) for number in range(1, 101)])
    assert await site.micro_get("/micro/all") == {"total": 200, "good": 100, "bad": 100}


@served()
async def test_namespaces_see_nothing_of_each_other(site: Site) -> None:
    for below, number in (("", 1), ("/ns/a", 2), ("/ns/b", 3), ("/ns/b", 4)):
        await site.track({"e": "pv", "eid": event_id(number)}, below=below)
    await site.ask("/ns/a/i?e=pv&nuid=bad")
    counts = {below: (await site.micro_get(f"{below}/micro/all")) for below in ("", "/ns/a", "/ns/b", "/ns/c")}
    assert {below: (count["good"], count["bad"]) for below, count in counts.items()} == {
        "": (1, 0),
        "/ns/a": (1, 1),
        "/ns/b": (2, 0),
        "/ns/c": (0, 0),
    }
    (found,) = await site.micro_get("/ns/a/micro/good")
    assert found["event"]["event_id"] == event_id(2)
    assert found["rawEvent"]["api"] == {"vendor": "com.snowplowanalytics.snowplow", "version": "tp2"}
    await site.micro_get("/ns/b/micro/reset")
    await site.micro_get("/micro/reset")
    memory = await site.micro_get("/micro/memory")
    assert memory["namespaces"] == {"a": {"total": 2, "good": 1, "bad": 1}}


@served()
async def test_requests_of_one_connection_keep_their_namespaces(site: Site) -> None:
    client = await site.connect()
    for below in ("/ns/a", "", "/ns/b", "/ns/a"):
        await client.send(f"GET {below}/i?e=pv HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await client.reply()).status == 200
    namespaces = (await site.micro_get("/micro/memory"))["namespaces"]
    assert {name: kinds["good"] for name, kinds in namespaces.items()} == {"": 1, "a": 2, "b": 1}


@served()
async def test_a_namespace_has_a_name_of_bounded_length(site: Site) -> None:
    assert (await site.ask(f"/ns/{'x' * 128}/i?e=pv")).status == 200
    assert (await site.ask(f"/ns/{'x' * 129}/i?e=pv")).status == 404
    assert (await site.ask("/ns//i?e=pv")).status == 404
    assert (await site.ask("/ns/one%20run/i?e=pv")).status == 200
    assert "one run" in (await site.micro_get("/micro/memory"))["namespaces"]
    assert (await site.micro_get("/micro/all"))["total"] == 0
    await site.post(target="/ns/v1")  # two segments: a vendor and a version
    assert (await site.micro_get("/micro/all"))["bad"] == 1


@served()
async def test_waiting_ends_with_the_last_event_that_is_wanted(site: Site) -> None:
    waiting = asyncio.create_task(site.micro_get("/ns/a/micro/good?wait=2&timeout_ms=60000&app_id=shop"))
    await until(lambda: site.counters.connections > 0)
    for event, below in ((PAGE, ""), (CLICK, "/ns/a"), (PAGE, "/ns/a")):
        await site.track(event, below=below)
    assert not waiting.done()
    await site.track(PAGE, below="/ns/a")
    assert [each["event"]["app_id"] for each in await waiting] == ["shop", "shop"]


@served()
async def test_waiting_in_vain_ends_at_the_timeout_with_what_there_is(site: Site) -> None:
    await site.track(PAGE)
    assert len(await site.micro_get("/micro/good?wait=2&timeout_ms=10")) == 1
    assert await site.micro_get("/micro/bad?wait=1&timeout_ms=10") == []


def test_waiting_ends_with_the_server() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(20):
            async with site(Bounds(), False, "", None, {}) as running:
                waiting = asyncio.create_task(running.micro_get("/micro/all?wait=9&timeout_ms=60000"))
                await until(lambda: running.counters.connections > 0)
                await running.track(PAGE)
                await running.micro.stop()
                assert (await waiting)["total"] == 1

    asyncio.run(scenario())


@served(Bounds(max_events=3))
async def test_beyond_the_number_the_oldest_is_forgotten_and_counted(site: Site) -> None:
    await site.track(*[{"e": "pv", "eid": event_id(n)} for n in range(1, 6)])
    assert await ids(site, {}) == [5, 4, 3]
    await site.track({"e": "nonsense"}, below="/ns/a")
    memory = await site.micro_get("/micro/memory")
    assert (memory["events"], memory["dropped"], memory["max_events"]) == (3, 3, 3)
    assert memory["namespaces"] == {"": {"total": 2, "good": 2, "bad": 0}, "a": {"total": 1, "good": 0, "bad": 1}}


@served(Bounds(max_bytes=100_000))
async def test_beyond_the_bytes_the_oldest_is_forgotten(site: Site) -> None:
    for number in range(1, 40):
        await site.track({"e": "pv", "eid": event_id(number), "page": "x" * 1_900})
        assert site.store.bytes <= 100_000
    kept = await site.micro_get("/micro/good")
    assert 5 < len(kept) < 39
    assert site.store.dropped == 39 - len(kept)
    assert sum(len(json.dumps(each, separators=(",", ":"))) for each in kept) == site.store.bytes
    await site.track({"e": "nonsense", "aid": "x" * 150_000})
    assert len(site.store) == 1, "the newest is kept whatever its size"


@served(Bounds(max_bytes=1_000_000))
async def test_a_hostile_batch_stays_within_the_bounds(site: Site) -> None:
    await site.track(*[{"bad": "x" * 50} for _ in range(2_000)])
    assert site.store.bytes <= 1_000_000
    assert len(site.store) + site.store.dropped == 2_000
