"""The official Python tracker's side of a vector run: cases on stdin, the query strings it would send on stdout.

Everything is the tracker's own, up to the URL that `requests` prepared; only its clock, its ids and the wire are replaced.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter
from snowplow_tracker import emitters, tracker
from snowplow_tracker.emitters import Emitter
from snowplow_tracker.events.event import Event
from snowplow_tracker.events.page_ping import PagePing
from snowplow_tracker.events.page_view import PageView
from snowplow_tracker.events.screen_view import ScreenView
from snowplow_tracker.events.self_describing import SelfDescribing
from snowplow_tracker.events.structured_event import StructuredEvent
from snowplow_tracker.self_describing_json import SelfDescribingJson
from snowplow_tracker.subject import Subject
from snowplow_tracker.tracker import Tracker


class Wire(BaseAdapter):
    """Answers 200 and remembers what was asked for."""

    query = ""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.query = urlsplit(request.url or "").query
        response = requests.Response()
        response.status_code = 200
        return response

    def close(self) -> None: ...


def clock(milliseconds: str) -> SimpleNamespace:
    return SimpleNamespace(time=lambda: Fraction(int(milliseconds), 1000))  # exact, unlike a float


def subject(given: dict[str, str]) -> Subject:
    made = Subject()
    made.set_platform(given["platform"])  # type: ignore[arg-type]  # refused by the tracker if unknown
    for name, setter in (
        ("user_id", made.set_user_id),
        ("domain_user_id", made.set_domain_user_id),
        ("session_id", made.set_domain_session_id),
        ("network_user_id", made.set_network_user_id),
        ("timezone", made.set_timezone),
        ("language", made.set_lang),
        ("ip", made.set_ip_address),
        ("useragent", made.set_useragent),
    ):
        if name in given:
            setter(given[name])
    for name, number in (("session_index", made.set_domain_session_index), ("color_depth", made.set_color_depth)):
        if name in given:
            number(int(given[name]))
    for name, size in (("screen", made.set_screen_resolution), ("viewport", made.set_viewport)):
        if name in given:
            width, height = given[name].split("x")
            size(int(width), int(height))
    return made


def entity(value: dict[str, Any]) -> SelfDescribingJson:
    return SelfDescribingJson(value["schema"], value["data"])


def event(call: dict[str, str]) -> Event:
    page: dict[str, Any] = {"page_url": call.get("url", ""), "page_title": call.get("title"), "referrer": call.get("referrer")}
    more: dict[str, Any] = {"context": [entity(e) for e in json.loads(call.get("entities", "[]"))]}
    if "true_ms" in call:
        more["true_timestamp"] = int(call["true_ms"])
    match call["verb"]:
        case "page_view":
            return PageView(**page, **more)
        case "page_ping":
            offsets: dict[str, Any] = {name: int(call[name]) for name in ("min_x", "max_x", "min_y", "max_y") if name in call}
            return PagePing(**page, **offsets, **more)
        case "screen_view":
            names = ("type", "previous_name", "previous_id", "previous_type", "transition_type")
            more |= {name: call[name] for name in names if name in call}
            return ScreenView(call.get("id", ""), call.get("name", ""), **more)
        case "structured":
            value = None
            if "value" in call:
                value = int(call["value"]) if call["value"].lstrip("-").isdigit() else float(call["value"])
            category, action = call.get("category", ""), call.get("action", "")
            return StructuredEvent(category, action, call.get("label"), call.get("property"), value, **more)
        case "self_describing":
            return SelfDescribing(SelfDescribingJson(call.get("schema", ""), json.loads(call["data"])), **more)
        case verb:
            raise ValueError(f"no verb {verb}")


def answer(line: str) -> str:
    fields = dict(parse_qsl(line, keep_blank_values=True, strict_parsing=True))
    given = {name.removeprefix("given."): value for name, value in fields.items() if name.startswith("given.")}
    call = {name.removeprefix("call."): value for name, value in fields.items() if name.startswith("call.")}
    setattr(tracker, "time", clock(given["now_ms"]))  # noqa: B010  # the modules' own `time`, replaced
    setattr(emitters, "time", clock(given["sent_ms"]))  # noqa: B010
    setattr(Tracker, "get_uuid", staticmethod(lambda: given["event_id"]))  # noqa: B010
    wire = Wire()
    session = requests.Session()
    session.mount("http://", wire)
    emitter = Emitter("localhost", protocol="http", method="get", batch_size=1, session=session)
    try:
        made = Tracker(given["namespace"], emitter, subject(given), given["app_id"], given["base64"] == "1")
        made.track(event(call))
    except ValueError:
        return "!refused"
    return wire.query


for case in sys.stdin:
    print(answer(case.rstrip("\n")), flush=True)
