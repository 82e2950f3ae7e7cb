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

Parameters = dict[str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """events: endless. interval_s: the usual time between two. clock: whether its devices know the date."""

    about: str
    platform: str
    interval_s: float
    clock: bool
    events: Callable[[Random], Iterator[Parameters]]


def self_describing(schema: str, data: dict[str, Json]) -> Parameters:
    return {"e": "ue", "ue_pr": orjson.dumps({"schema": _UNSTRUCT, "data": {"schema": schema, "data": data}}).decode()}


def _structured(category: str, action: str, label: str = "", value: float | None = None) -> Parameters:
    event = {"e": "se", "se_ca": category, "se_ac": action}
    return event | ({"se_la": label} if label else {}) | ({} if value is None else {"se_va": f"{value:g}"})


def _greenhouse(random: Random) -> Iterator[Parameters]:
    base, phase, step = random.uniform(16, 22), random.random(), 0
    while True:
        warmth = math.sin(2 * math.pi * (step / 1440 + phase))
        yield self_describing(
            READING,
            {
                "temperature_celsius": round(base + 6 * warmth + random.gauss(0, 0.2), 2),
                "humidity_percent": round(min(100.0, max(0.0, 65 - 15 * warmth + random.gauss(0, 1))), 1),
                "pressure_hpa": round(1013 + random.gauss(0, 1.5), 1),
            },
        )
        step += 1


def _fleet(random: Random) -> Iterator[Parameters]:
    speed, odometer = 0.0, random.uniform(1_000, 90_000)
    while True:
        speed = min(130.0, max(0.0, speed + random.gauss(2, 12)))
        odometer += speed * 30 / 3600
        action = "stop" if speed == 0 else "drive"
        yield _structured("trip", action, f"{odometer:.1f} km", round(speed, 1))


def _game(random: Random) -> Iterator[Parameters]:
    while True:
        yield _structured("session", "start")
        for level in range(1, random.randint(2, 6)):
            yield _structured("level", "start", str(level))
            for _ in range(random.randint(0, 3)):
                yield _structured("level", "death", str(level), random.randint(1, 90))
            yield _structured("level", "complete", str(level), random.randint(10, 5_000))
        yield _structured("session", "end")


_PAGES = ("/", "/seeds", "/seeds/tomato", "/tools", "/tools/watering-can", "/basket", "/about")


def _website(random: Random) -> Iterator[Parameters]:
    user = f"{random.getrandbits(128):032x}"
    visitor = f"{user[:8]}-{user[8:12]}-4{user[13:16]}-a{user[17:20]}-{user[20:]}"
    while True:
        came_from = random.choice(("", "https://www.google.com/", "https://news.example.net/garden"))
        for _ in range(random.randint(1, 6)):
            page = random.choice(_PAGES)
            common = {"duid": visitor, "url": f"https://shop.example{page}", "page": page.strip("/").title() or "Home"}
            yield {"e": "pv", **common} | ({"refr": came_from} if came_from else {})
            for _ in range(random.randint(0, 2)):
                yield {"e": "pp", **common, "pp_mix": "0", "pp_max": "0", "pp_miy": "0", "pp_may": str(random.randint(0, 2_000))}
            came_from = common["url"]


PROFILES = {
    "greenhouse": Profile(
        "temperature, humidity and pressure, once a minute, from sensors without a clock", "iot", 60, False, _greenhouse
    ),
    "fleet": Profile("vehicles that drive and stop, every 30 s, with a clock", "iot", 30, True, _fleet),
    "game": Profile("sessions, levels and deaths of players", "cnsl", 5, True, _game),
    "website": Profile("page views and pings of visitors", "web", 4, True, _website),
}
