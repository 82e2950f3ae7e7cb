"""What a relay keeps on its own disk: its place in the journal, its counts, and the payloads its upstream will never take.

One SQLite file; place, counts and refused payloads are one transaction (WAL, synchronous=FULL). Knows no clock and no network.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path

from protocol import payloads
from protocol.seams import Cursor, FailedEvent, Json, PermanentError, Position, RawPayload
from storage.failed import FailedRow, payload_text, to_json, to_row
from storage.rows import timestamp
from storage.targets import Contact, Counts, Erasure, RawBatch
from storage.trouble import translated

_APPLICATION_ID = 0x53505252  # "SPRR"
_VERSION = 1
_COUNTS = ("payloads", "stored", "failed", "duplicate", "dropped", "forwarded")
_TABLES = (
    'CREATE TABLE cursors (lane TEXT PRIMARY KEY NOT NULL, segment INTEGER, "offset" INTEGER, sequence INTEGER)',
    "CREATE TABLE totals (mark TEXT, {}, {})".format(
        ", ".join(f"{name} INTEGER" for name in _COUNTS), ", ".join(f"last_{name} INTEGER" for name in _COUNTS)
    ),
    "INSERT INTO totals VALUES ('', {})".format(", ".join("0" for _ in 2 * _COUNTS)),
    "CREATE TABLE failed_events ({}, payload TEXT NOT NULL, PRIMARY KEY (failed_id))".format(", ".join(FailedRow._fields)),
    "CREATE TABLE dropped_events (failed_id TEXT PRIMARY KEY NOT NULL, kind TEXT NOT NULL, dropped_tstamp TEXT)",
    "CREATE TABLE link (boot INTEGER, contact_ms INTEGER, error TEXT, error_ms INTEGER)",
    "INSERT INTO link VALUES (0, 0, '', 0)",
)


class State:
    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises PermanentError when it is not, or cannot become, a relay's."""
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, 10, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise PermanentError(f"{path}: {error}") from error
        try:
            with self._translated():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction() as db:
                self._make(db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._db.close()

    def cursor(self) -> Cursor:
        with self._lock, self._translated():
            return _cursor(self._db)

    def totals(self) -> Counts:
        with self._lock, self._translated():
            return Counts(*self._db.execute(f"SELECT {', '.join(_COUNTS)} FROM totals").fetchone())

    def account(self) -> tuple[Cursor, Counts]:
        with self._lock, self._transaction() as db:
            counts = Counts(*db.execute(f"SELECT {', '.join(_COUNTS)} FROM totals").fetchone())
            return _cursor(db), counts

    def commit(self, batch: RawBatch, refused: Sequence[FailedEvent]) -> Counts:
        """Its payloads are upstream, but for the refused ones, which are kept. One transaction.

        The batch that was committed last changes nothing and is answered with what it counted then.
        """
        mark = _mark(batch)
        with self._lock, self._transaction() as db:
            last = ", ".join(f"last_{name}" for name in _COUNTS)
            before, *counted = db.execute(f"SELECT mark, {last} FROM totals").fetchone()
            if before == mark:
                return Counts(*counted)
            failed = [*batch.failed, *refused]
            fresh = sum(_keep(db, one) for one in failed)
            counts = Counts(batch.covered, failed=fresh, duplicate=len(failed) - fresh, forwarded=batch.covered - len(failed))
            db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)", [(k, *p) for k, p in batch.cursor.items()])
            db.execute(
                "UPDATE totals SET mark = ?, {}".format(
                    ", ".join([*(f"{name} = {name} + ?" for name in _COUNTS), *(f"last_{name} = ?" for name in _COUNTS)])
                ),
                (mark, *astuple(counts)[: len(_COUNTS)] * 2),
            )
        return counts

    def next_boot(self, least: int) -> int:
        """A number that no earlier boot had, at least `least`; on disk before it is told."""
        with self._lock, self._transaction() as db:
            db.execute("UPDATE link SET boot = max(boot + 1, ?)", (least,))
            (boot,) = db.execute("SELECT boot FROM link").fetchone()
        return int(boot)

    def contact(self) -> Contact:
        with self._lock, self._translated():
            return Contact(*self._db.execute("SELECT contact_ms, error, error_ms FROM link").fetchone())

    def keep_contact(self, contact: Contact) -> None:
        with self._lock, self._transaction() as db:
            values = (contact.contact_ms, contact.error, contact.error_ms)
            db.execute("UPDATE link SET contact_ms = ?, error = ?, error_ms = ?", values)

    # Refused payloads: see storage.targets.FailedStore ----------------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        with self._lock, self._translated():
            rows = self._db.execute(
                f"SELECT {', '.join(FailedRow._fields)} FROM failed_events WHERE (?1 IS NULL OR kind = ?1)"
                " AND (?2 IS NULL OR failed_tstamp >= ?2) ORDER BY failed_tstamp DESC, failed_id LIMIT ?3",
                (kind, timestamp(since_ms) if since_ms is not None else None, limit),
            ).fetchall()
        return [to_json(FailedRow(*row)) for row in rows]

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        return [str(row["failed_id"]) for row in self.list_failed(kind, since_ms, limit)]

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        with self._lock, self._translated():
            row = self._db.execute(
                f"SELECT {', '.join(FailedRow._fields)}, payload FROM failed_events WHERE failed_id = ?", (failed_id,)
            ).fetchone()
        return None if row is None else (to_json(FailedRow(*row[:-1])), payloads.from_json(row[-1].encode()))

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        dropped = 0
        with self._lock, self._transaction() as db:
            for failed_id in failed_ids:
                row = db.execute("SELECT failed_id, kind FROM failed_events WHERE failed_id = ?", (failed_id,)).fetchone()
                if row is not None:
                    dropped += 1
                    db.execute("INSERT INTO dropped_events VALUES (?, ?, ?)", (*row, timestamp(dropped_ms)))
                    db.execute("DELETE FROM failed_events WHERE failed_id = ?", row[:1])
            db.execute("UPDATE totals SET failed = failed - ?1, dropped = dropped + ?1", (dropped,))
        return dropped

    def erase(self, erasure: Erasure, dry: bool) -> int:
        """Refused payloads without what is theirs; how many nothing is left of. Those count as dropped."""
        with self._lock, self._transaction() as db:
            db.execute("PRAGMA secure_delete = ON")
            gone = 0
            for failed_id, kind, text in db.execute("SELECT failed_id, kind, payload FROM failed_events").fetchall():
                left = erasure.cut(payloads.from_json(text.encode()))
                if left is None:
                    continue
                whole = not left.query and not left.body
                gone += whole
                if whole and not dry:
                    db.execute("INSERT INTO dropped_events VALUES (?, ?, ?)", (failed_id, kind, timestamp(erasure.until_ms)))
                    db.execute("DELETE FROM failed_events WHERE failed_id = ?", (failed_id,))
                elif not dry:
                    db.execute("UPDATE failed_events SET payload = ? WHERE failed_id = ?", (payload_text(left), failed_id))
            if not dry:
                db.execute("UPDATE totals SET failed = failed - ?1, dropped = dropped + ?1", (gone,))
        if not dry:
            with self._lock, self._translated():
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    def taken_after_all(self, failed_id: str) -> bool:
        """A refused payload that the upstream has taken now; False when it is not among those that wait."""
        with self._lock, self._transaction() as db:
            gone = db.execute("DELETE FROM failed_events WHERE failed_id = ?", (failed_id,)).rowcount
            db.execute("UPDATE totals SET failed = failed - ?1, forwarded = forwarded + ?1", (gone,))
        return bool(gone)

    # The machine ------------------------------------------------------------------------------------------------------

    def _make(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        if version > _VERSION:
            raise PermanentError(f"{self._path}: written by a newer Spoorway")
        if owner != _APPLICATION_ID and db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise PermanentError(f"{self._path}: not a relay's file; name a new one")
        if version == 0:
            for statement in _TABLES:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._translated():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(self._path, error) from error


def _cursor(db: sqlite3.Connection) -> dict[str, Position]:
    return {lane: Position(*place) for lane, *place in db.execute('SELECT lane, segment, "offset", sequence FROM cursors')}


def _keep(db: sqlite3.Connection, failed: FailedEvent) -> bool:
    row = to_row(failed)
    if db.execute("SELECT 1 FROM dropped_events WHERE failed_id = ?", row[:1]).fetchone():
        return False
    marks = ", ".join("?" * (len(row) + 1))
    return bool(
        db.execute(f"INSERT OR IGNORE INTO failed_events VALUES ({marks})", (*row, payload_text(failed.payload))).rowcount
    )


def _mark(batch: RawBatch) -> str:
    """Names a batch by what is in it and where it ends."""
    names = [repr(sorted(batch.cursor.items())), *(p.id for p in batch.payloads), *(f.id for f in batch.failed)]
    return hashlib.blake2b("\n".join(names).encode(errors="replace"), digest_size=16).hexdigest()
