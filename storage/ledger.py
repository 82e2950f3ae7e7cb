"""The ledger of devices: which of the events that each start of a device counted have arrived, and how it fared.

Kept in the commit that stores the events, from their device_time and queue_health; the views device_gaps and device_health
read nothing else. A sequence number costs no row: numbers that follow each other are one run, so a device that loses
nothing has one row per start, and the views stay fast whatever the number of events. The order in which events come, and
how often, does not matter. An event that failed has arrived.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from protocol.devices import DEVICE_TIME, QUEUE_HEALTH
from protocol.seams import Event, FailedEvent
from storage.rows import clean, timestamp

_TIME_FAMILY, _HEALTH_FAMILY = DEVICE_TIME.removesuffix("0-0"), QUEUE_HEALTH.removesuffix("0-0")

_METHODS = ("true", "difference", "wall_clock", "anchored", "bounded", "received")
# Counters of the tracker, which only grow within a start, and last_sequence, which does too.
_GROWING = ("sent", "resent", "dropped_full", "dropped_old", "dropped_large", "storage_errors", "longest_outage_ms")
_NOW = ("queued", "queued_bytes")

TABLES = ("device_runs", "device_boots")
BOOT_COLUMNS: dict[str, str] = {
    "device": "TEXT NOT NULL",
    "boot_id": "INTEGER NOT NULL",
    # Of events: stored, failed, come again; when the first and the last happened, and when the last was received.
    **dict.fromkeys(("events", "failed", "duplicates"), "INTEGER NOT NULL DEFAULT 0"),
    **dict.fromkeys(("first_tstamp", "last_tstamp", "seen_tstamp"), "TEXT"),
    **{f"by_{method}": "INTEGER NOT NULL DEFAULT 0" for method in _METHODS},
    # Events without a lower bound of their time, and the widest of the others' bounds.
    "unbounded": "INTEGER NOT NULL DEFAULT 0",
    "widest_ms": "INTEGER",
    # What the device told of its queue, the newest last.
    "told_tstamp": "TEXT",
    "last_sequence": "INTEGER",
    **dict.fromkeys((*_GROWING, *_NOW), "INTEGER"),
}

VIEWS = (
    """CREATE VIEW device_gaps AS
SELECT device, boot_id, last_sequence + 1 AS first_missing, next_sequence - 1 AS last_missing,
    next_sequence - last_sequence - 1 AS missing, last_tstamp AS after_tstamp, next_tstamp AS before_tstamp
FROM (
    SELECT device, boot_id, lag(last_sequence, 1, 0) OVER earlier AS last_sequence, lag(last_tstamp) OVER earlier AS last_tstamp,
        first_sequence AS next_sequence, first_tstamp AS next_tstamp
    FROM device_runs
    WINDOW earlier AS (PARTITION BY device, boot_id ORDER BY first_sequence)
) AS neighbours
WHERE next_sequence > last_sequence + 1
UNION ALL
SELECT b.device, b.boot_id, coalesce(r.last_sequence, 0) + 1, b.last_sequence, b.last_sequence - coalesce(r.last_sequence, 0),
    r.last_tstamp, NULL
FROM device_boots AS b LEFT JOIN device_runs AS r ON r.device = b.device AND r.boot_id = b.boot_id AND r.first_sequence = (
    SELECT max(first_sequence) FROM device_runs AS m WHERE m.device = b.device AND m.boot_id = b.boot_id
)
WHERE b.last_sequence > coalesce(r.last_sequence, 0)""",
    f"""CREATE VIEW device_health AS
SELECT b.device, min(b.first_tstamp) AS first_tstamp, max(b.last_tstamp) AS last_tstamp, max(b.seen_tstamp) AS seen_tstamp,
    count(*) AS boots, sum(b.events) AS events, sum(b.failed) AS failed, coalesce(max(g.missing), 0) AS missing,
    sum(b.duplicates) AS duplicates, sum(b.resent) AS resent,
    sum(coalesce(b.dropped_full, 0) + coalesce(b.dropped_old, 0) + coalesce(b.dropped_large, 0)) AS dropped,
    sum(b.storage_errors) AS storage_errors, max(b.longest_outage_ms) AS longest_outage_ms,
    max(CASE WHEN b.told_tstamp = t.told_tstamp THEN b.queued END) AS queued,
    {", ".join(f"sum(b.by_{method}) AS by_{method}" for method in _METHODS)},
    sum(b.unbounded) AS unbounded, max(b.widest_ms) AS widest_ms
FROM device_boots AS b
LEFT JOIN (SELECT device, sum(missing) AS missing FROM device_gaps GROUP BY device) AS g ON g.device = b.device
LEFT JOIN (SELECT device, max(told_tstamp) AS told_tstamp FROM device_boots GROUP BY device) AS t ON t.device = b.device
GROUP BY b.device""",
)


class Start(NamedTuple):
    """Of a device, as it named it."""

    device: str
    boot_id: int


@dataclass(slots=True)
class News:
    """What one batch tells of one start of a device. arrived: sequence -> when it happened, milliseconds since 1970."""

    arrived: dict[int, int] = field(default_factory=dict[int, int])
    sums: Counter[str] = field(default_factory=Counter[str])
    seen_ms: int | None = None
    widest_ms: int | None = None
    told_ms: int | None = None
    told: dict[str, int] = field(default_factory=dict[str, int])


def enter(db: sqlite3.Connection, came: Sequence[Event], stored: Sequence[Event], failed: Sequence[FailedEvent]) -> None:
    """Into SQLite, within the commit that stores them. The arguments are those of `news_of`."""
    for start, one in news_of(came, stored, failed).items():
        if one.arrived:
            _enter_runs(db, start, one.arrived)
        found = db.execute(_SELECT, start).fetchone()
        db.execute(_INSERT, boot_row(start, found, one))


def news_of(came: Sequence[Event], stored: Sequence[Event], failed: Sequence[FailedEvent]) -> dict[Start, News]:
    """What a batch tells of devices. came: all of its events, duplicates among them; stored, failed: the new ones."""
    news: defaultdict[Start, News] = defaultdict(News)
    for event in came:
        if (found := _device_time(event)) is not None:
            start, time = found
            one = news[start]
            one.sums["duplicates"] += 1
            one.arrived[time["sequence"]] = event.get("derived_tstamp", 0)
            _tell(news, start, event)
    if news:
        for event in stored:
            if (found := _device_time(event)) is not None:
                start, time = found
                one = news[start]
                one.sums.update({"duplicates": -1, "events": 1, f"by_{time['method']}": 1})
                if (wide := time.get("uncertainty_ms")) is None:
                    one.sums["unbounded"] += 1
                else:
                    one.widest_ms = max(one.widest_ms or 0, wide)
                one.seen_ms = max(one.seen_ms or 0, event.get("collector_tstamp", 0))
    for failure in failed:
        if (found := _device_time(failure.event)) is not None:
            start, time = found
            one = news[start]
            one.sums["failed"] += 1
            one.arrived.setdefault(time["sequence"], failure.event.get("derived_tstamp", 0))
            one.seen_ms = max(one.seen_ms or 0, failure.payload.received_ms)
            _tell(news, start, failure.event)
    return news


def _device_time(event: Event) -> tuple[Start, dict[str, Any]] | None:
    for entity in event.get("derived_contexts", ()):
        if entity["schema"].startswith(_TIME_FAMILY):
            data = cast(dict[str, Any], entity["data"])
            device = data.get("device")
            return (Start(clean(device), data["boot_id"]), data) if isinstance(device, str) else None
    return None


def _tell(news: Mapping[Start, News], start: Start, event: Event) -> None:
    """What the event says of a queue, as an entity or as itself."""
    told = [*event.get("contexts", ())]
    if (unstruct := event.get("unstruct_event")) is not None:
        told.append(unstruct)
    for part in told:
        data = part["data"]
        if part["schema"].startswith(_HEALTH_FAMILY) and isinstance(data, dict):
            numbers = {name: int(value) for name, value in data.items() if isinstance(value, int | float)}
            one = news[start._replace(boot_id=numbers.pop("boot_id", start.boot_id))]
            happened = event.get("derived_tstamp", 0)
            newest = one.told_ms is None or happened >= one.told_ms
            one.told_ms = happened if newest else one.told_ms
            for name, number in numbers.items():
                if name in _NOW:
                    if newest or name not in one.told:
                        one.told[name] = number
                else:
                    one.told[name] = max(one.told.get(name, 0), number)


def _enter_runs(db: sqlite3.Connection, start: Start, arrived: Mapping[int, int]) -> None:
    for first, last in runs_of(sorted(arrived)):
        first_at, last_at = timestamp(arrived[first]), timestamp(arrived[last])
        touching = db.execute(
            "SELECT first_sequence, last_sequence, first_tstamp, last_tstamp FROM device_runs"
            " WHERE device = ?1 AND boot_id = ?2 AND first_sequence <= ?4 AND last_sequence >= ?3 - 1 AND first_sequence >="
            " coalesce((SELECT max(first_sequence) FROM device_runs"
            "  WHERE device = ?1 AND boot_id = ?2 AND first_sequence <= ?3), 0)"
            " ORDER BY first_sequence",
            (*start, first, last + 1),
        ).fetchall()
        if touching:
            head, tail = touching[0], touching[-1]
            if head[0] <= first and tail is head and head[1] >= last:
                continue  # all of it is there
            if head[0] < first:
                first, first_at = head[0], head[2]
            if tail[1] > last:
                last, last_at = tail[1], tail[3]
            db.executemany(
                "DELETE FROM device_runs WHERE device = ? AND boot_id = ? AND first_sequence = ?",
                [(*start, run[0]) for run in touching],
            )
        db.execute("INSERT INTO device_runs VALUES (?, ?, ?, ?, ?, ?)", (*start, first, last, first_at, last_at))


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each stretch without a hole; numbers: sorted."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


_SELECT = f"SELECT {', '.join(BOOT_COLUMNS)} FROM device_boots WHERE device = ? AND boot_id = ?"
_INSERT = f"INSERT OR REPLACE INTO device_boots VALUES ({', '.join('?' * len(BOOT_COLUMNS))})"


def boot_row(start: Start, found: Sequence[Any] | None, news: News) -> tuple[Any, ...]:
    """The row of device_boots that takes the place of `found`, None where there is none; times as `timestamp` writes them."""
    row: dict[str, Any] = dict(zip(BOOT_COLUMNS, found or (*start, *[None] * (len(BOOT_COLUMNS) - 2)), strict=True))
    for name, kind in BOOT_COLUMNS.items():
        if kind.endswith("DEFAULT 0"):
            row[name] = (row[name] or 0) + news.sums[name]
    told = None if news.told_ms is None else timestamp(news.told_ms)
    for name, number in news.told.items():
        if name not in _NOW:
            row[name] = max(row[name] or 0, number)
        elif row["told_tstamp"] is None or (told is not None and told >= row["told_tstamp"]):
            row[name] = number
    happened = [text for ms in news.arrived.values() if (text := timestamp(ms)) is not None]
    seen = None if news.seen_ms is None else timestamp(news.seen_ms)
    row["first_tstamp"] = min((text for text in (row["first_tstamp"], *happened) if text is not None), default=None)
    for name, values in (("last_tstamp", happened), ("seen_tstamp", [seen]), ("told_tstamp", [told])):
        row[name] = max((text for text in (row[name], *values) if text is not None), default=None)
    if news.widest_ms is not None:
        row["widest_ms"] = max(row["widest_ms"] or 0, news.widest_ms)
    return tuple(row.values())
