"""Events per second from memory into Parquet and TSV, in a folder and through the S3 protocol; pyarrow alone beside it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, TypeVar

from benchmarks.measures import Effort
from benchmarks.measures.postgres import enriched
from benchmarks.mix import DESCRIPTION
from benchmarks.pinned import pinned, processor_µs
from benchmarks.result import Result, Row, Table
from protocol.seams import Position
from spoorway.loader import collect_seldom
from storage.targets import Batch, Counts
from tests.peers.s3_server import S3Server

T = TypeVar("T")

BATCH = 14_000  # about what batch_bytes comes to
_OURS = {
    "Spoorway: Parquet in a folder": ("folder", "parquet"),
    "Spoorway: Parquet in a bucket": ("bucket", "parquet"),
    "Spoorway: TSV in a folder": ("folder", "tsv"),
}
_PEER = "pyarrow: Table.from_pylist, write_table, fsync"


def measure(effort: Effort) -> Result:
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in (*_OURS, _PEER)}
    with S3Server() as server:
        os.environ.update(server.environment)
        for number in range(effort.rounds):
            for way, (place, form) in _OURS.items():
                url = server.bucket(f"bench-{number}") if place == "bucket" else ""
                rounds[way].append(pinned(ours, effort.folder, url, form, number, effort.events))
            rounds[_PEER].append(pinned(plain, effort.folder, number, effort.events))
    rows: list[Row] = []
    for way, found in rounds.items():
        rows.append(
            {
                "way": way,
                "events/s": median(one["events"] / one["seconds"] for one in found),
                "processor µs/event": processor_µs(found),
                "events/s of a core": median(one["events"] / one["processor_s"] for one in found),
                "this ÷ pyarrow": None if way == _PEER else processor_µs(rounds[_PEER]) / processor_µs(found),
                "bytes/event": median(one["bytes"] / one["events"] for one in found),
                "peak MiB above the events": median(one["peak_mib"] for one in found),
            }
        )
    return Result(
        "what one core writes as files",
        f"{effort.events:,} enriched events in batches of {BATCH:,}, each batch a commit, from one process on core 0; "
        f"{effort.rounds} rounds, the ways taking turns; medians.",
        DESCRIPTION,
        [Table("Events per second", rows)],
        [
            "The peer writes one file per batch, unpartitioned, and knows neither duplicates, cursor nor commit; its "
            "self-describing columns are JSON text that was ready before the clock began. Both compress as hard (zstd, level "
            "1) and run with the garbage collector set as the loader sets it. ÷ compares events/s of a core; the goal was 0.87.",
            "The bucket is of a server in Python on the same two cores; its processor time is not counted, its wall time is.",
            "Enrichment is not part of these figures.",
        ],
        {"rounds": rounds},
    )


# In a process of its own, on core 0 ---------------------------------------------------------------------------------


def ours(folder: str, url: str, form: str, number: float, count: float) -> dict[str, Any]:
    from storage.targets.s3 import Config, Plugin

    events: list[Any] = list(enriched(folder, int(count)))
    name = f"{folder}/{form}-{'bucket' if url else 'folder'}-{number:.0f}"
    target = Plugin(Config(url or name, format=form, state=f"{name}.db"), lambda uri: None)  # type: ignore[arg-type]
    target.commit(Batch(events[:1], [], {"lane": Position(1, 0, 0)}, 1))  # everything is imported and connected
    before = _peak()
    collect_seldom()
    began, processor = time.perf_counter(), time.process_time()
    for lane, batch in enumerate(batches(events[1:]), 1):
        target.commit(Batch(batch, [], {"lane": Position(1, lane, lane)}, len(batch)))
    seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
    size = sum(found.size for kind in ("events/", "tsv/") for found in target._objects.list(kind))  # pyright: ignore[reportPrivateUsage]
    if target.totals() != Counts(len(events), len(events), 0, 0):
        raise RuntimeError(f"{len(events)} events were handed over; the store says {target.totals()}")
    target.close()
    times = {"seconds": seconds, "processor_s": processor_s}
    return {"events": len(events), "bytes": size, "peak_mib": _peak() - before, **times}


def plain(folder: str, number: float, count: float) -> dict[str, Any]:
    """The peer: what one would write, with columns of the same types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from storage.lake.parquet import COMPRESSION, money, schema
    from storage.rows import json_text

    events: list[Any] = [dict(event) for event in enriched(folder, int(count))]
    for event in events:
        for name, value in event.items():
            if isinstance(value, (list, dict)):
                event[name] = json_text(value)
            elif str(schema().field(name).type).startswith("decimal"):
                event[name] = money(value)
            elif name == "se_value":
                event[name] = float(value)
    before = _peak()
    size = 0
    collect_seldom()
    began, processor = time.perf_counter(), time.process_time()
    for place, batch in enumerate(batches(events)):
        path = f"{folder}/plain-{number:.0f}-{place}.parquet"
        with open(path, "wb") as file:
            table = pa.Table.from_pylist(batch, schema())
            pq.write_table(table, file, compression="zstd", compression_level=COMPRESSION["compression_level"])
            file.flush()
            os.fsync(file.fileno())
        size += os.stat(path).st_size
    times = {"seconds": time.perf_counter() - began, "processor_s": time.process_time() - processor}
    return {"events": len(events), "bytes": size, "peak_mib": _peak() - before, **times}


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(items), BATCH):
        yield items[begin : begin + BATCH]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
