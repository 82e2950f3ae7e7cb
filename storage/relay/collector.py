"""Payloads -> ordinary requests of the tracker protocol, for any collector that speaks it.

Pure. Events that payload_data has room for share POSTs to tp2; everything else is sent as the request it was. What only the
payload knew becomes parameters: eid where the event had none, ttm for when it happened, ua, ip, nuid, url.

Why ttm and not stm: the upstream dates an event by its own receipt minus (stm - dtm), so a stm that gives our time would have to
be the moment of sending, would carry the difference of two clocks, and would be another one in every copy. ttm says "this time is
right, do not correct it", is exact, is the same in every copy, and leaves what the device said in dtm and stm.
"""

from __future__ import annotations

import gzip
import string
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

import orjson

from protocol.devices import COMPACT_PATH, DEVICE_CLOCK, DEVICE_HEADER, IGLU_PATH, NAME, TP1_PATH, TP2_PATH, device_event_id
from protocol.payloads import derived_id
from protocol.seams import RawPayload
from protocol.tables import PARAMETERS
from protocol.wire import decode_base64, parse_query, write_query
from storage.relay.pieces import Piece
from storage.relay.upstream import Answer, Request

_PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-"
_SENT_AS = _PAYLOAD_DATA + "4"
_ALLOWED = frozenset(name for name, p in PARAMETERS.items() if p.post_since is not None)
_REQUIRED = frozenset({"tv", "p", "e"})
_HEAD = b'{"schema":"' + _SENT_AS.encode() + b'","data":['
_JSON = ("Content-Type", "application/json; charset=utf-8")
# The upstream must take neither our address for the visitor's nor invent an id for all events of a request.
_ANONYMOUS = ("SP-Anonymous", "*")
_PIXELS = (TP1_PATH, "/ice.png", "/com.snowplowanalytics.snowplow/tp1")
_CLOCK_FAMILY = DEVICE_CLOCK.removesuffix("0-0")  # any revision of the model
_OLD_TRACKERS = ("lua-", "arduino-")  # their times may be seconds
_NOT_PASSED_ON = frozenset({"content-encoding", "host", "connection", "content-length", "transfer-encoding", "cookie"})
_IN_A_TARGET = string.ascii_letters + string.digits + string.punctuation


class Tp2:
    """compress: gzip bodies, which the reference collector does not read."""

    def __init__(self, compress: bool) -> None:
        self._compress = compress

    def pieces(self, payload: RawPayload) -> list[Piece]:
        path = payload.path
        if payload.erased and not payload.query and not payload.body:
            return []  # nothing is left of it
        if path == COMPACT_PATH:
            raise ValueError("compact frames are read by Spoorway only")
        query = {name: value for name, value in parse_query(payload.query).items() if value is not None}
        if path == TP2_PATH and payload.body is not None:
            return self._posted(payload, query)
        if path in _PIXELS or path == TP2_PATH:
            event = _completed(query, payload, 0)
            if _fits(event):
                return [Piece(payload, orjson.dumps(event))]
            return [_as_it_was(payload, {n: v for n, v in event.items() if n not in query} if query else {})]
        if path == IGLU_PATH and _single(payload):
            added = _completed(query, payload, 0)
            return [_as_it_was(payload, {n: added[n] for n in ("eid", "ttm", "nuid") if n in added and n not in query})]
        if path.startswith("/r/"):
            added = _completed(query, payload, 0)
            return [_as_it_was(payload, {n: added[n] for n in ("eid", "ttm", "nuid") if n in added and n not in query})]
        return [_as_it_was(payload, {})]

    def request(self, pieces: Sequence[Piece]) -> Request:
        if (alone := pieces[0].alone) is not None:
            return alone
        body, headers = _HEAD + b",".join([piece.data for piece in pieces]) + b"]}", (_JSON, _ANONYMOUS)
        if not self._compress:
            return Request("POST", TP2_PATH, headers, body)
        return Request("POST", TP2_PATH, (*headers, ("Content-Encoding", "gzip")), gzip.compress(body, 6, mtime=0))

    def took(self, answer: Answer, pieces: Sequence[Piece]) -> bool:
        if answer.status == 302:  # a click is sent on; any other request that is sent elsewhere was not taken
            return pieces[0].payload.path.startswith("/r/")
        return answer.status == 200 and not answer.body.lstrip().startswith(b"<")  # a page is no collector's answer

    def begin_anew(self) -> None:
        """Nothing here counts."""

    def _posted(self, payload: RawPayload, query: dict[str, str]) -> list[Piece]:
        """A good object may share a request; a bad one fails there as it fails here: alone, and by what is wrong with it."""
        objects, schema = _objects(payload)
        if not objects:
            return [_as_it_was(payload, {})]
        return [
            self._object(payload, query, sent, schema, index) for index, sent in enumerate(objects) if index not in payload.erased
        ]

    def _object(self, payload: RawPayload, query: dict[str, str], sent: Any, schema: str, index: int) -> Piece:
        texts = cast(dict[str, str], sent) if _all_texts(sent) else None
        if texts is not None:
            event = _completed({**texts, **query}, payload, index)
            if _fits(event):
                return Piece(payload, orjson.dumps(event))
            sent = {**{name: value for name, value in event.items() if name in _ALLOWED and name not in query}, **texts}
            schema = _SENT_AS
        body = orjson.dumps({"schema": schema, "data": [sent]})
        return Piece(payload, alone=Request("POST", _target(payload, {}), (_JSON, _ANONYMOUS), body))


def _objects(payload: RawPayload) -> tuple[list[Any], str]:
    """The objects of a payload_data, and its schema; none when it is anything else."""
    kind = (payload.content_type or "").partition(";")[0].strip().lower()
    try:
        envelope: Any = orjson.loads(payload.body or b"") if kind == "application/json" else None
    except orjson.JSONDecodeError:
        return [], ""
    if not isinstance(envelope, dict):
        return [], ""
    fields = cast(dict[str, Any], envelope)
    schema, data = fields.get("schema"), fields.get("data")
    if fields.keys() != {"schema", "data"} or not isinstance(schema, str) or not schema.startswith(_PAYLOAD_DATA):
        return [], ""
    if not isinstance(data, list):
        return [], ""
    objects: list[Any] = data  # pyright: ignore[reportUnknownVariableType]
    return objects, schema


def _all_texts(sent: Any) -> bool:
    return isinstance(sent, dict) and all(type(value) is str for value in cast(dict[str, Any], sent).values())


def _fits(event: Mapping[str, str]) -> bool:
    return _REQUIRED <= event.keys() <= _ALLOWED


def _completed(sent: Mapping[str, str], payload: RawPayload, index: int) -> dict[str, str]:
    """The parameters with those that only the payload knew."""
    event = dict(sent)
    if "eid" not in event:
        event["eid"] = _clock_id(event, payload) or derived_id(payload.id, index)
    if event.get("tv", "").startswith(_OLD_TRACKERS):
        for name in ("dtm", "stm", "ttm"):
            if (text := event.get(name, "")).isdecimal() and len(text) in (9, 10):
                event[name] = text + "000"
    if "ttm" not in event:
        event["ttm"] = str(_happened_ms(event, payload.received_ms))
    if "ip" not in event:
        event["ip"] = payload.ip or "unknown"
    if payload.network_userid is not None and "nuid" not in event:
        event["nuid"] = payload.network_userid
    headers = {name.lower(): value for name, value in payload.headers}
    for name, header in (("ua", "user-agent"), ("url", "referer")):
        if name not in event and headers.get(header):
            event[name] = headers[header]
    return event


def _happened_ms(event: Mapping[str, str], received_ms: int) -> int:
    """When, by our clock: receipt minus the time it waited in the device. Source: tracker protocol, "Time"."""
    try:
        created, sent = int(event["dtm"]), int(event["stm"])
    except (KeyError, ValueError):
        return received_ms
    return received_ms - (sent - created) if created < sent else received_ms


def _clock_id(event: Mapping[str, str], payload: RawPayload) -> str | None:
    """The id that follows from a device's clock entity, if there is one. Source: docs/devices.md."""
    text = decode_base64(event["cx"]) if "cx" in event else event.get("co", "").encode("utf-8", "replace")
    if b"device_clock" not in text:
        return None
    try:
        entities: list[Any] = orjson.loads(text)["data"]
        clock = next(e["data"] for e in entities if e["schema"].startswith(_CLOCK_FAMILY))
        said = next((value for name, value in payload.headers if name.lower() == DEVICE_HEADER.lower()), None)
        device, boot, sequence = payload.device or said or clock["device_id"], clock["boot_id"], clock["sequence"]
    except (ValueError, TypeError, KeyError, StopIteration):
        return None
    if not (isinstance(device, str) and NAME.fullmatch(device) and type(boot) is int and type(sequence) is int):
        return None
    return device_event_id(device, boot, sequence)


def _single(payload: RawPayload) -> bool:
    """Whether an Iglu webhook holds one event, so that it may be given an id."""
    return not (payload.body or b"").lstrip().startswith(b"[")


def _as_it_was(payload: RawPayload, added: Mapping[str, str]) -> Piece:
    """The request itself, with its own headers and, for whoever believes it, the address it came from."""
    headers = [
        (name, value)
        for name, value in payload.headers
        # ":method" is the gateway's own note, and no name a request could have.
        if name.lower() not in _NOT_PASSED_ON and not name.lower().startswith(("spoorway-", ":")) and value.isprintable()
    ]
    if payload.content_type is not None:
        headers.append(("Content-Type", payload.content_type))
    if payload.ip is not None:
        headers.append(("X-Forwarded-For", payload.ip))
    elif all(name.lower() != "sp-anonymous" for name, _ in headers):
        headers.append(_ANONYMOUS)
    method = "GET" if payload.body is None else "POST"
    return Piece(payload, alone=Request(method, _target(payload, added), tuple(headers), payload.body))


def _target(payload: RawPayload, added: Mapping[str, str]) -> str:
    query = "&".join(part for part in (payload.query, write_query(added)) if part)
    return quote(payload.path + (f"?{query}" if query else ""), safe=_IN_A_TARGET)
