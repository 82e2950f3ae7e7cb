"""RawPayload <-> one JSON object: how the journal, the file transport and failed events write a payload down.

Reversible for any bytes: a body that is not UTF-8 text is kept as base64; nothing is normalised. Absent fields are left out.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Any, cast

import orjson

from protocol.seams import RawPayload

# Namespace of ids that are derived rather than sent: the same payload always gives the same ids.
_NAMESPACE = uuid.UUID("3f9d0c86-5d0e-5a63-9f43-0f6d6a6b7c11")


def derived_id(*parts: object) -> str:
    """A UUID (version 5) that only the parts decide. Of an event that came without one: (payload id, its place in it)."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, parts))))


def to_json(payload: RawPayload, sequence: int | None = None) -> bytes:
    """One line of JSON without the line feed. sequence: the payload's number in its lane, written as "n"."""
    line: dict[str, Any] = {}
    if sequence is not None:
        line["n"] = sequence
    line["id"] = payload.id
    line["at"] = payload.received_ms
    line["transport"] = payload.transport
    line["path"] = payload.path
    if payload.query:
        line["query"] = payload.query
    if payload.content_type is not None:
        line["type"] = payload.content_type
    if payload.headers:
        line["headers"] = payload.headers
    if payload.ip is not None:
        line["ip"] = payload.ip
    if payload.host is not None:
        line["host"] = payload.host
    if payload.network_userid is not None:
        line["nuid"] = payload.network_userid
    if payload.device is not None:
        line["device"] = payload.device
    if payload.body is not None:
        try:
            line["body"] = payload.body.decode()
        except UnicodeDecodeError:
            line["body64"] = base64.b64encode(payload.body).decode()
    if payload.erased:
        line["erased"] = payload.erased
    return orjson.dumps(line)


def from_json(line: bytes) -> RawPayload:
    """The payload that `to_json` wrote. Raises ValueError, naming what is wrong, for anything else."""
    fields: object = orjson.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("a payload is a JSON object")
    return from_fields(cast(dict[str, Any], fields))


def from_fields(fields: dict[str, Any]) -> RawPayload:
    """As from_json, from the parsed object. Raises ValueError."""
    get = fields.get
    try:
        body = get("body")
        if body is not None:
            body = body.encode()
        elif (encoded := get("body64")) is not None:
            body = base64.b64decode(encoded, validate=True)
        return RawPayload(
            fields["id"],
            fields["at"],
            fields["transport"],
            fields["path"],
            get("query", ""),
            body,
            get("type"),
            tuple([(name, value) for name, value in get("headers", ())]),
            get("ip"),
            get("host"),
            get("nuid"),
            get("device"),
            tuple([int(place) for place in get("erased", ())]),
        )
    except (KeyError, AttributeError, TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"not a payload: {type(error).__name__}: {error}") from error
