"""The layout -> statements that declare it as tables: Athena, Hive, Spark SQL, Redshift Spectrum. Pure.

`events` has the 131 columns and the two of its partition, `day` and `name`; `failed_events` has its own. In TSV a boolean is
1 or 0, and engines take it for a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote

from protocol.tables import COLUMNS, Column
from storage.failed import FailedRow
from storage.lake import EVENTS, FAILED, TSV, is_money

DIALECTS: Final = ("athena", "hive", "spark", "spectrum")

_PARTITION = {"day": "date", "name": "string"}


def statements(dialect: str, form: str, location: str, partitions: Iterable[str] = (), database: str = "atomic") -> Iterator[str]:
    """form: parquet or tsv. location: the root, such as s3://bucket/prefix. partitions: for Spectrum, which finds none itself.

    Each ends without a semicolon. Those that tell of partitions are to be repeated when there are new ones.
    """
    failed = [(name, "int" if name == "event_index" else "string") for name in (*FailedRow._fields, "payload")]
    events = [(column.name, _type(column, form)) for column in COLUMNS]
    source = f"{location.rstrip('/')}/{EVENTS if form == 'parquet' else TSV}/"
    failures = f"{location.rstrip('/')}/{FAILED}/"
    if dialect == "spectrum":
        yield (
            f"CREATE EXTERNAL SCHEMA IF NOT EXISTS {database} FROM DATA CATALOG DATABASE '{database}'\n"
            "IAM_ROLE default CREATE EXTERNAL DATABASE IF NOT EXISTS"
        )
        narrow = [(name, _LONG.get(name, "varchar(65535)") if kind == "string" else kind) for name, kind in events]
        narrow = [(name, _SPECTRUM.get(kind, kind)) for name, kind in narrow]
        yield _external(f"{database}.events", narrow, "day date, name varchar(255)", _stored(form), source)
        for partition in partitions:
            day, name = (part.partition("=")[2] for part in partition.split("/"))
            quoted = unquote(name).replace("'", "''")
            yield (
                f"ALTER TABLE {database}.events ADD IF NOT EXISTS PARTITION (day='{day}', name='{quoted}')\n"
                f"LOCATION '{source}{partition}/'"
            )
        return
    yield f"CREATE DATABASE IF NOT EXISTS {database}"
    if dialect == "spark":
        yield _spark(f"{database}.events", events, tuple(_PARTITION), form, source)
        yield f"ALTER TABLE {database}.events RECOVER PARTITIONS"
        yield _spark(f"{database}.failed_events", failed, ("day",), "json", failures)
        yield f"ALTER TABLE {database}.failed_events RECOVER PARTITIONS"
        return
    partition = ", ".join(f"`{name}` {kind}" for name, kind in _PARTITION.items())
    yield _external(f"{database}.events", [(f"`{name}`", kind) for name, kind in events], partition, _stored(form), source)
    yield f"MSCK REPAIR TABLE {database}.events"
    serde = "org.openx.data.jsonserde.JsonSerDe" if dialect == "athena" else "org.apache.hive.hcatalog.data.JsonSerDe"
    lines = f"ROW FORMAT SERDE '{serde}'\nSTORED AS TEXTFILE"
    yield _external(f"{database}.failed_events", [(f"`{n}`", k) for n, k in failed], "`day` date", lines, failures)
    yield f"MSCK REPAIR TABLE {database}.failed_events"


_HIVE = {
    "string": "string",
    "uuid": "string",
    "json": "string",
    "timestamp": "timestamp",
    "integer": "int",
    "float": "double",
    "decimal": "double",
    "boolean": "boolean",
}
_SPECTRUM = {"tinyint": "smallint", "double": "double precision"}
# Redshift counts bytes, and a wide column costs memory in every question.
_LONG = {c.name: f"varchar({min(65_535, 4 * c.max_length)})" for c in COLUMNS if c.max_length is not None}


def _type(column: Column, form: str) -> str:
    if form == "tsv" and column.type == "boolean":
        return "tinyint"
    return "decimal(18,2)" if is_money(column) else _HIVE[column.type]


def _stored(form: str) -> str:
    if form == "parquet":
        return "STORED AS PARQUET"
    return "ROW FORMAT DELIMITED FIELDS TERMINATED BY '\\t' LINES TERMINATED BY '\\n'\nSTORED AS TEXTFILE"


def _external(table: str, columns: list[tuple[str, str]], partition: str, stored: str, location: str) -> str:
    body = ",\n  ".join(f"{name} {kind}" for name, kind in columns)
    exists = "IF NOT EXISTS " if "`" in body else ""  # which Redshift does not know
    null = "\nTBLPROPERTIES ('serialization.null.format' = '')" if "DELIMITED" in stored else ""
    return (
        f"CREATE EXTERNAL TABLE {exists}{table} (\n  {body}\n)\nPARTITIONED BY ({partition})\n{stored}\n"
        f"LOCATION '{location}'{null}"
    )


def _spark(table: str, columns: list[tuple[str, str]], partition: tuple[str, ...], form: str, location: str) -> str:
    body = ",\n  ".join([*(f"`{n}` {k}" for n, k in columns), *(f"`{name}` {_PARTITION[name]}" for name in partition)])
    using = {"parquet": "parquet", "json": "json", "tsv": "csv"}[form]
    # A quote or a backslash is text like any other here.
    options = "\nOPTIONS (sep '\\t', quote '', escape '', nullValue '')" if form == "tsv" else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {table} (\n  {body}\n)\nUSING {using}{options}\n"
        f"PARTITIONED BY ({', '.join(partition)})\nLOCATION '{location}'"
    )
