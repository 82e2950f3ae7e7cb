"""Made-up lives of devices: the truth always lies between not_before and not_after, and near derived_tstamp where it can."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from typing import Any

from enrich.enrichments.device_time import Config, Plugin
from spoorway.world import World
from tests.unit import device_histories
from tests.unit.device_histories import DRIFT, WRAP

HISTORIES = int(os.environ.get("SPOORWAY_DEVICE_HISTORIES", "2000"))
YEAR_2025_MS = 1_735_689_600_000


def milliseconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


def test_truth_lies_within_the_bounds_and_near_the_guess() -> None:
    met: Counter[str] = Counter()
    for number, history in device_histories.histories(0, HISTORIES):
        plugin = Plugin(Config(), World())
        contacts: dict[int, list[float]] = {}
        for place, arrived in enumerate(history):
            found: Any = plugin(arrived.columns, arrived.raw)
            data = found["derived_contexts"][0]["data"]
            here = f"history {number}, event {place}: {arrived.raw.parameters} {arrived.columns['contexts']} {data}"
            assert data.get("not_before") is None or milliseconds(data["not_before"]) <= arrived.true_ms, here
            assert milliseconds(data["not_after"]) >= arrived.true_ms, here
            if data["method"] != "wall_clock" or "not_before" in data:  # otherwise a wrong date is all there is
                assert found["derived_tstamp"] > YEAR_2025_MS, here
            assert found["derived_tstamp"] <= arrived.received_ms + 3, here
            met[data["method"]] += 1
            met["with both bounds"] += "not_before" in data
            if arrived.quick and arrived.sent_true_ms is not None and arrived.raw.payload.transport == "http":
                contacts.setdefault(arrived.boot, []).append(arrived.sent_true_ms)
            if arrived.boot in contacts and data.get("uncertainty_ms", 0) < WRAP / 2:
                distance = min(abs(at - arrived.true_ms) for at in contacts[arrived.boot])
                longest = max(distance, abs(arrived.received_ms - arrived.true_ms))
                error = abs(found["derived_tstamp"] - arrived.true_ms)
                met["near a contact"] += 1
                assert error <= 1_000 + 4 * DRIFT * longest, f"{error} ms, {distance} ms away; {here}"
    print(dict(met))
    assert all(met[name] > HISTORIES / 100 for name in ("difference", "wall_clock", "anchored", "bounded", "received"))
    assert met["near a contact"] > HISTORIES and met["with both bounds"] > HISTORIES
