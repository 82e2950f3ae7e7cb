"""Rows that are to go, in PostgreSQL: what storage/removal.py does in SQLite, with the same stages.

Piece by piece, each within the caller's transaction; totals follow in the same. Knows no clock. What is deleted is out of every
question at once; its bytes leave the disk with PostgreSQL's own vacuum, and its log and backups by their own rules.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from protocol import payloads
from protocol.persons import COLUMNS, ENTITY_COLUMNS
from protocol.seams import RawPayload
from storage.failed import payload_text
from storage.postgres.connection import Connection
from storage.postgres.values import as_uuid, moment
from storage.targets import Erasure, Removed, Rule

_ROWS = 20_000  # looked at in one piece
_OLD_ROWS = 2_000  # removed in one piece: each costs a look into every index
_FAILED_ROWS = 500
_IDS = 500
_NO_ID = "00000000-0000-0000-0000-000000000000"

FORGET_PAYLOAD = (  # when no failed event needs it any more
    "DELETE FROM failed_payloads AS p WHERE payload_id = %s AND NOT EXISTS"
    " (SELECT 1 FROM failed_events AS f WHERE f.payload_id = p.payload_id AND f.replayed_tstamp IS NULL)"
)


class Place(NamedTuple):
    """Where the next piece begins. stage: known (ids the journal told of), events or failed. at: the last one done."""

    stage: str
    at: Any


def erase(db: Connection, erasure: Erasure, after: Place | None, dry: bool) -> tuple[Removed, Place | None]:
    """See Keeper.erase."""
    place = after or Place("known", 0)
    events = failed = 0
    following: Place | None
    if place.stage == "known":
        known = sorted(erasure.events)[place.at : place.at + _IDS]
        ids = _known(db, known)
        if dry:  # those that the other stage finds as well count there
            theirs = _theirs(db, erasure, "event_id = ANY(%(ids)s::uuid[])", {"ids": ids})
            ids = sorted(set(ids) - set(theirs))
        events = len(ids) if dry else _remove(db, ids, erasure.until_ms)
        following = Place("known", place.at + _IDS) if len(known) == _IDS else Place("events", None)
    elif place.stage == "events":
        between = {"first": place.at or _NO_ID, "last": _end_of_piece(db, place.at)}
        bound = "(%(first)s = %(none)s OR event_id > %(first)s::uuid) AND (%(last)s::uuid IS NULL OR event_id <= %(last)s::uuid)"
        ids = _theirs(db, erasure, bound, {**between, "none": _NO_ID})
        events = len(ids) if dry else _remove(db, ids, erasure.until_ms)
        following = Place("failed", "") if between["last"] is None else Place("events", between["last"])
    else:
        failed, at = _erase_failed(db, erasure, place.at, dry)
        following = None if at is None else Place("failed", at)
        if following is None and not dry:
            for table in ("device_runs", "device_boots"):
                db.execute(f"DELETE FROM {table} WHERE device = ANY(%s)".encode(), (sorted(erasure.who.device),))
    if dry:
        return Removed(events, failed), following
    _count(db, "erased", events, failed)
    found = db.execute(
        "INSERT INTO erasures AS e VALUES (%s, %s, %s) ON CONFLICT (erasure_id) DO UPDATE"
        " SET events = e.events + excluded.events, failed = e.failed + excluded.failed RETURNING events, failed",
        (erasure.id, events, failed),
    ).fetchall()
    return Removed(*found[0]), following


def expire(
    db: Connection, rule: Rule, now_ms: int, after: Place | None, remember_ms: int, dry: bool
) -> tuple[Removed, Place | None]:
    """See Keeper.expire. remember_ms: how long an event that comes again is known."""
    place = after or Place("events", ("-infinity", _NO_ID))
    like = rule.schema.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
    asked = {"before": moment(now_ms - rule.older_than_ms), "app": rule.app_id, "event": rule.event, "like": like}
    fits = "(%(app)s = '' OR app_id = %(app)s) AND (%(event)s = '' OR event_name = %(event)s)"
    events = failed = 0
    following: Place | None
    if place.stage == "events":
        if not dry:
            db.execute("DELETE FROM gone_events WHERE gone_ms < %s", (now_ms - remember_ms,))
        rows = db.execute(
            f"SELECT event_id::text, collector_tstamp::text, {fits} AND (%(like)s = '' OR"
            " concat('iglu:', event_vendor, '/', event_name, '/', event_format, '/', event_version) LIKE %(like)s)"
            " FROM events WHERE (collector_tstamp, event_id) > (%(at)s::timestamp, %(id)s::uuid)"
            f" AND collector_tstamp < %(before)s::timestamp ORDER BY collector_tstamp, event_id LIMIT {_OLD_ROWS}".encode(),
            {**asked, "at": place.at[0], "id": place.at[1]},
        ).fetchall()
        ids = [event_id for event_id, _, fit in rows if fit]
        events = len(ids) if dry else _remove(db, ids, now_ms)
        following = Place("events", (rows[-1][1], rows[-1][0])) if len(rows) == _OLD_ROWS else Place("failed", "")
        if following.stage == "failed" and rule.schema:
            following = None
    else:
        rows = db.execute(
            "SELECT failed_id, payload_id, replayed_tstamp IS NULL,"
            f" coalesce(collector_tstamp < %(before)s::timestamp AND {fits}, false)"
            f" FROM failed_events WHERE failed_id > %(at)s ORDER BY failed_id LIMIT {_OLD_ROWS}".encode(),
            {**asked, "at": place.at},
        ).fetchall()
        gone = [row for row in rows if row[3]]
        failed = sum(waits for _, _, waits, _ in gone)
        if not dry:
            _remove_failed(db, [(failed_id, payload_id) for failed_id, payload_id, _, _ in gone])
        following = Place("failed", rows[-1][0]) if len(rows) == _OLD_ROWS else None
    if not dry:
        _count(db, "expired", events, failed)
    return Removed(events, failed), following


def _count(db: Connection, what: str, events: int, failed: int) -> None:
    db.execute(
        f"UPDATE totals SET stored = stored - %s, failed = failed - %s, {what} = {what} + %s".encode(),
        (events, failed, events + failed),
    )


def _remove(db: Connection, ids: Sequence[str], gone_ms: int) -> int:
    return db.execute(
        "WITH gone AS (DELETE FROM events WHERE event_id = ANY(%s::uuid[]) RETURNING event_id, event_fingerprint)"
        " INSERT INTO gone_events SELECT event_id, event_fingerprint, %s FROM gone ON CONFLICT (event_id) DO UPDATE"
        " SET event_fingerprint = excluded.event_fingerprint, gone_ms = excluded.gone_ms",
        (list(ids), gone_ms),
    ).rowcount


def _remove_failed(db: Connection, gone: Sequence[tuple[str, str]]) -> None:
    """gone: (failed_id, payload_id)."""
    db.execute("DELETE FROM failed_events WHERE failed_id = ANY(%s)", ([failed_id for failed_id, _ in gone],))
    with db.cursor() as cursor:
        cursor.executemany(FORGET_PAYLOAD, [(payload_id,) for payload_id in sorted({payload_id for _, payload_id in gone})])


def _known(db: Connection, known: Sequence[tuple[str, int]]) -> list[str]:
    """An id alone may be somebody else's who used it before; with the time of its payload it is not."""
    rows = db.execute(
        "SELECT DISTINCT e.event_id::text FROM unnest(%s::uuid[], %s::timestamp[]) AS k(event_id, received)"
        " JOIN events AS e ON e.event_id = k.event_id AND e.collector_tstamp IS NOT DISTINCT FROM k.received",
        ([as_uuid(event_id) for event_id, _ in known], [moment(received_ms) for _, received_ms in known]),
    )
    return [event_id for (event_id,) in rows]


def _end_of_piece(db: Connection, after: str | None) -> str | None:
    row = db.execute(
        "SELECT event_id::text FROM events WHERE %(at)s::uuid IS NULL OR event_id > %(at)s::uuid"
        f" ORDER BY event_id OFFSET {_ROWS - 1} LIMIT 1".encode(),
        {"at": after},
    ).fetchone()
    return None if row is None else str(row[0])


def _theirs(db: Connection, erasure: Erasure, where: str, values: dict[str, Any]) -> list[str]:
    """Ids of the person's events among those that the condition names."""
    who = erasure.who
    asked: dict[str, Any] = {**values, "until": moment(erasure.until_ms)}
    conditions: list[str] = []
    for kind, names in COLUMNS.items():
        if wanted := sorted(getattr(who, kind)):
            asked[kind] = wanted
            conditions += [f"{name} = ANY(%({kind})s)" for name in names]
    sure = f"coalesce({' OR '.join(conditions) or 'false'}, false)"
    # A name within JSON: a text to begin with, then a look at where it stands.
    likely: list[str] = []
    for number, device in enumerate(sorted(who.device)):
        asked[f"device_{number}"] = json.dumps(device, ensure_ascii=False)[1:-1]
        likely += [f"strpos({name}::text, %(device_{number})s) > 0" for name in ENTITY_COLUMNS]
    rows = db.execute(
        f"SELECT event_id::text, {sure}, {', '.join(ENTITY_COLUMNS)} FROM events WHERE {where}"
        " AND (collector_tstamp IS NULL OR collector_tstamp <= %(until)s::timestamp)"
        f" AND ({' OR '.join([sure, *likely])})".encode(),
        asked,
    )
    return [
        event_id
        for event_id, certain, *parts in rows
        if certain or who.in_entities(dict(zip(ENTITY_COLUMNS, parts, strict=True)))
    ]


def _erase_failed(db: Connection, erasure: Erasure, at: str, dry: bool) -> tuple[int, str | None]:
    """(how many that waited are gone, the last row looked at or None at the end)."""
    rows = db.execute(
        "SELECT failed_id, payload_id, event_index, parameters, event, replayed_tstamp IS NULL, payload,"
        " collector_tstamp IS NULL OR coalesce(collector_tstamp <= %s::timestamp, true)"
        " FROM failed_events LEFT JOIN failed_payloads USING (payload_id)"
        f" WHERE failed_id > %s ORDER BY failed_id LIMIT {_FAILED_ROWS}".encode(),
        (moment(erasure.until_ms), at),
    ).fetchall()
    cuts: dict[str, RawPayload | None] = {}
    gone: list[tuple[str, str]] = []
    failed = 0
    for failed_id, payload_id, index, parameters, event, waits, text, in_time in rows:
        if text is not None and payload_id not in cuts:
            cuts[payload_id] = erasure.cut(payloads.from_json(text.encode()))
        cut = cuts.get(payload_id)
        theirs = failed_id in erasure.failed or (
            in_time and (erasure.who.in_parameters(parameters) or erasure.who.in_columns(event))
        )
        if theirs or (cut is not None and (index in cut.erased or index is None)):
            failed += waits
            gone.append((failed_id, payload_id))
    if not dry:
        _remove_failed(db, gone)
        for payload_id, cut in cuts.items():
            if cut is not None:
                db.execute("UPDATE failed_payloads SET payload = %s WHERE payload_id = %s", (payload_text(cut), payload_id))
    return failed, rows[-1][0] if len(rows) == _FAILED_ROWS else None
