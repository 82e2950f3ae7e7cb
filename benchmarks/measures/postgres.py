"""Events per second from memory into PostgreSQL, deduplicated and on disk; bytes per event; a plain peer beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks import mix
from benchmarks.measures import Effort
from benchmarks.pinned import pinned
from benchmarks.result import Result, Row, Table
from protocol.seams import Event, Position
from spoorway import building
from spoorway.config import load
from storage.targets import Batch, Counts
from tests.peers.postgres_server import PostgresServer

T = TypeVar("T")

_BATCH = 2_000
_SERVER = "shared_buffers = 256MB\nmax_wal_size = 4GB\n"


def measure(effort: Effort) -> Result:
    ways = {
        "Spoorway's target": (ours, ""),
        'Spoorway\'s target, partition = "month"': (ours, "month"),
        "psycopg: COPY into a temporary table, INSERT … ON CONFLICT": (plain, ""),
    }
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(effort.rounds):
        for way, (function, option) in ways.items():
            with PostgresServer(effort.folder, fsync=True, settings=_SERVER) as server:
                rounds[way].append(pinned(function, effort.folder, server.dsn, effort.events // 4, option))
    rows: list[Row] = []
    for way, found in rounds.items():
        rate = median(one["events"] / one["seconds"] for one in found)
        rows.append(
            {
                "way": way,
                "events/s, all new": rate,
                "client's processor µs/event": median(1e6 * one["processor_s"] / one["events"] for one in found),
                "server's": median(1e6 * one["server_s"] / one["events"] for one in found),
                "events/s, all sent again": median(one["events"] / one["again_s"] for one in found),
                "bytes/event, with indexes": median(one["bytes"] / one["events"] for one in found),
                "of which indexes": median(one["index_bytes"] / one["events"] for one in found),
            }
        )
    first = rounds["Spoorway's target"][0]
    return Result(
        "what PostgreSQL takes, deduplicated",
        f"{first['events']:,} enriched events in batches of {_BATCH:,}, each batch one transaction with its cursor, from one "
        f"process on core 0 into an empty schema; {effort.rounds} rounds, the ways taking turns; medians.",
        mix.DESCRIPTION,
        [Table("Events per second", rows)],
        [
            "Server and client share this machine's two cores; fsync and synchronous_commit are on.",
            "The peer makes the rows that SQLite gets, writes the same 131 columns and indexes, and knows neither fingerprints, "
            "counts, typed views nor the ledger of devices; of two events with one id it keeps the first.",
            f"Enrichment is not part of these figures. {first['server']}.",
        ],
        {"rounds": rounds},
    )


# In a process of its own, on core 0 ---------------------------------------------------------------------------------


def ours(folder: str, dsn: str, count: float, partition: str) -> dict[str, Any]:
    from storage.targets.postgres import Config, Plugin

    events = enriched(folder, int(count))
    target = Plugin(Config(dsn, partition="month" if partition else ""), lambda uri: None)
    target.totals()  # connected, and the tables are made
    lane = 0

    def commit_all() -> tuple[float, float, float]:
        nonlocal lane
        began, processor, server = time.perf_counter(), time.process_time(), backends_s(dsn)
        for batch in batches(events):
            lane += 1
            target.commit(Batch(batch, [], {"lane": Position(1, lane, lane)}, len(batch)))
        return time.perf_counter() - began, time.process_time() - processor, backends_s(dsn) - server

    seconds, processor_s, server_s = commit_all()
    again_s, *_ = commit_all()
    totals = target.totals()
    target.close()
    if totals != Counts(2 * len(events), len(events), 0, len(events)):
        raise RuntimeError(f"{len(events)} events were handed over twice; the store says {totals}")
    return _told(len(events), seconds, processor_s, server_s, again_s) | _sizes(dsn)


def plain(folder: str, dsn: str, count: float, _: str) -> dict[str, Any]:
    """The peer: the staging table that one would write, with the same table and indexes as the target's."""
    import psycopg

    from protocol.tables import COLUMN_NAMES
    from storage.postgres import ddl
    from storage.rows import to_rows

    events = enriched(folder, int(count))
    columns = ", ".join(COLUMN_NAMES)
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("CREATE SCHEMA atomic")
        db.execute("SET search_path TO atomic")
        for statement in (ddl.EVENTS, "CREATE UNIQUE INDEX ON events (event_id)", *ddl.STEPS[0][:3]):
            db.execute(statement.encode())
        db.execute("CREATE TABLE cursors (lane INTEGER PRIMARY KEY, place BIGINT)")
        db.execute("INSERT INTO cursors VALUES (1, 0)")
        db.execute("CREATE TEMP TABLE staging (LIKE events) ON COMMIT DELETE ROWS")

        def commit_all() -> tuple[int, float, float, float]:
            kept, began, processor, server = 0, time.perf_counter(), time.process_time(), backends_s(dsn)
            for batch in batches(events):
                with db.transaction(), db.cursor() as cursor:
                    with cursor.copy(f"COPY staging ({columns}) FROM STDIN".encode()) as copy:
                        for row in to_rows(batch):
                            copy.write_row(row)
                    cursor.execute("INSERT INTO events SELECT * FROM staging ON CONFLICT (event_id) DO NOTHING")
                    kept += cursor.rowcount
                    cursor.execute("UPDATE cursors SET place = place + %s", (len(batch),))
            return kept, time.perf_counter() - began, time.process_time() - processor, backends_s(dsn) - server

        kept, seconds, processor_s, server_s = commit_all()
        again, again_s, *_ = commit_all()
    if (kept, again) != (len(events), 0):
        raise RuntimeError(f"{len(events)} events were handed over twice; {kept} and {again} were kept")
    return _told(len(events), seconds, processor_s, server_s, again_s) | _sizes(dsn)


def enriched(folder: str, count: int) -> list[Event]:
    """What the default enrichments make of the mix."""
    pipeline = building.pipeline(load(None, {"data": folder}), remember=False)
    outcomes = (one for payload in mix.payloads(count) for one in pipeline.outcomes(payload, payload.received_ms))
    events = [one for one in islice(outcomes, count) if isinstance(one, dict)]
    if len(events) != count:
        raise RuntimeError(f"{count} events were made, {len(events)} came through")
    return events


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(items), _BATCH):
        yield items[begin : begin + _BATCH]


def _told(events: int, seconds: float, processor_s: float, server_s: float, again_s: float) -> dict[str, Any]:
    return {"events": events, "seconds": seconds, "processor_s": processor_s, "server_s": server_s, "again_s": again_s}


def backends_s(dsn: str) -> float:
    """Processor time of the server's processes that serve us, so far."""
    import psycopg

    with psycopg.connect(dsn) as db:
        found = db.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
        pids = [pid for (pid,) in found]
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _sizes(dsn: str) -> dict[str, Any]:
    import psycopg

    with psycopg.connect(dsn) as db:
        ((size, indexes, version),) = db.execute(
            "SELECT sum(pg_total_relation_size(oid))::bigint, sum(pg_indexes_size(oid))::bigint,"
            " current_setting('server_version') FROM pg_class WHERE relname LIKE 'events%' AND relkind = 'r'"
        ).fetchall()
    return {"bytes": size, "index_bytes": indexes, "server": f"PostgreSQL {version}"}
