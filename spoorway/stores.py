"""Where questions are asked: the data folder's store, Parquet files, a database -> names and rows of a statement. Reads only."""

from __future__ import annotations

import glob
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from protocol.seams import ConfigurationError, PermanentError, TransientError
from spoorway import building
from spoorway.asking import Store
from spoorway.config import Settings
from spoorway.database import open_read_only
from storage import lake
from storage.failed import FailedRow
from storage.objects import NoSuchObject, Objects, open_objects
from storage.redshift.tables import Table
from storage.sql import entity_rows, entity_values
from storage.sql.dialects import DUCKDB, POSTGRES, REDSHIFT, SQLITE

_STEPS = 10_000  # of SQLite's machine, between two looks at the clock


class Sqlite:
    """The store of the data folder. limit_s: the longest that a question may take."""

    dialect = SQLITE

    def __init__(self, path: Path | str, limit_s: float = 600) -> None:
        """Raises ConfigurationError."""
        self._db = open_read_only(Path(path), many=True)
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
        except (sqlite3.Error, OverflowError) as error:
            raise _unanswered(error) from None

    def close(self) -> None:
        self._db.close()


class Parquet:
    """Files of `spoorway export --format parquet`, or others with the same columns, through DuckDB.

    files: paths or patterns, such as archive/**/*.parquet. failed: of failed events, as the S3 target writes them.
    kept: instead of files, those of each partition of a lake, all with the same columns: only the question's are opened.
    bucket: where failed and kept are, under these names; what is opened is fetched before.
    """

    dialect = DUCKDB

    def __init__(
        self,
        files: Sequence[str] = (),
        failed: Sequence[str] = (),
        kept: Mapping[str, Sequence[str]] | None = None,
        bucket: Objects | None = None,
    ) -> None:
        """Raises ConfigurationError."""
        try:
            self._duckdb: Any = import_module("duckdb")
        except ModuleNotFoundError:
            raise ConfigurationError("Parquet files are asked through DuckDB; install spoorway[duckdb]") from None
        self._kept, self._failed = kept or {}, failed
        self._bucket = _Fetched(bucket) if bucket else None
        self._opened: Sequence[str] = ()
        self._db: Any = self._duckdb.connect(":memory:")
        try:
            self._db.execute("SET TimeZone = 'UTC'; SET parquet_metadata_cache = true")
            self._db.execute("CREATE SCHEMA atomic")
            if not self._kept:
                self._db.execute(f"CREATE VIEW atomic.events AS SELECT * FROM read_parquet({_list(files)}, union_by_name = true)")
        except self._duckdb.Error as error:
            self._db.close()
            raise ConfigurationError(f"{', '.join(files)}: {_first_line(error)}") from None

    def _near(self, files: Sequence[str]) -> Sequence[str]:
        return self._bucket.paths(files) if self._bucket else files

    def _open_failed(self) -> None:
        kinds = {name: "TIMESTAMP" if name.endswith("_tstamp") else "VARCHAR" for name in FailedRow._fields}
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in kinds.items())
        read = f"read_json({_list(self._near(self._failed))}, format = 'newline_delimited', columns = {{{columns}}})"
        self._db.execute(f"CREATE OR REPLACE VIEW atomic.failed_events AS SELECT * FROM {read}")

    def _open(self, first: str, last: str, events: frozenset[str]) -> None:
        """The files of these days and events; one of any where there are none, for its columns."""
        found: list[str] = []
        for partition, files in self._kept.items():
            day = partition[len("day=") :].partition("/")[0]
            if first <= day <= last and (not events or partition in {lake.events_partition(day, name) for name in events}):
                found += files
        if found != self._opened or not found:
            files = self._near(found or next(iter(self._kept.values()))[:1])
            read = f"read_parquet({_list(files)}, hive_partitioning = false)"
            self._db.execute(f"CREATE OR REPLACE VIEW atomic.events AS SELECT * FROM {read}")
            self._opened = found

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        used = {name: value for name, value in values.items() if re.search(rf"\${name}\b", sql)}
        try:
            if self._failed and "failed_events" in sql:
                self._open_failed()
            if self._kept:
                self._open(str(values["since"])[:10], str(values["until"])[:10], events)
            cursor = self._db.execute(sql, used)
            return [column[0] for column in cursor.description], cursor.fetchall()
        except self._duckdb.Error as error:
            raise _unanswered(error) from None

    def close(self) -> None:
        self._db.close()
        if self._bucket:
            self._bucket.close()


class _Fetched:
    """Objects as files of a temporary folder: DuckDB reads a bucket with an extension only, which it would have to download."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self._folder = objects, TemporaryDirectory(prefix="spoorway-")
        self._paths: dict[str, str] = {}

    def paths(self, names: Sequence[str]) -> list[str]:
        """Raises TransientError, PermanentError; ConfigurationError for one that has been merged or deleted meanwhile."""
        for name in names:
            if name not in self._paths:
                path = Path(self._folder.name, f"{len(self._paths):08d}-{name.rpartition('/')[2]}")
                try:
                    with self._objects.open(name) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file)
                except NoSuchObject:
                    raise ConfigurationError(f"{name} was merged or deleted meanwhile; ask again") from None
                self._paths[name] = str(path)
        return [self._paths[name] for name in names]

    def close(self) -> None:
        self._folder.cleanup()


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
        self._tables: Mapping[str, Table] | None = None
        inside = config.entities == "super"
        room = f'"{schema}".'
        found = entity_values.functions(room) if inside else entity_rows.functions(room, self._written)
        self.dialect = replace(REDSHIFT, schema=room, functions=found)

        def prepare(db: Any) -> None:
            db.run(f"SET statement_timeout TO {round(limit_s * 1000)}")
            if inside:
                db.run(entity_values.SETTING)

        self._link = connection.Link(config, prepare)

    def rows(
        self, sql: str, values: Mapping[str, object], events: frozenset[str]
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        used = {name: value for name, value in values.items() if f"%({name})s" in sql}
        with self._transaction() as db:
            names, rows = db.named(sql, used)
            return names, rows

    def _written(self) -> Mapping[str, Table]:
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
    if not where.strip():
        raise ConfigurationError("--on is empty; name sqlite, a target, a folder, Parquet files or postgresql://…")
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
        if instance.use == "s3":
            return _lake(instance.config) if "://" in instance.config.url else _folder(instance.config.url)
        raise ConfigurationError(f"--on: a target of the kind {instance.use} is not asked; ask another, such as sqlite")
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
        return Parquet([f"{glob.escape(where)}/**/*.parquet"])
    failed, kept = _counting(open_objects(where), where, lambda name: str(Path(where, name)))
    return Parquet((), failed, kept)


def _lake(config: Any) -> Store:
    """A target's bucket. config: the target's."""
    objects = open_objects(config.url, endpoint=config.endpoint, region=config.region, profile=config.profile)
    return Parquet((), *_counting(objects, config.url, str), objects)


def _counting(objects: Objects, where: str, path: Callable[[str], str]) -> tuple[list[str], dict[str, list[str]]]:
    """Of what an S3 target keeps the files that count: of failed events, and of each partition of events."""
    live, _ = lake.sorted_out(objects.list())
    kept: dict[str, list[str]] = {}
    for piece in live:
        if piece.kind == lake.EVENTS:
            kept.setdefault(piece.partition.partition("/")[2], []).append(path(piece.name))
    if not kept:
        raise ConfigurationError(f"{where}: there are no Parquet files of events")
    return [path(piece.name) for piece in live if piece.kind == lake.FAILED], kept
