"""What the job asks of whoever schedules its tasks: do this for each, and sort what all of them say.

What a task answers is small, and JSON. A task may run more than once, and a copy of it at the same time: it makes the same
objects again, under the same names. `Here` does it all in one process, or with the `map` of a pool.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

pa: Any = import_module("pyarrow")

T = TypeVar("T")

Told = dict[str, Any]


class Keys(NamedTuple):
    """Rows on their way from task to task. schema: of pyarrow, strings, integers and bytes. by: rows that are alike in these
    columns come together; order: what a task gets is sorted by these.
    """

    schema: Any
    by: tuple[str, ...]
    order: tuple[str, ...]


class Engine(Protocol):
    parallel: int
    """How many tasks run at the same time, about."""

    def ship(self, file: Path) -> Callable[[], Path]:
        """Where a task finds the file."""
        ...

    def map(self, do: Callable[[T], Told], items: Sequence[T]) -> list[Told]:
        """Each item once, in their order."""
        ...

    def exchange(
        self,
        read: Callable[[T], Iterable[Any]],
        items: Sequence[T],
        keys: Keys,
        parts: int,
        do: Callable[[int, Iterator[Any]], Iterable[Told]],
    ) -> list[Told]:
        """read: an item -> tables of pyarrow. do: (number of the part, its record batches) -> answers; in any order."""
        ...


class Here:
    """An `Engine` of this process. map: what does it, such as a pool's."""

    def __init__(self, map: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] = map, parallel: int = 1) -> None:
        self._map, self.parallel = map, parallel

    def ship(self, file: Path) -> Callable[[], Path]:
        return partial(_same, file)

    def map(self, do: Callable[[T], Told], items: Sequence[T]) -> list[Told]:
        return list(self._map(do, items))

    def exchange(
        self,
        read: Callable[[T], Iterable[Any]],
        items: Sequence[T],
        keys: Keys,
        parts: int,
        do: Callable[[int, Iterator[Any]], Iterable[Told]],
    ) -> list[Told]:
        tables = [table for found in self._map(partial(_listed, read), items) for table in found]
        table = pa.concat_tables([keys.schema.empty_table(), *tables])
        table = table.sort_by([(name, "ascending") for name in keys.order])
        alike = zip(*(table[name].to_pylist() for name in keys.by), strict=True)
        part = pa.array([zlib.crc32(repr(one).encode()) % parts for one in alike], pa.int64())
        pieces = [table.filter(pa.compute.equal(part, number)) for number in range(parts)]
        return [told for found in self._map(partial(_done, do), enumerate(pieces)) for told in found]


_ROWS = 1_000


def _same(file: Path) -> Path:
    return file


def _listed(read: Callable[[Any], Iterable[Any]], item: Any) -> list[Any]:
    return list(read(item))


def _done(do: Callable[[int, Iterator[Any]], Iterable[Told]], piece: tuple[int, Any]) -> list[Told]:
    number, table = piece
    return list(do(number, iter(table.to_batches(_ROWS))))  # here, as a slice takes all of its table to another process


__all__ = ["Engine", "Here", "Keys", "Told"]
