"""A question of the SQL pack and a store (spoorway/stores.py) -> its rows, alike whatever the store is. Reads only.

Rows hold text, numbers and None: what a driver makes of decimals, times and whole numbers of any size becomes the same here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from protocol.seams import ConfigurationError
from storage.rows import timestamp
from storage.sql import Parameter, Question, questions, render
from storage.sql.dialect import Dialect

Value = str | int | float | None
_AGO = re.compile(r"(\d+)([mhdw])")
_PROPERTY = re.compile(r"@(?:data|data_number|item|item_number|one)\([^()]*:(\w+)\)")  # a parameter that names one
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Answer:
    """names: of the columns. rows: in their order."""

    question: Question
    names: tuple[str, ...]
    rows: list[tuple[Value, ...]]


class Store(Protocol):
    dialect: Dialect

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        """Names and rows of one statement. events: names of those that it can be about; empty = any.

        Raises ConfigurationError for what cannot be answered, TransientError.
        """
        ...

    def close(self) -> None: ...


def named(name: str) -> Question:
    """Raises ConfigurationError that lists the questions there are."""
    known = questions()
    if name not in known:
        raise ConfigurationError(f"there is no question {name!r}; there are {', '.join(known)}")
    return known[name]


def ask(store: Store, question: Question, given: Mapping[str, str], now_ms: int) -> Answer:
    """given: parameters as a person types them; the others have their defaults. now_ms: milliseconds since 1970.

    Raises ConfigurationError, TransientError.
    """
    values = bound(question, given, now_ms)
    sql = render(question, store.dialect, values)
    names, rows = store.rows(sql, values, question.about_events(values))
    return Answer(question, tuple(names), [tuple(_plain(value) for value in row) for row in rows])


def bound(question: Question, given: Mapping[str, str], now_ms: int) -> dict[str, str | int | float]:
    """The value of each parameter. Raises ConfigurationError."""
    known = {parameter.name: parameter for parameter in question.parameters}
    for name in given:
        if name not in known:
            raise ConfigurationError(f"{question.name} has no parameter {name!r}; it has {', '.join(known)}")
    values = {name: _value(parameter, given.get(name, parameter.default), now_ms) for name, parameter in known.items()}
    for name in _PROPERTY.findall(question.sql):
        if not all(str(values[name]).split(".")):
            raise ConfigurationError(f"{name}: expected the name of a property, such as air.humidity, not {values[name]!r}")
    return values


def _value(parameter: Parameter, text: str, now_ms: int) -> str | int | float:
    try:
        if parameter.kind == "time":
            return _written(moment_ms(text, now_ms))
        if parameter.kind == "integer":
            return int(text)
        return _finite(float(text)) if parameter.kind == "number" else text
    except (ValueError, OverflowError):
        expected = {"time": "a time such as 7d, 24h, now, 2026-01-31 or '2026-01-31 12:00'", "integer": "a whole number"}
        raise ConfigurationError(f"{parameter.name}: expected {expected.get(parameter.kind, 'a number')}, not {text!r}") from None


def _written(ms: int) -> str:
    if (text := timestamp(ms)) is None:  # of no year that a store knows
        raise ValueError
    return text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


def moment_ms(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a moment (UTC), "now", or how long ago. Raises ValueError, OverflowError."""
    if text == "now":
        return now_ms
    if match := _AGO.fullmatch(text):
        return now_ms - int(timedelta(**{_UNITS[match[2]]: int(match[1])}).total_seconds() * 1000)
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _plain(value: Any) -> Value:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, datetime):
        return timestamp(int(value.replace(tzinfo=value.tzinfo or UTC).timestamp() * 1000))
    return value.isoformat() if isinstance(value, date) else str(value)
