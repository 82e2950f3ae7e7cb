"""Small constructors of Reasons and ids that every step of this room shares. Pure."""

from __future__ import annotations

import uuid

from protocol.seams import Reason

_LONGEST_VALUE = 1_000
# Namespace of ids that are derived rather than sent: the same payload always gives the same ids.
_NAMESPACE = uuid.UUID("3f9d0c86-5d0e-5a63-9f43-0f6d6a6b7c11")

ATOMIC_SCHEMA = "iglu:com.snowplowanalytics.snowplow/atomic/jsonschema/1-0-0"


def shortened(value: str | None) -> str | None:
    if value is None or len(value) <= _LONGEST_VALUE:
        return value
    return value[: _LONGEST_VALUE - 1] + "…"


def reason(step: str, field: str, message: str, value: str | None = None, keyword: str = "", schema: str | None = None) -> Reason:
    return Reason(step, field, message, shortened(value), keyword, schema)


def derived_id(*parts: object) -> str:
    """A UUID (version 5) that only the parts decide."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, parts))))
