"""Turns parameter sets into columns, driven by protocol.tables.

Pure. A value that will not convert becomes a Reason; the others of the event are converted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from enrich import conversions
from enrich.conversions import Unconvertible
from enrich.reasons import ATOMIC_SCHEMA, reason
from protocol.seams import Event, Reason
from protocol.tables import PARAMETERS, Parameter

Convert = Callable[[str], Any]
Write = Callable[[str, dict[str, Any]], None]

_CONVERSIONS: dict[str, Convert] = {
    "text": conversions.text,
    "ip_first": conversions.ip_first,
    "int32": conversions.int32,
    "decimal": conversions.decimal,
    "bool01": conversions.bool01,
    "uuid": conversions.uuid,
    "epoch_ms": conversions.epoch_ms,
    "event_code": conversions.event_code,
    "platform_code": conversions.platform_code,
}


def _one(column: str, convert: Convert) -> Write:
    def write(value: str, event: dict[str, Any]) -> None:
        converted = convert(value)
        if converted is None:
            event.pop(column, None)
        else:
            event[column] = converted

    return write


def _two(width: str, height: str) -> Write:
    def write(value: str, event: dict[str, Any]) -> None:
        event[width], event[height] = conversions.dimensions(value)

    return write


def _writer(parameter: Parameter, lenient: frozenset[str]) -> Write | None:
    if parameter.conversion == "dimensions":
        width, height = parameter.columns
        return _two(width, height)
    convert = _CONVERSIONS.get(parameter.conversion)
    if convert is None:  # self-describing JSON has a step of its own; the rest has no column
        return None
    if parameter.conversion == "int32" and "integral_number" in lenient:
        convert = conversions.int32_or_integral
    return _one(parameter.columns[0], convert)


class _Plan:
    """What to do with one set of parameter names: trackers send the same sets again and again.

    texts: (parameter, column) of the plain texts, most of an event; others: (parameter, writer).
    """

    __slots__ = ("others", "texts")

    def __init__(self, names: Iterable[str], writers: Mapping[str, Write], yields: Mapping[str, str]) -> None:
        known = set(names)
        used = [n for n in names if n in writers and yields.get(n) not in known]
        self.texts = [(n, PARAMETERS[n].columns[0]) for n in used if PARAMETERS[n].conversion == "text"]
        self.others = [(n, writers[n]) for n in used if PARAMETERS[n].conversion != "text"]


_MOST_PLANS = 2_000


class Transform:
    """Built once per configuration, called once per event."""

    def __init__(self, lenient: frozenset[str]) -> None:
        self._writers = {
            name: writer for name, parameter in PARAMETERS.items() if (writer := _writer(parameter, lenient)) is not None
        }
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._yields = {name: p.yields_to for name, p in PARAMETERS.items() if p.yields_to is not None}

    def __call__(self, parameters: Mapping[str, str], event: Event) -> list[Reason]:
        """Writes columns into `event`; returns a reason for each parameter that did not convert. Unknown keys are skipped."""
        columns: dict[str, Any] = event  # type: ignore[assignment]  # columns by name, from the table
        reasons: list[Reason] = []
        names = tuple(parameters)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._planned(names)
        for name, column in plan.texts:
            text = parameters[name]
            if text.isprintable() and text:
                columns[column] = text
            elif cleaned := conversions.text(text):
                columns[column] = cleaned
            else:
                columns.pop(column, None)
        for name, write in plan.others:
            value = parameters[name]
            try:
                write(value, columns)
            except Unconvertible as error:
                reasons.append(reason("atomic", name, str(error), value, "atomic_field_parse_error", ATOMIC_SCHEMA))
        return reasons

    def _planned(self, names: tuple[str, ...]) -> _Plan:
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        plan = self._plans[names] = _Plan(names, self._writers, self._yields)
        return plan
