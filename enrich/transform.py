"""Turns parameter sets into columns, driven by protocol.tables.

Pure. A value that will not convert becomes a Reason; the others of the event are converted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


class Transform:
    """Built once per configuration, called once per event."""

    def __init__(self, lenient: frozenset[str]) -> None:
        self._writers = {
            name: writer for name, parameter in PARAMETERS.items() if (writer := _writer(parameter, lenient)) is not None
        }
        self._yields = {name: p.yields_to for name, p in PARAMETERS.items() if p.yields_to is not None}

    def __call__(self, parameters: Mapping[str, str], event: Event) -> list[Reason]:
        """Writes columns into `event`; returns a reason for each parameter that did not convert. Unknown keys are skipped."""
        columns: dict[str, Any] = event  # type: ignore[assignment]  # columns by name, from the table
        reasons: list[Reason] = []
        writers, yields = self._writers, self._yields
        for name, value in parameters.items():
            write = writers.get(name)
            if write is None or (name in yields and yields[name] in parameters):
                continue
            try:
                write(value, columns)
            except Unconvertible as error:
                reasons.append(reason("atomic", name, str(error), value, "atomic_field_parse_error", ATOMIC_SCHEMA))
        return reasons
