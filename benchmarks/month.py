"""A month of a shop, its newsletter, a game and a greenhouse: events as enrichment leaves them, the same ones at every run.

Visitors come back, campaigns bring them, readers and scanners open mails, players fail at the fourth level, a sensor loses
numbers and jumps now and then: so that every question of the SQL pack has something to answer. In the order they were received.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from protocol.seams import Event, SelfDescribing

DAY_MS = 86_400_000
DESCRIPTION = (
    "a month of events: readings of 40 sensors (a third), visits to a shop (a third), rounds of a game (a quarter), openings and "
    "clicks of mails"
)
_SCENE = 3.4  # events of one, in the mean
_SNOWPLOW, _ECOMMERCE, _GAME = "com.snowplowanalytics.snowplow", "com.snowplowanalytics.snowplow.ecommerce", "io.spoorway.game"
_PAGES = ("/", "/seeds", "/seeds/tomato", "/seeds/bean", "/tools", "/tools/watering-can", "/frames", "/letter", "/about")
_PRODUCTS = (
    ("TM-1", "Tomato, early", 3.2), ("BN-4", "Runner bean", 2.8), ("WC-9", "Watering can", 24.0), ("CF-90", "Cold frame", 89.0),
    ("PT-24", "Propagator", 14.5), ("SH-7", "Pruning shears", 32.0), ("GL-2", "Gloves", 11.9), ("SP-3", "Spade", 46.0),
)  # fmt: skip
_SOURCES: tuple[tuple[dict[str, str], int], ...] = (
    ({}, 30),
    ({"refr_urlhost": "www.google.com", "refr_medium": "search", "refr_source": "Google"}, 28),
    ({"mkt_medium": "email", "mkt_source": "letter", "mkt_campaign": "spring"}, 14),
    ({"refr_urlhost": "duckduckgo.com", "refr_medium": "search", "refr_source": "DuckDuckGo"}, 9),
    ({"mkt_medium": "cpc", "mkt_source": "ads", "mkt_campaign": "cold-frames"}, 8),
    ({"refr_urlhost": "garden.blog.example", "refr_medium": "unknown"}, 6),
    ({"refr_urlhost": "mastodon.social", "refr_medium": "social", "refr_source": "Mastodon"}, 5),
)
_TOWNS: tuple[tuple[dict[str, Any], int], ...] = tuple(
    ({"geo_country": country, "geo_city": city, "geo_latitude": north, "geo_longitude": east}, weight)
    for country, city, north, east, weight in (
        ("GB", "London", 51.51, -0.13, 20), ("NL", "Delft", 52.01, 4.36, 9), ("DE", "Berlin", 52.52, 13.4, 16),
        ("FR", "Lyon", 45.76, 4.84, 10), ("ES", "Valencia", 39.47, -0.38, 8), ("IT", "Bologna", 44.49, 11.34, 8),
        ("PL", "Gdańsk", 54.35, 18.65, 7), ("SE", "Malmö", 55.6, 13.0, 6), ("AT", "Graz", 47.07, 15.44, 6),
        ("IE", "Cork", 51.9, -8.47, 5),
    )
)  # fmt: skip
_BROWSERS: tuple[tuple[dict[str, str], int], ...] = tuple(
    ({"useragent": f"Mozilla/5.0 ({system}) {browser}", "br_family": browser, "os_family": system, "dvce_type": kind}, weight)
    for browser, system, kind, weight in (
        ("Chrome", "Android", "Mobile", 32), ("Mobile Safari", "iOS", "Mobile", 27), ("Chrome", "Windows", "Computer", 18),
        ("Firefox", "Linux", "Computer", 9), ("Safari", "Mac OS X", "Computer", 9), ("Edge", "Windows", "Computer", 5),
    )
)  # fmt: skip


@dataclass(slots=True)
class _World:
    """visitor_ms: how often somebody new comes. numbers: what each sensor has counted."""

    chance: random.Random
    visitor_ms: float
    numbers: Counter[int] = field(default_factory=Counter[int])


def events(count: int, end_ms: int, days: int = 30, seed: int = 1) -> Iterator[Event]:
    """So many, received in the days before end_ms (milliseconds since 1970). More of them by day than by night."""
    chance = random.Random(seed)
    world = _World(chance, days * DAY_MS * 40 / count)
    made, scenes, many = 0, 0, max(1, round(count / _SCENE))
    while made < count:
        # A scene for each equal step of a time that runs slowly by night.
        turn = scenes / many % 1 * days
        at_ms = end_ms - days * DAY_MS + int((turn - math.sin(2 * math.pi * turn) / (2 * math.pi) * 0.7) * DAY_MS)
        scenes += 1
        scene = chance.choices((_visit, _readings, _round, _mail), (15, 62, 6, 17))[0]
        for event in scene(world, min(at_ms, end_ms - 3_600_000)):
            yield event
            made += 1
            if made == count:
                return


def _uuid(chance: random.Random) -> str:
    text = f"{chance.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _pick(chance: random.Random, what: tuple[tuple[dict[str, Any], int], ...]) -> dict[str, Any]:
    return chance.choices(what, [weight for _, weight in what])[0][0]


def _event(chance: random.Random, app: str, at_ms: int, name: str, more: dict[str, Any], late_ms: int = 80) -> Event:
    return cast(Event, {
        "app_id": app, "event": name, "event_id": _uuid(chance), "event_name": name, "event_vendor": _SNOWPLOW,
        "event_format": "jsonschema", "event_version": "1-0-0", "derived_tstamp": at_ms, "dvce_created_tstamp": at_ms,
        "dvce_sent_tstamp": at_ms + 40, "collector_tstamp": at_ms + late_ms, "etl_tstamp": at_ms + late_ms + 300,
        "v_collector": "spoorway-1", "v_etl": "spoorway-1", "event_fingerprint": f"{chance.getrandbits(128):032x}", **more,
    })  # fmt: skip


def _described(vendor: str, name: str, data: dict[str, Any]) -> SelfDescribing:
    return {"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-0", "data": data}


def _told(chance: random.Random, app: str, at_ms: int, vendor: str, name: str, data: dict[str, Any], more: dict[str, Any],
          late_ms: int = 80) -> Event:  # fmt: skip
    body = {"event": "unstruct", "event_vendor": vendor, "unstruct_event": _described(vendor, name, data)}
    return _event(chance, app, at_ms, name, more | body, late_ms)


def _visit(world: _World, at_ms: int) -> Iterator[Event]:
    chance = world.chance
    first_ms = at_ms - (chance.expovariate(1 / (9 * DAY_MS)) if chance.random() < 0.6 else 0)
    who = random.Random(int(first_ms / world.visitor_ms))  # where and with what somebody comes is always the same
    visitor: dict[str, Any] = {
        "platform": "web", "v_tracker": "js-4.6.8", "name_tracker": "sp", "domain_userid": _uuid(who), "br_lang": "en-GB",
        "domain_sessionid": _uuid(chance), "domain_sessionidx": chance.randrange(1, 9), "page_urlhost": "shop.example",
        "page_urlscheme": "https", "page_urlport": 443, "doc_height": 4000, "br_viewheight": 900, "br_viewwidth": 1280,
        "dvce_screenwidth": 1920, "dvce_screenheight": 1080, "user_ipaddress": "203.0.113.0",
        **_pick(who, _BROWSERS), **_pick(who, _TOWNS),
    }  # fmt: skip
    came = _pick(chance, _SOURCES)
    if chance.random() < 0.02:
        visitor["derived_contexts"] = [_described("io.spoorway", "bot_label", {"source": "useragent", "rule": "Googlebot"})]
    for place in range(min(12, 1 + int(chance.expovariate(0.45)))):
        path = _PAGES[min(int(chance.paretovariate(0.9)), len(_PAGES)) - 1] if place else chance.choice(_PAGES[:5])
        page = visitor | {
            "page_urlpath": path,
            "page_url": f"https://shop.example{path}",
            "page_title": path.strip("/") or "Home",
        }
        page |= came if place == 0 else {"refr_urlhost": "shop.example", "refr_medium": "internal"}
        at_ms += chance.randrange(2_000, 60_000)
        began, first, slow = at_ms - 3_000, chance.randrange(60, 300), chance.paretovariate(3)
        timing = {"navigationStart": began, "responseStart": began + first, "domInteractive": began + int(first + 300 * slow),
                  "loadEventEnd": began + int(first + 700 * slow)}  # fmt: skip
        timed = {"contexts": [_described("org.w3", "PerformanceTiming", timing)]} if chance.random() < 0.3 else {}
        yield _event(chance, "shop", at_ms, "page_view", page | timed)
        for ping in range(int(chance.expovariate(0.9))):
            at_ms += 10_000
            yield _event(chance, "shop", at_ms, "page_ping", page | {"pp_yoffset_max": min(3100, 700 * (ping + 1))})
        if chance.random() < 0.12:
            vitals = {"lcp": int(900 * slow), "cls": round(chance.expovariate(15), 3), "inp": int(90 * slow), "ttfb": first,
                      "fcp": int(600 * slow), "navigationType": "navigate"}  # fmt: skip
            yield _told(chance, "shop", at_ms, _SNOWPLOW, "web_vitals", vitals, page)
        if chance.random() < 0.02:
            broken = {
                "message": chance.choice(("x is undefined", "basket.total is not a function")),
                "programmingLanguage": "JAVASCRIPT",
            }
            yield _told(chance, "shop", at_ms, _SNOWPLOW, "application_error", broken, page)
        if chance.random() < 0.05:
            link = {"targetUrl": f"https://{chance.choice(('maps', 'seeds', 'forum'))}.example/"}
            yield _told(chance, "shop", at_ms, _SNOWPLOW, "link_click", link, page)
        if chance.random() < 0.3:
            yield from _bought(chance, at_ms, page)


def _bought(chance: random.Random, at_ms: int, page: dict[str, Any]) -> Iterator[Event]:
    sku, name, price = chance.choice(_PRODUCTS)
    product = {
        "id": sku,
        "name": name,
        "category": "garden",
        "price": price,
        "currency": "EUR",
        "quantity": chance.choice((1, 1, 2)),
    }
    total = round(price * product["quantity"], 2)
    paid = {"transaction_id": f"{chance.getrandbits(32)}", "revenue": total, "currency": "EUR", "payment_method": "card",
            "total_quantity": product["quantity"]}  # fmt: skip
    for deed, goes_on in (("product_view", 0.4), ("add_to_cart", 0.55), ("checkout_step", 0.6), ("transaction", 0.0)):
        at_ms += 5_000
        things = [_described(_ECOMMERCE, "product", product)]
        things += [_described(_ECOMMERCE, "transaction", paid)] if deed == "transaction" else []
        yield _told(chance, "shop", at_ms, _ECOMMERCE, "snowplow_ecommerce_action", {"type": deed}, page | {"contexts": things})
        if chance.random() >= goes_on:
            return


def _readings(world: _World, at_ms: int) -> Iterator[Event]:
    chance = world.chance
    device = chance.randrange(40)
    for _ in range(chance.randrange(1, 4)):
        at_ms += 60_000
        world.numbers[device] += 1
        if chance.random() < 0.002:  # this one never arrives
            continue
        warmth = math.sin(2 * math.pi * (at_ms % DAY_MS / DAY_MS - 0.3))
        jump = chance.choice((-15, 18)) if chance.random() < 0.0005 else 0
        reading = {"temperature_celsius": round(19 + device / 10 + 6 * warmth + chance.gauss(0, 0.2) + jump, 2),
                   "humidity_percent": round(65 - 15 * warmth + chance.gauss(0, 1), 1)}  # fmt: skip
        method, wide_ms = chance.choice((("difference", 180), ("difference", 180), ("anchored", 4_000), ("bounded", 90_000)))
        time = {"device": f"bed-{device:02d}", "proven": True, "boot_id": 1, "sequence": world.numbers[device], "method": method,
                "uncertainty_ms": wide_ms, "transport": "mqtt"}  # fmt: skip
        known = {
            "derived_contexts": [_described("io.spoorway", "device_time", time)],
            "platform": "iot",
            "v_tracker": "micropython-1",
        }
        late_ms = 200 if chance.random() < 0.95 else chance.randrange(60_000, 3_000_000)
        yield _told(chance, "greenhouse", at_ms, "io.spoorway", "environment_reading", reading, known, late_ms)


def _round(world: _World, at_ms: int) -> Iterator[Event]:
    chance = world.chance
    player = {"domain_userid": _uuid(random.Random(-int(at_ms / world.visitor_ms / 2))), "domain_sessionid": _uuid(chance),
              "platform": "app", "v_tracker": "lua-1.0.0"}  # fmt: skip

    def played(name: str, data: dict[str, Any]) -> Event:
        return _told(chance, "duck-hunt", at_ms, _GAME, name, data, player)

    for number, hardness in enumerate((0.05, 0.15, 0.25, 0.6, 0.35, 0.3), 1):
        level = f"{number} {('Pond', 'Reeds', 'River', 'Fog', 'Weir', 'Sea')[number - 1]}"
        while True:
            yield played("level_start", {"level": level})
            took = chance.randrange(20_000, 120_000)
            at_ms += took
            failed = chance.random() < hardness
            cause = {"cause": chance.choice(("dog", "fell", "time"))} if failed else {}
            yield played(
                "level_end", {"level": level, "outcome": "failed" if failed else "completed", "duration_ms": took, **cause}
            )
            if not failed:
                break
            if chance.random() < 0.4:
                return
        yield played("economy", {"flow": "earned", "currency": "coins", "amount": 10 * number, "place": level})
        if chance.random() < 0.3:
            item = chance.choice(("hat", "whistle", "boots"))
            yield played("economy", {"flow": "spent", "currency": "coins", "amount": 15, "item": item})
        if chance.random() < 0.02:
            yield played("economy", {"flow": "earned", "currency": "coins", "amount": 500, "item": "pack", "price": 1.99,
                                     "price_currency": "EUR"})  # fmt: skip


_READERS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"label": "human_likely", "rule": "useragent: engine"}, 45),
    ({"label": "privacy_proxy", "rule": "useragent: Apple", "provider": "Apple", "fetched_at": "delivery"}, 28),
    ({"label": "privacy_proxy", "rule": "useragent: Gmail", "provider": "Gmail", "fetched_at": "opening"}, 14),
    ({"label": "scanner", "rule": "network: gateway", "provider": "Example Security"}, 8),
    ({"label": "unknown", "rule": "no_rule"}, 5),
)


def _mail(world: _World, at_ms: int) -> Iterator[Event]:
    chance = world.chance
    agent = _pick(chance, _READERS)
    copy = {"campaign": chance.choice(("spring", "cold-frames", "seed-swap")), "message": f"m{chance.randrange(20_000)}"}
    known = {"platform": "web", "derived_contexts": [_described("io.spoorway", "email_agent", agent)]}
    yield _told(chance, "letter", at_ms, "io.spoorway", "email_open", copy, known)
    if chance.random() < (0.9 if agent["label"] == "scanner" else 0.18):
        link = {"link": chance.choice(("offer", "story", "shop"))}
        yield _told(chance, "letter", at_ms + 9_000, "io.spoorway", "email_click", copy | link, known)
