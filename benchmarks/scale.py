"""Many generated events in one SQLite store: what loading, asking, backing up, expiring and erasing cost as it grows.

Nothing is enriched: it is the store that is measured. The first events, and some at the end, go the way of every event; what
lies between are copies of them, with other ids, times and people, made in SQL. Beside the erasure stands a plain DELETE, and how
long a commit waits for it. `python -m benchmarks erase` and `scale` call this.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from protocol.persons import Person
from protocol.schemas import bundled
from protocol.seams import Event, Position
from protocol.tables import COLUMN_NAMES
from spoorway.backups import backup
from storage.targets import Batch, Erasure, Removed, Rule
from storage.targets.sqlite import Config, Plugin

FIRST_MS = 1_767_225_600_000  # 2026-01-01
EVERY_MS = 250
BATCH = 5_000
EVENTS_PER_PERSON = 50
_QUERIES = {
    "count of all events": "SELECT count(*) FROM events",
    "events of the last day by the hour": "SELECT substr(collector_tstamp, 1, 13), count(*) FROM events"
    " WHERE collector_tstamp >= ? GROUP BY 1",
    "people per page, all events": "SELECT page_urlpath, count(DISTINCT domain_userid) FROM events GROUP BY 1",
}


def events(first: int, last: int) -> Iterator[Event]:
    """Page views and pings of many people, in the order of time."""
    chance = random.Random(first)
    people = max(10, (last - first) // EVENTS_PER_PERSON)
    for number in range(first, last):
        person, page = chance.randrange(people), chance.randrange(40)
        at_ms = FIRST_MS + number * EVERY_MS
        yield {
            "app_id": "shop",
            "platform": "web",
            "etl_tstamp": at_ms + 900,
            "collector_tstamp": at_ms,
            "dvce_created_tstamp": at_ms - 120,
            "event": "page_view" if number % 3 else "page_ping",
            "event_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "name_tracker": "sp",
            "v_tracker": "js-4.6.0",
            "v_collector": "spoorway",
            "v_etl": "spoorway",
            "user_id": f"user-{person}",
            "user_ipaddress": f"10.{person % 200}.{person % 99}.0",
            "domain_userid": str(uuid.UUID(int=person)),
            "domain_sessionidx": 1 + number % 9,
            "page_url": f"https://shop.example/page/{page}?number={number}",
            "page_title": f"Page {page} of the shop",
            "page_urlscheme": "https",
            "page_urlhost": "shop.example",
            "page_urlport": 443,
            "page_urlpath": f"/page/{page}",
            "useragent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
            "br_lang": "en",
            "derived_tstamp": at_ms - 100,
            "event_vendor": "com.snowplowanalytics.snowplow",
            "event_name": "page_view" if number % 3 else "page_ping",
            "event_format": "jsonschema",
            "event_version": "1-0-0",
            "event_fingerprint": f"{number:032x}",
        }


def _silent(text: str) -> None:
    """Tells nobody."""


def run(folder: Path, count: int, loaded: int = 1_000_000, tell: Callable[[str], None] = _silent) -> dict[str, Any]:
    """Figures by name. Raises RuntimeError when the store does not hold what it should."""
    path = folder / "events.db"
    target = Plugin(Config(str(path)), bundled)
    figures: dict[str, Any] = {"events": count}
    last = min(20 * BATCH, loaded)
    figures |= _loaded(target, 0, min(count, loaded), "into an empty store", tell)
    if count > loaded:
        _multiplied(path, loaded, count - last, tell)
        figures |= _loaded(target, count - last, count, "into the full store", tell)
    figures["bytes"] = sum(file.stat().st_size for file in folder.glob("events.db*"))
    with closing(sqlite3.connect(path)) as db:
        day_ago = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime((FIRST_MS + count * EVERY_MS) / 1000 - 86_400))
        for name, sql in _QUERIES.items():
            began = time.perf_counter()
            db.execute(sql, (day_ago,) if "?" in sql else ()).fetchall()
            figures[name + ", s"] = time.perf_counter() - began
        person = "user-7"
        (theirs,) = db.execute("SELECT count(*) FROM events WHERE user_id = ?", (person,)).fetchone()
    tell("erasing")
    figures |= _erased(target, person, theirs, count)
    tell("expiring")
    figures |= _expired(target, count)
    tell("backing up")
    began = time.perf_counter()
    held = backup(path, folder / "copy.db", lambda done, pages: None, quick=True)
    figures["backup with quick_check, s"] = time.perf_counter() - began
    totals = target.totals()
    target.close()
    if not held["events"] == totals.stored == count - totals.erased - totals.expired:
        raise RuntimeError(f"{totals} do not add up to {count}")
    return figures


def _multiplied(path: Path, have: int, count: int, tell: Callable[[str], None]) -> None:
    """Copies of what is there until there are `count`. The unique index is built anew after it: much faster."""
    changed = {
        "event_id": "lower(hex(randomblob(4))||'-'||hex(randomblob(2))||'-4'||substr(hex(randomblob(2)),2)||'-a'||"
        "substr(hex(randomblob(2)),2)||'-'||hex(randomblob(6)))",
        "user_id": "user_id || '-' || ?1",
        "domain_userid": "domain_userid || ?1",
        "collector_tstamp": "strftime('%Y-%m-%d %H:%M:%f', collector_tstamp, ?2)",
    }
    names = ", ".join(COLUMN_NAMES)
    copied = ", ".join(changed.get(name, name) for name in COLUMN_NAMES)
    with closing(sqlite3.connect(path, 60, isolation_level=None)) as db:
        db.execute("DROP INDEX events_event_id")
        for number, first in enumerate(range(have, count, have), 1):
            db.execute(
                f"INSERT INTO events ({names}) SELECT {copied} FROM events WHERE rowid <= ?3",
                (number, f"+{first * EVERY_MS / 1000} seconds", min(have, count - first)),
            )
            tell(f"{min(count, first + have):,} events")
        db.execute("CREATE UNIQUE INDEX events_event_id ON events (event_id)")
        db.execute("UPDATE totals SET stored = ?1, payloads = ?1", (count,))


def _loaded(target: Plugin, first: int, last: int, where: str, tell: Callable[[str], None]) -> dict[str, Any]:
    made, took, slowest = list[Event](), 0.0, 0.0
    for number, event in enumerate(events(first, last), first + 1):
        made.append(event)
        if len(made) == BATCH or number == last:
            began = time.perf_counter()
            target.commit(Batch(made, [], {"lane": Position(1, number, number)}, len(made)))
            piece = time.perf_counter() - began
            took, slowest, made = took + piece, max(slowest, piece), []
            if number % (50 * BATCH) == 0:
                tell(f"{number:,} events")
    return {f"loading {where}, events/s": (last - first) / took, f"loading {where}, slowest commit of {BATCH:,} s": slowest}


def _erased(target: Plugin, person: str, theirs: int, count: int) -> dict[str, Any]:
    erasure = Erasure("scale", Person(user=frozenset({person})), FIRST_MS + count * EVERY_MS)
    removed, after, pieces, slowest, began = Removed(), None, 0, 0.0, time.perf_counter()
    while pieces == 0 or after is not None:
        piece = time.perf_counter()
        removed, after = target.erase(erasure, after)
        slowest, pieces = max(slowest, time.perf_counter() - piece), pieces + 1
    took = time.perf_counter() - began
    if removed.events != theirs or not theirs:
        raise RuntimeError(f"{removed.events} of {theirs} events of {person} were erased")
    figures = {"erased": theirs, "erasing one person, s": took, "erasing, slowest piece s": slowest}
    return figures | _deleted(target._path, f"{person[:-1]}8")  # pyright: ignore[reportPrivateUsage]


def _deleted(path: Path, person: str) -> dict[str, Any]:
    """The peer: one statement, while another connection would like to commit now and then."""
    waits: list[float] = []
    ended = threading.Event()

    def commit_now_and_then() -> None:
        with closing(sqlite3.connect(path, 600, isolation_level=None)) as db:
            while not ended.wait(0.05):
                began = time.perf_counter()
                db.execute("BEGIN IMMEDIATE")
                db.execute("COMMIT")
                waits.append(time.perf_counter() - began)

    waiting = threading.Thread(target=commit_now_and_then)
    waiting.start()
    with closing(sqlite3.connect(path, 60, isolation_level=None)) as db:
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        rows = db.execute("DELETE FROM events WHERE user_id = ?", (person,)).rowcount
        db.execute("UPDATE totals SET stored = stored - ?1, erased = erased + ?1", (rows,))
        db.execute("COMMIT")
        took = time.perf_counter() - began
    ended.set()
    waiting.join()
    return {"a plain DELETE, s": took, "a plain DELETE, longest wait of a commit s": max(waits, default=0.0)}


def _expired(target: Plugin, count: int) -> dict[str, Any]:
    """The oldest hundredth, at most 100,000."""
    old = min(count // 100, 100_000)
    rule, now_ms = Rule(EVERY_MS * (count - old)), FIRST_MS + count * EVERY_MS
    events, after, slowest, pieces, began = 0, None, 0.0, 0, time.perf_counter()
    while pieces == 0 or after is not None:
        piece = time.perf_counter()
        removed, after = target.expire(rule, now_ms, after)
        events, slowest, pieces = events + removed.events, max(slowest, time.perf_counter() - piece), pieces + 1
    took = time.perf_counter() - began
    return {"expired": events, "expiring, events/s": events / took, "expiring, slowest piece s": slowest}
