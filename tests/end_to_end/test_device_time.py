"""A device without a clock, through the running product: one row per event however often it comes, its time, its losses."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from protocol.devices import DEVICE_CLOCK, QUEUE_HEALTH, TP2_PATH, device_event_id
from tests.end_to_end.conftest import Running

pytestmark = pytest.mark.slow
_ENTITIES = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"


def event_of(boot: int, sequence: int, uptime: int, stm: int | None = None, health: Any = None) -> dict[str, str]:
    clock = {"boot_id": boot, "sequence": sequence, "uptime_ms": uptime, "device_id": "pump-7"}
    entities: list[Any] = [{"schema": DEVICE_CLOCK, "data": clock}]
    if health is not None:
        entities.append({"schema": QUEUE_HEALTH, "data": health})
    event = {"e": "se", "se_ca": "pump", "se_ac": "turn", "p": "iot", "tv": "t-1", "dtm": str(uptime)}
    event["co"] = json.dumps({"schema": _ENTITIES, "data": entities})
    return event if stm is None else {**event, "stm": str(stm)}


def post(run: Running, *events: dict[str, str]) -> None:
    body = {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": events}
    request = urllib.request.Request(run.url + TP2_PATH, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def get(run: Running, event: dict[str, str]) -> None:
    """The same event spelled otherwise: base64, another tracker version, a GET."""
    spelled = {name: value for name, value in event.items() if name != "co"} | {"tv": "t-2"}
    spelled["cx"] = base64.urlsafe_b64encode(json.dumps(json.loads(event["co"]), indent=1).encode()).decode()
    with urllib.request.urlopen(f"{run.url}/i?{urllib.parse.urlencode(spelled)}", timeout=10) as answer:
        assert answer.status == 200


def test_a_device_without_a_clock_is_counted_once_timed_and_missed(start: Callable[..., Running]) -> None:
    run = start()
    began_ms = time.time() * 1000
    events = [event_of(1, n, 1_000 * n, 600_000) for n in (1, 2, 3, 6)]
    post(run, *events)
    run.wait(4)
    assert run.stop() == 0  # what the gateway knows of this start outlives it

    run = start()
    post(run, {**events[1], "stm": "600900"}, event_of(1, 4, 4_000))  # one again, later; one that survived the restart
    get(run, {**events[2], "stm": "600950"})
    post(run, event_of(2, 1, 50, 60, {"boot_id": 1, "last_sequence": 8, "dropped_full": 2, "queued": 0}))
    run.wait(8)
    rows = run.query(
        "SELECT e.event_id, (julianday(derived_tstamp) - 2440587.5) * 86400000 AS ms, method, not_before, transport"
        " FROM atomic.events AS e JOIN atomic.io_spoorway_device_time_1 AS t ON t.root_id = e.event_id ORDER BY boot_id, sequence"
    )
    assert [row["event_id"] for row in rows] == [
        device_event_id("pump-7", boot, n) for boot, n in ((1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (2, 1))
    ]
    assert [row["method"] for row in rows] == ["difference"] * 3 + ["anchored"] + ["difference"] * 2
    assert all(row["not_before"] and row["transport"] == "http" for row in rows)
    for sequence, row in zip((1, 2, 3, 4, 6), rows[:5], strict=True):
        assert row["ms"] == pytest.approx(began_ms - 600_000 + 1_000 * sequence, abs=60_000)
    assert run.query("SELECT first_missing, last_missing FROM atomic.device_gaps ORDER BY 1") == [
        {"first_missing": 5, "last_missing": 5},
        {"first_missing": 7, "last_missing": 8},
    ]
    (health,) = run.query("SELECT device, boots, events, missing, duplicates, dropped, queued FROM atomic.device_health")
    assert health == {"device": "pump-7", "boots": 2, "events": 6, "missing": 3, "duplicates": 2, "dropped": 2, "queued": 0}
    (totals,) = run.query("SELECT stored, failed, duplicate FROM atomic.totals")
    assert totals == {"stored": 6, "failed": 0, "duplicate": 2}


def test_the_test_server_and_the_doctor_leave_no_memory(start: Callable[..., Running]) -> None:
    run = start()
    with urllib.request.urlopen(f"{run.url}/i?e=pv&p=web&tv=t", timeout=10):
        pass
    run.wait(1)
    assert run.stop() == 0
    assert not (run.data / "memory.db").exists()
