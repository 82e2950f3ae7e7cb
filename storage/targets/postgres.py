"""Keeps events in a schema of a PostgreSQL database: the tables that SQLite has, in PostgreSQL's types; see docs/postgres.md.

Rows, failed events, totals and cursor are one transaction. What the database has is looked up first, and only new events are
copied, straight into their table; the unique index on event_id is the proof, not the means. Other processes may read at any
time and write between two commits. Knows no clock.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from itertools import chain
from typing import Any

from psycopg import sql

from protocol import payloads
from protocol.seams import (
    Cursor,
    Event,
    FailedEvent,
    Json,
    PermanentError,
    Position,
    RawPayload,
)
from protocol.tables import COLUMN_NAMES
from storage.duplicates import sort_out
from storage.failed import FailedRow, payload_text, to_json, to_row, waits_for
from storage.marks import mark_of
from storage.postgres import ledger, months, removal
from storage.postgres.connection import Config, Connection, Link
from storage.postgres.ddl import TABLES, migrate
from storage.postgres.values import as_uuid, lines, moment, readable, with_uuids
from storage.postgres.views import Views
from storage.targets import Batch, Counts, Erasure, Removed, Rule, SchemaLookup, Waiting

__all__ = ["Config", "Plugin"]

_TIMES = {"collector_tstamp", "failed_tstamp", "replayed_tstamp"}
_JSON = {"reasons", "parameters", "event"}
_FAILED = ", ".join(
    f"to_char(f.{name}, 'YYYY-MM-DD HH24:MI:SS.MS')" if name in _TIMES else f"f.{name}{'::text' if name in _JSON else ''}"
    for name in FailedRow._fields
)
_FAILED_VALUES = ", ".join(
    "%s::timestamp" if name in _TIMES else "%s::jsonb" if name in _JSON else "%s" for name in FailedRow._fields
)
_INSERT_FAILED = f"INSERT INTO failed_events VALUES ({_FAILED_VALUES})".encode()
_CURSOR = 'SELECT lane, segment, "offset", sequence FROM cursors'


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup) -> None:
        """Connects when it is first asked, so that a server that is down holds nobody up. Raises ConfigurationError."""
        self._config = config
        self._lock = threading.Lock()
        self._views = Views(schemas)
        self._months: set[str] = set()
        self._link = Link(config, lambda db: migrate(db, config))

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        # In turn with those who write: a commit of ours whose answer was lost may be under way still.
        with self._writing() as db:
            return _read_cursor(db)

    def totals(self) -> Counts:
        with self._reading() as db:
            return _read_totals(db)

    def commit(self, batch: Batch) -> Counts:
        mark = mark_of(batch)
        with self._writing() as db:
            before, *counted = _one(
                db, "SELECT mark, last_payloads, last_stored, last_failed, last_duplicate, last_erased FROM totals"
            )
            if before == mark:  # this very batch: its commit had succeeded, only the caller did not hear of it
                return _counts(*counted)
            moved = batch.moved(_read_cursor(db))
            counts = self._take(db, batch.events, batch.failed, batch.payloads, batch.erased)
            with db.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO cursors VALUES (%s, %s, %s, %s) ON CONFLICT (lane) DO UPDATE SET segment = excluded.segment,"
                    ' "offset" = excluded."offset", sequence = excluded.sequence',
                    [(lane, *position) for lane, position in moved.items()],
                )
            db.execute(
                "UPDATE totals SET mark = %s, last_payloads = %s, last_stored = %s, last_failed = %s, last_duplicate = %s,"
                " last_erased = %s",
                (mark, *astuple(counts)[:4], counts.erased),
            )
        return counts

    def close(self) -> None:
        with self._lock:
            self._link.close()

    # Failed events --------------------------------------------------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        """Newest first, without their payloads. replayed: also those that were solved since."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {_FAILED} FROM failed_events AS f WHERE (%(kind)s::text IS NULL OR kind = %(kind)s)"
                " AND (%(since)s::timestamp IS NULL OR failed_tstamp >= %(since)s::timestamp)"
                " AND (%(replayed)s OR replayed_tstamp IS NULL)"
                " ORDER BY f.failed_tstamp DESC NULLS LAST, f.failed_id LIMIT %(limit)s".encode(),
                {"kind": kind, "since": moment(since_ms), "replayed": replayed, "limit": limit},
            ).fetchall()
        return [to_json(FailedRow(*row)) for row in rows]

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        """Those that wait, newest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT failed_id FROM failed_events WHERE (%(kind)s::text IS NULL OR kind = %(kind)s)"
                " AND (%(since)s::timestamp IS NULL OR failed_tstamp >= %(since)s::timestamp) AND replayed_tstamp IS NULL"
                " ORDER BY failed_tstamp DESC NULLS LAST, failed_id LIMIT %(limit)s",
                {"kind": kind, "since": moment(since_ms), "limit": limit},
            )
            return [failed_id for (failed_id,) in rows]

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        """One failed event and the payload it came from, byte for byte; the payload is gone once all of its events are solved."""
        with self._reading() as db:
            row = db.execute(
                f"SELECT {_FAILED}, p.payload FROM failed_events AS f LEFT JOIN failed_payloads AS p USING (payload_id)"
                " WHERE failed_id = %s".encode(),
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
        with self._writing() as db:
            return self._resolve(db, failed_id, events, failed, replayed_ms)

    def resolve_all(self, resolutions: Iterable[tuple[str, Sequence[Event], Sequence[FailedEvent]]], replayed_ms: int) -> int:
        """`resolve` for each (failed_id, events, failed), all in one transaction; how many are solved."""
        solved = 0
        with self._writing() as db:
            for failed_id, events, failed in resolutions:
                if self._resolve(db, failed_id, events, failed, replayed_ms) is not None:
                    solved += all(again.id != failed_id for again in failed)
        return solved

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        """Give up those that wait among these; see FailedStore. Their rows and payloads are deleted, their ids are kept."""
        with self._writing() as db:
            gone = db.execute(
                "WITH gone AS (DELETE FROM failed_events WHERE failed_id = ANY(%s) AND replayed_tstamp IS NULL"
                " RETURNING failed_id, kind, collector_tstamp, payload_id), kept AS (INSERT INTO dropped_events"
                " SELECT failed_id, kind, collector_tstamp, %s::timestamp FROM gone) SELECT payload_id FROM gone",
                (list(failed_ids), moment(dropped_ms)),
            ).fetchall()
            with db.cursor() as cursor:
                cursor.executemany(removal.FORGET_PAYLOAD, sorted(set(gone)))
            db.execute("UPDATE totals SET failed = failed - %(gone)s, dropped = dropped + %(gone)s", {"gone": len(gone)})
        return len(gone)

    def waiting(self, after: tuple[str, str] | None, rows: int) -> tuple[list[Waiting], tuple[str, str] | None]:
        """Of the next `rows` failed events, by payload: those with a schema or template nobody knew. And where to go on, or None.

        Bounded by the rows it reads, not by those it finds, so that no commit waits long.
        """
        with self._reading() as db:
            found = db.execute(
                "SELECT payload_id, failed_id, event_index, reasons::text, replayed_tstamp FROM failed_events"
                " WHERE (payload_id, failed_id) > (%s, %s) ORDER BY payload_id, failed_id LIMIT %s",
                (*(after or ("", "")), rows),
            ).fetchall()
        waiting: list[Waiting] = []
        for payload_id, failed_id, index, reasons, replayed in found:
            if replayed is None and (unknown := waits_for(reasons)):
                waiting.append(Waiting(failed_id, payload_id, index, unknown))
        return waiting, (found[-1][0], found[-1][1]) if len(found) == rows else None

    def see_schemas(self, uris: Collection[str]) -> None:
        """Their documents are new or others than before: their views are made, or made again. No event is touched."""
        with self._writing() as db:
            self._views.see_again(db, uris)

    # Keeper ---------------------------------------------------------------------------------------------------------

    def erase(self, erasure: Erasure, after: removal.Place | None, *, dry: bool = False) -> tuple[Removed, removal.Place | None]:
        with self._reading() if dry else self._writing() as db:
            return removal.erase(db, erasure, after, dry)

    def expire(
        self, rule: Rule, now_ms: int, after: removal.Place | None, *, dry: bool = False
    ) -> tuple[Removed, removal.Place | None]:
        with self._reading() if dry else self._writing() as db:
            return removal.expire(db, rule, now_ms, after, round(self._config.remember_days * 86_400_000), dry)

    def wipe(self) -> None:
        """Begin again: no events, no failed or dropped ones, no views, no cursor, all totals 0. One transaction."""
        with self._writing() as db:
            for (view,) in db.execute("SELECT DISTINCT view_name FROM schemas").fetchall():
                db.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(view)))
            db.execute(f"TRUNCATE {', '.join(TABLES)}".encode())
            db.execute(
                "UPDATE totals SET payloads = 0, stored = 0, failed = 0, duplicate = 0, dropped = 0, erased = 0, expired = 0,"
                " mark = ''"
            )
        self._views.known = set()

    # Inside one transaction -----------------------------------------------------------------------------------------

    def _resolve(
        self, db: Connection, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int
    ) -> Counts | None:
        found = db.execute(
            "SELECT payload_id FROM failed_events WHERE failed_id = %s AND replayed_tstamp IS NULL", (failed_id,)
        ).fetchone()
        if found is None:
            return None
        again = [f for f in failed if f.id == failed_id]
        counts = self._take(db, events, [f for f in failed if f.id != failed_id], 0)
        if again:
            row = to_row(again[0])
            db.execute(
                "UPDATE failed_events SET kind = %s, reasons = %s::jsonb, first_reason = %s, failed_tstamp = %s::timestamp"
                " WHERE failed_id = %s",
                (row.kind, row.reasons, row.first_reason, readable(row.failed_tstamp), failed_id),
            )
            return counts
        db.execute(
            "UPDATE failed_events SET replayed_tstamp = %s::timestamp WHERE failed_id = %s", (moment(replayed_ms), failed_id)
        )
        db.execute("UPDATE totals SET failed = failed - 1")
        db.execute(removal.FORGET_PAYLOAD, found)
        return counts

    def _take(
        self, db: Connection, events: Sequence[Event], failed: Sequence[FailedEvent], payload_count: int, erased: int = 0
    ) -> Counts:
        events = with_uuids(events)
        new, duplicates = sort_out(events, lambda ids: _stored(db, ids))
        self._insert(db, new)
        self._views.see(db, new)
        fresh = _insert_failed(db, failed)
        ledger.enter(db, events, new, fresh)
        counts = _counts(payload_count, len(new), len(fresh), duplicates + len(failed) - len(fresh), erased)
        db.execute(
            "UPDATE totals SET payloads = payloads + %s, stored = stored + %s, failed = failed + %s,"
            " duplicate = duplicate + %s, erased = erased + %s",
            (*astuple(counts)[:4], erased),
        )
        return counts

    def _insert(self, db: Connection, events: Sequence[Event]) -> None:
        """One COPY of the columns that any of them has."""
        if not events:
            return
        if self._config.partition:
            events = months.dated(events)
            months.make(db, events, self._months)
        had = set(chain.from_iterable(events))
        names = [name for name in COLUMN_NAMES if name in had]
        copy = sql.SQL("COPY events ({}) FROM STDIN").format(sql.SQL(", ").join(map(sql.Identifier, names)))
        with db.cursor() as cursor:
            with cursor.copy(copy) as stream:
                for piece in lines(events, names):
                    stream.write(piece)
            if cursor.rowcount != len(events):
                raise PermanentError(f"postgres: {len(events)} events were handed over, {cursor.rowcount} were stored")

    # The machine ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with self._lock, self._link.transaction(writes=False) as db:
            yield db

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with self._lock:
            known, made = set(self._views.known), set(self._months)
            try:
                with self._link.transaction(writes=True) as db:
                    yield db
            except BaseException:
                self._views.known, self._months = known, made
                raise


def _one(db: Connection, question: str) -> tuple[Any, ...]:
    row = db.execute(question.encode()).fetchone()
    if row is None:
        raise PermanentError("postgres: the table of totals is empty; it was changed by hand")
    return row


def _counts(payload_count: int, stored: int, failed: int, duplicate: int, erased: int) -> Counts:
    return Counts(payload_count, stored, failed, duplicate, erased=erased)


def _read_totals(db: Connection) -> Counts:
    payload_count, stored, failed, duplicate, dropped, erased, expired = _one(
        db, "SELECT payloads, stored, failed, duplicate, dropped, erased, expired FROM totals"
    )
    return Counts(payload_count, stored, failed, duplicate, dropped, erased=erased, expired=expired)


def _read_cursor(db: Connection) -> dict[str, Position]:
    return {lane: Position(*position) for lane, *position in db.execute(_CURSOR)}


def _stored(db: Connection, ids: Sequence[str]) -> Mapping[str, str | None]:
    asked = f"{{{','.join(map(as_uuid, ids))}}}"
    rows = db.execute(
        "SELECT event_id::text, event_fingerprint FROM gone_events WHERE event_id = ANY(%(ids)s::uuid[]) UNION ALL"
        " SELECT event_id::text, event_fingerprint FROM events WHERE event_id = ANY(%(ids)s::uuid[])",
        {"ids": asked},
    )
    return dict(rows.fetchall())


def _insert_failed(db: Connection, failed: Sequence[FailedEvent]) -> list[FailedEvent]:
    """Those that are new: neither kept nor dropped before."""
    if not failed:
        return []
    rows: dict[str, tuple[FailedRow, FailedEvent]] = {}
    for one in failed:
        row = to_row(one)
        rows.setdefault(row.failed_id, (row, one))
    there = db.execute(
        "SELECT failed_id FROM failed_events WHERE failed_id = ANY(%(ids)s)"
        " UNION ALL SELECT failed_id FROM dropped_events WHERE failed_id = ANY(%(ids)s)",
        {"ids": list(rows)},
    )
    for (failed_id,) in there:
        del rows[failed_id]
    fresh = list(rows.values())
    with db.cursor() as cursor:
        cursor.executemany(
            _INSERT_FAILED,
            [[readable(value) if name in _TIMES else value for name, value in row._asdict().items()] for row, _ in fresh],
        )
        cursor.executemany(
            "INSERT INTO failed_payloads VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [(row.payload_id, payload_text(one.payload)) for row, one in fresh],
        )
    return [one for _, one in fresh]
