"""What a database, a service or a script answered -> columns and entities, or why it cannot be taken.

Pure. What comes from outside is never trusted to have the type, the size or the depth that an event needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from enrich import conversions
from enrich.conversions import Unconvertible
from protocol.seams import Event, Json, SelfDescribing
from protocol.tables import COLUMNS

_TYPES = {column.name: column.type for column in COLUMNS}
# What the event is known by, and what the tracker sent: no answer may change it.
_KEPT = frozenset({"event_id", "collector_tstamp", "etl_tstamp", "contexts", "unstruct_event"})
WRITABLE = frozenset(_TYPES) - _KEPT
_DEEPEST = 40
_MOST_VALUES = 10_000
_INTEGERS = range(-(2**63), 2**64)
_BOOLEANS: dict[object, bool] = {True: True, False: False, "true": True, "false": False}


class Unusable(ValueError):
    """field: the column or the place in it; the message says what was expected."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def added(answer: object) -> Event:
    """A mapping of columns, and `derived_contexts` as a list of {schema, data}, as an Event. None leaves a column as it is.

    Raises Unusable.
    """
    if not isinstance(answer, Mapping):
        raise Unusable("", f"expected columns by name, not {type(answer).__name__}")
    event: dict[str, Any] = {}
    for name, value in cast(Mapping[object, object], answer).items():
        if not isinstance(name, str) or name not in WRITABLE:
            known = "is not for an enrichment to change" if name in _KEPT else "is no column"
            raise Unusable(str(name)[:100], known)
        if value is None:
            continue
        made = entities(value) if name == "derived_contexts" else column(name, value)
        if made is not None:
            event[name] = made
    return cast(Event, event)


def entities(values: object) -> list[SelfDescribing]:
    """Raises Unusable. That the data keeps to its schema is checked later, with all others'."""
    if not isinstance(values, list | tuple):
        raise Unusable("derived_contexts", "expected a list of entities")
    found: list[SelfDescribing] = []
    for value in cast(list[object], values):
        made = json(value, "derived_contexts")
        uri = made.get("schema") if isinstance(made, dict) else None
        if not isinstance(made, dict) or not isinstance(uri, str) or "data" not in made:
            raise Unusable("derived_contexts", "expected entities with the keys schema and data")
        found.append({"schema": uri, "data": made["data"]})
    return found


def column(name: str, value: object) -> Any:
    """The value as the column's type; None when nothing is left of it. Raises Unusable."""
    kind = _TYPES[name]
    try:
        if kind == "boolean":
            if isinstance(value, bool | int | str) and value in _BOOLEANS:
                return _BOOLEANS[value]
            raise Unconvertible("expected true or false")
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | UUID | date):
            raise Unconvertible(f"expected a value of type {kind}, not {type(value).__name__}")
        if kind == "timestamp" and isinstance(value, datetime):
            if value.tzinfo is None:
                raise Unconvertible("expected a time with its zone")
            value = round(value.timestamp() * 1_000)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        return _CONVERSIONS[kind](_plain(value))
    except Unconvertible as error:
        raise Unusable(name, str(error)) from None


def _plain(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise Unconvertible("expected a finite number")
    if isinstance(value, int) and value not in _INTEGERS:
        raise Unconvertible("expected a number of at most 64 bits")
    return str(value).encode("utf-8", "replace").decode()


def _float(text: str) -> float | None:
    number = conversions.decimal(text)
    return None if number is None else float(number)


_CONVERSIONS: dict[str, Any] = {
    "string": conversions.text,
    "uuid": conversions.uuid,
    "integer": conversions.int32,
    "timestamp": conversions.epoch_ms,
    "decimal": conversions.decimal,
    "float": _float,
}


def json(value: object, field: str = "") -> Json:
    """The same as plain JSON that any encoder takes. Raises Unusable: too deep, too large, or of a type JSON has not."""
    return _Json(field).made(value, 0)


class _Json:
    def __init__(self, field: str) -> None:
        self._field, self._left = field, _MOST_VALUES

    def made(self, value: Any, depth: int) -> Json:
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise Unusable(self._field, f"deeper than {_DEEPEST} levels or more than {_MOST_VALUES} values")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode() if not value.isascii() else value
        if isinstance(value, int | float | Decimal):
            return self._number(value)
        if isinstance(value, Mapping):
            members = cast(Mapping[object, object], value)
            return {self._key(key): self.made(each, depth + 1) for key, each in members.items()}
        if isinstance(value, list | tuple):
            return [self.made(each, depth + 1) for each in cast(list[Any], value)]
        if isinstance(value, date | UUID):
            return value.isoformat() if isinstance(value, date) else str(value)
        raise Unusable(self._field, f"JSON has no {type(value).__name__}")

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise Unusable(self._field, "expected text for every key")
        return key.encode("utf-8", "replace").decode()

    def _number(self, value: float | Decimal) -> Json:
        if isinstance(value, Decimal):
            if not value.is_finite():
                raise Unusable(self._field, "expected a finite number")
            value = int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
        if not math.isfinite(value) or (isinstance(value, int) and value not in _INTEGERS):
            raise Unusable(self._field, "expected a finite number of at most 64 bits")
        return value
