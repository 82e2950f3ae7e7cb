"""Events -> Parquet, typed by columns.json: a column at a time, straight from the events.

Times are milliseconds in UTC, money is decimal(18,2), the self-describing columns are JSON text as the canonical format has
them. What does not fit its column's type becomes null. Imports pyarrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from importlib import import_module
from operator import itemgetter
from typing import Any, cast

from protocol.seams import Event
from protocol.tables import COLUMN_NAMES, COLUMNS, Column
from storage.lake import is_money
from storage.rows import column as sql_values
from storage.rows import timestamp

pa: Any = import_module("pyarrow")
pc: Any = import_module("pyarrow.compute")
pq: Any = import_module("pyarrow.parquet")

ROW_GROUP = 50_000
# What hardly ever repeats: a dictionary of it is made only to be thrown away, and its beginning stays in the file.
_UNIQUE = {
    "event_id",
    "event_fingerprint",
    "collector_tstamp",
    "dvce_created_tstamp",
    "dvce_sent_tstamp",
    "derived_tstamp",
    *(column.name for column in COLUMNS if column.type == "json"),
}
# Ids are random: level 3 takes a quarter longer, and its files are no smaller.
COMPRESSION = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": [name for name in COLUMN_NAMES if name not in _UNIQUE],
    "store_schema": False,  # Arrow's own words for the types, which Parquet's say as well
}

_CENT = Decimal("0.01")
_MOST_MONEY = Decimal(10) ** 16
_INT32 = 2**31


@cache
def schema() -> Any:
    """The 131 columns, in their order."""
    kinds: dict[str, Any] = {
        "timestamp": pa.timestamp("ms", "UTC"),
        "integer": pa.int32(),
        "boolean": pa.bool_(),
        "float": pa.float64(),
        "decimal": pa.float64(),
    }
    return pa.schema([(c.name, pa.decimal128(18, 2) if is_money(c) else kinds.get(c.type, pa.string())) for c in COLUMNS])


def to_table(events: Sequence[Event]) -> Any:
    """A row per event, in their order."""
    values = _columns(cast(Sequence[dict[str, Any]], events))
    arrays = [
        _array(column, values[column.name], field.type) if column.name in values else pa.nulls(len(events), field.type)
        for column, field in zip(COLUMNS, schema(), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema())


def _columns(events: Sequence[dict[str, Any]]) -> dict[str, Sequence[Any]]:
    """Of each column that any event has, every event's value. Those that all have, most of them, are picked in one go."""
    first = tuple(events[0])
    if len(first) > 1 and set(map(len, events)) == {len(first)}:
        with suppress(KeyError):  # all are of one shape, as most partitions are
            return dict(zip(first, zip(*map(itemgetter(*first), events), strict=True), strict=True))
    shapes = set(map(tuple, events))
    common = sorted(set(COLUMN_NAMES).intersection(*shapes))
    found: dict[str, Sequence[Any]] = {}
    if len(common) > 1:  # of one name itemgetter makes no tuple
        found = dict(zip(common, zip(*map(itemgetter(*common), events), strict=True), strict=True))
    for name in set[str]().union(*shapes) - found.keys():
        found[name] = [event.get(name) for event in events]
    return found


def to_parquet(events: Sequence[Event]) -> bytes:
    """One file."""
    out = pa.BufferOutputStream()
    pq.write_table(to_table(events), out, row_group_size=ROW_GROUP, **COMPRESSION)
    return cast(bytes, out.getvalue().to_pybytes())


def money(value: Any) -> Decimal | None:
    """To the cent; None beyond decimal(18,2), and where there is none."""
    if value is None:
        return None
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if not number.is_finite() or abs(number) >= _MOST_MONEY:
        return None
    rounded = number.quantize(_CENT, ROUND_HALF_UP)
    return rounded if abs(rounded) < _MOST_MONEY else None


def int32(value: int | None) -> int | None:
    """None outside 32 bits."""
    return value if value is not None and -_INT32 <= value < _INT32 else None


def _float(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _moment(ms: int | None) -> int | None:
    return ms if ms is not None and timestamp(ms) is not None else None


_CAREFUL: dict[str, Callable[[Any], Any]] = {
    "timestamp": _moment,
    "integer": int32,
    "float": _float,
    "decimal": _float,
    "boolean": lambda value: None if value is None else bool(value),
}
_BOUNDS = {"timestamp": (-62_167_219_200_000, 253_402_300_800_000), "integer": (-_INT32, _INT32)}


def _array(column: Column, values: Sequence[Any], kind: Any) -> Any:
    """Where all are in range, as nearly always, the values are taken as they are."""
    if column.type in _BOUNDS:
        array = _integers(values)
        least, most = _BOUNDS[column.type]
        if array is not None:
            low, high = _min_max(array)
            if low is None or high is None or least <= low <= high < most:
                return array.cast(kind)
        return pa.array([_CAREFUL[column.type](value) for value in values], pa.int64()).cast(kind)
    careful = money if is_money(column) else _CAREFUL.get(column.type)
    return pa.array(sql_values(column.name, values) if careful is None else [careful(value) for value in values], kind)


def _min_max(array: Any) -> tuple[int | None, int | None]:
    found = pc.min_max(array)
    return found["min"].as_py(), found["max"].as_py()


def _integers(values: Sequence[Any]) -> Any | None:
    """None where one is beyond 64 bits."""
    try:
        return pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        return None


__all__ = ["COMPRESSION", "ROW_GROUP", "int32", "money", "pa", "pq", "schema", "to_parquet", "to_table"]
