"""Read-only access to the SQLite store: nothing a question says can write, attach another file or load code."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from protocol.seams import ConfigurationError

_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "database_list", "function_list"}


# Of a question over many events: the file is looked into where the system keeps it, without a copy of each page, as far as
# SQLite goes (2 GiB); and what must be sorted stays in memory up to 64 MiB.
_MANY = ("PRAGMA atomic.mmap_size = 2147418112", "PRAGMA main.cache_size = -65536")


def open_read_only(path: Path, many: bool = False) -> sqlite3.Connection:
    """A connection with the store attached as `atomic`, so that `atomic.events` is the table of events.

    many: it will be asked of very many. Raises ConfigurationError.
    """
    db = sqlite3.connect("file::memory:", uri=True, isolation_level=None)
    try:
        db.execute("ATTACH ? AS atomic", (f"{path.resolve().as_uri()}?mode=ro",))
        db.execute("SELECT 1 FROM atomic.events LIMIT 1")
        for table in ("json_each", "json_tree"):  # their first use declares a table, which nobody may once questions are asked
            db.execute(f"SELECT 1 FROM {table}('[]')")
        for pragma in _MANY if many else ():
            db.execute(pragma)
    except sqlite3.Error as error:
        db.close()
        raise ConfigurationError(f"{path}: {error}") from None
    db.execute("PRAGMA query_only = ON")
    db.set_authorizer(authorize)
    return db


def authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action in _READS:
        return sqlite3.SQLITE_DENY if second == "load_extension" else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
