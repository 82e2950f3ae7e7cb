"""Event and FailedEvent -> key and value of a record. Pure.

The key keeps what belongs together in order, and its copies in one partition: the device that proved its name, else the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import orjson

from protocol import payloads
from protocol.devices import DEVICE_TIME
from protocol.seams import Event, FailedEvent, Json, RawPayload, Reason
from storage import failed as failures
from storage import rows
from storage.duplicates import identity

_USERS = ("network_userid", "domain_userid", "user_id", "event_id")


def key_of(event: Event) -> bytes:
    """device of device_time, else network_userid, domain_userid, user_id, or the event's own id."""
    for entity in event.get("derived_contexts", ()):
        if entity["schema"] == DEVICE_TIME:
            device = cast(Mapping[str, Json], entity["data"]).get("device")
            if isinstance(device, str):
                return rows.clean(device).encode()
    columns = cast(Mapping[str, str], event)
    return rows.clean(next((columns[name] for name in _USERS if columns.get(name)), "")).encode()


def value_of(event: Event, form: Literal["json", "tsv"]) -> bytes:
    """One JSON object of the columns that have a value, or the line of canonical TSV, without a line feed."""
    return (rows.to_tsv(event) if form == "tsv" else rows.json_text(rows.to_json(event))).encode()


def failed_value(one: FailedEvent, most: int) -> bytes:
    """The columns of `failed_events` and the payload, as JSON. Where that is more than so many bytes, `shortened` is true, and
    payload, parameters and event are missing: the journal has them."""
    found: dict[str, Any] = failures.to_json(failures.to_row(one))
    del found["replayed_tstamp"]  # a stream never learns of it
    value = _dumps({**found, "payload": orjson.loads(failures.payload_text(one.payload))})
    if len(value) > most:
        for name in ("parameters", "event"):
            del found[name]
        found["reasons"] = found["reasons"][:10]  # of 1,000 characters each at most
        value = _dumps({**found, "shortened": True})
    return value


def too_large(event: Event, size: int, most: int) -> FailedEvent:
    """An event that no record holds. Its payload is not at hand any more: the event itself is kept, as a line of TSV."""
    received = event.get("collector_tstamp", 0)
    payload_id = payloads.derived_id("kafka", *identity(event)).replace("-", "")
    payload = RawPayload(payload_id, received, "kafka", "/kafka/event", body=rows.to_tsv(event).encode())
    reason = Reason("kafka", "", f"{size} bytes; a record holds {most}", keyword="max_record_bytes")
    failed_id = payloads.derived_id(payload_id, "payload", "failed")
    return FailedEvent(failed_id, "size_violation", (reason,), payload, event.get("etl_tstamp", received), event=event)


def _dumps(value: Mapping[str, Any]) -> bytes:
    return rows.json_text(value).encode()
