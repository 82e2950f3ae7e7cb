"""Which text columns are longer than the canonical event allows.

Pure. Nothing is ever cut: a column that is too long makes its event fail. Lengths count UTF-16 code units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from enrich.reasons import ATOMIC_SCHEMA, reason
from protocol.seams import Event, Reason
from protocol.tables import COLUMNS

LIMITS: dict[str, int] = {c.name: c.max_length for c in COLUMNS if c.max_length is not None}

# Most texts are shorter than this, most limits are wider: what is checked one by one is the rest.
_SHORT = 62


class Lengths:
    """Built once with the limits, column -> UTF-16 code units; called for each event."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = limits
        # A text of n characters has at most 2n code units.
        self._narrow = frozenset(name for name, limit in limits.items() if limit < 2 * _SHORT)

    def __call__(self, event: Event) -> list[Reason]:
        """A reason for each column that is too long."""
        columns = cast(Mapping[str, Any], event)
        suspects = [name for name, value in columns.items() if type(value) is str and len(value) > _SHORT]
        suspects += [name for name in columns.keys() & self._narrow if len(columns[name]) <= _SHORT]
        reasons: list[Reason] = []
        for name in suspects:
            value, limit = columns[name], self._limits.get(name)
            if limit is not None and 2 * len(value) > limit and (units := _units(value)) > limit:
                message = f"longer than {limit} UTF-16 code units: {units}"
                reasons.append(reason("atomic", name, message, value, "atomic_field_length_exceeded", ATOMIC_SCHEMA))
        return reasons


def fitting(columns: Event) -> Event:
    """The columns without those that are too long: for what an enrichment looked up, which is no reason to fail an event."""
    found = cast(Mapping[str, Any], columns)
    return cast(Event, {n: v for n, v in found.items() if n not in LIMITS or type(v) is not str or _units(v) <= LIMITS[n]})


def _units(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode("utf-16-le", "surrogatepass")) // 2
