"""What the product is fed: sensor readings, page views and app events as trackers send them, the same ones at every run.

A third of the events each. A station posts ten readings at a time; a browser posts each page view alone, with a campaign in
one of three URLs, a referrer and a user agent; an app posts three structured events at a time, each with two entities.
"""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

from protocol.seams import RawPayload

SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
CONTENT_TYPE = "application/json; charset=utf-8"
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
START_MS = 1_795_300_000_000

DESCRIPTION = (
    "a third sensor readings (self-describing, ten to a POST), a third page views (one to a POST; campaign, referrer and "
    "browser headers), a third structured events (three to a POST, each with two entities)"
)


def payloads(events: int, seed: int = 1) -> Iterator[RawPayload]:
    """At least so many events, in payloads as the gateway would hand them on."""
    chance = random.Random(seed)
    made = number = 0
    while made < events:
        for size, kind, headers in [(10, reading, _STATION)] * 3 + [(1, page_view, _BROWSER)] * 30 + [(3, structured, _APP)] * 10:
            now_ms = START_MS + number * 7
            body = post([kind(chance, now_ms) for _ in range(size)])
            ip = f"203.0.{chance.randrange(256)}.{chance.randrange(1, 255)}"
            identity = f"{chance.getrandbits(128):032x}"
            yield RawPayload(identity, now_ms, "http", POST_PATH, "", body, CONTENT_TYPE, headers, ip, "localhost")
            made += size
            number += 1


_STATION = (("User-Agent", "weather-station/1.0"),)
_BROWSER = (
    ("User-Agent", USER_AGENT),
    ("Referer", "https://shop.example/"),
    ("Origin", "https://shop.example"),
    ("Accept-Language", "en-GB,en;q=0.9"),
)
_APP = (("User-Agent", "Shop/7.2 (Android 15; Pixel 8)"),)


def post(events: list[dict[str, str]]) -> bytes:
    return _json({"schema": f"{SNOWPLOW}/payload_data/jsonschema/1-0-4", "data": events}).encode()


def reading(chance: random.Random, now_ms: int) -> dict[str, str]:
    data = {
        "station_id": f"station-{chance.randrange(50)}",
        "period_seconds": 60,
        "condition": chance.choice(("sun", "fog", "drizzle", "rain", "snow")),
        "temperature_min_celsius": round(chance.uniform(-10, 20), 1),
        "temperature_max_celsius": round(chance.uniform(-5, 30), 1),
        "precipitation_mm": round(chance.uniform(0, 9), 1),
        "wind_metres_per_second": round(chance.uniform(0, 20), 1),
    }
    described = {"schema": "iglu:io.spoorway/weather_reading/jsonschema/1-0-0", "data": data}
    return {
        "e": "ue", "p": "iot", "tv": "station-1.0.0", "tna": "station", "aid": "weather", "eid": _uuid(chance),
        "dtm": str(now_ms - 40_000), "stm": str(now_ms - 30), "ttm": str(now_ms - 40_000),
        "ue_pr": _json({"schema": f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0", "data": described}),
    }  # fmt: skip


def page_view(chance: random.Random, now_ms: int) -> dict[str, str]:
    page = chance.randrange(400)
    campaign = f"?utm_source=mail&utm_medium=email&utm_campaign=week{page % 52}" if page % 3 == 0 else ""
    return {
        "e": "pv", "url": f"https://shop.example/p/{page}{campaign}", "page": f"Catalogue, page {page}",
        "refr": f"https://www.google.com/search?q=shop+{page % 7}", "eid": _uuid(chance), "tv": "js-4.6.8", "tna": "sp",
        "aid": "shop", "p": "web", "cookie": "1", "cs": "UTF-8", "lang": "en-GB", "res": "1920x1080", "cd": "24",
        "tz": "Europe/London", "dtm": str(now_ms - 900), "stm": str(now_ms - 40), "vp": "1280x720", "ds": "1280x4210",
        "vid": str(chance.randrange(1, 9)), "sid": _uuid(chance), "duid": _uuid(chance),
    }  # fmt: skip


def structured(chance: random.Random, now_ms: int) -> dict[str, str]:
    session = {
        "userId": _uuid(chance), "sessionId": _uuid(chance), "sessionIndex": chance.randrange(1, 99), "eventIndex": 3,
        "previousSessionId": None, "storageMechanism": "SQLITE", "firstEventId": _uuid(chance),
        "firstEventTimestamp": "2026-11-20T08:00:00.000Z",
    }  # fmt: skip
    entities = [
        {"schema": f"{SNOWPLOW}/client_session/jsonschema/1-0-2", "data": session},
        {"schema": f"{SNOWPLOW}/web_page/jsonschema/1-0-0", "data": {"id": _uuid(chance)}},
    ]
    wrapped = _json({"schema": f"{SNOWPLOW}/contexts/jsonschema/1-0-1", "data": entities})
    return {
        "e": "se", "p": "mob", "tv": "andr-6.2.0", "tna": "app", "aid": "shop-app", "eid": _uuid(chance),
        "dtm": str(now_ms - 1_200), "stm": str(now_ms - 90), "uid": f"customer-{chance.randrange(5_000)}", "lang": "en-GB",
        "res": "1080x2400", "tz": "Europe/London", "se_ca": "basket", "se_ac": chance.choice(("add", "remove", "open")),
        "se_la": f"product-{chance.randrange(400)}", "se_va": f"{chance.randrange(1, 90)}.50",
        "cx": base64.urlsafe_b64encode(wrapped.encode()).decode().rstrip("="),
    }  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
