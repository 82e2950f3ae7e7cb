"""Many small files of a partition -> few large ones, while others read and write; `spoorway compact` runs it.

Only neighbours are merged, so that the merged file's numbers take in theirs: its PUT is the moment they are superseded, and
deleting them is tidying up, which the next run repeats. One small file in memory at a time; what is written goes through a
file on this machine's disk.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from protocol.seams import TransientError
from storage.lake import EVENTS, Piece, piece_name, sorted_out
from storage.objects import NoSuchObject, Objects

_SMALLEST_SHARE = 2  # a file of half the wanted size stays as it is


class Plan(NamedTuple):
    """merges: each becomes one file. tidy: names of superseded files. files: that count now."""

    merges: list[list[Piece]]
    tidy: list[str]
    files: int


def plan(objects: Objects, kinds: Iterable[str], before: str, most_bytes: int, last: int) -> Plan:
    """before: only partitions of earlier days, `2026-01-31`. most_bytes: of a merged file. last: the newest settled commit."""
    merges: list[list[Piece]] = []
    tidy: list[str] = []
    files = 0
    for kind in kinds:
        live, superseded = sorted_out(objects.list(f"{kind}/"))
        tidy += [piece.name for piece in superseded]
        files += len(live)
        closed = (piece for piece in live if piece.day < before and piece.last <= last)
        for _, members in groupby(closed, attrgetter("partition")):
            merges += _neighbours(members, most_bytes)
    return Plan(merges, tidy, files)


def _neighbours(members: Iterable[Piece], most_bytes: int) -> Iterator[list[Piece]]:
    together: list[Piece] = []
    size = 0
    for piece in members:
        large = piece.size * _SMALLEST_SHARE >= most_bytes
        if large or size + piece.size > most_bytes:
            if len(together) > 1:
                yield together
            together, size = [], 0
        if not large:
            together.append(piece)
            size += piece.size
    if len(together) > 1:
        yield together


def merge(objects: Objects, members: Sequence[Piece]) -> str:
    """The merged file's name. Raises TransientError, also when somebody merged or deleted one of them meanwhile."""
    first = members[0]
    name = piece_name(first.kind, first.partition.removeprefix(f"{first.kind}/"), first.first, members[-1].last)
    try:
        with tempfile.TemporaryDirectory(prefix="spoorway-") as folder:
            merged = Path(folder) / "merged"
            (_merge_parquet if first.kind == EVENTS else _merge_lines)(objects, members, merged)
            objects.put(name, merged)
    except NoSuchObject as error:
        raise TransientError(f"{error}; somebody else merges or deletes here") from error
    except OSError as error:
        raise TransientError(f"{error.filename or tempfile.gettempdir()}: {error.strerror}") from error
    objects.delete([piece.name for piece in members])
    return name


def _merge_parquet(objects: Objects, members: Sequence[Piece], path: Path) -> None:
    from storage.lake.parquet import COMPRESSION, ROW_GROUP, pa, pq, schema

    with pq.ParquetWriter(path, schema(), **COMPRESSION) as writer:
        waiting: list[object] = []
        rows = 0
        for piece in members:
            for batch in pq.ParquetFile(pa.BufferReader(objects.get(piece.name))).iter_batches(ROW_GROUP):
                waiting.append(batch)
                rows += batch.num_rows
                if rows >= ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(waiting, schema()))
                    waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema()))


def _merge_lines(objects: Objects, members: Sequence[Piece], path: Path) -> None:
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as out:
        for piece in members:
            with gzip.open(io.BytesIO(objects.get(piece.name))) as lines:
                shutil.copyfileobj(lines, out, 1 << 20)
