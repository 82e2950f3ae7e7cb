"""Events per second from memory into SQLite, each batch one transaction with its cursor, peers beside it; an event's bytes."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measures import Effort, postgres, s3
from benchmarks.measures.enrich import filled
from benchmarks.measures.postgres import enriched
from benchmarks.mix import DESCRIPTION
from benchmarks.pinned import pinned, processor_µs
from benchmarks.result import Result, Row, Table
from gateway.journal.disk import DISK
from gateway.journal.keeping import finish_and_seal
from gateway.journal.lanes import lanes
from gateway.journal.options import Options
from protocol.seams import Position
from protocol.tables import COLUMN_NAMES, COLUMNS
from spoorway.files import journal_folder
from spoorway.loader import collect_seldom
from storage.rows import json_text, timestamp
from storage.targets import Batch, Counts
from tests.peers.postgres_server import PostgresServer

_BATCH = 1_000  # about what the loader takes at a time
_OURS = "Spoorway's target"
_GROUPED = "sqlite3: executemany for each set of columns"
_READY = f"{_GROUPED}, rows ready before the clock"
_APSW = "apsw: executemany for each set of columns"
_SINGLE = "sqlite3: an INSERT of 131 values for each event"
_UTILS = "sqlite-utils: insert_all"
_NOT_OURS = (
    "CREATE TABLE events ({})".format(", ".join(f"{column.name} {column.sqlite}" for column in COLUMNS)),
    "CREATE UNIQUE INDEX events_event_id ON events (event_id)",
    "CREATE INDEX events_collector_tstamp ON events (collector_tstamp)",
    "CREATE TABLE cursors (lane TEXT PRIMARY KEY, place INTEGER)",
)
_PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA cache_size = -32768")

# (batch number, its events or rows): one transaction.
Store = Callable[[int, Sequence[Any]], None]


def measure(effort: Effort) -> Result:
    folder, events = effort.folder, effort.events // 2
    ways: dict[str, Callable[[int], dict[str, Any]]] = {
        _OURS: lambda turn: pinned(ours, folder, events, turn),
        _GROUPED: lambda turn: pinned(grouped, folder, events, turn, "sqlite3", ""),
        _READY: lambda turn: pinned(grouped, folder, events, turn, "sqlite3", "ready"),
        _SINGLE: lambda turn: pinned(single, folder, events, turn),
    }
    if find_spec("apsw"):
        ways[_APSW] = lambda turn: pinned(grouped, folder, events, turn, "apsw", "")
    if find_spec("sqlite_utils"):
        ways[_UTILS] = lambda turn: pinned(utils, folder, events // 4, turn)
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for turn in range(effort.rounds):
        for way, run in ways.items():
            rounds[way].append(run(turn))
    rows: list[Row] = []
    for way, found in rounds.items():
        rows.append(
            {
                "way": way,
                "events/s": median(one["events"] / one["seconds"] for one in found),
                "processor µs/event": processor_µs(found),
                "Spoorway ÷ this": None if way == _OURS else processor_µs(found) / processor_µs(rounds[_OURS]),
                "bytes/event": median(one["bytes"] / one["events"] for one in found),
            }
        )
    resting = at_rest(effort)
    return Result(
        "what one core stores in SQLite",
        f"{events:,} enriched events in batches of {_BATCH:,}, each batch one transaction with its cursor, from one process on "
        f"core 0 into an empty file; WAL, synchronous=FULL; {effort.rounds} rounds, the ways taking turns; medians. ÷ compares "
        "processor times.",
        DESCRIPTION,
        [Table("Events per second", rows), Table("An event at rest", resting)],
        [
            f'The goal was set beside "{_GROUPED}": 40,000 rows/s where it made 43,000, a ratio of 0.93. How much of making rows '
            "its clock held is not known; so it stands here twice.",
            "The peers' table has the same 131 columns and two indexes, on event_id and collector_tstamp; INSERT OR IGNORE. They "
            "know neither fingerprints, counts, failed events, typed views, devices nor what was erased; the target's table has "
            "two more indexes, which the views read by, and JSON in the wrappers of the canonical format.",
            f"sqlite-utils makes its own transactions, and gets a quarter of the events. {_versions()}",
            f"At rest: {effort.events // 4:,} of the same events; SQLite and PostgreSQL with their indexes, Parquet and TSV of "
            f"batches of {s3.BATCH:,} that were not merged yet, the journal with each event's share of its request. The archive "
            "keeps the sealed segments as they are.",
            "Enrichment is not part of these figures.",
        ],
        {"rounds": rounds, "at_rest": resting},
    )


def _versions() -> str:
    told = [f"SQLite {sqlite3.sqlite_version}"]
    if find_spec("apsw"):
        import apsw  # type: ignore[import-not-found, unused-ignore]  # the checker need not have it

        told.append(f"in apsw {apsw.sqlite_lib_version()}")
    return ", ".join(told) + "."


# In a process of its own, on core 0 ---------------------------------------------------------------------------------


def ours(folder: str, count: float, turn: float) -> dict[str, Any]:
    from storage.targets.sqlite import Config, Plugin

    events = enriched(folder, int(count))
    path = Path(folder) / f"ours-{turn:.0f}.db"
    target = Plugin(Config(str(path)), lambda uri: None)

    def store(number: int, batch: Sequence[Any]) -> None:
        target.commit(Batch(batch, [], {"lane": Position(1, number, number)}, len(batch)))

    times = _timed(store, [events[begin : begin + _BATCH] for begin in range(0, len(events), _BATCH)])
    totals = target.totals()
    target.close()
    if totals != Counts(len(events), len(events), 0, 0):
        raise RuntimeError(f"{len(events)} events were handed over; the store says {totals}")
    return {"events": len(events), "bytes": path.stat().st_size, **times}


def grouped(folder: str, count: float, turn: float, driver: str, ready: str) -> dict[str, Any]:
    """The peer that one would write with care: a statement for each set of columns that have a value."""
    events: list[Any] = enriched(folder, int(count))
    path = Path(folder) / f"grouped-{driver}{ready}-{turn:.0f}.db"
    batches = [events[begin : begin + _BATCH] for begin in range(0, len(events), _BATCH)]
    with closing(_opened(path, driver)) as db:
        many = db.cursor().executemany

        def store(number: int, shapes: dict[tuple[str, ...], list[tuple[Any, ...]]]) -> None:
            db.execute("BEGIN IMMEDIATE")
            for names, rows in shapes.items():
                many(_insert(names), rows)
            db.execute("INSERT OR REPLACE INTO cursors VALUES ('lane', ?)", (number,))
            db.execute("COMMIT")

        if ready:
            times = _timed(store, [_rows(batch) for batch in batches])
        else:
            times = _timed(lambda number, batch: store(number, _rows(batch)), batches)
    return _checked(path, len(events)) | times


def single(folder: str, count: float, turn: float) -> dict[str, Any]:
    events: list[Any] = enriched(folder, int(count))
    path = Path(folder) / f"single-{turn:.0f}.db"
    with closing(_opened(path, "sqlite3")) as db:

        def store(number: int, batch: Sequence[Any]) -> None:
            db.execute("BEGIN IMMEDIATE")
            for event in batch:
                row = _row(event)
                db.execute(_insert(COLUMN_NAMES), [row.get(name) for name in COLUMN_NAMES])
            db.execute("INSERT OR REPLACE INTO cursors VALUES ('lane', ?)", (number,))
            db.execute("COMMIT")

        times = _timed(store, [events[begin : begin + _BATCH] for begin in range(0, len(events), _BATCH)])
    return _checked(path, len(events)) | times


def utils(folder: str, count: float, turn: float) -> dict[str, Any]:
    from sqlite_utils import Database  # type: ignore[import-not-found, unused-ignore]  # the checker need not have it

    events: list[Any] = enriched(folder, int(count))
    path = Path(folder) / f"utils-{turn:.0f}.db"
    with closing(_opened(path, "sqlite3")) as db:
        database: Any = Database(db)

        def store(number: int, batch: Sequence[Any]) -> None:
            database["events"].insert_all(map(_row, batch), ignore=True, batch_size=_BATCH)
            database["cursors"].upsert({"lane": "lane", "place": number}, pk="lane")

        times = _timed(store, [events[begin : begin + _BATCH] for begin in range(0, len(events), _BATCH)])
    return _checked(path, len(events)) | times


def _timed(store: Callable[[int, Any], None], batches: Sequence[Any]) -> dict[str, float]:
    collect_seldom()
    began, processor = time.perf_counter(), time.process_time()
    for number, batch in enumerate(batches, 1):
        store(number, batch)
    return {"seconds": time.perf_counter() - began, "processor_s": time.process_time() - processor}


def _opened(path: Path, driver: str) -> Any:
    if driver == "apsw":
        import apsw  # type: ignore[import-not-found, unused-ignore]  # the checker need not have it

        db: Any = apsw.Connection(str(path))
    else:
        db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    for statement in (*_PRAGMAS, *_NOT_OURS):
        db.execute(statement)
    return db


def _rows(events: Sequence[Any]) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    shapes: defaultdict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for event in events:
        shapes[tuple(event)].append(tuple(_row(event).values()))
    return shapes


def _row(event: dict[str, Any]) -> dict[str, Any]:
    return {name: write(value) if (write := _WRITTEN.get(name)) else value for name, value in event.items()}


_BY_TYPE: dict[str, Callable[[Any], Any]] = {"timestamp": timestamp, "json": json_text, "decimal": str}
_WRITTEN = {column.name: _BY_TYPE[column.type] for column in COLUMNS if column.type in _BY_TYPE}


@lru_cache(maxsize=1024)
def _insert(names: Sequence[str]) -> str:
    return f"INSERT OR IGNORE INTO events ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _checked(path: Path, events: int) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT count(*), (SELECT place FROM cursors) FROM events").fetchone()
    if found != (events, -(-events // _BATCH)):
        raise RuntimeError(f"{events} events were handed over; the file says {found}")
    return {"events": events, "bytes": path.stat().st_size}


# At rest --------------------------------------------------------------------------------------------------------------


def at_rest(effort: Effort) -> list[Row]:
    """Bytes of an event, wherever it is kept."""
    folder, events = effort.folder / "at-rest", effort.events // 4
    folder.mkdir()
    data, _, sent = filled(folder / "data", events)
    journal = journal_folder(data)
    plain = _bytes(journal)
    for lane in lanes(journal):
        finish_and_seal(lane, Options(), DISK)
    sealed = _bytes(journal)
    with PostgresServer(folder) as server:
        stored = pinned(postgres.ours, folder, server.dsn, events, "")
    files = {form: pinned(s3.ours, folder, "", form, 0, events) for form in ("parquet", "tsv")}
    sqlite = pinned(ours, folder, events, 0)
    found = {
        "journal, as it is written": (plain, sent),
        "journal, sealed segments; the archive": (sealed, sent),
        "SQLite": (sqlite["bytes"], events),
        "PostgreSQL": (stored["bytes"], events),
        "Parquet, zstd": (files["parquet"]["bytes"], events),
        "canonical TSV, gzip": (files["tsv"]["bytes"], events),
    }
    return [{"where": where, "bytes/event": size / count} for where, (size, count) in found.items()]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.ndjson*"))
