"""Read-only access to the schema of a PostgreSQL target: nothing a question says can write there.

Imported where a question or the doctor needs it: it loads psycopg.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.pq import ExecStatus
from psycopg.types.string import TextLoader

from protocol.seams import ConfigurationError
from storage.postgres.connection import Config, Connection, connect, translated

_AS_TEXT = ("timestamp", "timestamptz", "date", "time", "timetz", "interval", "uuid", "json", "jsonb", "inet", "cidr")


def open_read_only(config: Config) -> Connection:
    """A connection whose names mean the target's tables; what is begun on it sees one state and cannot write.

    Raises ConfigurationError when there are no tables yet, TransientError, PermanentError.
    """
    try:
        db = connect(config, read_only=True)
    except psycopg.Error as error:
        raise translated(config.schema, error) from None
    try:
        db.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        db.execute("SELECT 1 FROM totals")
    except psycopg.errors.UndefinedTable:
        db.close()
        raise ConfigurationError(f"postgres {config.schema}: there are no tables yet; start `spoorway run`") from None
    except psycopg.Error as error:
        db.close()
        raise translated(config.schema, error) from None
    return db


class _Number(Loader):
    def load(self, data: Buffer) -> int | float | str:
        text = bytes(data).decode()
        if text.lstrip("-").isdigit():
            return int(text)
        return text if text[-1].isalpha() else float(text)  # NaN, Infinity


class Asking:
    """One question after the other, answered as SQLite's are: times, ids and JSON are text. A context manager."""

    def __init__(self, config: Config) -> None:
        """Raises as `open_read_only`."""
        self._db = open_read_only(config)
        for name in _AS_TEXT:
            self._db.adapters.register_loader(name, TextLoader)
        self._db.adapters.register_loader("numeric", _Number)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *raised: object) -> None:
        self._db.close()

    def ask(self, question: str) -> tuple[list[str], Iterable[Sequence[Any]]]:
        """The names of the columns, and the rows as they come. Raises ConfigurationError."""
        names = self._names(question)
        return names, self._rows(question)

    def _names(self, question: str) -> list[str]:
        """Only one statement can be prepared, and only one that answers with rows has columns: neither COPY nor COMMIT has."""
        server = self._db.pgconn
        for result in (server.prepare(b"", question.encode("utf-8", "replace")), server.describe_prepared(b"")):
            if result.status != ExecStatus.COMMAND_OK:
                raise ConfigurationError(_told(result.error_message.decode("utf-8", "replace").strip()))
        if not result.nfields:
            raise ConfigurationError("that is no question: only what answers with rows is asked here")
        return [(result.fname(place) or b"").decode() for place in range(result.nfields)]

    def _rows(self, question: str) -> Iterable[Sequence[Any]]:
        try:
            with self._db.transaction(), self._db.cursor() as cursor:
                self._db.execute("SELECT 1")  # after a first statement a transaction can be made writable no more
                yield from cursor.stream(question.encode("utf-8", "replace"))
        except psycopg.Error as error:
            raise ConfigurationError(_told(str(error).strip())) from None


def _told(message: str) -> str:
    first = message.partition("\n")[0].removeprefix("ERROR:").strip()
    return f"{first}{'; the store is read-only here' if 'read-only' in first else ''}"
