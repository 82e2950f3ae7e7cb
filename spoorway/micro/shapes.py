"""Payloads, events and failures -> the JSON that Micro clients read, its types exactly theirs.

Pure. Source: the Micro REST API's GoodEvent and BadEvent; docs/micro.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any, cast

import orjson

from protocol import iglu
from protocol.seams import Event, FailedEvent, Json, RawPayload, Reason
from protocol.tables import COLUMNS, ColumnType
from protocol.wire import parse_query
from spoorway import __version__
from storage import rows

SNOWPLOW = "com.snowplowanalytics.snowplow"
CONTEXTS = f"iglu:{SNOWPLOW}/contexts/jsonschema/1-0-0"
UNSTRUCT_EVENT = f"iglu:{SNOWPLOW}/unstruct_event/jsonschema/1-0-0"
FAILURE = f"iglu:{SNOWPLOW}/failure/jsonschema/1-0-0"
COLLECTOR = f"spoorway-{__version__}-http"
ENCODING = "UTF-8"

Object = dict[str, Any]


def to_json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # what JSON cannot hold, such as half a surrogate pair, is cleaned as in a stored row
        return rows.json_text(value).encode()


def instant(ms: int) -> str | None:
    """ISO 8601 in UTC, without a fraction when it would be zero; None outside the years 0 to 9999."""
    text = rows.timestamp(ms)
    return text and text.replace(" ", "T").removesuffix(".000") + "Z"


def api(path: str) -> Object:
    """The vendor and version that a request's path names."""
    vendor, _, version = path.strip("/").partition("/")
    if not version:
        vendor, version = SNOWPLOW, "tp1"
    return {"vendor": vendor, "version": version}


def header(payload: RawPayload, wanted: str) -> str | None:
    return next((value for name, value in payload.headers if name.lower() == wanted), None)


def header_lines(payload: RawPayload) -> list[str]:
    return [f"{name}: {value}" for name, value in payload.headers]


def _source(payload: RawPayload) -> Object:
    return {"name": COLLECTOR, "encoding": ENCODING, "hostname": payload.host}


def _context(payload: RawPayload) -> Object:
    received = rows.timestamp(payload.received_ms)
    return {
        "timestamp": received and received.replace(" ", "T") + "Z",
        "ipAddress": payload.ip or "unknown",
        "useragent": header(payload, "user-agent"),
        "refererUri": header(payload, "referer"),
        "headers": header_lines(payload),
        "userId": payload.network_userid,
    }


def body_text(payload: RawPayload) -> str | None:
    return None if payload.body is None else payload.body.decode("utf-8", "replace")


def collector_payload(payload: RawPayload) -> Object:
    pairs = parse_query(payload.query).items() if payload.query else ()
    return {
        "api": api(payload.path),
        "querystring": [name if value is None else f"{name}={value}" for name, value in pairs],
        "contentType": payload.content_type,
        "body": body_text(payload),
        "source": _source(payload),
        "context": _context(payload),
    }


def raw_event(payload: RawPayload, parameters: Mapping[str, str]) -> Object:
    """parameters: as the tracker sent them."""
    return {
        "api": api(payload.path),
        "parameters": dict(parameters),
        "contentType": payload.content_type,
        "source": _source(payload),
        "context": _context(payload),
    }


_TYPED: dict[ColumnType, Callable[[Any], Any]] = {
    "timestamp": instant,
    "decimal": float,
}
_COLUMNS = [(c.name, _TYPED.get(c.type)) for c in COLUMNS if c.type != "json"]


def columns(event: Event) -> Object:
    """All 131 columns, null where there is no value; numbers and booleans are such, times are ISO 8601."""
    values = cast(Object, event)
    found: Object = {}
    for name, convert in _COLUMNS:
        value = values.get(name)
        found[name] = value if value is None or convert is None else convert(value)
    for name in ("contexts", "derived_contexts"):
        entities = values.get(name)
        found[name] = {"schema": CONTEXTS, "data": entities} if entities else {}
    unstruct = values.get("unstruct_event")
    found["unstruct_event"] = {"schema": UNSTRUCT_EVENT, "data": unstruct} if unstruct else None
    return found


def schema_of(event: Event) -> str | None:
    """The URI of what happened; None where the event does not say."""
    vendor, name = event.get("event_vendor"), event.get("event_name")
    if not vendor or not name:
        return None
    return f"iglu:{vendor}/{name}/{event.get('event_format', 'jsonschema')}/{event.get('event_version', '1-0-0')}"


_FAILURE_TYPES = {
    "NotJson": "NotJSON",
    "CriterionMismatch": "CriterionMismatch",
    "ResolutionError": "ResolutionError",
    "INVALID_DATA_PAYLOAD": "NotIglu",
    "INVALID_IGLUURI": "NotIglu",
    "INVALID_SCHEMAVER": "NotIglu",
}
_CHECKED_STEPS = {
    "atomic": "atomic_field",
    "unstruct_event": "unstruct",
    "contexts": "contexts",
    "derived_contexts": "derived_contexts",
}


def failure_entities(failed: FailedEvent) -> list[Object]:
    """What an event that could not be finished carries: an entity per failure. What one schema has against it is one."""
    found: list[Object] = []
    for _, reasons in groupby(failed.reasons, lambda r: (r.step, r.schema) if r.keyword == "ValidationError" else r):
        found.append(_failure_entity(list(reasons), failed))
    return found


def _failure_entity(reasons: list[Reason], failed: FailedEvent) -> Object:
    first = reasons[0]
    source = _CHECKED_STEPS.get(first.step)
    kind = _FAILURE_TYPES.get(first.keyword) or ("ValidationError" if source else f"EnrichmentError: {first.step}")
    return {
        "schema": FAILURE,
        "data": {
            "failureType": kind,
            "errors": [{"message": r.message, "source": source or r.field, "path": r.field or "$"} for r in reasons],
            "schema": first.schema,
            "data": {first.field or "value": first.value} if first.value is not None else None,
            "timestamp": instant(failed.failed_ms),
            "componentName": "spoorway",
            "componentVersion": __version__,
        },
    }


def incomplete_columns(failed: FailedEvent) -> Object | None:
    """What was understood of a failed event, and why it failed; None for a payload that was never taken apart."""
    if failed.index is None or failed.kind not in ("schema_violations", "enrichment_failures"):
        return None
    derived = [*failure_entities(failed), *failed.event.get("derived_contexts", ())]
    return columns(failed.event) | {"derived_contexts": {"schema": CONTEXTS, "data": derived}}


_CAMEL = re.compile("([^A-Z_])([A-Z])")
_NESTED = ("contexts", "derived_contexts", "unstruct_event")


def flat_name(prefix: str, key: iglu.SchemaKey) -> str:
    vendor = key.vendor.replace(".", "_").replace("-", "_").lower()
    name = _CAMEL.sub(r"\1_\2", key.name).lower()
    return f"{prefix}_{vendor}_{name}_{key.model}"


def flattened(event: Object) -> Object:
    """An event's columns with every schema in a column of its own, as the analytics SDKs write it."""
    found = {name: value for name, value in event.items() if name not in _NESTED}
    if found.get("geo_latitude") is not None and found.get("geo_longitude") is not None:
        found["geo_location"] = f"{found['geo_latitude']},{found['geo_longitude']}"
    for place in ("contexts", "derived_contexts"):
        for entity in event[place].get("data", ()):
            key = iglu.parse(entity["schema"])
            data: Json = entity["data"]
            if isinstance(data, dict):
                data = {**data, "_schema_version": key.version}
            found.setdefault(flat_name("contexts", key), []).append(data)
    if event["unstruct_event"]:
        inner = event["unstruct_event"]["data"]
        found[flat_name("unstruct_event", iglu.parse(inner["schema"]))] = inner["data"]
    return found
