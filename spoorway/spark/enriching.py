"""A stretch of the archive -> staged files and claims; or notes, where an enrichment has to know what came before. Tasks.

Reads, enriches and writes by what one machine uses. Bounded by the stretch: its rows are in memory as Arrow, one batch as events.
"""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from gateway.journal import Chunk
from gateway.journal.lanes import sealed
from gateway.journal.reader import FileReader
from protocol.seams import ConfigurationError, Cursor, Event, FailedEvent, PermanentError, TransientError
from spoorway.loader import enriched
from spoorway.spark import bundle, notes, staging
from spoorway.spark.claims import CLAIMS, Claim
from spoorway.spark.engine import Told
from spoorway.spark.plan import Stretch
from spoorway.spark.staging import Job
from storage.archive import Archive, DamagedObject
from storage.duplicates import identity
from storage.lake import EVENTS, FAILED, day_of
from storage.lake.parquet import COMPRESSION, ROW_GROUP, pa, pq, to_table
from storage.lake.writing import by_partition, failed_line
from storage.objects import NoSuchObject, Objects
from storage.rows import clean
from storage.targets import Batch

P = ParamSpec("P")

# What a claim says of an event: whose id, and which fingerprint.
_Key = tuple[str, str | None]


def told(do: Callable[Concatenate[Job, P], Told]) -> Callable[Concatenate[Job, P], Told]:
    """What will be wrong at the next attempt as well is an answer: {"error": …}."""

    @wraps(do)
    def answer(job: Job, /, *args: P.args, **kwargs: P.kwargs) -> Told:
        try:
            return do(job, *args, **kwargs)
        except (PermanentError, ConfigurationError) as error:
            return {"error": str(error)}

    return answer


@told
def first(job: Job, stretch: Stretch) -> Told:
    """The stretch, as if nothing had come before it; from where that is found out to matter, only its notes."""
    work = _Work(job, stretch)
    recalls = work.enriching.memories.values()
    for recall in recalls:
        recall.begin(())
    pipeline = work.enriching.pipeline()
    for chunk in (chunks := work.chunks()):
        batch = enriched(pipeline, chunk, job.now_ms)
        if any(recall.asked for recall in recalls):
            noted = notes.taken(job, work.enriching, stretch.number, chain([chunk], chunks))
            return {"stretch": stretch.number, "notes": noted}
        work.made.add(batch)
    return work.finished()


@told
def again(job: Job, stretch: Stretch, known: Iterable[tuple[str, str, bytes]]) -> Told:
    """The stretch, by an enrichment that knows what came before it. known: name of the memory, key, value."""
    work = _Work(job, stretch)
    before = list(known)
    for name, recall in work.enriching.memories.items():
        recall.begin((key, value) for memory, key, value in before if memory == name)
    pipeline = work.enriching.pipeline()
    for chunk in work.chunks():
        work.made.add(enriched(pipeline, chunk, job.now_ms))
    return work.finished()


class _Work:
    def __init__(self, job: Job, stretch: Stretch) -> None:
        order = job.order()
        self._job, self._stretch, self._partial, self._told = job, stretch, order.partial, list[str]()
        self._objects, self._archive = staging.opened(order.to), Archive(staging.opened(order.source))
        self.enriching = bundle.opened(job.bundle())
        self.made = _Made(stretch.number)

    def chunks(self) -> Iterator[Chunk]:
        return _chunks(self._archive, self._stretch, self._job.limits, self._partial, self._told.append)

    def finished(self) -> Told:
        return self.made.staged(self._job, self._objects) | {"stretch": self._stretch.number, "told": self._told}


def _chunks(
    archive: Archive, stretch: Stretch, limits: tuple[int, int], partial: bool, tell: Callable[[str], object]
) -> Iterator[Chunk]:
    """One segment on disk at a time. Raises DamagedObject, NoSuchObject unless partial; TransientError."""
    payloads, size = limits
    cursor: Cursor = {}
    with tempfile.TemporaryDirectory(prefix="spoorway-") as name:
        for entry in stretch.entries:
            path = sealed(Path(name) / entry.lane, entry.segment)
            try:
                path.parent.mkdir(exist_ok=True)
                archive.fetch(entry, path)
            except OSError as error:
                raise TransientError(f"{error.filename or path}: {error.strerror or error}") from error
            except (DamagedObject, NoSuchObject) as error:
                if not partial:
                    raise
                tell(str(error))
                if isinstance(error, NoSuchObject):
                    continue
            reader, more = FileReader(Path(name)), True
            while more:
                chunk = reader.read(cursor, max_payloads=payloads, max_bytes=size)
                cursor, more = chunk.cursor, chunk.more
                if not more:
                    cursor = {**cursor, **entry.reached}
                    chunk = replace(chunk, cursor=cursor)
                if chunk.items:
                    yield chunk
            reader.close()
            path.unlink(missing_ok=True)


@dataclass(slots=True)
class _File:
    """One of the files of a stretch. rows: so far."""

    number: int
    kind: str
    partition: str
    rows: int = 0
    tables: list[Any] = field(default_factory=list[Any])
    raw: io.BytesIO = field(default_factory=io.BytesIO)
    lines: gzip.GzipFile | None = None


class _Made:
    """What a stretch became, each event once: a copy within the stretch goes at once."""

    def __init__(self, stretch: int) -> None:
        self._stretch = stretch
        self._seen: dict[_Key, int] = {}
        self._files: dict[tuple[str, str], _File] = {}
        self._claims: list[Claim] = []
        self._payloads = self._duplicate = self._erased = 0
        self._cursor: Cursor = {}

    def add(self, batch: Batch) -> None:
        """What a piece of the stretch became."""
        self._payloads += batch.payloads
        self._erased += batch.erased
        self._cursor = {**self._cursor, **batch.cursor}
        fresh = [event for event in batch.events if self._new(_of_event(event))]
        for partition, members in by_partition(fresh).items():
            self._file(EVENTS, partition, map(_of_event, members)).tables.append(to_table(members))
        days: dict[str, list[FailedEvent]] = {}
        for one in batch.failed:
            if self._new(_of_failed(one)):
                days.setdefault(f"day={day_of(one.payload.received_ms)}", []).append(one)
        for day, some in days.items():
            file = self._file(FAILED, day, map(_of_failed, some))
            file.lines = file.lines or gzip.GzipFile("", "wb", 6, file.raw, mtime=0)
            for one in some:
                file.lines.write(f"{failed_line(one)}\n".encode())

    def staged(self, job: Job, objects: Objects) -> Told:
        """Writes the files and the claims of the stretch; the answer names and counts them."""
        files: list[list[Any]] = []
        for file in self._files.values():
            body = _parquet(file.tables) if file.lines is None else _closed(file.lines, file.raw)
            name = job.name(file.kind, self._stretch, file.number)
            objects.put(name, body)
            files.append([file.kind, file.partition, file.rows, len(body), name])
        staging.write(
            objects, job.name("claims", self._stretch), pa.Table.from_pylist([c._asdict() for c in self._claims], CLAIMS)
        )
        return {
            "payloads": self._payloads,
            "duplicate": self._duplicate,
            "erased": self._erased,
            "cursor": {lane: list(at) for lane, at in self._cursor.items()},
            "files": files,
            "claims": len(self._claims),
        }

    def _new(self, key: _Key) -> bool:
        if key in self._seen:
            self._duplicate += 1
            return False
        self._seen[key] = len(self._seen)
        return True

    def _file(self, kind: str, partition: str, keys: Iterable[_Key]) -> _File:
        """The file, with claims to what is about to be added to it."""
        file = self._files.setdefault((kind, partition), _File(len(self._files), kind, partition))
        for name, fingerprint in keys:
            place = self._stretch << 32 | self._seen[name, fingerprint]
            self._claims.append(Claim(name, fingerprint, place, file.number, file.rows))
            file.rows += 1
        return file


def _of_event(event: Event) -> _Key:
    event_id, fingerprint = identity(event)
    return f"e/{event_id}", fingerprint


def _of_failed(one: FailedEvent) -> _Key:
    return f"f/{clean(one.id)}", None


def _parquet(some: list[Any]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(some), out, row_group_size=ROW_GROUP, **COMPRESSION)
    return out.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _closed(lines: gzip.GzipFile, raw: io.BytesIO) -> bytes:
    lines.close()
    return raw.getvalue()


__all__ = ["again", "first", "told"]
