"""FailedEvent -> the self-describing JSON of the reference's failed events ("bad rows").

Pure. What it writes fits the published schemas (com.snowplowanalytics.snowplow.badrows); lengths they limit are cut.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from protocol import payloads
from protocol.seams import FailedEvent, RawPayload, Reason
from protocol.tables import COLUMN_NAMES
from protocol.wire import parse_query
from spoorway import __version__
from spoorway.micro.shapes import COLLECTOR, ENCODING, Object, api, body_text, header, header_lines, instant
from storage import rows

_VENDOR = "com.snowplowanalytics.snowplow.badrows"
_CODES = ("INVALID_SCHEMAVER", "INVALID_IGLUURI", "INVALID_DATA_PAYLOAD")


def bad_row(failed: FailedEvent) -> Object:
    """The document for one failure."""
    write = _KINDS.get(failed.kind, _generic)
    version, failure, payload = write(failed)
    return {
        "schema": f"iglu:{_VENDOR}/{version}",
        "data": {
            "processor": {"artifact": "spoorway", "version": __version__},
            "failure": {"timestamp": instant(failed.failed_ms), **failure},
            "payload": payload,
        },
    }


_Parts = tuple[str, Object, Any]


def _format_violation(failed: FailedEvent) -> _Parts:
    first = failed.reasons[0]
    message = {"payloadField": first.field[:64], "value": first.value, "expectation": first.message[:256]}
    record = base64.b64encode(payloads.to_json(failed.payload)).decode()
    return "collector_payload_format_violation/jsonschema/1-0-0", {"loader": "ndjson", "message": message}, record


def _adapter_failure(failed: FailedEvent) -> _Parts:
    messages = [{"field": _field(r), "value": r.value, "error": r.message} for r in failed.reasons]
    return "adapter_failures/jsonschema/1-0-0", {**_short_api(failed.payload), "messages": messages}, _payload(failed.payload)


def _protocol_violation(failed: FailedEvent) -> _Parts:
    failure = {**_short_api(failed.payload), "messages": _messages(failed)}
    payload = _payload(failed.payload)
    if (
        failed.index is not None
    ):  # one object of a batch: were the whole body here, a batch of bad objects would grow by its square
        payload["body"] = orjson.dumps(dict(failed.parameters)).decode()
    return "tracker_protocol_violations/jsonschema/1-0-1", failure, payload


def _schema_violation(failed: FailedEvent) -> _Parts:
    return "schema_violations/jsonschema/2-0-1", {"messages": _messages(failed)}, _event(failed)


def _enrichment_failure(failed: FailedEvent) -> _Parts:
    messages: list[Object] = []
    for r in failed.reasons:
        if r.field:
            message = {"field": _field(r), "value": r.value, "expectation": r.message[:256]}
        else:
            message = {"error": f"{r.step}: {r.message}"[:512]}
        messages.append({"enrichment": None, "message": message})
    return "enrichment_failures/jsonschema/2-0-1", {"messages": messages}, _event(failed)


def _generic(failed: FailedEvent) -> _Parts:
    errors = [f"{r.step}: {r.message}" for r in failed.reasons]
    return "generic_error/jsonschema/1-0-0", {"errors": errors}, payloads.to_json(failed.payload).decode()


_KINDS: dict[str, Callable[[FailedEvent], _Parts]] = {
    "collector_payload_format_violation": _format_violation,
    "adapter_failures": _adapter_failure,
    "tracker_protocol_violations": _protocol_violation,
    "schema_violations": _schema_violation,
    "enrichment_failures": _enrichment_failure,
}


def _messages(failed: FailedEvent) -> list[Object]:
    """One per reason; what one schema has against one thing is reported together."""
    messages: list[Object] = []
    before: Reason | None = None
    for reason in failed.reasons:
        if reason.keyword == "ValidationError" and reason.schema is not None:
            if before is not None and (before.step, before.schema, before.keyword) == (
                reason.step,
                reason.schema,
                reason.keyword,
            ):
                messages[-1]["error"]["dataReports"].append(_report(reason))
            else:
                error = {"error": "ValidationError", "dataReports": [_report(reason)]}
                messages.append({"schemaKey": reason.schema, "error": error})
        else:
            messages.append(_message(reason, failed))
        before = reason
    return messages


def _message(reason: Reason, failed: FailedEvent) -> Object:
    if reason.keyword in _CODES:
        return {"json": _as_json(reason.value), "error": reason.keyword}
    if reason.keyword == "CriterionMismatch" and reason.schema is not None:
        return {"schemaKey": reason.schema, "schemaCriterion": reason.message.rpartition(" ")[2]}
    if reason.keyword == "ResolutionError" and reason.schema is not None:
        error = {"error": "NotFound", "message": reason.message[:256]}
        return {"schemaKey": reason.schema, "error": resolution_error(failed.failed_ms, error)}
    return {"field": _field(reason), "value": reason.value, "error": reason.message}


def resolution_error(looked_ms: int, error: Object) -> Object:
    looked = {"repository": "spoorway", "errors": [error], "attempts": 1, "lastAttempt": instant(looked_ms)}
    return {"error": "ResolutionError", "lookupHistory": [looked]}


def _report(reason: Reason) -> Object:
    keyword, colon, message = reason.message.partition(": ")
    if not (colon and keyword.isalpha()):
        keyword, message = "", reason.message
    return {"message": message, "path": reason.field or "$", "keyword": keyword or None, "targets": None}


def _field(reason: Reason) -> str:
    return (reason.field or reason.step)[:64]


def _as_json(text: str | None) -> Any:
    """A shortened value is no JSON any more: then it is text."""
    try:
        return orjson.loads(text) if text is not None else None
    except orjson.JSONDecodeError:
        return text


def _short_api(payload: RawPayload) -> Object:
    found = api(payload.path)
    return {"vendor": found["vendor"][:64], "version": found["version"][:16]}


def _common(payload: RawPayload) -> Object:
    return {
        **_short_api(payload),
        "contentType": _cut(payload.content_type, 256),
        "encoding": ENCODING,
        "hostname": _cut(payload.host, 8192),
        "timestamp": instant(payload.received_ms),
        "ipAddress": payload.ip or "unknown",
        "useragent": _cut(header(payload, "user-agent"), 4096),
        "refererUri": _cut(header(payload, "referer"), 8192),
        "headers": [line[:8192] for line in header_lines(payload)],
    }


def _payload(payload: RawPayload) -> Object:
    pairs = parse_query(payload.query).items() if payload.query else ()
    return _common(payload) | {
        "querystring": [{"name": name[:512], "value": _cut(value, 512)} for name, value in pairs],
        "body": body_text(payload),
        "collector": COLLECTOR[:32],
        "networkUserId": payload.network_userid,
    }


def _event(failed: FailedEvent) -> Object:
    (values,) = rows.to_rows((failed.event,))
    enriched: Object = dict(zip(COLUMN_NAMES, values, strict=True))
    if enriched["txn_id"] is not None:
        enriched["txn_id"] = str(enriched["txn_id"])
    parameters: Sequence[Object] = [{"name": name, "value": value} for name, value in failed.parameters.items()]
    raw = _common(failed.payload) | {"parameters": parameters, "loaderName": COLLECTOR, "userId": failed.payload.network_userid}
    return {"enriched": enriched, "raw": raw}


def _cut(text: str | None, longest: int) -> str | None:
    return None if text is None else text[:longest]
