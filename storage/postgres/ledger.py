"""The ledger of devices in PostgreSQL: what storage.ledger makes of a batch, entered with a few statements however many devices.

Within the commit that stores the events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from protocol.seams import Event, FailedEvent
from storage.ledger import BOOT_COLUMNS, News, Start, boot_row, news_of, runs_of
from storage.postgres.connection import Connection
from storage.postgres.values import moment, readable

_TIME = "to_char({}, 'YYYY-MM-DD HH24:MI:SS.MS')"


class Run(NamedTuple):
    """Sequence numbers that arrived without a hole, and when the first and the last of them happened."""

    first: int
    last: int
    first_at: str | None
    last_at: str | None


def enter(db: Connection, came: Sequence[Event], stored: Sequence[Event], failed: Sequence[FailedEvent]) -> None:
    """The arguments are those of `storage.ledger.news_of`."""
    news = news_of(came, stored, failed)
    if news:
        _enter_runs(db, news)
        _enter_boots(db, news)


def joined(stored: Iterable[Run], arrived: Iterable[Run]) -> list[Run]:
    """Both as runs that do not touch each other. Where both begin or end at the same number, what arrived has its time."""
    runs: list[Run] = []
    for run, _ in sorted([*((run, 1) for run in stored), *((run, 0) for run in arrived)], key=lambda one: (one[0].first, one[1])):
        if runs and run.first <= runs[-1].last + 1:
            if run.last > runs[-1].last:
                runs[-1] = runs[-1]._replace(last=run.last, last_at=run.last_at)
        else:
            runs.append(run)
    return runs


# Of each stretch that arrived: the stored runs that overlap or touch it. The run before it is found by index, not by a walk.
_TOUCHING = f"""SELECT DISTINCT r.device, r.boot_id, r.first_sequence, r.last_sequence,
    {_TIME.format("r.first_tstamp")}, {_TIME.format("r.last_tstamp")}
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[]) AS w(device, boot_id, first, last)
JOIN device_runs AS r ON r.device = w.device AND r.boot_id = w.boot_id
    AND r.first_sequence <= w.last + 1 AND r.last_sequence >= w.first - 1
    AND r.first_sequence >= coalesce((SELECT max(m.first_sequence) FROM device_runs AS m
        WHERE m.device = w.device AND m.boot_id = w.boot_id AND m.first_sequence <= w.first), 0)"""


def _enter_runs(db: Connection, news: Mapping[Start, News]) -> None:
    arrived: dict[Start, list[Run]] = {}
    for start, one in news.items():
        if one.arrived:
            arrived[start] = [
                Run(first, last, moment(one.arrived[first]), moment(one.arrived[last]))
                for first, last in runs_of(sorted(one.arrived))
            ]
    if not arrived:
        return
    wanted = [(*start, run.first, run.last) for start, runs in arrived.items() for run in runs]
    stored: defaultdict[Start, list[Run]] = defaultdict(list)
    for device, boot_id, *run in db.execute(_TOUCHING, _columns(wanted, 4)):
        stored[Start(device, boot_id)].append(Run(*run))
    gone: list[tuple[Any, ...]] = []
    fresh: list[tuple[Any, ...]] = []
    for start, runs in arrived.items():
        had = {(run.first, run.last) for run in stored[start]}
        now = joined(stored[start], runs)
        have = {(run.first, run.last) for run in now}
        gone += [(*start, first) for first, last in had if (first, last) not in have]
        fresh += [(*start, *run) for run in now if (run.first, run.last) not in had]
    if gone:
        db.execute(
            "DELETE FROM device_runs WHERE (device, boot_id, first_sequence) IN"
            " (SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[]))",
            _columns(gone, 3),
        )
    if fresh:
        db.execute(
            "INSERT INTO device_runs SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[],"
            " %s::timestamp[], %s::timestamp[])",
            _columns(fresh, 6),
        )


_NAMES = ", ".join(BOOT_COLUMNS)
_SELECT = "SELECT {} FROM unnest(%s::text[], %s::bigint[]) AS w(d, b) JOIN device_boots ON device = d AND boot_id = b".format(
    ", ".join(_TIME.format(name) if name.endswith("_tstamp") else name for name in BOOT_COLUMNS)
)
_UPSERT = "INSERT INTO device_boots ({}) VALUES ({}) ON CONFLICT (device, boot_id) DO UPDATE SET {}".format(
    _NAMES,
    ", ".join("%s::timestamp" if name.endswith("_tstamp") else "%s" for name in BOOT_COLUMNS),
    ", ".join(f"{name} = excluded.{name}" for name in list(BOOT_COLUMNS)[2:]),
)


def _enter_boots(db: Connection, news: Mapping[Start, News]) -> None:
    found = {Start(row[0], row[1]): row for row in db.execute(_SELECT.encode(), _columns(list(news), 2))}
    with db.cursor() as cursor:
        cursor.executemany(_UPSERT.encode(), [_row(start, found.get(start), one) for start, one in news.items()])


def _row(start: Start, found: Sequence[Any] | None, news: News) -> list[Any]:
    values = zip(BOOT_COLUMNS, boot_row(start, found, news), strict=True)
    return [readable(value) if name.endswith("_tstamp") else value for name, value in values]


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(width)]
