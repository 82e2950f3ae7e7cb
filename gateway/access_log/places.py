"""How far each log file was read: one SQLite file, so that a line is not read again. Never what makes a line unique.

A file is known by its first line, whatever its name becomes, and a place in it by the line before: so a file that was renamed,
compressed or copied goes on where it was, and another file under an old name is read from its start. Losing all of this
costs time and duplicates, no event: the same line always makes the same payload id.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from protocol.seams import ConfigurationError, TransientError

_FORGET_MS = 7 * 86_400_000  # a file that is gone so long will not come back under another name

_TABLES = """
CREATE TABLE IF NOT EXISTS places (
  head TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, last_at INTEGER NOT NULL, "offset" INTEGER NOT NULL, last TEXT NOT NULL,
  fields TEXT NOT NULL, seen_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS places_name ON places (name);
CREATE TABLE IF NOT EXISTS finished (name TEXT PRIMARY KEY NOT NULL, stamp TEXT NOT NULL, seen_ms INTEGER NOT NULL) WITHOUT ROWID;
"""


class Place(NamedTuple):
    """How far a file was read. head: what its first line sums to. offset: bytes, uncompressed.

    last_at: where the line before it began; last: what that sums to. fields: the columns in force there, by CloudFront's names.
    """

    head: str
    name: str
    last_at: int
    offset: int
    last: str
    fields: tuple[str, ...] = ()


class Places:
    """Call order: open -> any of the others, from one thread at a time -> close. All raise TransientError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: sqlite3.Connection

    def open(self) -> None:
        """Raises ConfigurationError."""
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # What a power cut takes of it is read again, and recognised.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
        except sqlite3.Error as error:
            raise ConfigurationError(f"access_log: state: {self._path}: {error}") from error

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    def by_head(self, head: str) -> Place | None:
        return self._place("head", head)

    def by_name(self, name: str) -> Place | None:
        """Of the file that had this name last."""
        return self._place("name", name)

    def keep(self, place: Place, now_ms: int) -> None:
        """The file that had its name before, if it was another, has none now."""
        values = (place.head, place.name, place.last_at, place.offset, place.last, "\t".join(place.fields), now_ms)
        self._write(
            ("UPDATE places SET name = '' WHERE name = ? AND head <> ?", [(place.name, place.head)]),
            ("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?, ?, ?)", [values]),
        )

    def finished(self, name: str) -> str:
        """The stamp with which the file was read to its end; "" for none."""
        try:
            row = self._db.execute("SELECT stamp FROM finished WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        return str(row[0]) if row else ""

    def finish(self, name: str, stamp: str, now_ms: int) -> None:
        self._write(("INSERT OR REPLACE INTO finished VALUES (?, ?, ?)", [(name, stamp, now_ms)]))

    def seen(self, names: Iterable[str], now_ms: int) -> None:
        """All files there are: what was not among them for a week is forgotten, so that this grows no larger than they do."""
        there, old = [(now_ms, name) for name in names], [(now_ms - _FORGET_MS,)]
        self._write(
            ("UPDATE finished SET seen_ms = ? WHERE name = ?", there),
            ("UPDATE places SET seen_ms = ? WHERE name = ?", there),
            ("DELETE FROM finished WHERE seen_ms < ?", old),
            ("DELETE FROM places WHERE seen_ms < ?", old),
        )

    def _place(self, column: str, value: str) -> Place | None:
        try:
            row = self._db.execute(
                f'SELECT head, name, last_at, "offset", last, fields FROM places WHERE {column} = ?', (value,)
            ).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        if row is None:
            return None
        head, name, last_at, offset, last, fields = row
        return Place(head, name, last_at, offset, last, tuple(fields.split("\t")) if fields else ())

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """In one transaction."""
        try:
            self._db.execute("BEGIN")
            for sql, rows in statements:
                self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._trouble(error) from error

    def _trouble(self, error: sqlite3.Error) -> TransientError:
        return TransientError(f"{self._path}: {error}")
