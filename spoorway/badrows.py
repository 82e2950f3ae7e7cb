"""A stored failed event + its payload -> the reference's bad rows: self-describing JSON that tools for them read.

Pure. Every one is valid against its published schema (com.snowplowanalytics.snowplow.badrows): what that limits is cut, so
this is a copy for other tools, not the event itself. Source: tracker protocol, "Bad rows".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson

from protocol import payloads
from protocol.seams import Json, RawPayload
from protocol.tables import COLUMNS
from protocol.wire import parse_query
from spoorway import __version__
from storage.rows import timestamp

Object = dict[str, Any]
Row = Mapping[str, Any]  # of failed_events, JSON taken apart: FailedStore.list_failed

_VERSIONS = {
    "collector_payload_format_violation": "1-0-0",
    "adapter_failures": "1-0-0",
    "tracker_protocol_violations": "1-0-1",
    "schema_violations": "2-0-1",
    "enrichment_failures": "2-0-1",
}
_NOT_IGLU = frozenset({"INVALID_DATA_PAYLOAD", "INVALID_IGLUURI", "INVALID_SCHEMAVER"})
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PATH = re.compile(r"/?([^/]+)/([^/]+)/?")


def bad_rows(row: Row, payload: RawPayload) -> Iterator[Object]:
    """One; of a payload whose form was wrong in several ways one for each, as the reference writes them."""
    kind = str(row["kind"])
    reasons: list[Object] = row["reasons"]
    failed_at = _instant(row["failed_tstamp"])
    if kind == "collector_payload_format_violation":
        record = base64.b64encode(payloads.to_json(payload)).decode()
        for reason in reasons:
            field, value = reason.get("field") or reason["step"], reason.get("value")
            message = {"payloadField": field[:64], "value": value, "expectation": reason["message"][:256]}
            yield _bad_row(kind, {"timestamp": failed_at, "loader": "ndjson", "message": message}, record)
    elif kind in ("adapter_failures", "tracker_protocol_violations"):
        vendor, version = _api(payload)
        strict = kind == "adapter_failures"  # its schema knows plain fields and bad self-describing JSON only
        messages = [_message(reason, failed_at, plain=strict) for reason in reasons]
        failure = {"timestamp": failed_at, "vendor": vendor, "version": version, "messages": messages}
        yield _bad_row(kind, failure, _collector_payload(payload))
    elif kind == "schema_violations":
        messages = [_message(reason, failed_at) for reason in reasons]
        yield _bad_row(kind, {"timestamp": failed_at, "messages": messages}, _event_payload(row, payload))
    elif kind == "enrichment_failures":
        messages = [{"enrichment": _enrichment(reason), "message": _enrichment_message(reason, failed_at)} for reason in reasons]
        yield _bad_row(kind, {"timestamp": failed_at, "messages": messages}, _event_payload(row, payload))
    else:
        errors = [f"{reason['step']} {reason.get('field', '')}: {reason['message']}" for reason in reasons] or [kind]
        record = base64.b64encode(payloads.to_json(payload)).decode()
        yield _bad_row("generic_error", {"timestamp": failed_at, "errors": errors}, record)


def _bad_row(kind: str, failure: Object, payload: Object | str) -> Object:
    uri = f"iglu:com.snowplowanalytics.snowplow.badrows/{kind}/jsonschema/{_VERSIONS.get(kind, '1-0-0')}"
    processor = {"artifact": "spoorway", "version": __version__}
    return {"schema": uri, "data": {"processor": processor, "failure": failure, "payload": payload}}


# Reasons ---------------------------------------------------------------------------------------------------------------


def _message(reason: Object, failed_at: str | None, *, plain: bool = False) -> Object:
    keyword, schema, value = reason.get("keyword"), reason.get("schema"), reason.get("value")
    if keyword in _NOT_IGLU:
        return {"json": _json(value), "error": keyword}
    if not plain and schema is not None:
        if keyword == "CriterionMismatch":
            return {"schemaKey": schema, "schemaCriterion": reason["message"].rpartition(" ")[2]}
        if keyword in ("ResolutionError", "ValidationError"):
            return {"schemaKey": schema, "error": _iglu_error(reason, failed_at)}
    return {"field": (reason.get("field") or reason["step"])[:64], "value": value, "error": reason["message"]}


def _iglu_error(reason: Object, failed_at: str | None) -> Object:
    if reason["keyword"] == "ResolutionError":
        looked = {"repository": "Spoorway", "errors": [{"error": "NotFound"}], "attempts": 1, "lastAttempt": failed_at}
        return {"error": "ResolutionError", "lookupHistory": [looked]}
    report = {"message": reason["message"], "path": reason.get("field") or "$", "keyword": None, "targets": None}
    return {"error": "ValidationError", "dataReports": [report]}


def _enrichment(reason: Object) -> Object | None:
    """Which enrichment it was; the steps that every event goes through have no configuration of their own."""
    name = reason["step"]
    if name in ("atomic", "derived_contexts", "unstruct_event", "contexts", "event", "pipeline"):
        return None
    return {"schemaKey": f"iglu:io.spoorway/{name}/jsonschema/1-0-0", "identifier": name[:256]}


def _enrichment_message(reason: Object, failed_at: str | None) -> Object:
    if reason.get("schema") is not None and reason.get("keyword") in ("ResolutionError", "ValidationError"):
        return {"schemaKey": reason["schema"], "error": _iglu_error(reason, failed_at)}
    if reason.get("field"):
        return {"field": reason["field"][:64], "value": reason.get("value"), "expectation": reason["message"][:256]}
    return {"error": reason["message"][:512]}


def _json(text: str | None) -> Json:
    """What a reason shows of a JSON; shortened, it is text."""
    try:
        return cast(Json, orjson.loads(text)) if text is not None else None
    except orjson.JSONDecodeError:
        return text


# Payloads --------------------------------------------------------------------------------------------------------------


def _request(payload: RawPayload) -> Object:
    """What the collector payload and the raw event have in common."""
    vendor, version = _api(payload)
    headers = {name.lower(): value for name, value in payload.headers}
    return {
        "vendor": vendor,
        "version": version,
        "contentType": _cut(payload.content_type, 256),
        "encoding": "UTF-8",
        "hostname": _cut(payload.host, 8192),
        "timestamp": _ms_instant(payload.received_ms),
        "ipAddress": _cut(payload.ip, 128),
        "useragent": _cut(headers.get("user-agent"), 4096),
        "refererUri": _cut(headers.get("referer"), 8192),
        "headers": [f"{name}: {value}"[:8192] for name, value in payload.headers],
    }


def _collector_payload(payload: RawPayload) -> Object:
    return {
        **_request(payload),
        "querystring": _pairs(parse_query(payload.query)) if payload.query else [],
        "body": None if payload.body is None else payload.body.decode("utf-8", "replace"),
        "collector": f"spoorway-{__version__}-{payload.transport}"[:32],
        "networkUserId": _uuid(payload.network_userid),
    }


def _event_payload(row: Row, payload: RawPayload) -> Object:
    known = cast(Object, row["event"])
    raw = {
        **_request(payload),
        "parameters": _pairs(row["parameters"]),
        "loaderName": "ndjson",
        "userId": _uuid(payload.network_userid),
    }
    return {"enriched": {column.name: _column(column.name, known.get(column.name)) for column in COLUMNS}, "raw": raw}


def _column(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dict):  # a self-describing column
        return orjson.dumps(value).decode()
    return str(value) if name == "txn_id" and value is not None else value


def _pairs(parameters: Mapping[str, str | None]) -> list[Object]:
    return [{"name": name[:512], "value": _cut(value, 512)} for name, value in parameters.items()]


def _api(payload: RawPayload) -> tuple[str, str]:
    match = _PATH.fullmatch(payload.path)
    vendor, version = match.groups() if match else ("com.snowplowanalytics.snowplow", "tp1")
    return vendor[:64], version[:16]


def _uuid(text: str | None) -> str | None:
    return text if text and _UUID.fullmatch(text) else None


def _cut(text: str | None, longest: int) -> str | None:
    return None if text is None else text[:longest]


def _instant(text: str | None) -> str | None:
    return None if text is None else text.replace(" ", "T") + "Z"


def _ms_instant(ms: int) -> str | None:
    return _instant(timestamp(ms))
