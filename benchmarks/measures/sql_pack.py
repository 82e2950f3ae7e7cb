"""What asking costs: every question of the SQL pack, on a month of events in the SQLite store and in Parquet through DuckDB."""

from __future__ import annotations

import math
import statistics
import time
from itertools import islice
from pathlib import Path

from benchmarks import month
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from protocol.schemas import bundled
from protocol.seams import Position
from spoorway import asking
from storage.lake.parquet import to_parquet
from storage.sql import questions
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin

_END_MS = 1_795_300_000_000
_AT_ONCE = 5_000
_FILE = 100_000  # events of a Parquet file
_PERIODS = ("7d", "30d")


def measure(effort: Effort) -> Result:
    count = 1_000_000 if effort.rounds > 1 else 20_000
    file, parquet = effort.folder / "events.db", effort.folder / "parquet"
    parquet.mkdir()
    _fill(file, parquet, count)
    stores: dict[str, asking.Store] = {"SQLite": asking.Sqlite(file), "DuckDB": asking.Parquet([f"{parquet}/*.parquet"])}
    names = [name for name, one in questions().items() if not one.reads]
    rows: list[Row] = []
    work: dict[tuple[str, str], float] = {}
    for name in names:
        row: Row = {"question": name}
        for period in _PERIODS:
            answers = []
            for label, store in stores.items():
                spent = _timed(store, name, period, effort.rounds if period == _PERIODS[0] else 1)
                row[f"{label} {period}, ms"], work[f"{label} {period}, ms", name], found = spent
                answers.append(found)
            if answers[0] != answers[1]:
                raise RuntimeError(f"{name} of {period}: SQLite has {answers[0]} rows, DuckDB {answers[1]}")
        rows.append(row)
    for store in stores.values():
        store.close()
    columns = [f"{label} {period}, ms" for period in _PERIODS for label in stores]
    shares = (("median", 0.5), ("95 %", 0.95), ("slowest", 1.0))
    summary: list[Row] = [
        {"of all questions": label, **{column: _rank([float(row[column] or 0) for row in rows], share) for column in columns}}
        for label, share in shares
    ]
    summary += [
        {
            "of all questions": f"{label}, of the processor",
            **{one: _rank([work[one, name] for name in names], share) for one in columns},
        }
        for label, share in shares
    ]
    return Result(
        "what asking costs",
        f"Each of {len(names)} questions, the median of {effort.rounds} runs (of 30 days: one) after one that warms the caches.",
        f"{count:,} events of 30 days. {month.DESCRIPTION}. 7d is the last week, 30d all of it.",
        [Table("Milliseconds until the whole answer", summary), Table("Each question", rows)],
        [
            f"SQLite: one file of {file.stat().st_size / 2**20:,.0f} MiB. DuckDB: {count // _FILE or 1} Parquet files of "
            f"{sum(one.stat().st_size for one in parquet.iterdir()) / 2**20:,.0f} MiB together.",
            "Both answer with the same number of rows, or nothing is told.",
            "Of the processor: its time, of all threads together; what it would take alone on a machine with one core.",
        ],
        {"rows": rows},
    )


def _fill(file: Path, parquet: Path, count: int) -> None:
    target = Plugin(Config(str(file)), bundled)
    events, number = month.events(count, _END_MS), 0
    while kept := list(islice(events, _FILE)):
        (parquet / f"{number:09d}.parquet").write_bytes(to_parquet(kept))
        for at in range(0, len(kept), _AT_ONCE):
            number += 1
            target.commit(Batch(kept[at : at + _AT_ONCE], [], {"lane": Position(1, number, number)}, 1))
    stored = target.totals().stored
    target.close()
    if stored != count:
        raise RuntimeError(f"{stored} of {count} events were stored")


def _timed(store: asking.Store, name: str, since: str, rounds: int) -> tuple[float, float, int]:
    """Milliseconds, those of the processor, rows."""
    question, spent, worked = asking.named(name), list[float](), list[float]()
    found = len(asking.ask(store, question, {"since": since}, _END_MS).rows)
    for _ in range(rounds):
        began, at_work = time.perf_counter(), time.process_time()
        asking.ask(store, question, {"since": since}, _END_MS)
        spent.append((time.perf_counter() - began) * 1e3)
        worked.append((time.process_time() - at_work) * 1e3)
    return statistics.median(spent), statistics.median(worked), found


def _rank(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]
