"""Ten million events: loading, asking, erasing and expiring in a SQLite store, and merging the files of an S3 target. Minutes."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks import month, scale
from benchmarks.measures import Effort, erase, sql_pack
from benchmarks.result import Result, Row, Table
from storage.lake import EVENTS, merging, piece_name
from storage.lake.writing import files
from storage.objects import open_objects

_BYTES = 3_000  # of an event, for a moment: the store, what is built anew, and a copy
_TIMES, _TOGETHER = 10, 100_000


def measure(effort: Effort) -> Result:
    count = effort.wanted or (10_000_000 if effort.rounds > 1 else 50_000)
    free = shutil.disk_usage(effort.folder).free
    if free < count * _BYTES:
        raise OSError(f"{count * _BYTES >> 30} GiB may be needed in {effort.folder}, {free >> 30} are free")
    found = scale.run(effort.folder, count, count // _TIMES, _tell)
    kept = erase.told("many events in one SQLite store and in one lake", count, found)
    merged = _merged(effort.folder / "lake", count)
    return replace(kept, tables=[*kept.tables, Table("Merging the files of an S3 target, in a folder", merged)])


def _merged(lake: Path, count: int) -> list[Row]:
    """As `spoorway compact` merges them. A tenth of the files are written as by the target, the others are copies of these."""
    events, commits = month.events(count // _TIMES, sql_pack.END_MS), 0
    while found := list(islice(events, _TOGETHER)):
        for name, data in files(1, found, [], (EVENTS,)):
            folder = (lake / name).parent
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(commits + 1, commits + _TIMES + 1):
                (lake / piece_name(EVENTS, f"{folder.parent.name}/{folder.name}", number, number)).write_bytes(data)
        commits += _TIMES
        _tell(f"{commits:,} commits of files")
    objects, before = open_objects(str(lake)), _sizes(lake)
    began, at_work = time.perf_counter(), time.process_time()
    merges = merging.plan(objects, (EVENTS,), "9999", sql_pack.MERGED, commits).merges
    for members in merges:
        merging.merge(objects, members)
    took, worked, after = time.perf_counter() - began, time.process_time() - at_work, _sizes(lake)
    return [
        {"what": "files before", "value": len(before)},
        {"what": "files after", "value": len(after)},
        {"what": "bytes/event before", "value": sum(before) / count},
        {"what": "bytes/event after", "value": sum(after) / count},
        {"what": "s", "value": took},
        {"what": "processor s", "value": worked},
        {"what": "events/s", "value": count / took},
        {"what": "peak MiB of this process, with all before", "value": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024},
    ]


def _sizes(lake: Path) -> list[int]:
    return [file.stat().st_size for file in lake.rglob("*.parquet")]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
