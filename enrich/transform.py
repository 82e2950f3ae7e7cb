"""Turns parameter sets into columns, driven by protocol.tables.

Pure. A value that will not convert becomes a Reason; the others of the event are converted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from enrich import conversions
from enrich.conversions import Unconvertible
from enrich.lengths import values_of
from enrich.reasons import ATOMIC_SCHEMA, reason
from protocol.seams import Event, Reason
from protocol.tables import PARAMETERS, Parameter

Convert = Callable[[str], Any]

_CONVERSIONS: dict[str, Convert] = {
    "text": conversions.text,
    "ip_first": conversions.ip_first,
    "int32": conversions.int32,
    "decimal": conversions.decimal,
    "bool01": conversions.bool01,
    "uuid": conversions.uuid,
    "epoch_ms": conversions.epoch_ms,
    "dimensions": conversions.dimensions,
    "event_code": conversions.event_code,
    "platform_code": conversions.platform_code,
}


def _conversion(parameter: Parameter, lenient: frozenset[str]) -> Convert | None:
    """None: self-describing JSON has a step of its own; the rest has no column."""
    if parameter.conversion == "int32" and "integral_number" in lenient:
        return conversions.int32_or_integral
    return _CONVERSIONS.get(parameter.conversion)


class _Plan(NamedTuple):
    """What to do with one set of parameter names: trackers send the same sets again and again.

    texts, columns: of the plain texts, most of an event. others: parameter, its conversion, its column or two.
    """

    texts: Callable[[Mapping[str, str]], tuple[str, ...]]
    columns: tuple[str, ...]
    others: list[tuple[str, Convert, str, str | None]]


_MOST_PLANS = 2_000


class Transform:
    """Built once per configuration, called once per event."""

    def __init__(self, lenient: frozenset[str]) -> None:
        self._conversions = {
            name: convert for name, parameter in PARAMETERS.items() if (convert := _conversion(parameter, lenient)) is not None
        }
        self._plan = lru_cache(_MOST_PLANS)(self._planned)

    def __call__(self, parameters: Mapping[str, str], event: Event) -> list[Reason]:
        """Writes columns into `event`; returns a reason for each parameter that did not convert. Unknown keys are skipped."""
        columns: dict[str, Any] = event  # type: ignore[assignment]  # columns by name, from the table
        reasons: list[Reason] = []
        plan = self._plan(tuple(parameters))
        texts = plan.texts(parameters)
        if all(texts) and "".join(texts).isprintable():  # one look at all of them: nearly always enough
            columns.update(zip(plan.columns, texts, strict=True))
        else:
            for column, text in zip(plan.columns, texts, strict=True):
                if cleaned := conversions.text(text):
                    columns[column] = cleaned
                else:
                    columns.pop(column, None)
        for name, convert, column, second in plan.others:
            try:
                value = convert(parameters[name])
            except Unconvertible as error:
                reasons.append(reason("atomic", name, str(error), parameters[name], "atomic_field_parse_error", ATOMIC_SCHEMA))
                continue
            if second is not None:
                columns[column], columns[second] = value
            elif value is not None:
                columns[column] = value
            else:
                columns.pop(column, None)
        return reasons

    def _planned(self, sent: tuple[str, ...]) -> _Plan:
        used = [name for name in sent if name in self._conversions and PARAMETERS[name].yields_to not in sent]
        names = tuple(name for name in used if PARAMETERS[name].conversion == "text")
        columns = tuple(PARAMETERS[name].columns[0] for name in names)
        others = [(name, self._conversions[name], *_one_or_two(PARAMETERS[name])) for name in used if name not in names]
        return _Plan(values_of(names), columns, others)


def _one_or_two(parameter: Parameter) -> tuple[str, str | None]:
    first, *rest = parameter.columns
    return first, rest[0] if rest else None
