"""Event and FailedEvent -> documents of OpenSearch, and the mappings that such documents need. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from protocol import payloads
from protocol.iglu import InvalidUri, parse
from protocol.seams import Event, FailedEvent, Json, RawPayload, Reason, SelfDescribing
from protocol.tables import COLUMNS, ColumnType
from storage import failed as failures
from storage import rows
from storage.duplicates import identity
from storage.views import view_name

COMMIT = "spoorway_commit"  # the field with the number of the commit that a document belongs to
# Lucene refuses a term of more than 32,766 bytes; so many characters are never more.
_KEYWORD: dict[str, Json] = {"type": "keyword", "ignore_above": 8191}
_DATE: dict[str, Json] = {"type": "date", "format": "strict_date_optional_time"}
_TYPES: dict[ColumnType, dict[str, Json]] = {
    "string": _KEYWORD,
    "uuid": _KEYWORD,
    "timestamp": _DATE,
    "integer": {"type": "long"},
    "decimal": {"type": "double"},
    "float": {"type": "double"},
    "boolean": {"type": "boolean"},
}
_TIMES = tuple(column.name for column in COLUMNS if column.type == "timestamp")
_KEPT: dict[str, Json] = {"type": "object", "enabled": False}
_FAILED_TYPES: dict[str, dict[str, Json]] = {
    "event_index": {"type": "integer"},
    "collector_tstamp": _DATE,
    "failed_tstamp": _DATE,
    "replayed_tstamp": _DATE,
    "reasons": _KEPT,
    "parameters": _KEPT,
    "event": _KEPT,
}


def template_of(name: str, flat: str, settings: Mapping[str, Json]) -> dict[str, Any]:
    """The index template of the data stream: a field per column, and one of type `flat` per self-describing schema.

    A flat field takes any JSON object and is one field of the mapping, however many names are in it.
    """
    properties = {column.name: _TYPES[column.type] for column in COLUMNS if column.type != "json"}
    own = {"@timestamp": _DATE, "schemas": _KEYWORD, COMMIT: {"type": "long"}}
    dynamic = [
        {f"{kind}_by_schema": {"match": f"{kind}_*", "mapping": {"type": flat}}} for kind in ("contexts", "unstruct_event")
    ]
    mappings = {"dynamic": True, "dynamic_templates": dynamic, "properties": {**own, **properties}}
    limit = {"index.mapping.total_fields.limit": 5_000}
    template = {"settings": {**settings, **limit}, "mappings": mappings}
    return {"index_patterns": [name], "priority": 500, "data_stream": {}, "template": template}


def failed_mappings() -> dict[str, Any]:
    """Of the index of failed events: the columns of `failed_events`, and the payload, which is kept and not searched."""
    names = {name: _FAILED_TYPES.get(name, _KEYWORD) for name in failures.FailedRow._fields}
    return {"dynamic": False, "properties": {**names, "payload": _KEPT, COMMIT: {"type": "long"}}}


def gone_mappings() -> dict[str, Any]:
    """Of the index of what is there no more, but is known when it comes again."""
    names: dict[str, Json] = dict.fromkeys(("gone_tstamp", "dropped_tstamp", "collector_tstamp"), _DATE)
    return {"dynamic": False, "properties": {**names, "kind": _KEYWORD, "event_fingerprint": _KEYWORD}}


def event_key(event_id: str) -> str:
    """Of an event that is there no more."""
    return f"event:{event_id}"


def failed_key(failed_id: str) -> str:
    """Of a failed event that was dropped."""
    return f"failed:{failed_id}"


def document(event: Event) -> dict[str, Any]:
    """Columns under their names, times as ISO 8601; `unstruct_event_VENDOR_NAME_MODEL`, `contexts_…` (a list); `schemas`."""
    described = {name: event.get(name) for name in ("unstruct_event", "contexts", "derived_contexts")}
    plain = {name: value for name, value in event.items() if name not in described}
    made: dict[str, Any] = dict(rows.to_json(cast(Event, plain)))
    for name in _TIMES:
        if made.get(name):
            made[name] = _with_zone(made[name])
    made["@timestamp"] = made.get("derived_tstamp") or made.get("collector_tstamp") or "1970-01-01T00:00:00Z"
    uris: set[str] = set()
    if (unstruct := event.get("unstruct_event")) is not None:
        made[_field("unstruct_event", unstruct)] = _object(unstruct)
        uris.add(unstruct["schema"])
    for entity in (*event.get("contexts", ()), *event.get("derived_contexts", ())):
        made.setdefault(_field("contexts", entity), []).append(_object(entity))
        uris.add(entity["schema"])
    return made | ({"schemas": sorted(uris)} if uris else {})


def _field(kind: str, part: SelfDescribing) -> str:
    try:
        return f"{kind}_{view_name(parse(part['schema']))}"
    except InvalidUri:
        return f"{kind}_unknown"


def _object(part: SelfDescribing) -> dict[str, Json]:
    return part["data"] if isinstance(part["data"], dict) else {"value": part["data"]}


def failed_document(one: FailedEvent) -> dict[str, Any]:
    """The columns of `failed_events`, times as ISO 8601, and the payload as the journal writes it."""
    document: dict[str, Any] = failures.to_json(failures.to_row(one))
    for name in ("collector_tstamp", "failed_tstamp"):
        document[name] = _with_zone(document[name]) if document[name] else None
    return document | {"payload": orjson.loads(failures.payload_text(one.payload))}


def failed_row(document: Mapping[str, Any]) -> dict[str, Json]:
    """A document of a failed event as the SQL stores tell it: storage.failed.to_json."""
    row = {name: document.get(name) for name in failures.FailedRow._fields}
    for name in ("collector_tstamp", "failed_tstamp", "replayed_tstamp"):
        if (text := row[name]) is not None:
            row[name] = text.replace("T", " ").removesuffix("Z")
    return row


def iso(ms: int) -> str | None:
    """As documents tell a moment; None outside the years 0 to 9999."""
    text = rows.timestamp(ms)
    return _with_zone(text) if text else None


def _with_zone(text: str) -> str:
    return text.replace(" ", "T") + "Z"


def unfit(event: Event, reason: Reason) -> FailedEvent:
    """An event that the store refuses. Its payload is not at hand any more: the event itself is kept, as a line of TSV."""
    received = event.get("collector_tstamp", 0)
    payload_id = payloads.derived_id("opensearch", *identity(event)).replace("-", "")
    payload = RawPayload(payload_id, received, "opensearch", "/opensearch/event", body=rows.to_tsv(event).encode())
    failed_id = payloads.derived_id(payload_id, "payload", "failed")
    return FailedEvent(failed_id, "schema_violations", (reason,), payload, event.get("etl_tstamp", received), event=event)
