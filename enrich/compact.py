"""Compact frames -> raw events: what a sensor left away because the gateway can know it is put back here.

Pure: templates are handed in as schemas are. Who may speak for a device was settled before: `payload.device` has proved its
name, and a sealed frame is believed only there, for the key is not here. Source: protocol/compact.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from enrich.reasons import reason
from protocol.compact import Reading, TemplateLookup, decode
from protocol.devices import DEVICE_CLOCK, DEVICE_HEADER
from protocol.seams import Json, RawPayload, Reason

_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
VERSION = "compact-1"
# What the query string may add to every reading of a payload.
_COPIED = ("aid", "tna", "uid")


def readings(payload: RawPayload, query: Mapping[str, str], templates: TemplateLookup) -> Iterator[dict[str, str] | Reason]:
    """Of each reading, in order: its parameters, or why there is none."""
    shared = {name: query[name] for name in _COPIED if name in query}
    header = next((value for name, value in payload.headers if name.lower() == DEVICE_HEADER.lower()), "")
    for found in decode(payload.body or b"", templates):
        if not isinstance(found, Reading):
            place = f"frame at byte {found.at}"
            yield reason("adapter", place, found.message, found.template or None, found.keyword)
        elif found.sealed and payload.device is None:
            yield reason("adapter", "seal", "the frame is sealed, and the gateway has not confirmed its seal", None, "Unproved")
        elif payload.device is not None and found.device not in ("", payload.device):
            message = f"{payload.device} has proved its name and does not speak for others"
            yield reason("adapter", "device", message, found.device, "OtherDevice")
        else:
            yield _parameters(found, payload.device or found.device or header, shared)


def _parameters(found: Reading, device: str, shared: Mapping[str, str]) -> dict[str, str]:
    clock: dict[str, Json] = {"boot_id": found.boot, "sequence": found.sequence, "uptime_ms": found.uptime_ms, "clock": "none"}
    if device:
        clock["device_id"] = device
    event = {"schema": _UNSTRUCT, "data": {"schema": found.template.schema, "data": found.data}}
    entities = {"schema": _CONTEXTS, "data": [{"schema": DEVICE_CLOCK, "data": clock}]}
    parameters = {
        "e": "ue",
        "p": "iot",
        "tv": VERSION,
        "dtm": str(found.uptime_ms),
        "ue_pr": orjson.dumps(event).decode(),
        "co": orjson.dumps(entities).decode(),
    }
    if found.sent_ms is not None:
        parameters["stm"] = str(found.sent_ms)
    if found.template.app_id:
        parameters["aid"] = found.template.app_id
    return {**parameters, **shared}
