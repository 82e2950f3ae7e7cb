"""A weather station that was off the network for a year: sends its readings in batches, each with its real time.

    python examples/demo/sensors.py http://127.0.0.1:8080 [--limit N] [--batch 50]

Standard library only, and the tracker protocol as any device could speak it. A reading's event id is derived from its
station and time: run it twice and nothing is stored twice. The data and where they come from: README.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

STATION = "seattle-tacoma"
READING = "iglu:io.spoorway/weather_reading/jsonschema/1-0-0"
GEOLOCATION = "iglu:com.snowplowanalytics.snowplow/geolocation_context/jsonschema/1-1-0"
SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
PLACE = {"latitude": 47.4447, "longitude": -122.3139, "altitude": 132}
IDS = uuid.uuid5(uuid.NAMESPACE_URL, READING)


def readings() -> Iterator[dict[str, Any]]:
    with Path(__file__).with_name("seattle-weather.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def event(row: dict[str, Any]) -> dict[str, str]:
    """One reading as the parameters of a self-describing event."""
    read_ms = str(round(datetime.fromisoformat(row["read_at"]).timestamp() * 1000))
    numbers = ("temperature_min_celsius", "temperature_max_celsius", "precipitation_mm", "wind_metres_per_second")
    data = {
        "station_id": STATION,
        "period_seconds": int(row["period_seconds"]),
        "condition": row["condition"],
        **{name: float(row[name]) for name in numbers},
    }
    return {
        "e": "ue",
        "p": "iot",
        "tv": "spoorway-demo-1.0.0",
        "tna": "station",
        "aid": "weather",
        "eid": str(uuid.uuid5(IDS, f"{STATION} {read_ms}")),
        "dtm": read_ms,
        "ttm": read_ms,
        "ue_pr": _wrapped("unstruct_event/jsonschema/1-0-0", {"schema": READING, "data": data}),
        "co": _wrapped("contexts/jsonschema/1-0-1", [{"schema": GEOLOCATION, "data": PLACE}]),
    }


def _wrapped(envelope: str, data: object) -> str:
    return json.dumps({"schema": f"{SNOWPLOW}/{envelope}", "data": data}, separators=(",", ":"))


def send(url: str, events: list[dict[str, str]]) -> None:
    """One batch. Returns when the collector has it; raises urllib.error.URLError when it has not."""
    now_ms = str(time.time_ns() // 1_000_000)
    body = {
        "schema": f"{SNOWPLOW}/payload_data/jsonschema/1-0-4",
        "data": [one | {"stm": now_ms} for one in events],
    }
    request = urllib.request.Request(
        f"{url}/com.snowplowanalytics.snowplow/tp2",
        json.dumps(body).encode(),
        {"Content-Type": "application/json; charset=utf-8", "User-Agent": "weather-station/1.0"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the gateway, http://host:port")
    parser.add_argument("--limit", type=int, help="only so many readings, the latest")
    parser.add_argument("--batch", type=int, default=50, help="readings in one request")
    options = parser.parse_args()
    events = [event(row) for row in readings()]
    events = events[-options.limit :] if options.limit else events
    for start in range(0, len(events), options.batch):
        send(options.url.rstrip("/"), events[start : start + options.batch])
    print(f"{len(events)} readings sent")


if __name__ == "__main__":
    main()
