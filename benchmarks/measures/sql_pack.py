"""What asking costs: every question of the SQL pack, on a month of events in the SQLite store and in Parquet through DuckDB."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

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
_RUNS, _FEW, _ENOUGH_MS = 20, 5, 500  # of a question: so many, or fewer when those took long enough
_SLOW = 3  # that are named


def measure(effort: Effort) -> Result:
    count = 250_000 if effort.rounds > 1 else 20_000
    file, parquet = effort.folder / "events.db", effort.folder / "parquet"
    parquet.mkdir()
    _fill(file, parquet, count)
    stores: dict[str, asking.Store] = {"SQLite": asking.Sqlite(file), "DuckDB": asking.Parquet([f"{parquet}/*.parquet"])}
    names = [name for name, one in questions().items() if not one.reads]
    runs: dict[tuple[str, str, str], Runs] = {}
    rows: list[Row] = []
    for name in names:
        row: Row = {"question": name}
        for period in _PERIODS:
            for label, store in stores.items():
                runs[label, period, name] = _timed(store, name, period, _RUNS if period == _PERIODS[0] else 1)
            if len({runs[label, period, name].rows for label in stores}) > 1:
                raise RuntimeError(f"{name} of {period}: the stores have answers of different lengths")
        for label in stores:
            week, month_ = (runs[label, period, name] for period in _PERIODS)
            row |= {f"{label} p50": _rank(week.spent, 0.5), f"{label} p95": _rank(week.spent, 0.95)}
            row |= {f"{label} longest": max(week.spent), f"{label} 30d": month_.spent[0]}
        rows.append(row)
    for store in stores.values():
        store.close()
    summary = [
        _summed(label, period, [(name, runs[label, period, name]) for name in names]) for label in stores for period in _PERIODS
    ]
    sizes = [one.stat().st_size for one in parquet.iterdir()]
    return Result(
        "what asking costs",
        f"Each of {len(names)} questions: 7d up to {_RUNS} times, fewer when that takes half a second, after one that warms"
        " the caches; 30d once.",
        f"{count:,} events of 30 days. {month.DESCRIPTION}. 7d is the last week, 30d all of it.",
        [
            Table("Milliseconds until the whole answer, over all questions", summary),
            Table("Each question, milliseconds; of 7d where nothing else is said", rows),
        ],
        [
            f"SQLite: one file of {file.stat().st_size / 2**20:,.0f} MiB. DuckDB: {sum(sizes) / 2**20:,.0f} MiB of Parquet in "
            f"{len(sizes)} files of {_FILE:,} events.",
            "Both answer with the same number of rows, or nothing is told. Times grow with the events of the period.",
            "Processor: the median of its time, of all threads together; what it would take alone on a machine with one core.",
        ],
        {"rows": rows, "summary": summary},
    )


class Runs(NamedTuple):
    """Of a question: milliseconds of each run, those of the processor, and how many rows it answers."""

    spent: list[float]
    worked: list[float]
    rows: int


def _summed(label: str, period: str, of: Sequence[tuple[str, Runs]]) -> Row:
    """Over questions, by the median of each."""
    spent = {name: statistics.median(runs.spent) for name, runs in of}
    worked = [statistics.median(runs.worked) for _, runs in of]
    return {
        "store": f"{label}, {period}",
        "p50": _rank(list(spent.values()), 0.5),
        "p95": _rank(list(spent.values()), 0.95),
        "longest": max(max(runs.spent) for _, runs in of),
        "processor p95": _rank(worked, 0.95),
        "slowest": ", ".join(sorted(spent, key=lambda name: -spent[name])[:_SLOW]),
    }


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


def _timed(store: asking.Store, name: str, since: str, most: int) -> Runs:
    question, spent, worked, found = asking.named(name), list[float](), list[float](), 0
    if most > 1:
        asking.ask(store, question, {"since": since}, _END_MS)  # warms the caches
    while len(spent) < min(most, _FEW) or (len(spent) < most and sum(spent) < _ENOUGH_MS):
        began, at_work = time.perf_counter(), time.process_time()
        found = len(asking.ask(store, question, {"since": since}, _END_MS).rows)
        spent.append((time.perf_counter() - began) * 1e3)
        worked.append((time.process_time() - at_work) * 1e3)
    return Runs(spent, worked, found)


def _rank(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]
