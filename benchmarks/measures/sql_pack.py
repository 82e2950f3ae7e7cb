"""What asking costs: every question of the SQL pack, on a month of events in the SQLite store and in Parquet through DuckDB."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from benchmarks import month
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from protocol.schemas import bundled
from protocol.seams import Position
from spoorway import asking
from spoorway.config import load
from spoorway.stores import Sqlite
from spoorway.stores import opened as store_at
from storage.lake import EVENTS, merging
from storage.lake.writing import files
from storage.objects import open_objects
from storage.sql import questions
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin

END_MS = 1_795_300_000_000
_AT_ONCE = 5_000
_TOGETHER = 100_000  # events whose Parquet files are written together
MERGED = 128 << 20  # bytes of a file, as `spoorway compact` merges them
_PERIODS = ("7d", "30d")
_RUNS, _FEW, _ENOUGH_MS = 20, 5, 500  # of a question: so many, or fewer when those took long enough
_SLOW = 3  # that are named


def measure(effort: Effort) -> Result:
    count = effort.wanted or (1_000_000 if effort.rounds > 1 else 20_000)
    file, lake = effort.folder / "events.db", effort.folder / "lake"
    kept(file, lake, count)
    stores: dict[str, asking.Store] = {"SQLite": Sqlite(file), "DuckDB": opened(lake)}
    return asked("what asking costs", count, stores, {"SQLite": file, "DuckDB": lake})


def asked(title: str, count: int, stores: Mapping[str, asking.Store], places: Mapping[str, Path], more: str = "") -> Result:
    """Every question to every store. places: the file or folder of each. more: about the events."""
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
    sizes = [_size(label, place, count) for label, place in places.items()]
    return Result(
        title,
        f"Each of {len(names)} questions: 7d up to {_RUNS} times, fewer when that takes half a second, after one that warms"
        " the caches; 30d once.",
        f"{count:,} events of 30 days. {month.DESCRIPTION}. 7d is the last week, 30d all of it.{more}",
        [
            Table("Milliseconds until the whole answer, over all questions", summary),
            Table("Each question, milliseconds; of 7d where nothing else is said", rows),
            Table("What the events take on disk, with their indexes", sizes),
        ],
        [
            "DuckDB: the files of an S3 target in a folder, by day and name of event, as they are after `spoorway compact`.",
            "Where there are several stores, all answer with the same number of rows, or nothing is told.",
            "Times grow with the events of the period.",
            "Processor: the median of its time, of all threads together; what it would take alone on a machine with one core.",
        ],
        {"rows": rows, "summary": summary, "sizes": sizes},
    )


class Runs(NamedTuple):
    """Of a question: milliseconds of each run, those of the processor, and how many rows it answers."""

    spent: list[float]
    worked: list[float]
    rows: int


def opened(lake: Path) -> asking.Store:
    return store_at(str(lake), load)


def kept(file: Path | None, lake: Path, count: int) -> None:
    """A month of events, each by its target's own code: in a SQLite store where one is wanted, and in merged Parquet files."""
    target = Plugin(Config(str(file)), bundled) if file else None
    events, number, commits = month.events(count, END_MS), 0, math.ceil(count / _TOGETHER)
    for together in range(1, commits + 1):
        found = list(islice(events, _TOGETHER))
        for name, data in files(together, found, [], (EVENTS,)):
            path = lake / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if target:
            for at in range(0, len(found), _AT_ONCE):
                number += 1
                target.commit(Batch(found[at : at + _AT_ONCE], [], {"lane": Position(1, number, number)}, 1))
    objects = open_objects(str(lake))
    for members in merging.plan(objects, (EVENTS,), "9999", MERGED, commits).merges:
        merging.merge(objects, members)
    if target:
        stored = target.totals().stored
        target.close()
        if stored != count:
            raise RuntimeError(f"{stored} of {count} events were stored")


def _size(label: str, place: Path, count: int) -> Row:
    sizes = [one.stat().st_size for one in _files(place)]
    return {"store": label, "bytes/event": sum(sizes) / count, "MiB": sum(sizes) / 2**20, "files": len(sizes)}


def _files(place: Path) -> Iterator[Path]:
    return (one for one in place.rglob("*") if one.is_file()) if place.is_dir() else iter([place])


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


def _timed(store: asking.Store, name: str, since: str, most: int) -> Runs:
    question, spent, worked, found = asking.named(name), list[float](), list[float](), 0
    if most > 1:
        asking.ask(store, question, {"since": since}, END_MS)  # warms the caches
    while len(spent) < min(most, _FEW) or (len(spent) < most and sum(spent) < _ENOUGH_MS):
        began, at_work = time.perf_counter(), time.process_time()
        found = len(asking.ask(store, question, {"since": since}, END_MS).rows)
        spent.append((time.perf_counter() - began) * 1e3)
        worked.append((time.process_time() - at_work) * 1e3)
    return Runs(spent, worked, found)


def _rank(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]
