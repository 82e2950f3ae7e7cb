"""Small constructors of Reasons and ids that every step of this room shares. Pure."""

from __future__ import annotations

from protocol.payloads import derived_id as derived_id
from protocol.seams import Reason

_LONGEST_VALUE = 1_000

ATOMIC_SCHEMA = "iglu:com.snowplowanalytics.snowplow/atomic/jsonschema/1-0-0"


def shortened(value: str | None) -> str | None:
    if value is None or len(value) <= _LONGEST_VALUE:
        return value
    return value[: _LONGEST_VALUE - 1] + "…"


def reason(step: str, field: str, message: str, value: str | None = None, keyword: str = "", schema: str | None = None) -> Reason:
    return Reason(step, field, message, shortened(value), keyword, schema)
