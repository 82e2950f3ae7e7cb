"""A payload -> what is left of it when somebody's events are taken out.

Reads a payload as the loading process does, but without enrichments, so that what counts is what was sent. Where events of
several people share a body of the tracker protocol, only theirs go, and every other byte of it stays; any other payload goes
as a whole. Remembers nothing between payloads.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from enrich.pipeline import Pipeline
from gateway.journal.erasing import Cut
from protocol.devices import DEVICE_HEADER, TP2_PATH
from protocol.persons import Person
from protocol.seams import FailedEvent, RawPayload

# What payload_data takes for an event, so that its neighbours are read as before; nobody looks at it.
_BLANK, _EMPTY = b'{"e":"","p":"","tv":""}', b"{}"
_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r"[A-Za-z0-9_.:@~-]{3,}")
_DECODER = json.JSONDecoder()


class Cutting:
    def __init__(self, pipeline: Pipeline, who: Person, until_ms: int) -> None:
        """pipeline: without enrichments. until_ms: payloads received later are nobody's concern."""
        self._pipeline, self._who, self._until_ms = pipeline, who, until_ms

    def __call__(self, payload: RawPayload) -> Cut | None:
        if payload.received_ms > self._until_ms:
            return None
        outcomes = list(self._pipeline.outcomes(payload, payload.received_ms))
        places = [place for place in range(len(outcomes) + len(payload.erased)) if place not in payload.erased]
        everything = self._sent_by(payload)
        events: list[tuple[str, int]] = []
        failed: list[str] = []
        theirs: list[int] = []
        for place, outcome in zip(places, outcomes, strict=True):
            if isinstance(outcome, FailedEvent):
                if everything or self._failed(outcome):
                    failed.append(outcome.id)
                    theirs.append(place)
            elif everything or self._who.in_columns(outcome):
                events.append((outcome["event_id"], payload.received_ms))  # pyright: ignore[reportTypedDictNotRequiredAccess]
                theirs.append(place)
        if not theirs:
            return None
        count = len(places) + len(payload.erased)
        left = _without(payload, theirs, count) if len(theirs) < len(places) else None
        gone = theirs if left is not None else places
        left = left or RawPayload(payload.id, payload.received_ms, payload.transport, payload.path)
        left = replace(left, erased=tuple(sorted({*payload.erased, *gone})))
        return Cut(left, len(gone), len(gone) - len(theirs), tuple(events), tuple(failed))

    def left(self, payload: RawPayload) -> RawPayload | None:
        """What is left of it, alone."""
        cut = self(payload)
        return None if cut is None else cut.payload

    def _failed(self, failed: FailedEvent) -> bool:
        """Whether a failed event is theirs; one that was not understood at all is, if it holds an identifier as a word."""
        if failed.parameters or failed.event:
            return self._who.in_parameters(failed.parameters) or self._who.in_columns(failed.event)
        text = unquote_to_bytes(failed.payload.query) + b"\n" + (failed.payload.body or b"")
        return any(re.search(rb"(?<![\w-])" + re.escape(v.encode()) + rb"(?![\w-])", text) for v in self._who.values())

    def _sent_by(self, payload: RawPayload) -> bool:
        """Whether all of it is theirs, whatever is in it."""
        who = self._who
        if payload.network_userid in who.network_user or payload.device in who.device:
            return True
        name = DEVICE_HEADER.lower()
        return bool(who.device) and any(key.lower() == name and value in who.device for key, value in payload.headers)


def _without(payload: RawPayload, places: list[int], count: int) -> RawPayload | None:
    """The payload with blanks in these places of its body; None where they cannot be told apart."""
    if payload.path != TP2_PATH or payload.body is None:
        return None
    try:
        text = payload.body.decode()
        spans = list(_objects(text))
    except ValueError:
        return None
    if len(spans) != count:
        return None
    parts, end = list[str](), 0
    for place in places:
        first, last = spans[place]
        blank = _BLANK if last - first >= len(_BLANK) else _EMPTY
        parts += text[end:first], blank.decode()
        end = last
    return replace(payload, body="".join((*parts, text[end:])).encode())


def _objects(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each element of the array "data" in a JSON object. Raises ValueError for any other text."""
    at = _skip(text, 0, "{")
    spans: list[tuple[int, int]] = []
    while True:
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at, ":")
        if key == "data" and text[at : at + 1] == "[":
            spans, at = [], _skip(text, at, "[")
            while True:
                _, end = _DECODER.raw_decode(text, at)
                spans.append((at, end))
                at = _space(text, end)
                if text[at : at + 1] == "]":
                    at += 1
                    break
                at = _skip(text, at, ",")
        else:
            _, at = _DECODER.raw_decode(text, at)
        at = _space(text, at)
        if text[at : at + 1] == "}":
            return iter(spans)
        at = _skip(text, at, ",")


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _skip(text: str, at: int, mark: str) -> int:
    """After the mark and the space around it."""
    at = _space(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"expected {mark} at {at}")
    return _space(text, at + 1)


def suspect(who: Person) -> Callable[[bytes], bool]:
    """Whether a line of the journal may hold one of these identifiers, in whatever way it is written. Never wrongly false."""
    values = who.values()
    if not all(_PLAIN.fullmatch(value) for value in values):
        return lambda line: True  # it may be written in too many ways
    plain = [value.encode() for value in values]
    encoded = {needle for value in who.device for needle in _base64_forms(value.encode())}
    if None in encoded:
        return lambda line: True
    needles = [*plain, *(needle for needle in encoded if needle is not None)]

    def may_hold(line: bytes) -> bool:
        if any(needle in line for needle in needles):
            return True
        if b'"body64":"' in line or b"\\u" in line or b"\\/" in line:
            return True
        return b"%" in line and any(needle in unquote_to_bytes(line) for needle in needles)

    return may_hold


def _base64_forms(value: bytes) -> Iterator[bytes | None]:
    """The text as it shows in base64, wherever in the encoded bytes it begins; None where that is too short to be looked for."""
    for shift in range(3):
        text = b64encode(bytes(shift) + value)
        sure = text[(0, 2, 3)[shift] : (shift + len(value)) * 8 // 6]
        for form in {sure, sure.translate(bytes.maketrans(b"+/", b"-_"))}:
            yield form if len(form) >= 3 else None


__all__ = ["Cutting", "suspect"]
