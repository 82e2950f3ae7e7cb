"""Keeps events in one SQLite file: `events`, `failed_events` and a typed view per schema; docs/sql.md describes them.

Rows, failed events, totals and cursor are one transaction (WAL, synchronous=FULL). Other processes may read at any time
and write between two commits. Knows no clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path

from protocol import payloads
from protocol.iglu import InvalidUri, SchemaKey, parse
from protocol.seams import Cursor, Event, FailedEvent, Json, PermanentError, Position, RawPayload
from protocol.tables import COLUMN_NAMES
from storage import ledger, removal
from storage.ddl import migrate
from storage.duplicates import sort_out
from storage.failed import FailedRow, payload_text, to_json, to_row, waits_for
from storage.marks import mark_of
from storage.rows import json_text, timestamp, to_rows
from storage.targets import Batch, Counts, Erasure, Removed, Rule, SchemaLookup, Waiting
from storage.trouble import translated
from storage.views import schemas_of, view_name, view_sql

# CROSS JOIN: each id is looked up in the index, whatever the planner thinks of their number.
_WHICH_ARE_IN = "SELECT event_id, event_fingerprint FROM json_each(?) AS asked CROSS JOIN {0} ON event_id = asked.value"
_RARE = 8  # rows: a set of columns with fewer in a batch is written together with the other rare ones
_MOST_SCHEMAS = 5_000  # schemas that get a view; more are stored all the same
_FORGET_PAYLOAD = (  # when no failed event needs it any more
    "DELETE FROM failed_payloads WHERE payload_id = ?1 AND NOT EXISTS"
    " (SELECT 1 FROM failed_events WHERE payload_id = ?1 AND replayed_tstamp IS NULL)"
)
_PLACE = {name: place for place, name in enumerate(COLUMN_NAMES)}


@dataclass(frozen=True, slots=True)
class Config:
    """path: the file; "" = DATA/events.db. busy_ms: how long to wait for another writer. cache_mb: page cache.

    remember_days: so long an event that was erased or has expired is known as a duplicate when it comes again.
    """

    path: str = ""
    busy_ms: int = 10_000
    cache_mb: int = 32
    remember_days: float = 7.0


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup) -> None:
        """Opens or creates the file. Raises PermanentError when it is not, or cannot become, ours."""
        self._path = Path(config.path)
        self._lookup = schemas
        self._remember_ms = int(config.remember_days * 86_400_000)
        self._lock = threading.Lock()
        self._known: set[str] = set()  # schemas that need no more thought in this run
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One cached statement per shape; SQLite's own default would forget them within a batch.
            self._db = sqlite3.connect(
                self._path, config.busy_ms / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except (OSError, sqlite3.Error) as error:
            raise PermanentError(f"{self._path}: {error}") from error
        try:
            with self._translated():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute(f"PRAGMA cache_size = {-1024 * config.cache_mb}")
                self._db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: fewer, larger write-backs
                self._db.execute("PRAGMA journal_size_limit = 67108864")
            with self._transaction() as db:
                migrate(db)
            self._inode = os.stat(self._path).st_ino
        except BaseException:
            self._db.close()
            raise

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        with self._lock, self._translated():
            return _read_cursor(self._db)

    def totals(self) -> Counts:
        with self._lock, self._translated():
            names = ("payloads", "stored", "failed", "duplicate", "dropped", "erased", "expired")
            row = self._db.execute(f"SELECT {', '.join(names)} FROM totals").fetchone()
            return Counts(**dict(zip(names, row, strict=True)))

    def commit(self, batch: Batch) -> Counts:
        mark = mark_of(batch)
        with self._lock:
            self._still_there()
            with self._transaction() as db:
                before, *counted = db.execute(
                    "SELECT mark, last_payloads, last_stored, last_failed, last_duplicate FROM totals"
                ).fetchone()
                if before == mark:  # this very batch: its commit had succeeded, only the caller did not hear of it
                    return replace(Counts(*counted), erased=batch.erased)
                moved = batch.moved(_read_cursor(db))
                counts = self._take(db, batch.events, batch.failed, batch.payloads)
                db.execute("UPDATE totals SET erased = erased + ?", (batch.erased,))
                db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)", [(k, *p) for k, p in moved.items()])
                db.execute(
                    "UPDATE totals SET mark = ?, last_payloads = ?, last_stored = ?, last_failed = ?, last_duplicate = ?",
                    (mark, *astuple(counts)[:4]),
                )
        return replace(counts, erased=batch.erased)

    def close(self) -> None:
        with self._lock, suppress(sqlite3.Error):
            self._db.close()

    # Failed events --------------------------------------------------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        """Newest first, without their payloads. replayed: also those that were solved since."""
        since = timestamp(since_ms) if since_ms is not None else None
        with self._lock, self._translated():
            rows = self._db.execute(
                "SELECT * FROM failed_events WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR failed_tstamp >= ?2)"
                " AND (?3 OR replayed_tstamp IS NULL) ORDER BY failed_tstamp DESC, failed_id LIMIT ?4",
                (kind, since, replayed, limit),
            ).fetchall()
        return [to_json(FailedRow(*row)) for row in rows]

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        """Those that wait, newest first."""
        since = timestamp(since_ms) if since_ms is not None else None
        with self._lock, self._translated():
            rows = self._db.execute(
                "SELECT failed_id FROM failed_events WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR failed_tstamp >= ?2)"
                " AND replayed_tstamp IS NULL ORDER BY failed_tstamp DESC, failed_id LIMIT ?3",
                (kind, since, limit),
            )
            return [failed_id for (failed_id,) in rows]

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        """One failed event and the payload it came from, byte for byte; the payload is gone once all of its events are solved."""
        with self._lock, self._translated():
            row = self._db.execute(
                "SELECT f.*, p.payload FROM failed_events AS f LEFT JOIN failed_payloads AS p USING (payload_id)"
                " WHERE failed_id = ?",
                (failed_id,),
            ).fetchone()
        if row is None:
            return None
        *columns, payload = row
        return to_json(FailedRow(*columns)), payloads.from_json(payload.encode()) if payload else None

    def resolve(self, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int) -> Counts | None:
        """Store what a replay made of one failed event, in one transaction; None when it is unknown or solved already.

        If it failed again under the same id it stays, with its new reasons; otherwise it is marked as replayed and counts
        as failed no more.
        """
        with self._lock, self._transaction() as db:
            return self._resolve(db, failed_id, events, failed, replayed_ms)

    def resolve_all(self, resolutions: Iterable[tuple[str, Sequence[Event], Sequence[FailedEvent]]], replayed_ms: int) -> int:
        """`resolve` for each (failed_id, events, failed), all in one transaction; how many are solved."""
        solved = 0
        with self._lock, self._transaction() as db:
            for failed_id, events, failed in resolutions:
                if self._resolve(db, failed_id, events, failed, replayed_ms) is not None:
                    solved += all(again.id != failed_id for again in failed)
        return solved

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        """Give up those that wait among these; see FailedStore. Their rows and payloads are deleted, their ids are kept."""
        dropped = 0
        with self._lock, self._transaction() as db:
            for failed_id in failed_ids:
                row = db.execute(
                    "SELECT failed_id, kind, collector_tstamp, payload_id FROM failed_events"
                    " WHERE failed_id = ? AND replayed_tstamp IS NULL",
                    (failed_id,),
                ).fetchone()
                if row is not None:
                    dropped += 1
                    db.execute("INSERT INTO dropped_events VALUES (?, ?, ?, ?)", (*row[:3], timestamp(dropped_ms)))
                    db.execute("DELETE FROM failed_events WHERE failed_id = ?", row[:1])
                    db.execute(_FORGET_PAYLOAD, row[3:])
            db.execute("UPDATE totals SET failed = failed - ?1, dropped = dropped + ?1", (dropped,))
        return dropped

    def waiting(self, after: tuple[str, int] | None, rows: int) -> tuple[list[Waiting], tuple[str, int] | None]:
        """Of the next `rows` failed events, by payload: those with a schema or template nobody knew. And where to go on, or None.

        Bounded by the rows it reads, not by those it finds, so that no commit waits long.
        """
        with self._lock, self._translated():
            found = self._db.execute(
                "SELECT payload_id, rowid, failed_id, event_index, reasons, replayed_tstamp FROM failed_events"
                " WHERE (payload_id, rowid) > (?, ?) ORDER BY payload_id, rowid LIMIT ?",
                (*(after or ("", 0)), rows),
            ).fetchall()
        waiting: list[Waiting] = []
        for payload_id, _, failed_id, index, reasons, replayed in found:
            if replayed is None and (unknown := waits_for(reasons)):
                waiting.append(Waiting(failed_id, payload_id, index, unknown))
        return waiting, (found[-1][0], found[-1][1]) if len(found) == rows else None

    def see_schemas(self, uris: Collection[str]) -> None:
        """Their documents are new or others than before: their views are made, or made again. No event is touched."""
        with self._lock, self._transaction() as db:
            for uri in sorted(uris):
                with suppress(InvalidUri):
                    self._see_schema(db, uri, parse(uri), again=True)

    # Keeper ---------------------------------------------------------------------------------------------------------

    def erase(self, erasure: Erasure, after: removal.Place | None, *, dry: bool = False) -> tuple[Removed, removal.Place | None]:
        if dry:
            with self._lock, self._translated():
                return removal.erase(self._db, erasure, after, dry)
        with self._lock:
            with self._translated():
                self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            try:
                with self._transaction() as db:
                    removed, following = removal.erase(db, erasure, after, dry)
                if following is None:  # nor does the log keep it
                    with self._translated():
                        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                with suppress(sqlite3.Error):
                    self._db.execute("PRAGMA secure_delete = OFF")
        return removed, following

    def expire(
        self, rule: Rule, now_ms: int, after: removal.Place | None, *, dry: bool = False
    ) -> tuple[Removed, removal.Place | None]:
        if dry:
            with self._lock, self._translated():
                return removal.expire(self._db, rule, now_ms, after, self._remember_ms, dry)
        with self._lock, self._transaction() as db:
            return removal.expire(db, rule, now_ms, after, self._remember_ms, dry)

    def wipe(self) -> None:
        """Begin again: no events, no failed or dropped ones, no views, no cursor, all totals 0. One transaction."""
        with self._lock, self._transaction() as db:
            for (view,) in db.execute("SELECT DISTINCT view_name FROM schemas").fetchall():
                db.execute(f'DROP VIEW IF EXISTS "{view}"')
            tables = ("events", "failed_events", "failed_payloads", "dropped_events", "cursors", "schemas")
            for table in (*tables, *ledger.TABLES, *removal.TABLES):
                db.execute(f"DELETE FROM {table}")
            db.execute(
                "UPDATE totals SET payloads = 0, stored = 0, failed = 0, duplicate = 0, dropped = 0, erased = 0, expired = 0,"
                " mark = ''"
            )
        self._known = set()

    # Inside one transaction -----------------------------------------------------------------------------------------

    def _resolve(
        self, db: sqlite3.Connection, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int
    ) -> Counts | None:
        found = db.execute(
            "SELECT payload_id FROM failed_events WHERE failed_id = ? AND replayed_tstamp IS NULL", (failed_id,)
        ).fetchone()
        if found is None:
            return None
        again = [f for f in failed if f.id == failed_id]
        counts = self._take(db, events, [f for f in failed if f.id != failed_id], 0)
        if again:
            db.execute(
                "UPDATE failed_events SET (kind, reasons, first_reason, failed_tstamp) = (?, ?, ?, ?) WHERE failed_id = ?",
                ((row := to_row(again[0])).kind, row.reasons, row.first_reason, row.failed_tstamp, failed_id),
            )
            return counts
        db.execute("UPDATE failed_events SET replayed_tstamp = ? WHERE failed_id = ?", (timestamp(replayed_ms), failed_id))
        db.execute("UPDATE totals SET failed = failed - 1")
        db.execute(_FORGET_PAYLOAD, found)
        return counts

    def _take(self, db: sqlite3.Connection, events: Sequence[Event], failed: Sequence[FailedEvent], payload_count: int) -> Counts:
        new, duplicates = sort_out(events, self._stored)
        self._insert(db, new)
        self._see_schemas(db, new)
        fresh = self._insert_failed(db, failed)
        ledger.enter(db, events, new, fresh)
        counts = Counts(payload_count, len(new), len(fresh), duplicates + len(failed) - len(fresh))
        db.execute(
            "UPDATE totals SET payloads = payloads + ?, stored = stored + ?, failed = failed + ?, duplicate = duplicate + ?",
            astuple(counts)[:4],
        )
        return counts

    def _stored(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        asked = (json_text(ids),)  # as one value: the same statement for any number of them
        found: dict[str, str | None] = {}
        if self._db.execute("SELECT 1 FROM gone_events LIMIT 1").fetchone() is not None:  # another process may have removed
            found.update(self._db.execute(_WHICH_ARE_IN.format("gone_events"), asked).fetchall())
        found.update(self._db.execute(_WHICH_ARE_IN.format("events"), asked).fetchall())
        return found

    def _insert(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        """Grouped by the columns they have, because binding 131 values costs twice as much as the 30 that are not null."""
        orders: defaultdict[tuple[str, ...], list[Event]] = defaultdict(list)
        for event in events:
            orders[tuple(event)].append(event)
        shapes: defaultdict[tuple[str, ...], list[Event]] = defaultdict(list)
        for order, members in orders.items():
            shapes[_in_column_order(order)] += members
        rare: list[Event] = []
        for names, members in shapes.items():
            if len(members) < _RARE:
                rare += members
            else:
                db.executemany(_insert_sql(names), to_rows(members, names))
        if rare:
            names = _in_column_order(tuple({name: None for event in rare for name in event}))
            db.executemany(_insert_sql(names), to_rows(rare, names))

    def _insert_failed(self, db: sqlite3.Connection, failed: Sequence[FailedEvent]) -> list[FailedEvent]:
        """Those that are new."""
        fresh: list[FailedEvent] = []
        for one in failed:
            row = to_row(one)
            marks = ", ".join("?" * len(row))
            if db.execute("SELECT 1 FROM dropped_events WHERE failed_id = ?", row[:1]).fetchone():
                continue
            if db.execute(f"INSERT OR IGNORE INTO failed_events VALUES ({marks})", row).rowcount:
                fresh.append(one)
                db.execute("INSERT OR IGNORE INTO failed_payloads VALUES (?, ?)", (row.payload_id, payload_text(one.payload)))
        return fresh

    def _see_schemas(self, db: sqlite3.Connection, events: Sequence[Event]) -> None:
        for uri in sorted(schemas_of(events) - self._known):
            self._known.add(uri)
            with suppress(InvalidUri):
                self._see_schema(db, uri, parse(uri))

    def _see_schema(self, db: sqlite3.Connection, uri: str, key: SchemaKey, again: bool = False) -> None:
        """A schema seen for the first time, or whose document was not to be had before: its view is made anew.

        again: also when its document was had and is another now.
        """
        stored = db.execute("SELECT view_name, document FROM schemas WHERE uri = ?", (uri,)).fetchone()
        if stored and stored[1] is not None and not again:
            return
        document = self._lookup(uri)
        if stored and (document is None or json_text(document) == stored[1]):
            return
        family = {
            row[0]: row[1:]
            for row in db.execute("SELECT uri, view_name, document FROM schemas WHERE uri GLOB ?", (_family_glob(key),))
        }
        if not stored and db.execute("SELECT count(*) FROM schemas").fetchone()[0] >= _MOST_SCHEMAS:
            return
        if family:
            name = str(next(iter(family.values()))[0])
        else:
            name = view_name(key)
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", (name,)).fetchone():
                # Another schema's name reads the same (case, dots and dashes are lost): told apart by the exact URI.
                name = f"{name}_{hashlib.sha1(_family_glob(key).encode()).hexdigest()[:8]}"
        text = None if document is None else json_text(document)
        db.execute("INSERT OR REPLACE INTO schemas VALUES (?, ?, ?)", (uri, name, text))
        texts = {u: d for u, (_, d) in family.items()} | {uri: text}
        documents = [json.loads(d) for _, d in sorted(texts.items(), key=lambda item: parse(item[0])) if d is not None]
        db.execute(f'DROP VIEW IF EXISTS "{name}"')
        db.execute(view_sql(name, key, documents))

    # The machine ----------------------------------------------------------------------------------------------------

    def _still_there(self) -> None:
        """A file deleted or replaced under us would swallow every further commit without a word."""
        try:
            there = os.stat(self._path).st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise PermanentError(f"{self._path}: was removed or replaced while in use; start again to begin a new file")

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        known = set(self._known)
        with self._translated():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._known = known
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # some errors have rolled back already
            self._db.execute("ROLLBACK")

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            self._roll_back()  # should a rollback have failed, nobody may see what it left
            yield
        except sqlite3.Error as error:
            raise translated(self._path, error) from error
        except PermanentError as error:
            raise PermanentError(f"{self._path}: {error}") from error


@lru_cache(maxsize=4096)
def _in_column_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(_PLACE.keys() & names, key=_PLACE.__getitem__))


@lru_cache(maxsize=1024)
def _insert_sql(names: tuple[str, ...]) -> str:
    return f"INSERT INTO events ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _read_cursor(db: sqlite3.Connection) -> dict[str, Position]:
    rows = db.execute('SELECT lane, segment, "offset", sequence FROM cursors')
    return {lane: Position(segment, offset, sequence) for lane, segment, offset, sequence in rows}


def _family_glob(key: SchemaKey) -> str:
    return f"iglu:{key.vendor}/{key.name}/{key.format}/{key.model}-*"
