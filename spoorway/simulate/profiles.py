"""What happens at a place: a seed -> the parameters of events, without ids, times and device. Endless, pure, repeatable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import orjson

from protocol.seams import Json

_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
READING = "iglu:io.spoorway/environment_reading/jsonschema/1-0-0"


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as its place tells it: parameters of the protocol, and entities."""

    parameters: dict[str, str]
    entities: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """events: endless. interval_s: the usual time between two. clock: whether its devices know the date."""

    about: str
    platform: str
    interval_s: float
    clock: bool
    events: Callable[[Random], Iterator[Happened]]


def self_describing(schema: str, data: dict[str, Json]) -> dict[str, str]:
    return {"e": "ue", "ue_pr": orjson.dumps({"schema": _UNSTRUCT, "data": {"schema": schema, "data": data}}).decode()}


def _uuid(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _greenhouse(random: Random) -> Iterator[Happened]:
    base, phase, step = random.uniform(16, 22), random.random(), 0
    while True:
        warmth = math.sin(2 * math.pi * (step / 1440 + phase))
        reading: dict[str, Json] = {
            "temperature_celsius": round(base + 6 * warmth + random.gauss(0, 0.2), 2),
            "humidity_percent": round(min(100.0, max(0.0, 65 - 15 * warmth + random.gauss(0, 1))), 1),
            "pressure_hpa": round(1013 + random.gauss(0, 1.5), 1),
        }
        yield Happened(self_describing(READING, reading))
        step += 1


def _fleet(random: Random) -> Iterator[Happened]:
    speed, odometer = 0.0, random.uniform(1_000, 90_000)
    while True:
        speed = min(130.0, max(0.0, speed + random.gauss(2, 12)))
        odometer += speed * 30 / 3600
        action = "stop" if speed == 0 else "drive"
        yield Happened({"e": "se", "se_ca": "trip", "se_ac": action, "se_la": f"{odometer:.1f} km", "se_va": f"{speed:.1f}"})


def _game(random: Random) -> Iterator[Happened]:
    """Who fails too often at a level gives up for the day; coins that were found are spent in the shop."""
    player, coins = f"player-{random.getrandbits(32):08x}", 0

    def told(name: str, **data: Json) -> Happened:
        return Happened({"uid": player, **self_describing(f"iglu:io.spoorway.game/{name}/jsonschema/1-0-0", data)})

    while True:
        yield told("session_start", mode="story")
        for level in range(1, random.randint(3, 7)):
            won, failed = False, 0
            while not won and failed < 4:
                yield told("level_start", level=str(level), attempt=failed + 1)
                won = random.random() > 0.1 + 0.08 * level
                ended: dict[str, Json] = {
                    "level": str(level),
                    "attempt": failed + 1,
                    "duration_ms": random.randint(9_000, 90_000),
                }
                if won:
                    yield told("level_end", outcome="completed", score=random.randint(100, 5_000), **ended)
                else:
                    yield told("level_end", outcome="failed", cause=random.choice(("spikes", "water", "time")), **ended)
                    failed += 1
            if not won:
                break
            coins += (found := random.randint(5, 40))
            yield told("economy", flow="earned", currency="coins", amount=found, place="level", level=str(level))
            if coins >= 50 and random.random() < 0.5:
                coins -= 50
                item = random.choice(("shield", "lamp", "rope"))
                yield told("economy", flow="spent", currency="coins", amount=50, item=item, place="shop")
        yield told("session_end")


_PAGES = ("/", "/seeds", "/seeds/tomato", "/tools", "/tools/watering-can", "/basket", "/about")
_CAME_FROM = ("", "", "https://www.google.com/", "https://news.example.net/garden")
_CAMPAIGN = "?utm_source=letter&utm_medium=email&utm_campaign=spring"
_BROWSERS = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 "
    "Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
)
_PRODUCTS = (("TM-1", "Tomato, early", 3.2), ("WC-9", "Watering can", 24.0), ("SP-3", "Spade", 46.0))
_SHOP = "iglu:com.snowplowanalytics.snowplow.ecommerce"


def _website(random: Random) -> Iterator[Happened]:
    """Visits to a shop: the same visitor comes again and again, reads some pages, and now and then buys something."""
    visitor = {"duid": _uuid(random), "ua": random.choice(_BROWSERS), "lang": "en-GB", "vp": "1280x900", "ds": "1280x4000"}
    visits = 0
    while True:
        visits += 1
        visit = visitor | {"sid": _uuid(random), "vid": str(visits)}
        came_from, campaign = random.choice(_CAME_FROM), random.choice(("", "", "", _CAMPAIGN))
        for _ in range(random.randint(1, 6)):
            page = random.choice(_PAGES)
            seen = visit | {"url": f"https://shop.example{page}{campaign}", "page": page.strip("/").title() or "Home"}
            yield Happened({"e": "pv", **seen} | ({"refr": came_from} if came_from else {}))
            depth = 0
            for _ in range(random.randint(0, 2)):
                depth = min(3_100, depth + random.randint(0, 2_000))
                yield Happened({"e": "pp", **seen, "pp_mix": "0", "pp_max": "0", "pp_miy": "0", "pp_may": str(depth)})
            if random.random() < 0.2:
                for deed in _bought(random):
                    yield Happened(seen | deed.parameters, deed.entities)
            came_from, campaign = seen["url"], ""


def _bought(random: Random) -> Iterator[Happened]:
    sku, name, price = random.choice(_PRODUCTS)
    product: Json = {"id": sku, "name": name, "category": "garden", "price": price, "currency": "EUR", "quantity": 1}
    paid: Json = {"transaction_id": f"{random.getrandbits(32)}", "revenue": price, "currency": "EUR", "payment_method": "card",
                  "total_quantity": 1}  # fmt: skip
    for deed, goes_on in (("product_view", 0.5), ("add_to_cart", 0.6), ("checkout_step", 0.7), ("transaction", 0.0)):
        things: list[Json] = [{"schema": f"{_SHOP}/product/jsonschema/1-0-0", "data": product}]
        if deed == "checkout_step":
            things.append({"schema": f"{_SHOP}/checkout_step/jsonschema/1-0-0", "data": {"step": 1}})
        if deed == "transaction":
            things.append({"schema": f"{_SHOP}/transaction/jsonschema/1-0-0", "data": paid})
        yield Happened(self_describing(f"{_SHOP}/snowplow_ecommerce_action/jsonschema/1-0-0", {"type": deed}), tuple(things))
        if random.random() >= goes_on:
            return


PROFILES = {
    "greenhouse": Profile(
        "temperature, humidity and pressure, once a minute, from sensors without a clock", "iot", 60, False, _greenhouse
    ),
    "fleet": Profile("vehicles that drive and stop, every 30 s, with a clock", "iot", 30, True, _fleet),
    "game": Profile("sessions, levels, failures, coins and a shop of players", "cnsl", 5, True, _game),
    "website": Profile("visits to a shop: pages, pings, baskets and orders", "web", 4, True, _website),
}
