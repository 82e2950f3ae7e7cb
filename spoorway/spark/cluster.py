"""Spark as the job's engine: 3.5 and 4, by DataFrames alone. Imports PySpark; the tasks run in its Python workers.

A task that finds something wrong for good answers with it: Spark would repeat it in vain, and tell it in a hundred lines.
Trouble that passes is raised, and Spark repeats it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from protocol.seams import TransientError
from spoorway.spark.engine import Keys, Told

pa: Any = import_module("pyarrow")
pyspark: Any = import_module("pyspark")

T = TypeVar("T")

_TOLD = "told string"
_TYPES = {"string": "string", "int64": "bigint", "int32": "int", "binary": "binary", "bool": "boolean"}
_ROWS = 50_000
_OURS = re.compile(r"^(?:protocol\.seams\.|storage\.\w+\.)\w+: (.+)$", re.MULTILINE)


class Cluster:
    """An `Engine`. spark: a session."""

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self.parallel = int(spark.sparkContext.defaultParallelism)
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(_ROWS))

    def ship(self, file: Path) -> Callable[[], Path]:
        if file.parent != Path(pyspark.SparkFiles.getRootDirectory()):  # otherwise --files has shipped it
            self._spark.sparkContext.addFile(str(file))
        return partial(_shipped, file.name)

    def map(self, do: Callable[[T], Told], items: Sequence[T]) -> list[Told]:
        if not items:
            return []
        found = _told(self._numbers(items).mapInArrow(_Mapped(do, items), _TOLD))
        return [told for _, told in sorted(found, key=lambda one: one[0])]

    def exchange(
        self,
        read: Callable[[T], Iterable[Any]],
        items: Sequence[T],
        keys: Keys,
        parts: int,
        do: Callable[[int, Iterator[Any]], Iterable[Told]],
    ) -> list[Told]:
        if not items:
            return []
        columns = ", ".join(f"`{field.name}` {_TYPES[str(field.type)]}" for field in keys.schema)
        rows = self._numbers(items).mapInArrow(_Read(read, items), columns)
        sorted_ = rows.repartition(parts, *keys.by).sortWithinPartitions(*keys.order)
        return [told for _, told in _told(sorted_.mapInArrow(_Done(do), _TOLD))]

    def _numbers(self, items: Sequence[Any]) -> Any:
        """One of them in each partition."""
        return self._spark.range(0, len(items), 1, len(items))


def _shipped(name: str) -> Path:
    return Path(pyspark.SparkFiles.get(name))


class _Mapped(NamedTuple):
    do: Callable[[Any], Told]
    items: Sequence[Any]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        for number in _numbers(batches):
            yield _row(number, self.do(self.items[number]))


class _Read(NamedTuple):
    read: Callable[[Any], Iterable[Any]]
    items: Sequence[Any]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        for number in _numbers(batches):
            for table in self.read(self.items[number]):
                yield from table.to_batches(_ROWS)


class _Done(NamedTuple):
    do: Callable[[int, Iterator[Any]], Iterable[Told]]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        part = pyspark.TaskContext.get().partitionId()
        for told in self.do(part, batches):
            yield _row(part, told)


def _numbers(batches: Iterator[Any]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _row(number: int, told: Told) -> Any:
    return pa.RecordBatch.from_pydict({"told": pa.array([json.dumps([number, told])], pa.string())})


def _told(frame: Any) -> list[tuple[int, Told]]:
    """Raises TransientError: Spark has repeated a task as often as it does."""
    try:
        rows = frame.collect()
    except Exception as error:  # of Py4J or of PySpark, by its version; it holds the worker's traceback, and Java's
        ours = _OURS.findall(str(error))
        raise TransientError(f"spark: {ours[-1] if ours else str(error).strip().partition(chr(10))[0]}") from error
    return [(number, told) for number, told in (json.loads(row[0]) for row in rows)]


__all__ = ["Cluster"]
