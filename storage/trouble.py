"""SQLite's errors -> ours: the same again later, or never."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from protocol.seams import PermanentError, TransientError

# What another attempt may not meet again. Everything else is permanent.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}


def translated(path: Path | str, error: sqlite3.Error) -> TransientError | PermanentError:
    """To be raised in its place. path: the file, for the message."""
    code = getattr(error, "sqlite_errorcode", None)
    passing = code is not None and code & 0xFF in _PASSING
    return (TransientError if passing else PermanentError)(f"{path}: {error}")
