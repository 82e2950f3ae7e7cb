"""Partitions of the table of events: one per month of collector_tstamp, made when its first event comes.

A partition is made beside the table and then attached, which blocks neither its readers nor its writers. The unique index on
event_id is each partition's own: that no two partitions hold one event, the look-up before each insert sees to.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, count
from typing import cast

from psycopg import sql

from protocol.seams import Event
from storage.postgres.connection import Connection

# A gateway's clock is in these years, or the event goes to the first moment of them.
_FIRST_MS, _END_MS = -62_135_596_800_000, 253_402_300_800_000


def dated(events: Sequence[Event]) -> Sequence[Event]:
    """The same events, each with a collector_tstamp that has a month."""
    times = [event.get("collector_tstamp") for event in events]
    if all(ms is not None and _FIRST_MS <= ms < _END_MS for ms in times):
        return events
    return [
        event if ms is not None and _FIRST_MS <= ms < _END_MS else cast(Event, {**event, "collector_tstamp": _FIRST_MS})
        for event, ms in zip(events, times, strict=True)
    ]


def make(db: Connection, events: Sequence[Event], known: set[str]) -> None:
    """The partitions that these events need. known: months that are there; grows."""
    months = {_month(ms) for ms in {event.get("collector_tstamp", _FIRST_MS) // 86_400_000 for event in events}}
    if months <= known:
        return
    rows = db.execute("SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'events'::regclass")
    known |= {name[7:14].replace("_", "-") for (name,) in rows}
    for month in sorted(months - known):
        _make(db, _free_name(db, f"events_{month.replace('-', '_')}"), month)
        known.add(month)


def _free_name(db: Connection, name: str) -> str:
    """One that was detached and is kept has its name still."""
    names = chain((name,), (f"{name}_{number}" for number in count(2)))
    return next(free for free in names if db.execute("SELECT to_regclass(%s)", (free,)).fetchone() == (None,))


def _month(day: int) -> str:
    moment = datetime.fromtimestamp(day * 86_400, UTC)
    return f"{moment.year:04d}-{moment.month:02d}"


def _make(db: Connection, name: str, month: str) -> None:
    year, number = int(month[:4]), int(month[5:])
    after = f"{year + number // 12:04d}-{number % 12 + 1:02d}-01" if month != "9999-12" else None
    table = sql.Identifier(name)
    db.execute(sql.SQL("CREATE TABLE {} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(table))
    db.execute(sql.SQL("CREATE UNIQUE INDEX ON {} (event_id)").format(table))
    db.execute(
        sql.SQL("ALTER TABLE events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table, sql.Literal(f"{month}-01"), sql.Literal(after) if after else sql.SQL("MAXVALUE")
        )
    )
