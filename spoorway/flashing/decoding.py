"""A board's lines -> what a person reads: who, which number, what event. Never acts on them and never fails on them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import parse_qsl

from protocol.compact import Refused, TemplateLookup, decode
from protocol.lines import Damaged, Line, Text, frames
from spoorway.console import printable

Item = Line | Text | Damaged


def described(item: Item, templates: TemplateLookup) -> list[str]:
    """One line for a line, and one for each event in it, indented."""
    if isinstance(item, Text):
        return [printable(item.data.decode("utf-8", "replace"))]
    if isinstance(item, Damaged):
        return [f"damaged ({item.reason}): {printable(item.data[:120].decode('utf-8', 'replace'))}"]
    what = {"h": "hello", "j": "JSON", "q": "query", "c": "compact"}[item.kind]
    signed = "signed" if item.signature else "not signed"
    head = f"{item.device or '(no name)'} boot {item.boot} message {item.sequence}: {what}, {signed}"
    return [head, *(f"  {printable(text)}" for text in _events(item, templates))]


def as_object(item: Item, templates: TemplateLookup) -> dict[str, Any]:
    """The same for machines."""
    if isinstance(item, Text):
        return {"text": item.data.decode("utf-8", "replace")}
    if isinstance(item, Damaged):
        return {"damaged": item.reason, "text": item.data.decode("utf-8", "replace")}
    return {
        "kind": item.kind,
        "device": item.device,
        "boot": item.boot,
        "sequence": item.sequence,
        "signed": bool(item.signature),
        "body": item.body.decode("utf-8", "replace"),
        "events": list(_events(item, templates)),
    }


def _events(line: Line, templates: TemplateLookup) -> Iterator[str]:
    try:
        if line.kind == "q":
            yield _event(dict(parse_qsl(line.body.decode(), keep_blank_values=True, strict_parsing=True)))
        elif line.kind == "j":
            yield from (_event(event) for event in json.loads(line.body)["data"])
        elif line.kind == "c":
            for reading in decode(frames(line.body), templates):
                if isinstance(reading, Refused):
                    yield f"not read: {reading.keyword}"
                else:
                    yield f"event {reading.sequence}: {reading.template.schema} {json.dumps(reading.data, ensure_ascii=False)}"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield f"not read: {error}"


def _event(event: dict[str, str]) -> str:
    """Of a parameter set: what it is, and what else it says, without what every event has."""
    kind = event.get("e", "?")
    said = event.get("ue_pr") or _base64(event.get("ue_px", ""))
    if said:
        inner = cast(dict[str, Any], json.loads(said)["data"])
        return f"{kind} {inner['schema']} {json.dumps(inner['data'], ensure_ascii=False)}"
    rest = {name: value for name, value in event.items() if name not in ("e", "p", "tv", "eid", "co", "cx")}
    return " ".join([kind, *(f"{name}={value}" for name, value in rest.items())])


def _base64(text: str) -> str:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


__all__ = ["Item", "as_object", "described"]
