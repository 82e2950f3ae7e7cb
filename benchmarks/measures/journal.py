"""The journal alone: durable appends per second, recovery after a crash, reading, and what sealing makes of a segment."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import mix
from benchmarks.load import percentile
from benchmarks.measures import Effort
from benchmarks.pinned import pinned
from benchmarks.result import Result, Row, Table
from gateway.journal.disk import DISK
from gateway.journal.lanes import lanes, plain, segments
from gateway.journal.lines import encode
from gateway.journal.reader import FileReader
from gateway.journal.sealing import seal
from gateway.journal.writer import FileWriter, Options
from protocol.seams import RawPayload

_SEGMENT_MIB = 64
_IN_FLIGHT = (1, 64, 1024)


def measure(effort: Effort) -> Result:
    segment_mib = _SEGMENT_MIB if effort.rounds > 1 else 8
    rows: list[Row] = []
    for at_once in _IN_FLIGHT:
        rows.append(_append_row(f"Spoorway's journal, {at_once} waiting", pinned(append, effort.folder, effort.seconds, at_once)))
    ours = {1: rows[0]["appends/s"], 64: rows[1]["appends/s"]}
    for label, function in (("a file, write + fdatasync for each", append_file), ("SQLite, a commit for each", append_sqlite)):
        row = _append_row(label, pinned(function, effort.folder, effort.seconds))
        rate = row["appends/s"]
        assert isinstance(rate, float)
        rows.append(row | {f"journal with {n} waiting ÷ this": float(ours[n] or 0) / rate for n in ours})
    for row in rows:
        for n in ours:
            row.setdefault(f"journal with {n} waiting ÷ this", None)
    kept = pinned(segment, effort.folder, segment_mib)
    return Result(
        "the journal alone",
        "On core 0. Appends wait for fdatasync; `waiting` is how many senders wait at the same time and share it.",
        f"{mix.DESCRIPTION}; {kept['bytes'] / kept['payloads']:,.0f} bytes of journal per payload.",
        [
            Table("Durable appends", rows),
            Table(f"A segment of {kept['bytes'] / (1 << 20):.0f} MiB ({kept['payloads']:,} payloads)", [
                {"what": "recovery after kill -9, ms", "value": kept["recovery_s"] * 1000},
                {"what": "the same, its durable record lost: every line is checked, file not in the page cache, ms",
                 "value": kept["full_recovery_s"] * 1000},
                {"what": "reading it: payloads/s", "value": kept["payloads"] / kept["read_s"]},
                {"what": "reading it: MiB/s", "value": kept["bytes"] / (1 << 20) / kept["read_s"]},
                {"what": "sealed, MiB", "value": kept["sealed_bytes"] / (1 << 20)},
                {"what": "sealing ratio", "value": kept["bytes"] / kept["sealed_bytes"]},
                {"what": "`gzip -4` of the whole file: ratio", "value": kept["bytes"] / kept["gzip_bytes"]},
                {"what": "sealing without pauses: MiB/s", "value": kept["bytes"] / (1 << 20) / kept["seal_s"]},
                {"what": "reading it sealed: payloads/s", "value": kept["payloads"] / kept["read_sealed_s"]},
            ]),
        ],
        ["The running product seals with pauses that leave three quarters of the core to others: four times as long."],
        kept,
    )  # fmt: skip


def _append_row(label: str, found: dict[str, Any]) -> Row:
    return {
        "what": label,
        "appends/s": found["appends"] / found["seconds"],
        "p50 ms": found["p50_ms"],
        "p99 ms": found["p99_ms"],
        "processor µs/append": found["processor_s"] / found["appends"] * 1e6,
    }


# In a process of its own, on core 0 ---------------------------------------------------------------------------------


def append(folder: str, seconds: float, at_once: float) -> dict[str, Any]:
    payloads = list(mix.payloads(6_000))
    return uvloop.run(_append(Path(folder) / f"appends{at_once:.0f}", payloads, seconds, int(at_once)))


async def _append(folder: Path, payloads: list[RawPayload], seconds: float, at_once: int) -> dict[str, Any]:
    writer = FileWriter.open(folder)
    supply, took = cycle(payloads), list[float]()
    end = time.perf_counter() + seconds

    async def sender() -> None:
        while (began := time.perf_counter()) < end:
            await writer.append(next(supply))
            took.append(time.perf_counter() - began)

    before, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(at_once)))
    found = _took(took, time.perf_counter() - began, time.process_time() - before)
    if writer.accepted() != len(took):
        raise RuntimeError(f"{len(took)} appends, {writer.accepted()} durable")
    await writer.close()
    shutil.rmtree(folder)
    return found


def append_file(folder: str, seconds: float) -> dict[str, Any]:
    fd = os.open(Path(folder) / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def one(payload: RawPayload) -> None:
        os.write(fd, encode(payload, 1))
        os.fdatasync(fd)

    try:
        return _each(one, seconds)
    finally:
        os.close(fd)


def append_sqlite(folder: str, seconds: float) -> dict[str, Any]:
    with closing(sqlite3.connect(Path(folder) / "appends.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE payloads (id INTEGER PRIMARY KEY, payload TEXT)")
        return _each(lambda p: db.execute("INSERT INTO payloads (payload) VALUES (?)", (encode(p, 1).decode(),)), seconds)


def _each(one: Callable[[RawPayload], object], seconds: float) -> dict[str, Any]:
    supply, took = cycle(list(mix.payloads(6_000))), list[float]()
    before, began = time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        one(next(supply))
        took.append(time.perf_counter() - now)
    return _took(took, time.perf_counter() - began, time.process_time() - before)


def _took(took: list[float], seconds: float, processor_s: float) -> dict[str, Any]:
    took.sort()
    return {
        "appends": len(took), "seconds": seconds, "processor_s": processor_s, "p50_ms": percentile(took, 50) * 1000,
        "p99_ms": percentile(took, 99) * 1000,
    }  # fmt: skip


def segment(folder: str, mib: float) -> dict[str, Any]:
    """Fills one segment, leaves it as a crash does, recovers it in both ways, reads it, seals it, reads it again."""
    journal, size = Path(folder) / "segment", int(mib) << 20
    # As many payloads as fit: one segment that is open when the writer goes, without a word of farewell.
    average = len(b"".join(encode(p, 10**6) for p in islice(mix.payloads(1_000), 400))) / 400
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_fill_and_stay(journal, size, average))
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    (lane,) = lanes(journal)
    (number,) = segments(lane)[0]
    file = plain(lane, number)
    found: dict[str, Any] = {"bytes": file.stat().st_size}
    # Opening begins no segment, so the same one is recovered twice.
    found["recovery_s"] = asyncio.run(_open(journal))
    (lane / "durable").unlink()
    _forget(file)
    found["full_recovery_s"] = asyncio.run(_open(journal))
    found["payloads"], found["read_s"] = _read(journal)
    found["gzip_bytes"] = len(gzip.compress(file.read_bytes(), 4))
    options = Options()
    before = time.process_time()
    seal(file, DISK, block_bytes=options.block_bytes, level=options.gzip_level, pause=lambda _: False)
    found["seal_s"] = time.process_time() - before
    found["sealed_bytes"] = file.with_suffix(".ndjson.gz").stat().st_size
    again, found["read_sealed_s"] = _read(journal)
    if again != found["payloads"]:
        raise RuntimeError(f"{found['payloads']} payloads before sealing, {again} after")
    return found


async def _fill_and_stay(journal: Path, size: int, average: float) -> None:
    """Ends the process without closing anything."""
    writer = FileWriter.open(journal)
    waiting = [writer.append(p) for p in islice(mix.payloads(10**9), int(size * 0.97 / average))]
    await asyncio.gather(*waiting)
    os._exit(0)


async def _open(journal: Path) -> float:
    began = time.perf_counter()
    writer = FileWriter.open(journal)
    took = time.perf_counter() - began
    await writer.close()
    return took


def _read(journal: Path) -> tuple[int, float]:
    reader, cursor, payloads = FileReader(journal), dict[str, Any](), 0
    began = time.perf_counter()
    while (chunk := reader.read(cursor)).items:
        payloads += len(chunk.items)
        cursor = dict(chunk.cursor)
    return payloads, time.perf_counter() - began


def _forget(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
