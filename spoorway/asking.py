"""A question of the SQL pack and a store -> its rows, alike whatever the store is. Reads only.

Rows hold text, numbers and None: what a driver makes of decimals, times and whole numbers of any size becomes the same here.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from protocol.seams import ConfigurationError, PermanentError, TransientError
from spoorway import building
from spoorway.config import Settings
from spoorway.database import open_read_only
from storage import lake
from storage.failed import FailedRow
from storage.objects import open_objects
from storage.redshift.tables import Table
from storage.rows import timestamp
from storage.sql import Parameter, Question, questions, render
from storage.sql.dialect import Dialect
from storage.sql.dialects import DUCKDB, POSTGRES, REDSHIFT, SQLITE
from storage.sql.entity_rows import functions

Value = str | int | float | None
_AGO = re.compile(r"(\d+)([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock


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
    return {name: _value(parameter, given.get(name, parameter.default), now_ms) for name, parameter in known.items()}


def _value(parameter: Parameter, text: str, now_ms: int) -> str | int | float:
    try:
        if parameter.kind == "time":
            return timestamp(moment_ms(text, now_ms)) or ""
        if parameter.kind == "integer":
            return int(text)
        return _finite(float(text)) if parameter.kind == "number" else text
    except (ValueError, OverflowError):
        expected = {"time": "a time such as 7d, 24h, now, 2026-01-31 or '2026-01-31 12:00'", "integer": "a whole number"}
        raise ConfigurationError(f"{parameter.name}: expected {expected.get(parameter.kind, 'a number')}, not {text!r}") from None


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


# Stores ---------------------------------------------------------------------------------------------------------------


class Sqlite:
    """The store of the data folder. limit_s: the longest that a question may take."""

    dialect = SQLITE

    def __init__(self, path: Path, limit_s: float = 600) -> None:
        """Raises ConfigurationError."""
        self._db = open_read_only(path, many=True)
        self._limit_s = limit_s

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        end = time.monotonic() + self._limit_s
        self._db.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            cursor = self._db.execute(sql, values)
            return [column[0] for column in cursor.description], cursor.fetchall()
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise ConfigurationError(f"no answer within {self._limit_s:g} s; ask of a shorter time") from None
            raise _unanswered(error) from None
        except sqlite3.Error as error:
            raise _unanswered(error) from None

    def close(self) -> None:
        self._db.close()


class Parquet:
    """Files of `spoorway export --format parquet`, or others with the same columns, through DuckDB.

    files: paths or patterns, such as archive/**/*.parquet. failed: of failed events, as the S3 target writes them.
    kept: instead of files, those of each partition of a lake, all with the same columns: only the question's are opened.
    """

    dialect = DUCKDB

    def __init__(
        self, files: Sequence[str] = (), failed: Sequence[str] = (), kept: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Raises ConfigurationError."""
        try:
            self._duckdb: Any = import_module("duckdb")
        except ModuleNotFoundError:
            raise ConfigurationError("Parquet files are asked through DuckDB; install spoorway[duckdb]") from None
        self._kept = kept or {}
        self._opened: Sequence[str] = ()
        self._db: Any = self._duckdb.connect(":memory:")
        try:
            self._db.execute("SET TimeZone = 'UTC'; SET parquet_metadata_cache = true")
            self._db.execute("CREATE SCHEMA atomic")
            if not self._kept:
                self._db.execute(f"CREATE VIEW atomic.events AS SELECT * FROM read_parquet({_list(files)}, union_by_name = true)")
            if failed:
                kinds = {name: "TIMESTAMP" if name.endswith("_tstamp") else "VARCHAR" for name in FailedRow._fields}
                columns = ", ".join(f"{name}: '{kind}'" for name, kind in kinds.items())
                self._db.execute(
                    f"CREATE VIEW atomic.failed_events AS SELECT * FROM read_json({_list(failed)},"
                    f" format = 'newline_delimited', columns = {{{columns}}})"
                )
        except self._duckdb.Error as error:
            self._db.close()
            raise ConfigurationError(f"{', '.join(files) or 'failed events'}: {_first_line(error)}") from None

    def _open(self, first: str, last: str, events: frozenset[str]) -> None:
        """The files of these days and events; one of any where there are none, for its columns."""
        found: list[str] = []
        for partition, files in self._kept.items():
            day = partition[len("day=") :].partition("/")[0]
            if first <= day <= last and (not events or partition in {lake.events_partition(day, name) for name in events}):
                found += files
        if found != self._opened or not found:
            read = f"read_parquet({_list(found or next(iter(self._kept.values()))[:1])}, hive_partitioning = false)"
            self._db.execute(f"CREATE OR REPLACE VIEW atomic.events AS SELECT * FROM {read}")
            self._opened = found

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        used = {name: value for name, value in values.items() if re.search(rf"\${name}\b", sql)}
        try:
            if self._kept:
                self._open(str(values["since"])[:10], str(values["until"])[:10], events)
            cursor = self._db.execute(sql, used)
            return [column[0] for column in cursor.description], cursor.fetchall()
        except self._duckdb.Error as error:
            raise _unanswered(error) from None

    def close(self) -> None:
        self._db.close()


class Postgres:
    """A database that our target keeps, asked in transactions that can only read. limit_s: the longest a question may take."""

    dialect = replace(POSTGRES, schema="")  # the connection knows the schema

    def __init__(self, config: Any, limit_s: float = 600) -> None:
        """config: as the target's. Raises ConfigurationError, PermanentError, TransientError."""
        connection = _postgres()
        self._psycopg: Any = import_module("psycopg")
        try:
            self._db: Any = connection.connect(config, read_only=True)
            self._db.execute(f"SET statement_timeout = {round(limit_s * 1000)}")
        except self._psycopg.Error as error:
            raise TransientError(f"PostgreSQL: {_first_line(error)}") from None

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        try:
            with self._db.transaction():
                cursor = self._db.execute(sql, values)
                return [column.name for column in cursor.description], cursor.fetchall()
        except self._psycopg.Error as error:
            raise _unanswered(error) from None

    def close(self) -> None:
        self._db.close()


class Redshift:
    """A schema that our target keeps; each question is a transaction. limit_s: the longest a question may take."""

    def __init__(self, config: Any, limit_s: float = 600) -> None:
        """config: as the target's. Nothing connects before a question looks into tables of entities; none is made.

        Raises ConfigurationError.
        """
        connection: Any = import_module("storage.redshift.connection")  # whoever has its config has the driver
        layout: Any = import_module("storage.redshift.layout")
        self._layout: Any = layout.Layout(config, _unknown)
        schema = config.schema.replace('"', '""')  # the driver leaves alone what stands in quotes, % too
        self._inside = config.entities == "super"
        self._tables: Mapping[str, Table] | None = None
        self.dialect = replace(REDSHIFT, schema=f'"{schema}".', functions=functions(f'"{schema}".', self._written))

        def limit(db: Any) -> None:
            db.run(f"SET statement_timeout TO {round(limit_s * 1000)}")

        self._link = connection.Link(config, limit)

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        used = {name: value for name, value in values.items() if f"%({name})s" in sql}
        with self._transaction() as db:
            names, rows = db.named(sql, used)
            return names, rows

    def _written(self) -> Mapping[str, Table]:
        if self._inside:
            raise ConfigurationError(
                'it looks into self-describing parts, which that schema keeps in SUPER columns (entities = "super");'
                " SQLite, Parquet, PostgreSQL, and Redshift with tables of entities answer it"
            )
        if self._tables is None:
            with self._transaction() as db:
                self._tables = self._layout.written(db)
        return self._tables or {}

    @contextmanager
    def _transaction(self) -> Generator[Any]:
        try:
            with self._link.transaction() as db:
                yield db
        except PermanentError as error:
            raise _unanswered(error) from None

    def close(self) -> None:
        self._link.close()


def _unknown(uri: str) -> None:
    """Of no schema the document: what was made of it is asked of the store."""


def _list(files: Sequence[str]) -> str:
    return "[" + ", ".join("'" + file.replace("'", "''") + "'" for file in files) + "]"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _unanswered(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"the store cannot answer that: {_first_line(error)}")


def opened(where: str, settings: Callable[[], Settings]) -> Store:
    """where: "sqlite" (the configured store), the name of a target, Parquet files, a folder of them, or a PostgreSQL address.

    settings: asked only where they matter. Raises ConfigurationError, PermanentError, TransientError.
    """
    if where == "sqlite":
        return Sqlite(building.database(settings()))
    if where.startswith(("postgresql://", "postgres://")) or "dbname=" in where:
        return Postgres(_postgres().Config(dsn=where))
    if Path(where).is_dir():
        return _folder(where)
    if where.endswith(".parquet"):
        return Parquet([where])
    targets = {instance.name: instance for instance in settings().targets()}
    if where in targets:
        instance = targets[where]
        if instance.use == "postgres":
            return Postgres(instance.config)
        if instance.use == "redshift":
            return Redshift(instance.config)
        if instance.use == "s3" and "://" not in instance.config.url:
            return _folder(instance.config.url)
        raise ConfigurationError(
            f"--on: a target of the kind {instance.use} in that place is not asked; export it, or ask sqlite"
        )
    known = ", ".join(["sqlite", *(name for name in targets if name != "sqlite")])
    raise ConfigurationError(
        f"--on: expected {known}, a folder, files such as 'exports/*.parquet' or postgresql://…, not {where!r}"
    )


def _postgres() -> Any:
    try:
        return import_module("storage.postgres.connection")
    except ModuleNotFoundError:
        raise ConfigurationError("a PostgreSQL database needs the package psycopg; install spoorway[postgres]") from None


def _folder(where: str) -> Store:
    if not Path(where, lake.EVENTS).is_dir():
        return Parquet([f"{where}/**/*.parquet"])
    live, _ = lake.sorted_out(open_objects(where).list())  # as the S3 target keeps it: not every file counts
    kept: dict[str, list[str]] = {}
    for piece in live:
        if piece.kind == lake.EVENTS:
            kept.setdefault(piece.partition.partition("/")[2], []).append(str(Path(where, piece.name)))
    if not kept:
        raise ConfigurationError(f"{where}: there are no Parquet files of events")
    return Parquet((), [str(Path(where, piece.name)) for piece in live if piece.kind == lake.FAILED], kept)
