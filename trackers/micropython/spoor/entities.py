"""Entities and the true time of an event; that a named device has a clock, and what it says."""

import json
import os

from . import SNOWPLOW, Tracker


def extend(data, tracker, entities, true_ms, uptime_ms) -> None:
    """data: parameters of an event, which get `co` and `ttm`."""
    entities = list(tracker.entities) + list(entities)
    if tracker.device:
        tracker.sequence += 1
        if tracker.boot is None:
            tracker.boot = int.from_bytes(os.urandom(4), "big")
        clock = {
            "device_id": tracker.device,
            "boot_id": tracker.boot,
            "sequence": tracker.sequence,
            "uptime_ms": uptime_ms,
            "clock": tracker.clock,
            "set_at_ms": tracker.set_at_ms,
        }
        entities.append({"schema": "iglu:io.spoorway/device_clock/jsonschema/1-0-0", "data": clock})
    if entities:
        data["co"] = SNOWPLOW % ("contexts", 1, json.dumps(entities))
    if true_ms is not None:
        data["ttm"] = str(true_ms)


def set_time(self, milliseconds: int, source: str = "ntp") -> None:
    """The wall clock, milliseconds since 1970. source: ntp, rtc or gateway."""
    self.set_at_ms = self.uptime_ms()
    self.offset_ms = milliseconds - self.set_at_ms
    self.clock = source


Tracker.clock = "none"
Tracker.sequence = Tracker.set_at_ms = 0
Tracker.set_time = set_time  # type: ignore[attr-defined]
