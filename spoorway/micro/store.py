"""What the test server remembers: records in the order they came, apart by namespace, within bounds.

Lives on one event loop. Beyond the bounds the oldest record of all namespaces is forgotten, and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from spoorway.micro.records import Record

Wanted = Callable[[Record], bool]


@dataclass(frozen=True, slots=True)
class Bounds:
    """max_bytes: of the JSON that is kept; the newest record is kept whatever its size."""

    max_events: int = 10_000
    max_bytes: int = 64 * 1024 * 1024


class _Kept(NamedTuple):
    number: int
    namespace: str
    record: Record


class Store:
    """dropped: records that were forgotten for newer ones."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.dropped = 0
        self.bytes = 0
        self._kept: deque[_Kept] = deque()
        self._numbers = 0
        self._resets = 0
        self._news = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, namespace: str, count: int, newest_first: Iterator[Record]) -> list[Record]:
        """Takes what came together: so many records. Those that are kept, oldest first.

        Records beyond the bounds are dropped without being made: a hostile batch costs no more than what is kept of it.
        """
        taken: list[Record] = []
        size = 0
        for record in newest_first:
            size += record.size
            if taken and (len(taken) == self.bounds.max_events or size > self.bounds.max_bytes):
                break
            taken.append(record)
        taken.reverse()
        for record in taken:
            self._numbers += 1
            self._kept.append(_Kept(self._numbers, namespace, record))
            self.bytes += record.size
        while len(self._kept) > 1 and (len(self._kept) > self.bounds.max_events or self.bytes > self.bounds.max_bytes):
            self.bytes -= self._kept.popleft().record.size
            self.dropped += 1
        self.dropped += count - len(taken)
        self._tell()
        return taken

    def newest_first(self, namespace: str, since: int = 0) -> Iterator[Record]:
        """since: the number of a record; only those after it."""
        recent = takewhile(lambda kept: kept.number > since, reversed(self._kept))
        return (kept.record for kept in recent if kept.namespace == namespace)

    def reset(self, namespace: str, unwanted: Wanted) -> None:
        """Forget what is unwanted of a namespace."""
        kept = deque(each for each in self._kept if each.namespace != namespace or not unwanted(each.record))
        self.bytes = sum(each.record.size for each in kept)
        self._kept = kept
        self._resets += 1
        self._tell()

    def counts(self) -> dict[str, Counter[bool]]:
        """Namespace -> how many are good (True) and bad (False)."""
        found: dict[str, Counter[bool]] = {}
        for _, namespace, record in self._kept:
            found.setdefault(namespace, Counter())[record.good] += 1
        return found

    async def arrived(self, namespace: str, wanted: Wanted, count: int, timeout_s: float) -> None:
        """Returns when so many wanted records are there, after timeout_s, or at the end of the service."""

        async def watch() -> None:
            seen = found = 0
            resets = self._resets
            while not self._closed:
                if resets != self._resets:
                    seen, found, resets = 0, 0, self._resets
                # No await between the look and the wait: nothing can arrive unnoticed.
                found += sum(map(wanted, self.newest_first(namespace, seen)))
                seen = self._numbers
                if found >= count:
                    return
                await self._news.wait()

        try:
            await asyncio.wait_for(watch(), timeout_s)
        except TimeoutError:
            return

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
