"""Which text columns are longer than the canonical event allows.

Pure. Nothing is ever cut: a column that is too long makes its event fail. Lengths count UTF-16 code units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enrich.reasons import ATOMIC_SCHEMA, reason
from protocol.seams import Event, Reason
from protocol.tables import COLUMNS

LIMITS: dict[str, int] = {c.name: c.max_length for c in COLUMNS if c.max_length is not None}


def too_long(event: Event, limits: Mapping[str, int]) -> list[Reason]:
    """limits: column -> code units."""
    columns: Mapping[str, Any] = event
    reasons: list[Reason] = []
    for name, value in columns.items():
        if type(value) is str and (limit := limits.get(name)) is not None and 2 * len(value) > limit:
            units = len(value) if value.isascii() else len(value.encode("utf-16-le", "surrogatepass")) // 2
            if units > limit:
                message = f"longer than {limit} UTF-16 code units: {units}"
                reasons.append(reason("atomic", name, message, value, "atomic_field_length_exceeded", ATOMIC_SCHEMA))
    return reasons
