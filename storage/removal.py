"""Rows that are to go, in SQLite: those of a person (`Keeper.erase`) and those that are too old (`Keeper.expire`).

Piece by piece, each within the caller's transaction; totals follow in the same. What was removed leaves its event_id behind for
a while (`gone_events`), so that a tracker which sends the event once more does not bring it back. Knows no clock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from protocol import payloads
from protocol.persons import COLUMNS, ENTITY_COLUMNS
from protocol.seams import RawPayload
from storage.failed import payload_text
from storage.rows import timestamp
from storage.targets import Erasure, Removed, Rule

TABLES = ("erasures", "gone_events")

_ROWS = 20_000  # looked at in one piece
_OLD_ROWS = 2_000  # removed in one piece: each costs a look into every index
_FAILED_ROWS = 500
_IDS = 500

_FORGET_PAYLOAD = (
    "DELETE FROM failed_payloads WHERE payload_id = ?1 AND NOT EXISTS"
    " (SELECT 1 FROM failed_events WHERE payload_id = ?1 AND replayed_tstamp IS NULL)"
)


class Place(NamedTuple):
    """Where the next piece begins. stage: known (ids the journal told of), events or failed. at: the last one done."""

    stage: str
    at: Any


def erase(db: sqlite3.Connection, erasure: Erasure, after: Place | None, dry: bool) -> tuple[Removed, Place | None]:
    """One piece: what it removed, and where to go on; None: that was the last. dry: counts only. Raises sqlite3.Error."""
    place = after or Place("known", 0)
    events = failed = 0
    following: Place | None = None
    if place.stage == "known":
        known = sorted(erasure.events)[place.at : place.at + _IDS]
        rows = _known_rows(db, known)
        if dry:  # those that the other stage finds as well count there
            rows = [row for row in rows if not _their_rows(db, erasure, row, row)]
        events = len(rows) if dry else _remove(db, rows, erasure.until_ms)
        following = Place("known", place.at + _IDS) if len(known) == _IDS else Place("events", 0)
    elif place.stage == "events":
        (first,) = db.execute("SELECT min(rowid) FROM events WHERE rowid > ?", (place.at,)).fetchone()
        if first is None:
            following = Place("failed", 0)
        else:
            last = first + _ROWS - 1
            rows = _their_rows(db, erasure, first, last)
            events = len(rows) if dry else _remove(db, rows, erasure.until_ms)
            following = Place("events", last)
    else:
        failed, at = _erase_failed(db, erasure, place.at, dry)
        following = None if at is None else Place("failed", at)
        if following is None and not dry:
            for device in erasure.who.device:
                db.execute("DELETE FROM device_runs WHERE device = ?", (device,))
                db.execute("DELETE FROM device_boots WHERE device = ?", (device,))
    if dry:
        return Removed(events, failed), following
    db.execute("UPDATE totals SET stored = stored - ?1, failed = failed - ?2, erased = erased + ?1 + ?2", (events, failed))
    db.execute(
        "INSERT INTO erasures VALUES (?1, ?2, ?3)"
        " ON CONFLICT (erasure_id) DO UPDATE SET events = events + ?2, failed = failed + ?3",
        (erasure.id, events, failed),
    )
    found = db.execute("SELECT events, failed FROM erasures WHERE erasure_id = ?", (erasure.id,)).fetchone()
    return Removed(*found), following


def expire(
    db: sqlite3.Connection, rule: Rule, now_ms: int, after: Place | None, remember_ms: int, dry: bool
) -> tuple[Removed, Place | None]:
    """remember_ms: how long an event that comes again is known."""
    before = timestamp(now_ms - rule.older_than_ms)
    stage, at = after or Place("events", ("", 0))
    events = failed = 0
    following: Place | None
    if stage == "events":
        if not dry:
            db.execute("DELETE FROM gone_events WHERE gone_ms < ?", (now_ms - remember_ms,))
        rows = db.execute(
            "SELECT rowid, collector_tstamp, (?4 = '' OR app_id = ?4) AND (?5 = '' OR event_name = ?5) AND (?6 = '' OR"
            " 'iglu:' || event_vendor || '/' || event_name || '/' || event_format || '/' || event_version GLOB ?6)"
            " FROM events WHERE (collector_tstamp, rowid) > (?1, ?2) AND collector_tstamp < ?3"
            f" ORDER BY collector_tstamp, rowid LIMIT {_OLD_ROWS}",
            (*at, before, rule.app_id, rule.event, rule.glob),
        ).fetchall()
        fit = [row for row, _, fits in rows if fits]
        events = len(fit) if dry else _remove(db, fit, now_ms)
        following = Place("events", (rows[-1][1], rows[-1][0])) if len(rows) == _OLD_ROWS else Place("failed", 0)
        if following.stage == "failed" and rule.schema:
            following = None
    else:
        rows = db.execute(
            "SELECT rowid, payload_id, replayed_tstamp IS NULL, collector_tstamp < ?2 AND (?3 = '' OR app_id = ?3)"
            f" AND (?4 = '' OR event_name = ?4) FROM failed_events WHERE rowid > ?1 ORDER BY rowid LIMIT {_OLD_ROWS}",
            (at, before, rule.app_id, rule.event),
        ).fetchall()
        for row, payload_id, waits, fits in rows:
            if fits:
                failed += waits
                if not dry:
                    db.execute("DELETE FROM failed_events WHERE rowid = ?", (row,))
                    db.execute(_FORGET_PAYLOAD, (payload_id,))
        following = Place("failed", rows[-1][0]) if len(rows) == _OLD_ROWS else None
    if not dry:
        db.execute("UPDATE totals SET stored = stored - ?1, failed = failed - ?2, expired = expired + ?1 + ?2", (events, failed))
    return Removed(events, failed), following


def _remove(db: sqlite3.Connection, rows: Iterable[int], gone_ms: int) -> int:
    removed = 0
    for row in rows:
        db.execute(
            "INSERT OR REPLACE INTO gone_events SELECT event_id, event_fingerprint, ? FROM events WHERE rowid = ?", (gone_ms, row)
        )
        removed += db.execute("DELETE FROM events WHERE rowid = ?", (row,)).rowcount
    return removed


def _known_rows(db: sqlite3.Connection, known: Sequence[tuple[str, int]]) -> list[int]:
    """An id alone may be somebody else's who used it before; with the time of its payload it is not."""
    found = [
        db.execute("SELECT rowid FROM events WHERE event_id = ? AND collector_tstamp IS ?", (event_id, timestamp(received_ms)))
        for event_id, received_ms in known
    ]
    return [row for rows in found for (row,) in rows]


def _their_rows(db: sqlite3.Connection, erasure: Erasure, first: int, last: int) -> list[int]:
    who = erasure.who
    conditions: list[str] = []
    values: list[str] = []
    for kind, names in COLUMNS.items():
        if wanted := sorted(getattr(who, kind)):
            for name in names:
                conditions.append(f"{name} IN ({', '.join('?' * len(wanted))})")
                values += wanted
    sure = " OR ".join(conditions) or "0"
    # A name within JSON: a text to begin with, then a look at where it stands.
    likely = [f"instr({name}, ?)" for _ in who.device for name in ENTITY_COLUMNS]
    quoted = [json.dumps(device, ensure_ascii=False)[1:-1] for device in sorted(who.device) for _ in ENTITY_COLUMNS]
    rows = db.execute(
        f"SELECT rowid, {sure}, {', '.join(ENTITY_COLUMNS)} FROM events WHERE rowid BETWEEN ? AND ?"
        f" AND (collector_tstamp IS NULL OR collector_tstamp <= ?) AND ({' OR '.join([sure, *likely])})",
        (*values, first, last, timestamp(erasure.until_ms), *values, *quoted),
    )
    return [
        row
        for row, certain, *texts in rows
        if certain or who.in_entities(dict(zip(ENTITY_COLUMNS, map(_parsed, texts), strict=True)))
    ]


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _erase_failed(db: sqlite3.Connection, erasure: Erasure, at: int, dry: bool) -> tuple[int, int | None]:
    """(how many that waited are gone, the last row looked at or None at the end)."""
    rows = db.execute(
        "SELECT f.rowid, failed_id, payload_id, event_index, parameters, event, replayed_tstamp IS NULL, collector_tstamp,"
        " payload FROM failed_events AS f LEFT JOIN failed_payloads USING (payload_id)"
        f" WHERE f.rowid > ? ORDER BY f.rowid LIMIT {_FAILED_ROWS}",
        (at,),
    ).fetchall()
    until, failed = timestamp(erasure.until_ms), 0
    cuts: dict[str, RawPayload | None] = {}
    for row, failed_id, payload_id, index, parameters, event, waits, received, text in rows:
        if text is not None and payload_id not in cuts:
            cuts[payload_id] = erasure.cut(payloads.from_json(text.encode()))
        cut = cuts.get(payload_id)
        theirs = failed_id in erasure.failed or (
            (received is None or until is None or received <= until)
            and (erasure.who.in_parameters(json.loads(parameters)) or erasure.who.in_columns(json.loads(event)))
        )
        if theirs or (cut is not None and (index in cut.erased or index is None)):
            failed += waits
            if not dry:
                db.execute("DELETE FROM failed_events WHERE rowid = ?", (row,))
                db.execute(_FORGET_PAYLOAD, (payload_id,))
    for payload_id, cut in cuts.items():
        if cut is not None and not dry:
            db.execute("UPDATE failed_payloads SET payload = ? WHERE payload_id = ?", (payload_text(cut), payload_id))
    return failed, rows[-1][0] if len(rows) == _FAILED_ROWS else None


__all__ = ["TABLES", "Place", "erase", "expire"]
