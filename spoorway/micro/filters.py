"""Requests' filters -> predicates over records: the reference's JSON bodies, and columns named in the query string.

Pure. A filter that does not have its shape is a WrongShape, never a filter that lets everything pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast
from urllib.parse import parse_qsl

import orjson

from protocol.tables import COLUMN_NAMES
from spoorway.micro.records import Record
from spoorway.micro.store import Store, Wanted

DEFAULT_TIMEOUT_MS = 5_000
LONGEST_TIMEOUT_MS = 60_000
_NUMBERS = ("limit", "wait", "timeout_ms")


class WrongShape(ValueError):
    """The message says what was expected."""


def _optional(fields: Mapping[str, Any], name: str, kind: type, expected: str) -> Any:
    value = fields.get(name)
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    raise WrongShape(f"{name}: expected {expected}, not {orjson.dumps(value).decode()[:100]}")


def text(fields: Mapping[str, Any], name: str) -> str | None:
    """This and its kin: the value of that type, None where it is missing or null. They raise WrongShape."""
    return cast("str | None", _optional(fields, name, str, "text"))


def whole(fields: Mapping[str, Any], name: str) -> int | None:
    return cast("int | None", _optional(fields, name, int, "a whole number"))


def flag(fields: Mapping[str, Any], name: str) -> bool | None:
    return cast("bool | None", _optional(fields, name, bool, "true or false"))


def table(fields: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    return cast("dict[str, Any] | None", _optional(fields, name, dict, "an object"))


def items(fields: Mapping[str, Any], name: str, kind: type | None = None) -> list[Any] | None:
    """A list, of values of that kind."""
    values = cast("list[Any] | None", _optional(fields, name, list, "a list"))
    if values is not None and kind is not None and not all(isinstance(value, kind) for value in values):
        raise WrongShape(f"{name}: expected a list of {'texts' if kind is str else 'objects'}")
    return values


def text_of(value: object) -> str | None:
    """A column's value as people write it; None for null and for what is no single value."""
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, (dict, list)) else orjson.dumps(value).decode()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records of one kind, and how many of the newest; None = every one."""

    wanted: Wanted
    limit: int | None = None

    def of(self, store: Store, namespace: str) -> list[Record]:
        """Newest first."""
        chosen = filter(self.wanted, store.newest_first(namespace))
        return list(chosen if self.limit is None else islice(chosen, max(0, self.limit)))


def good(fields: Mapping[str, Any]) -> Selection:
    """The body of POST /micro/good. Raises WrongShape."""
    event_type, schema = text(fields, "event_type"), text(fields, "schema")
    contexts = set(items(fields, "contexts", str) or ())

    def wanted(record: Record) -> bool:
        return event_type in (None, record.event_type) and schema in (None, record.schema) and contexts <= set(record.contexts)

    return Selection(wanted, whole(fields, "limit"))


def bad(fields: Mapping[str, Any]) -> Selection:
    """The body of POST /micro/bad: vendor and version of the path it came by. Raises WrongShape."""
    vendor, version = text(fields, "vendor"), text(fields, "version")
    return Selection(lambda record: vendor in (None, record.vendor) and version in (None, record.version), whole(fields, "limit"))


@dataclass(frozen=True, slots=True)
class Query:
    """What a query string asks for. columns: each must have this text. wait: so many must be there, or timeout_s be over."""

    columns: Mapping[str, str]
    limit: int | None = None
    wait: int = 0
    timeout_s: float = DEFAULT_TIMEOUT_MS / 1000

    def wanted(self, record: Record) -> bool:
        columns = self.columns
        if "event_id" in columns and columns["event_id"] != record.event_id:
            return False
        rest = [pair for pair in columns.items() if pair[0] != "event_id"]
        if not rest:
            return True
        values = record.column_values()
        return all(text_of(values.get(name)) == wanted for name, wanted in rest)


def query(query_string: str) -> Query:
    """Raises WrongShape, also for a name that is no column: a filter that is overlooked makes a test pass that should not."""
    columns: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name, value in parse_qsl(query_string, keep_blank_values=True):
        if name in _NUMBERS:
            if not (value.isascii() and value.isdigit() and len(value) < 10):
                raise WrongShape(f"{name}: expected a whole number, not {value[:100]!r}")
            numbers[name] = int(value)
        elif name in COLUMN_NAMES:
            columns[name] = value.lower() if name == "event_id" else value
        else:
            raise WrongShape(f"{name[:100]}: no such parameter; there are {', '.join(_NUMBERS)} and the names of columns")
    timeout_ms = min(numbers.get("timeout_ms", DEFAULT_TIMEOUT_MS), LONGEST_TIMEOUT_MS)
    return Query(columns, numbers.get("limit"), numbers.get("wait", 0), timeout_ms / 1000)
