"""A small world for the questions of the SQL pack, made by hand, and what each of them must answer about it.

The answers were written by looking at the events, not by running SQL. Asked at NOON on Monday the 16th of March 2026, of all
events since the 1st.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from protocol.seams import Event, FailedEvent, RawPayload, Reason

_SNOWPLOW = "com.snowplowanalytics.snowplow"
_ECOMMERCE = "com.snowplowanalytics.snowplow.ecommerce"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = ms("2026-03-16 12:00:00")
EVENTS: list[Event] = []


def _event(app: str, when: str, name: str, late_s: int = 0, **columns: Any) -> None:
    """Received late_s after it happened, enriched 400 ms after that."""
    at = ms(f"2026-{when}")
    named = {"event": name, "event_name": name, "event_vendor": _SNOWPLOW, "event_format": "jsonschema", "event_version": "1-0-0"}
    times = {"derived_tstamp": at, "collector_tstamp": at + late_s * 1000, "etl_tstamp": at + late_s * 1000 + 400}
    identity = {"event_id": str(uuid.UUID(int=len(EVENTS) + 1)), "app_id": app, "platform": "web", "v_tracker": "js-4.6.8"}
    EVENTS.append(cast(Event, identity | named | times | columns))


def _told(app: str, when: str, vendor: str, name: str, data: dict[str, Any], late_s: int = 0, **columns: Any) -> None:
    schema = f"iglu:{vendor}/{name}/jsonschema/1-0-0"
    body = {"event": "unstruct", "event_vendor": vendor, "unstruct_event": {"schema": schema, "data": data}}
    _event(app, when, name, late_s, **(body | columns))


def _entity(vendor: str, name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-0", "data": data}


def _visit(name: str) -> str:
    return f"00000000-0000-4000-8000-0000000000{name}"


def _website() -> None:
    ann = {"domain_userid": "ann", "domain_sessionid": _visit("a1"), "page_urlhost": "shop.example", "page_urlpath": "/"}
    linux = {"useragent": "…", "br_family": "Firefox", "os_family": "Linux", "dvce_type": "Computer"}
    delft = {"geo_country": "NL", "geo_city": "Delft", "geo_latitude": 52.01, "geo_longitude": 4.36}
    google = {"refr_urlhost": "www.google.com", "refr_medium": "search", "refr_source": "Google"}
    duck = {"refr_urlhost": "duckduckgo.com", "refr_medium": "search", "refr_source": "DuckDuckGo"}  # after her order
    window = {"doc_height": 1000, "br_viewheight": 400}
    _event("shop", "03-02 10:00:00", "page_view", **ann, **linux, **delft, **google)
    _event("shop", "03-02 10:00:10", "page_ping", **ann, **window, pp_yoffset_max=100)
    _event("shop", "03-02 10:00:20", "page_ping", **ann, **window, pp_yoffset_max=200)
    pots = ann | {"page_urlpath": "/pots"}
    inside = {"refr_urlhost": "shop.example", "refr_medium": "internal"}
    _event("shop", "03-02 10:01:00", "page_view", **pots, **linux, **delft, refr_urlhost="shop.example")
    _event("shop", "03-02 10:01:10", "page_ping", **pots, **window, pp_yoffset_max=700)  # beyond its end
    pot = _entity(_ECOMMERCE, "product", {"id": "P1", "name": "Pot", "category": "pots", "price": 25, "currency": "EUR"})
    two = _entity(_ECOMMERCE, "product", pot["data"] | {"quantity": 2})
    lid = _entity(_ECOMMERCE, "product", {"id": "P2", "name": "Lid", "category": "pots", "price": 4.5, "currency": "EUR"})
    paid = _entity(
        _ECOMMERCE,
        "transaction",
        {"transaction_id": "T1", "revenue": 54.5, "currency": "EUR", "payment_method": "x", "total_quantity": 3},
    )
    for when, deed, things in (
        ("10:02:00", "add_to_cart", [pot]),
        ("10:03:00", "checkout_step", []),
        ("10:04:00", "transaction", [paid, two, lid]),
    ):
        _told("shop", f"03-02 {when}", _ECOMMERCE, "snowplow_ecommerce_action", {"type": deed}, **pots, contexts=things)
    bob = {"domain_userid": "bob", "domain_sessionid": _visit("b1"), "page_urlhost": "shop.example", "page_urlpath": "/"}
    ios = {"useragent": "…", "br_family": "Safari", "os_family": "iOS", "dvce_type": "Mobile"}
    london = {"geo_country": "GB", "geo_city": "London", "geo_latitude": 51.51, "geo_longitude": -0.13}
    letter = {"mkt_medium": "email", "mkt_source": "letter", "mkt_campaign": "spring"}
    _event("shop", "03-02 11:00:00", "page_view", **bob, **ios, **london, **letter)
    again = bob | {"domain_sessionid": _visit("b2"), "page_urlpath": "/pots"}
    _event("shop", "03-03 09:00:00", "page_view", **again, **ios, **london, refr_urlhost="m.shop.example", refr_medium="internal")
    _told("shop", "03-03 09:00:30", _SNOWPLOW, "link_click", {"targetUrl": "https://x.example/"}, **again)
    _event("shop", "03-03 09:05:00", "transaction", **again, tr_total=Decimal(30), tr_currency="EUR")
    _event("shop", "03-10 08:00:00", "page_view", **(ann | {"domain_sessionid": _visit("a2")}), **linux, **delft, **duck)
    cid = {"domain_userid": "cid", "domain_sessionid": _visit("c1"), "page_urlhost": "shop.example", "page_urlpath": "/"}
    blog = {"refr_urlhost": "blog.example", "refr_medium": "unknown"}
    timing = {"navigationStart": 1000, "responseStart": 1120, "domInteractive": 1480, "loadEventEnd": 1900}
    unfinished = _entity("org.w3", "PerformanceTiming", timing | {"loadEventEnd": 0})
    timed = _entity("org.w3", "PerformanceTiming", timing)
    slow = _entity("org.w3", "PerformanceTiming", timing | {"responseStart": 1500, "domInteractive": 2500, "loadEventEnd": 4000})
    _event("shop", "03-10 12:00:00", "page_view", **cid, **blog, contexts=[timed])
    _event("shop", "03-10 12:01:00", "page_view", **cid, **inside, contexts=[slow])
    _event("shop", "03-10 12:02:00", "page_view", **cid, **inside, contexts=[unfinished])
    for minute, lcp in ((10, 1200), (11, 2600), (12, 1300), (13, None)):
        vitals = {"lcp": lcp, "cls": 0.3, "navigationType": "navigate"}
        _told("shop", f"03-10 12:{minute}:00", _SNOWPLOW, "web_vitals", vitals, **cid)
    _told("shop", "03-10 12:20:00", _ECOMMERCE, "snowplow_ecommerce_action", {"type": "product_view"}, **cid, contexts=[pot])
    broken = {"message": "x is undefined", "programmingLanguage": "JAVASCRIPT"}
    _told("shop", "03-10 12:30:00", _SNOWPLOW, "application_error", broken, **cid)


def _mail(when: str, name: str, label: str, rule: str, message: str | None, link: str = "", **more: Any) -> None:
    data = {"campaign": "spring", "message": message} if message else {}
    agent = _entity("io.spoorway", "email_agent", {"label": label, "rule": rule, **more})
    other = _entity("io.spoorway", "bot_label_of_another", {"label": "no"})  # the family is looked for, not the place
    _told("news", f"03-04 {when}", "io.spoorway", name, data | ({"link": link} if link else {}), derived_contexts=[other, agent])


def _newsletter() -> None:
    _mail("08:00:00", "email_open", "human_likely", "useragent: a", "m1")
    _mail("09:00:00", "email_open", "human_likely", "useragent: a", "m1")
    _mail("08:00:01", "email_open", "privacy_proxy", "useragent: b", "m2", provider="Apple", fetched_at="delivery")
    _mail("08:00:02", "email_open", "scanner", "useragent: c", "m3")
    _mail("07:00:00", "email_open", "unknown", "no_rule", None)
    _mail("09:00:05", "email_click", "human_likely", "useragent: a", "m1", "offer")
    _mail("08:10:00", "email_click", "human_likely", "useragent: a", "m3", "offer")
    _mail("08:10:30", "email_click", "scanner", "honeypot", "m3", "hidden")
    _mail("08:20:00.500", "email_click", "human_likely", "useragent: a", "m4", "offer")
    _mail("08:20:02", "email_click", "scanner", "burst", "m4", "terms")


def _game() -> None:
    # One of the players is known by another id.
    who: dict[str, dict[str, Any]] = {"p1": {"domain_userid": "p1"}, "p2": {"user_id": "p2"}}

    def played(when: str, player: str, name: str, data: dict[str, Any]) -> None:
        _told("duck", f"03-05 {when}", "io.spoorway.game", name, data, platform="app", v_tracker="lua-1.0.0", **who[player])

    played("10:00:00", "p1", "level_start", {"level": "L1"})
    played("10:01:00", "p1", "level_end", {"level": "L1", "outcome": "failed", "cause": "fell", "duration_ms": 20_000})
    played("10:01:10", "p1", "level_start", {"level": "L1", "attempt": 2})
    played("10:02:00", "p1", "level_end", {"level": "L1", "outcome": "completed", "duration_ms": 40_000})
    played("10:02:10", "p1", "level_start", {"level": "L2"})
    played("10:45:00", "p2", "level_start", {"level": "L1"})
    played("10:46:00", "p2", "level_end", {"level": "L1", "outcome": "quit"})
    played("10:01:30", "p1", "economy", {"flow": "earned", "currency": "coins", "amount": 10, "place": "L1"})
    played("10:01:40", "p1", "economy", {"flow": "earned", "currency": "coins", "amount": 2.5, "place": "L1"})
    played("10:02:05", "p1", "economy", {"flow": "spent", "currency": "coins", "amount": 4, "item": "hat", "place": "shop"})
    played("11:30:00", "p2", "economy", {"flow": "earned", "currency": "coins", "amount": 100, "item": "pack", "price": 1.99})


def _greenhouse() -> None:
    for when, device, boot, sequence, method, wide_ms, celsius in (
        ("10:00:00", "d1", 1, 1, "difference", 100, 20.0),
        ("10:10:00", "d1", 1, 2, "difference", 100, 20.2),
        ("10:30:00", "d1", 1, 4, "anchored", 2500, 19.8),
        ("11:00:00", "d1", 1, 5, "true", None, 30.0),
        ("11:00:00", "d1", 2, 9, "received", None, None),
        ("10:00:00", "d2", 4_000_000_000, 7, "received", None, 5.5),
        ("10:00:30", "d2", 4_000_000_000, 11, "received", None, 5.5),
    ):
        late_s = 600 if (device, sequence) == ("d1", 1) else 60
        time = {"device": device, "proven": True, "boot_id": boot, "sequence": sequence, "method": method, "transport": "mqtt"}
        known = [_entity("io.spoorway", "device_time", time | ({} if wide_ms is None else {"uncertainty_ms": wide_ms}))]
        reading = {"temperature_celsius": celsius, "humidity_percent": 60}
        sender = {"platform": "iot", "v_tracker": "micro-1", "derived_contexts": known}
        _told("green", f"03-06 {when}", "io.spoorway", "environment_reading", reading, late_s, **sender)


def _robots() -> None:
    robot = _entity("io.spoorway", "bot_label", {"source": "useragent", "rule": "Googlebot"})
    _event("site", "03-07 00:00:00", "page_view", derived_contexts=[robot])
    _event("site", "03-07 00:00:00.250", "page_view")


_website()
_newsletter()
_game()
_greenhouse()
_robots()


def _failed(failed_id: str, kind: Any, message: str, when: str) -> FailedEvent:
    payload = RawPayload(failed_id * 32, ms(f"2026-{when}"), "http", "/i", query="e=pv")
    return FailedEvent(failed_id, kind, (Reason("atomic", "eid", message),), payload, ms(f"2026-{when}"), 0, {"aid": "shop"})


FAILED = [
    _failed("a", "schema_violations", "is not a UUID", "03-08 10:00:00"),
    _failed("b", "schema_violations", "is not a UUID", "03-08 11:00:00"),
    _failed("c", "schema_violations", "is not a UUID", "03-08 12:00:00"),
    _failed("d", "adapter_failures", "is no adapter", "03-08 13:00:00"),
]
SOLVED = "b"  # by a replay

Rows = list[tuple[Any, ...]]
SHOP = {"app": "shop"}
# Question -> what was given, and the rows.
ANSWERS: dict[str, list[tuple[dict[str, str], Rows]]] = {
    "sessions": [
        (
            SHOP,
            [("2026-03-02", 2, 2, 1.5, 120.0, 1, 50.0), ("2026-03-03", 1, 1, 1, 300, 0, 0), ("2026-03-10", 2, 2, 2, 900, 1, 50)],
        )
    ],
    "visits_by_pause": [
        ({"app": "duck"}, [("2026-03-05", 3, 2, 3.7, 63.3)]),
        ({"app": "duck", "pause_min": "60"}, [("2026-03-05", 2, 2, 5.5, 1415)]),
    ],
    "pages": [
        (SHOP, [("shop.example/", 6, 3, 20, 3.3), ("shop.example/pots", 2, 2, 10, 5)]),
        (SHOP | {"heartbeat_s": "5", "top": "1"}, [("shop.example/", 6, 3, 10, 1.7)]),
    ],
    "landing_pages": [({}, [("shop.example/", 4, 2, 50), ("shop.example/pots", 1, 1, 100)])],
    "funnel": [
        (
            {},
            [
                (1, "page_view", 3, 100, None),
                (2, "add_to_cart", 1, 33.3, 33.3),
                (3, "checkout_step", 1, 33.3, 100),
                (4, "transaction", 1, 33.3, 100),
            ],
        ),
        (
            {"step_1": "/pots", "step_2": "link_click", "step_3": "transaction", "step_4": ""},
            [(1, "/pots", 2, 100, None), (2, "link_click", 1, 50, 50), (3, "transaction", 1, 50, 100)],
        ),
        # Bob's page came before his order, not after it.
        (
            {"step_1": "transaction", "step_2": "page_view", "step_3": "nobody", "step_4": ""},
            [(1, "transaction", 2, 100, None), (2, "page_view", 1, 50, 50), (3, "nobody", 0, 0, 0)],
        ),
    ],
    "retention": [(SHOP, [("2026-03-02", 0, 2, 100), ("2026-03-02", 1, 1, 50), ("2026-03-09", 0, 1, 100)])],
    "page_performance": [({}, [("shop.example/", 2, 120, 480, 900, 3000)])],
    "web_vitals": [({}, [("cls", 4, 0.3, 0.3, "poor"), ("lcp", 3, 1300, 2600, "middling")])],
    "scroll_depth": [({}, [("shop.example/", 1, 100, 0, 60), ("shop.example/pots", 1, 100, 100, 100)])],
    "links": [({}, [("https://x.example/", 1, 1)])],
    "technology": [({}, [("Firefox", "Linux", "Computer", 1, 3), ("Safari", "iOS", "Mobile", 1, 2)])],
    "page_errors": [({}, [("shop", "x is undefined", 1, 1, "2026-03-10 12:30:00.000")])],
    "places": [({}, [("NL", "Delft", 52.01, 4.36, 1, 3), ("GB", "London", 51.51, -0.13, 1, 2)])],
    "sources": [
        (
            {},
            [
                ("direct", "", "", 1, 1, 1),
                ("email", "letter", "spring", 1, 1, 1),
                ("search", "DuckDuckGo", "", 1, 1, 1),
                ("search", "Google", "", 1, 1, 2),
                ("unknown", "blog.example", "", 1, 1, 3),
            ],
        )
    ],
    "attribution": [
        ({}, [("email", "letter", "spring", 1, 1, 1, 30), ("search", "Google", "", 1, 1, 1, 54.5)]),
        ({"conversion": "link_click", "days": "0"}, [("direct", "", "", 1, 1, 1, 0)]),
        ({"conversion": "application_error"}, [("unknown", "blog.example", "", 1, 1, 1, 0)]),
    ],
    "orders": [({}, [("2026-03-02", "EUR", 1, 54.5, 54.5), ("2026-03-03", "EUR", 1, 30, 30)])],
    "products": [({}, [("P1", "Pot", 1, 1, 2, 50), ("P2", "Lid", 0, 0, 1, 4.5)])],
    "email_campaigns": [({}, [("spring", 4, 2, 1, 5, 1, 1, 100), ("", 1, 1, 0, 0, 0, 0, None)])],
    "email_links": [
        ({}, [("spring", "offer", 3, 3, 3), ("spring", "hidden", 1, 0, 0), ("spring", "terms", 1, 0, 0)]),
        ({"campaign": "none"}, []),
    ],
    "email_agents": [
        (
            {},
            [
                ("email_click", "human_likely", "", "useragent: a", 3),
                ("email_open", "human_likely", "", "useragent: a", 2),
                ("email_click", "scanner", "", "burst", 1),
                ("email_click", "scanner", "", "honeypot", 1),
                ("email_open", "privacy_proxy", "Apple", "useragent: b", 1),
                ("email_open", "scanner", "", "useragent: c", 1),
                ("email_open", "unknown", "", "no_rule", 1),
            ],
        )
    ],
    "levels": [({}, [("L1", 2, 3, 1, 50, 1, 1, 30), ("L2", 1, 1, 0, 0, 0, 0, None)])],
    "level_failures": [({}, [("L1", "fell", 1, 1)])],
    "player_retention": [
        ({}, [("2026-03-05", 2, 0, 0, 0)]),
        ({"days_2": "0"}, [("2026-03-05", 2, 0, 100, 0)]),  # after no day at all everybody is there
    ],
    "economy": [
        (
            {},
            [
                ("coins", "earned", "pack", 1, 100, 1, 1.99),
                ("coins", "earned", "L1", 2, 12.5, 1, 0),
                ("coins", "spent", "hat", 1, 4, 1, 0),
            ],
        )
    ],
    "device_health": [
        (
            {},
            [
                ("d2", "2026-03-06 10:01:30.000", 871_110, 1, 2, 3, 0, None),
                ("d1", "2026-03-06 11:01:00.000", 867_540, 2, 5, 1, 60, 2.5),
            ],
        )
    ],
    "device_gaps": [
        (
            {},
            [
                ("d2", 4_000_000_000, 8, 10, 3, "2026-03-06 10:00:00.000", "2026-03-06 10:00:30.000"),
                ("d1", 1, 3, 3, 1, "2026-03-06 10:10:00.000", "2026-03-06 10:30:00.000"),
            ],
        )
    ],
    "sensor_series": [
        (
            {},
            [
                ("2026-03-06 10:00:00.000", "d1", 20, 19.8, 20.2, 3),
                ("2026-03-06 10:00:00.000", "d2", 5.5, 5.5, 5.5, 2),
                ("2026-03-06 11:00:00.000", "d1", 30, 30, 30, 1),
            ],
        ),
        (
            {"field": "humidity_percent", "step_s": "86400", "device": "d1"},
            [("2026-03-06 00:00:00.000", "d1", 60, 60, 60, 5)],
        ),
    ],
    "sensor_anomalies": [({"before": "3"}, [("2026-03-06 11:00:00.000", "d1", 30, 20, 10)]), ({}, [])],
    "volume": [
        ({"app": "site"}, [("2026-03-07", "site", "page_view", 2)]),
        (
            SHOP | {"until": "2026-03-03"},
            [
                ("2026-03-02", "shop", "page_ping", 3),
                ("2026-03-02", "shop", "page_view", 3),
                ("2026-03-02", "shop", "snowplow_ecommerce_action", 3),
            ],
        ),
    ],
    "failed": [
        (
            {},
            [
                ("schema_violations", "eid: is not a UUID", "shop", 2, 1, "2026-03-08 12:00:00.000"),
                ("adapter_failures", "eid: is no adapter", "shop", 1, 0, "2026-03-08 13:00:00.000"),
            ],
        )
    ],
    "freshness": [
        (
            {},
            [
                ("shop", 22, "2026-03-10 12:30:00.000", 516_600, 0, 0, 0),
                ("duck", 11, "2026-03-05 11:30:00.000", 952_200, 0, 0, 0),
                ("news", 10, "2026-03-04 09:00:05.000", 1_047_595, 0, 0, 0),
                ("green", 7, "2026-03-06 11:01:00.000", 867_540, 60, 600, 0),
                ("site", 2, "2026-03-07 00:00:00.250", 820_799, 0, 0, 0),
            ],
        )
    ],
    "schemas": [
        (
            {"app": "green"},
            [("io.spoorway", "environment_reading", "1-0-0", "green", 7, "2026-03-06 11:01:00.000")],
        )
    ],
    "trackers": [
        (
            {"top": "2"},
            [
                ("shop", "web", "js-4.6.8", 22, "2026-03-10 12:30:00.000"),
                ("duck", "app", "lua-1.0.0", 11, "2026-03-05 11:30:00.000"),
            ],
        )
    ],
    "robots": [({}, [("site", "useragent", "Googlebot", 1, 50)])],
}
