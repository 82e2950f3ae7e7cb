"""The Python tracker's side of a vector run: cases on stdin, the query strings it would send on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

sys.path.insert(0, str(Path(__file__).parents[3] / "trackers/python"))

from spoorway_tracker import Refusal, Subject, Tracker
from spoorway_tracker.http import query_of
from spoorway_tracker.transports import Answer

SUBJECT = ("user_id", "domain_user_id", "session_id", "network_user_id", "timezone", "language", "ip", "useragent")


class Wire:
    """A transport that remembers what it would have sent."""

    query = ""

    def send(self, records: Sequence[bytes], sent_ms: int, timeout_s: float) -> Answer:
        (record,) = records
        self.query = query_of(record, sent_ms)
        return Answer(200)

    def close(self) -> None: ...


def number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def subject(given: dict[str, str]) -> Subject:
    facts: dict[str, Any] = {name: given[name] for name in SUBJECT if name in given}
    facts |= {name: int(given[name]) for name in ("session_index", "color_depth") if name in given}
    for name in ("screen", "viewport"):
        if name in given:
            width, height = given[name].split("x")
            facts[name] = int(width), int(height)
    return Subject(**facts)


def track(tracker: Tracker, call: dict[str, str]) -> str | Refusal:
    more: dict[str, Any] = {"entities": json.loads(call.get("entities", "[]"))}
    if "true_ms" in call:
        more["true_ms"] = int(call["true_ms"])
    page = call.get("url", ""), call.get("title"), call.get("referrer")
    match call["verb"]:
        case "page_view":
            return tracker.track_page_view(*page, **more)
        case "page_ping":
            offsets = {name: int(call[name]) for name in ("min_x", "max_x", "min_y", "max_y") if name in call}
            return tracker.track_page_ping(*page, **offsets, **more)
        case "screen_view":
            names = ("id", "type", "previous_name", "previous_id", "previous_type", "transition_type")
            return tracker.track_screen_view(call.get("name", ""), **{n: call[n] for n in names if n in call}, **more)
        case "structured":
            value = number(call["value"]) if "value" in call else None
            texts = call.get("category", ""), call.get("action", ""), call.get("label"), call.get("property")
            return tracker.track_structured(*texts, value, **more)
        case "self_describing":
            return tracker.track_self_describing(call.get("schema", ""), json.loads(call["data"]), **more)
        case verb:
            raise ValueError(f"no verb {verb}")


def answer(line: str) -> str:
    fields = dict(parse_qsl(line, keep_blank_values=True, strict_parsing=True))
    given = {name.removeprefix("given."): value for name, value in fields.items() if name.startswith("given.")}
    call = {name.removeprefix("call."): value for name, value in fields.items() if name.startswith("call.")}
    wire, times = Wire(), {"now": int(given["now_ms"])}
    try:
        tracker = Tracker(
            "http://localhost", given["app_id"], namespace=given["namespace"], platform=given["platform"], subject=subject(given),
            base64=given["base64"] == "1", folder=None, background=False, transport=wire, clock_ms=lambda: times["now"],
            new_id=lambda: given["event_id"], max_age_s=10**9,
        )  # fmt: skip
    except ValueError:
        return "!platform"
    tracked = track(tracker, call)
    times["now"] = int(given["sent_ms"])
    tracker.close()
    return f"!{tracked.value}" if isinstance(tracked, Refusal) else wire.query


for case in sys.stdin:
    print(answer(case.rstrip("\n")), flush=True)
