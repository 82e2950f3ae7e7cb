"""FailedEvent -> what a table of failed events holds.

Pure. The payload is stored beside it once, however many of its events failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import NamedTuple

from protocol import payloads
from protocol.seams import FailedEvent, Json, RawPayload
from storage import rows
from storage.rows import clean, json_text, timestamp

# Keyword of a reason -> what in it names the thing that nobody knew: a schema's URI, a template's key.
_WAITS_FOR = {"ResolutionError": "schema", "UnknownTemplate": "value"}


class FailedRow(NamedTuple):
    """The columns of `failed_events`, in order; replayed_tstamp is null until the failure was solved."""

    failed_id: str
    payload_id: str
    event_index: int | None
    kind: str
    reasons: str
    first_reason: str
    app_id: str | None
    event_name: str | None
    v_tracker: str | None
    collector_tstamp: str | None
    failed_tstamp: str | None
    parameters: str
    event: str
    replayed_tstamp: str | None = None


def to_row(failed: FailedEvent) -> FailedRow:
    def known(column: str, parameter: str) -> str | None:
        value = failed.event.get(column) or failed.parameters.get(parameter)
        return None if value is None else clean(str(value))

    reasons: list[Json] = [
        {
            name: value
            for name, value in asdict(reason).items()
            if value is not None and (value or name not in ("keyword", "schema"))
        }
        for reason in failed.reasons
    ]
    first = failed.reasons[0] if failed.reasons else None
    return FailedRow(
        clean(failed.id),
        clean(failed.payload.id),
        failed.index,
        failed.kind,
        json_text(reasons),
        clean(f"{first.field}: {first.message}" if first.field else first.message) if first else "",
        known("app_id", "aid"),
        known("event_name", "e"),
        known("v_tracker", "tv"),
        timestamp(failed.payload.received_ms),
        timestamp(failed.failed_ms),
        json_text(dict(failed.parameters)),
        json_text(rows.to_json(failed.event)),
    )


def waits_for(reasons: str) -> frozenset[str]:
    """What nobody knew, of the `reasons` of a row: URIs of schemas, keys of templates. Empty when it failed for other reasons."""
    if not any(f'"{keyword}"' in reasons for keyword in _WAITS_FOR):  # nearly always; quicker than taking it apart
        return frozenset()
    named = [reason.get(_WAITS_FOR.get(reason.get("keyword", ""), "")) for reason in json.loads(reasons)]
    return frozenset(name for name in named if name)


def to_json(row: FailedRow) -> dict[str, Json]:
    """For people and for JSON: the columns by name, the JSON ones taken apart."""
    out: dict[str, Json] = dict(row._asdict())
    for name in ("reasons", "parameters", "event"):
        out[name] = json.loads(str(out[name]))
    return out


def payload_text(payload: RawPayload) -> str:
    """The payload byte for byte, as protocol.payloads writes it; only a lone surrogate, which no journal holds, is cleaned."""
    try:
        return payloads.to_json(payload).decode()
    except TypeError:
        texts = {f.name: clean(v) for f in fields(payload) if isinstance(v := getattr(payload, f.name), str)}
        headers = tuple([(clean(name), clean(value)) for name, value in payload.headers])
        return payloads.to_json(replace(payload, headers=headers, **texts)).decode()  # type: ignore[arg-type]
