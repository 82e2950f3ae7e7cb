"""Entities and the true time of an event; that a named device has a clock, and what it says."""

import json
import os

from . import Tracker, format


def extend(data, main, entities, true_ms, uptime_ms) -> None:
    """data: parameters of an event, which get `co` and `ttm`. main: the tracker."""
    entities = list(main.entities) + list(entities)
    if main.device:
        main.sequence += 1
        if main.boot is None:
            main.boot = int.from_bytes(os.urandom(4), "little")
        clock = {
            "device_id": main.device,
            "boot_id": main.boot,
            "sequence": main.sequence,
            "uptime_ms": uptime_ms,
            "clock": main.clock,
            "set_at_ms": main.set_at_ms,
        }
        entities.append({"schema": "iglu:io.spoorway/device_clock/jsonschema/1-0-0", "data": clock})
    if entities:
        data["co"] = format("contexts", 1, json.dumps(entities))
    if true_ms is not None:
        data["ttm"] = str(true_ms)


def set_time(self, milliseconds: int, source: str = "ntp") -> None:
    """The wall clock, milliseconds since 1970. source: ntp, rtc or gateway."""
    self.set_at_ms = self.uptime_ms()
    self.ticks_diff = milliseconds - self.set_at_ms
    self.clock = source


Tracker.clock = "none"
Tracker.sequence = Tracker.set_at_ms = 0
Tracker.set_time = set_time  # type: ignore[attr-defined]
