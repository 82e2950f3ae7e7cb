"""Rows as the SQLite store has them -> canonical TSV, NDJSON or Parquet, a piece at a time; never more than a piece in memory.

What SQLite keeps as a number has lost the scale it was sent with: 12.50 is 12.5 here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from importlib import import_module
from typing import Any, BinaryIO, Protocol

import orjson

from protocol.seams import ConfigurationError
from protocol.tables import COLUMNS, Column
from storage.rows import Row, decimal_text, degrees_text

PIECE = 10_000  # rows; of a Parquet file, a row group

_CENT = Decimal("0.01")
_MOST_MONEY = Decimal(10) ** 16
_INT32 = 2**31


class Writer(Protocol):
    def write(self, rows: Sequence[Row]) -> None:
        """rows: in column order."""
        ...

    def close(self) -> None: ...


# TSV: tracker protocol, "Enriched TSV format"; what is stored is clean already.


def _plain(value: Any) -> str:
    return value if type(value) is str else str(value)


def _decimal(value: Any) -> str:
    return decimal_text(Decimal(str(value))) or ""


def _degrees(value: Any) -> str:
    return degrees_text(float(value)) or ""


_TSV: dict[str, Callable[[Any], str]] = {"decimal": _decimal, "float": _degrees}
_SPECIAL = tuple((place, _TSV[column.type]) for place, column in enumerate(COLUMNS) if column.type in _TSV)


def tsv_line(row: Row) -> str:
    fields = ["" if value is None else _plain(value) for value in row]
    for place, write in _SPECIAL:
        if fields[place]:
            fields[place] = write(row[place])
    return "\t".join(fields)


class Tsv:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, rows: Sequence[Row]) -> None:
        self._out.write("".join([f"{tsv_line(row)}\n" for row in rows]).encode())

    def close(self) -> None:
        """Nothing follows the last line."""


# NDJSON: the columns that have a value; JSON columns as objects, booleans as booleans.


def _json_value(column: Column) -> Callable[[Any], Any]:
    if column.type == "json":
        return lambda text: orjson.Fragment(text)
    return bool if column.type == "boolean" else lambda value: value


_NAMED = tuple((column.name, _json_value(column)) for column in COLUMNS)


class Ndjson:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            known = {name: make(value) for (name, make), value in zip(_NAMED, row, strict=True) if value is not None}
            self._out.write(orjson.dumps(known, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Nothing follows the last line."""


# Parquet: the warehouse's types; JSON as text, times in UTC with milliseconds.


def _money(value: Any) -> Decimal | None:
    if value is None:
        return None
    number = Decimal(str(value))
    return number.quantize(_CENT, ROUND_HALF_UP) if abs(number) < _MOST_MONEY else None


def _int32(value: Any) -> int | None:
    return value if value is not None and -_INT32 <= value < _INT32 else None


class _Counting:
    """A stream that cannot tell where it is, standard output say, with what Parquet's footer needs to know of it."""

    closed = False

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._at = out, 0

    def write(self, data: bytes) -> int:
        self._out.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        """Whoever opened it closes it."""


class Parquet:
    def __init__(self, out: BinaryIO) -> None:
        """Raises ConfigurationError where pyarrow is not installed."""
        try:
            pa: Any = import_module("pyarrow")
            pq: Any = import_module("pyarrow.parquet")
        except ImportError:
            raise ConfigurationError("--format parquet needs pyarrow; install spoorway[parquet]") from None
        self._pa = pa
        kinds: dict[str, Any] = {
            "timestamp": pa.timestamp("ms", "UTC"),
            "integer": pa.int32(),
            "boolean": pa.bool_(),
            "float": pa.float64(),
        }
        money: Any = pa.decimal128(18, 2)
        double: Any = pa.float64()
        fields: list[Any] = [
            pa.field(
                c.name, (money if "18,2" in c.postgres else double) if c.type == "decimal" else kinds.get(c.type, pa.string())
            )
            for c in COLUMNS
        ]
        self._schema: Any = pa.schema(fields)
        self._writer: Any = pq.ParquetWriter(_Counting(out), self._schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        arrays = [self._array(field, values) for field, values in zip(self._schema, columns, strict=True)]
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()

    def _array(self, field: Any, values: Sequence[Any]) -> Any:
        pa, kind = self._pa, field.type
        if pa.types.is_timestamp(kind):
            return pa.array(values, pa.string()).cast(pa.timestamp("ms")).cast(kind)
        if pa.types.is_decimal(kind):
            return pa.array([_money(value) for value in values], kind)
        if pa.types.is_floating(kind):
            return pa.array([None if value is None else float(value) for value in values], kind)
        if pa.types.is_boolean(kind):
            return pa.array([None if value is None else bool(value) for value in values], kind)
        return pa.array([_int32(value) for value in values] if pa.types.is_integer(kind) else values, kind)


WRITERS: dict[str, Callable[[BinaryIO], Writer]] = {"tsv": Tsv, "ndjson": Ndjson, "parquet": Parquet}
