"""The ids of what is stored, in a small SQLite file on this machine: which events and failed events came before.

It remembers what the files say and nothing else: `number` is the commit it has reached, and who finds it behind, or lost,
reads on in the files. Ids are kept as 16 bytes of a hash; two that differ fall together once in 10^38 pairs.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path

from protocol.seams import PermanentError
from storage.rows import json_text
from storage.trouble import translated

_FIRST = itemgetter(0)
# Many keys, of 16 bytes each, are handed over as one value: binding and stepping for each costs more than looking it up.
_LOOK = (
    "WITH RECURSIVE place(at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM place WHERE at + 16 < length(?1))"
    " SELECT id, {1} FROM place CROSS JOIN {0} ON id = substr(?1, at, 16)"
)
_ADD = "INSERT OR IGNORE INTO events SELECT substr(?1, 16 * key + 1, 16), value, ?3 FROM json_each(?2)"
_TABLES = (
    "CREATE TABLE events (id BLOB PRIMARY KEY NOT NULL, fingerprint TEXT, day TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE failed (id BLOB PRIMARY KEY NOT NULL, day TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE reached (origin TEXT NOT NULL, number INTEGER NOT NULL, pruned TEXT NOT NULL)",
    "INSERT INTO reached VALUES ('', 0, '')",
    "PRAGMA user_version = 1",
)


# An event that is stored: its id, its fingerprint, the day it was received.
Known = tuple[str, str | None, str]


class Index:
    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises TransientError, PermanentError."""
        self._path = path
        self._keys: dict[str, bytes] = {}
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, 10, isolation_level=None, check_same_thread=False)
        try:
            with self._translated():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA cache_size = -32768")
            with self._transaction() as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if version > 1 or (not version and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]):
                    raise PermanentError(f"{path}: no index of this version; delete it, and it is made again from the files")
                for statement in () if version else _TABLES:
                    db.execute(statement)
        except BaseException:
            self._db.close()
            raise

    def reached(self) -> tuple[str, int]:
        """(origin, number) of the newest commit whose ids are in here."""
        with self._translated():
            origin, number = self._db.execute("SELECT origin, number FROM reached").fetchone()
            return origin, number

    def stored(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Of the events with these ids: id -> fingerprint."""
        found: dict[str, str | None] = {}
        with self._translated():
            for names, fingerprint in self._look("events", "fingerprint", ids):
                found[names] = fingerprint
        return found

    def failed(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Of those that are stored, or were dropped: the day they were received."""
        with self._translated():
            return dict(self._look("failed", "day", ids))

    def begin(self, origin: str) -> None:
        """Forgets everything: what follows is another life of the target."""
        with self._transaction() as db:
            db.execute("DELETE FROM events")
            db.execute("DELETE FROM failed")
            db.execute("UPDATE reached SET origin = ?, number = 0, pruned = ''", (origin,))

    def add(
        self, events: Iterable[Known], failed: Iterable[tuple[str, str]], reached: tuple[str, int] | None = None, forget: str = ""
    ) -> None:
        """failed: (id, day). reached: now everything up to that commit is in here; None = there is more to come.

        forget: what is of an earlier day is remembered no more; looked at once for each such day.
        """
        with self._transaction() as db:
            days: defaultdict[str, list[tuple[bytes, str | None]]] = defaultdict(list)
            for event_id, fingerprint, day in events:
                days[day].append((self._key(event_id), fingerprint))
            for day, rows in days.items():
                rows.sort(key=_FIRST)  # then a page of the index is written to once a batch
                keys, fingerprints = zip(*rows, strict=True)
                db.execute(_ADD, (b"".join(keys), json_text(fingerprints), day))
            db.executemany("INSERT OR IGNORE INTO failed VALUES (?, ?)", [(self._key(one), day) for one, day in failed])
            if reached is not None:
                db.execute("UPDATE reached SET origin = ?, number = ?", reached)
            if forget > db.execute("SELECT pruned FROM reached").fetchone()[0]:
                db.execute("DELETE FROM events WHERE day < ?", (forget,))
                db.execute("DELETE FROM failed WHERE day < ?", (forget,))
                db.execute("UPDATE reached SET pruned = ?", (forget,))

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    def _key(self, text: str) -> bytes:
        return self._keys.get(text) or _key(text)

    def _look(self, table: str, column: str, ids: Sequence[str]) -> Generator[tuple[str, str | None]]:
        if not ids:
            return
        keys = {_key(one): one for one in ids}
        if table == "events" and len(keys) > 1:  # what is looked up is mostly what is added next
            self._keys = {one: key for key, one in keys.items()}
        for key, value in self._db.execute(_LOOK.format(table, column), (b"".join(sorted(keys)),)):
            yield keys[key], value

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._translated():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(self._path, error) from error
        except OSError as error:
            raise PermanentError(f"{self._path}: {error.strerror}") from error


def _key(text: str) -> bytes:
    return blake2b(text.encode(errors="replace"), digest_size=16).digest()
