"""Which text columns are longer than the canonical event allows.

Pure. Nothing is ever cut: a column that is too long makes its event fail. Lengths count UTF-16 code units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, cast

from enrich.reasons import ATOMIC_SCHEMA, reason
from protocol.seams import Event, Reason
from protocol.tables import COLUMNS

LIMITS: dict[str, int] = {c.name: c.max_length for c in COLUMNS if c.max_length is not None}

_MOST_PLANS = 2_000
_LONGEST_CUT = 1 << 30  # what a template can say; no text is as long


class _Plan(NamedTuple):
    """Of one set of columns: its texts and their limits. cut: a template that puts them together, each cut at its limit."""

    names: tuple[str, ...]
    texts: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    limits: tuple[int, ...]
    cut: str


class Lengths:
    """Built once with the limits, column -> UTF-16 code units; called for each event."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = limits
        # Events have the same sets of columns again and again.
        self._plan = lru_cache(_MOST_PLANS)(self._planned)

    def __call__(self, event: Event) -> list[Reason]:
        """A reason for each column that is too long."""
        columns = cast(Mapping[str, Any], event)
        plan = self._plan(tuple(columns))
        try:
            texts = plan.texts(columns)
            joined = "".join(texts)
            if joined.isascii() and plan.cut % texts == joined:  # one look at all of them: nearly always enough
                return []
        except TypeError:  # an enrichment wrote something that is no text
            pass
        reasons: list[Reason] = []
        for name, limit in zip(plan.names, plan.limits, strict=True):
            value = columns[name]
            # A text of n characters has at most 2n code units.
            if type(value) is str and 2 * len(value) > limit and (units := _units(value)) > limit:
                message = f"longer than {limit} UTF-16 code units: {units}"
                reasons.append(reason("atomic", name, message, value, "atomic_field_length_exceeded", ATOMIC_SCHEMA))
        return reasons

    def _planned(self, columns: tuple[str, ...]) -> _Plan:
        names = tuple(name for name in columns if name in self._limits)
        limits = tuple(self._limits[name] for name in names)
        return _Plan(names, values_of(names), limits, "".join(f"%.{min(max(limit, 0), _LONGEST_CUT)}s" for limit in limits))


def values_of(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """A function from a mapping to its values under these names, as fast as there is one."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda mapping: tuple([mapping[name] for name in names])  # of one name itemgetter makes no tuple


def fitting(columns: Event) -> Event:
    """The columns without those that are too long: for what an enrichment looked up, which is no reason to fail an event."""
    found = cast(Mapping[str, Any], columns)
    return cast(Event, {n: v for n, v in found.items() if n not in LIMITS or type(v) is not str or _units(v) <= LIMITS[n]})


def _units(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode("utf-16-le", "surrogatepass")) // 2
