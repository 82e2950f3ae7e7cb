"""What a job has made and not committed yet: where it lies, and how tasks write and read it. Nobody else looks there.

_spoorway/spark/JOB/events/00000007-0003          the fourth file of stretch 7, as it will lie among the events
_spoorway/spark/JOB/claims/00000007               see claims.py; likewise notes, known, verdicts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from spoorway.spark.bundle import Order, read
from storage.archive import Archive
from storage.archive import Options as Place
from storage.lake.parquet import pa, pq
from storage.objects import Objects, open_objects

PREFIX = "_spoorway/spark/"


@dataclass(frozen=True, slots=True)
class Job:
    """What every task knows. id: of this run. bundle: finds the bundle. now_ms: the time of enrichment, of all events.

    limits: payloads and bytes of the archive that are enriched at once.
    """

    id: str
    bundle: Callable[[], Path]
    now_ms: int
    limits: tuple[int, int]

    def order(self) -> Order:
        """What was asked of the job."""
        return read(self.bundle())

    def objects(self) -> Objects:
        """Where the result goes, and what is staged."""
        return opened(self.order().to)

    def archive(self) -> Archive:
        """What is read."""
        return Archive(opened(self.order().source))

    def name(self, kind: str, *numbers: int) -> str:
        """Of something staged: of one kind, by its numbers."""
        return f"{PREFIX}{self.id}/{kind}/" + "-".join(f"{number:08d}" for number in numbers)


def opened(place: Place) -> Objects:
    """Raises ConfigurationError."""
    return open_objects(place.url, endpoint=place.endpoint, region=place.region, profile=place.profile)


def write(objects: Objects, name: str, table: Any) -> None:
    """As Parquet; replaces what an earlier attempt of the task wrote."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    objects.put(name, cast(bytes, out.getvalue().to_pybytes()))


def tables(objects: Objects, name: str) -> Iterator[Any]:
    """A row group at a time."""
    file = pq.ParquetFile(pa.BufferReader(objects.get(name)))
    for number in range(file.num_row_groups):
        yield file.read_row_group(number)


__all__ = ["PREFIX", "Job", "opened", "tables", "write"]
