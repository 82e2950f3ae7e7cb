"""Asks databases for the enrichments: one query, prepared by its owner; the event's values go in as parameters only.

Nothing is ever written: SQLite is opened read-only behind an authorizer, PostgreSQL in read-only transactions.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
import weakref
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from enrich.enrichments import Unanswered
from protocol.seams import ConfigurationError
from spoorway.fetching import Breaker

Ask = Callable[[tuple[object, ...]], list[dict[str, object]]]

_LOOK_EVERY_S = 2.0
_LONGEST_VALUE = 1_000_000
# Others, such as VACUUM INTO, ask the authorizer too late.
_QUESTION = re.compile(r"\s*(select|with|values)\b", re.IGNORECASE)
_STEPS = 1_000  # of SQLite's machine, between two looks at the clock
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


def sqlite(address: str, query: str, values: int, timeout_s: float, most_rows: int) -> Ask:
    """address: the file; one that was put in its place is noticed. Raises ConfigurationError."""
    file = Path(address.removeprefix("sqlite:///")).expanduser()
    try:
        connection = _opened(file)
        connection.execute(f"EXPLAIN {query}", (None,) * values).close()
        seen, looked = _identity(file), time.monotonic()
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"{file}: {error}") from None
    if not _QUESTION.match(query):
        raise ConfigurationError(f"{file}: a query begins with SELECT, WITH or VALUES")

    def ask(values: tuple[object, ...]) -> list[dict[str, object]]:
        nonlocal connection, seen, looked
        try:
            if time.monotonic() - looked > _LOOK_EVERY_S:
                looked, now = time.monotonic(), _identity(file)
                if now != seen:
                    connection.close()
                    connection, seen = _opened(file), now
            deadline = time.monotonic() + timeout_s
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            cursor = connection.execute(query, values)
            found = cursor.fetchmany(most_rows + 1)
            names = [name for name, *_ in cursor.description]
            cursor.close()
        except (OSError, OverflowError, UnicodeError, sqlite3.Error) as error:
            late = isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted"
            raise Unanswered(f"no answer within {timeout_s:g} s" if late else f"{file.name}: {error}") from None
        return _rows(names, found, most_rows)

    return ask


def _opened(file: Path) -> sqlite3.Connection:
    """check_same_thread: the thread that loads is not the one that reads the configuration; one of them at a time asks."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0.1, check_same_thread=False)
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = 1").close()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.set_authorizer(_authorized)
    return connection


def _authorized(action: int, *about: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


def _identity(file: Path) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_dev, found.st_ino


def postgres(address: str, query: str, values: int, timeout_s: float, most_rows: int) -> Ask:
    """address: libpq's URI. Connects when it is first asked, and again when the connection was lost."""
    try:
        psycopg: Any = import_module("psycopg")
    except ModuleNotFoundError:
        raise ConfigurationError("a PostgreSQL database needs the package psycopg; install spoorway[postgres]") from None
    milliseconds = max(1, math.ceil(timeout_s * 1_000))
    limits = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    options = f"-c client_encoding=UTF8 -c default_transaction_read_only=on {limits}"
    breaker = Breaker()
    kept: list[Any] = []

    def ask(values: tuple[object, ...]) -> list[dict[str, object]]:
        breaker.check()
        try:
            if not kept:
                wait_s = max(2, math.ceil(timeout_s))  # libpq takes no less
                keep: dict[str, Any] = {"tcp_user_timeout": milliseconds + 1_000, "connect_timeout": wait_s}
                kept.append(psycopg.connect(address, autocommit=True, options=options, **keep))
            # A server-side portal: of a million rows only as many come as were asked for.
            with kept[0].transaction(), kept[0].cursor(name="lookup") as cursor:
                cursor.execute(query, values)
                found = cursor.fetchmany(most_rows + 1)
                names = [column.name for column in cursor.description]
        except psycopg.errors.QueryCanceled:
            raise Unanswered(f"no answer within {timeout_s:g} s") from None
        except psycopg.Error as error:
            if not kept or kept[0].closed:
                breaker.failed()
                kept.clear()
            raise Unanswered(f"{type(error).__name__}: {str(error).strip()}"[:500]) from None
        breaker.worked()
        return _rows(names, found, most_rows)

    weakref.finalize(ask, _close, kept)
    return ask


def _close(kept: list[Any]) -> None:
    for connection in kept:
        connection.close()


def _rows(names: list[str], found: list[tuple[object, ...]], most_rows: int) -> list[dict[str, object]]:
    if len(found) > most_rows:
        raise Unanswered(f"more than {most_rows} rows")
    return [dict(zip(names, row, strict=True)) for row in found]
