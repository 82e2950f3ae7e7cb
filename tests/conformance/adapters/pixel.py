"""The Python pixel builder's side of a vector run: cases on stdin, the query strings of the URLs on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

sys.path.insert(0, str(Path(__file__).parents[3]))

from spoorway.pixel import Event, Pixel, PixelError, page_ping, page_view, screen_view, self_describing, structured

PARAMETERS = {
    "now_ms": "dtm",
    "sent_ms": "stm",
    "user_id": "uid",
    "domain_user_id": "duid",
    "session_id": "sid",
    "session_index": "vid",
    "network_user_id": "tnuid",
    "screen": "res",
    "viewport": "vp",
    "color_depth": "cd",
    "timezone": "tz",
    "language": "lang",
    "ip": "ip",
    "useragent": "ua",
}
VERBS = {"page_view": page_view, "page_ping": page_ping, "screen_view": screen_view, "structured": structured}
LONGEST = 1_000_000  # the cases ask what a URL says, tests/trackers/pixel how long it may be


def event(call: dict[str, str]) -> Event:
    verb = call.pop("verb")
    if verb == "self_describing":
        return self_describing(call.get("schema", ""), json.loads(call["data"]))
    required = {"page_view": ("url",), "page_ping": ("url",), "structured": ("category", "action")}.get(verb, ())
    return VERBS[verb](**{**dict.fromkeys(required, ""), **call})  # type: ignore[operator]  # one of four signatures


def answer(line: str) -> str:
    fields = dict(parse_qsl(line, keep_blank_values=True, strict_parsing=True))
    given = {name.removeprefix("given."): value for name, value in fields.items() if name.startswith("given.")}
    call = {name.removeprefix("call."): value for name, value in fields.items() if name.startswith("call.")}
    entities, true_ms = json.loads(call.pop("entities", "[]")), call.pop("true_ms", None)
    try:
        pixel = Pixel(
            "http://localhost",
            given["app_id"],
            given["namespace"],
            given["platform"],
            base64=given["base64"] == "1",
            longest=LONGEST,
        )
        url = pixel.open(
            event(call),
            entities=entities,
            true_ms=None if true_ms is None else int(true_ms),
            event_id=given["event_id"],
            parameters={PARAMETERS[name]: value for name, value in given.items() if name in PARAMETERS},
        )
    except PixelError as error:
        return f"!{error.code}"
    return urlsplit(url).query


for case in sys.stdin:
    print(answer(case.rstrip("\n")), flush=True)
