"""The contract of a queue, and the queue in memory. Events go in as records and leave only by being acknowledged.

Call order: append … sync … ; adopt; batch, then acknowledge(batch, how many of it), from one thread at a time; close at last.
append and sync are for any thread, and for signal handlers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from threading import RLock
from typing import NamedTuple, Protocol

PLAUSIBLE_MS = 1_577_836_800_000
"""2020: a clock that says less was never set, so nothing can be said about an event's age."""


class Full(Exception):
    """The queue holds its max_bytes."""


class Batch(NamedTuple):
    """records: JSON objects, oldest first. ends: the position after each. old, damaged: how many were skipped on the way."""

    source: object
    records: list[bytes]
    ends: list[int]
    end: int
    old: int = 0
    damaged: int = 0


class Queue(Protocol):
    def append(self, created_ms: int, record: bytes) -> int:
        """The event's position. Raises Full, and OSError when the disk does not take it."""
        ...

    def sync(self, position: int | None = None) -> bool:
        """Whether all up to `position` (None: all) is on disk for good. Always False in memory."""
        ...

    def batch(self, max_bytes: int) -> Batch | None:
        """The oldest events of together at most max_bytes, but at least one; None when there are none."""
        ...

    def acknowledge(self, batch: Batch, count: int | None = None) -> None:
        """Forgets the first `count` of the batch (None: all of it)."""
        ...

    def adopt(self) -> int:
        """Takes over what ended processes left behind; how many bytes."""
        ...

    def pending_bytes(self) -> int: ...

    def close(self) -> None: ...

    def forget(self) -> None:
        """In the child of a fork: what is queued is the parent's. Nothing of the parent's is touched."""
        ...


def too_old(created_ms: int, now_ms: int, max_age_s: float) -> bool:
    return created_ms > PLAUSIBLE_MS and now_ms - created_ms > max_age_s * 1000


class MemoryQueue:
    """For programs without a folder: what is not sent by the end of the process is gone."""

    def __init__(self, max_bytes: int, max_age_s: float, clock_ms: Callable[[], int]) -> None:
        self._max_bytes, self._max_age_s, self._clock_ms = max_bytes, max_age_s, clock_ms
        self.forget()

    def forget(self) -> None:
        self._lock = RLock()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = self._taken = self._gone = 0

    def append(self, created_ms: int, record: bytes) -> int:
        with self._lock:
            if self._bytes + len(record) > self._max_bytes:
                raise Full
            self._waiting.append((created_ms, record))
            self._bytes += len(record)
            self._taken += 1
            return self._taken

    def sync(self, position: int | None = None) -> bool:
        return False

    def batch(self, max_bytes: int) -> Batch | None:
        with self._lock:
            if not self._waiting:
                return None
            found = Batch(self, [], [], self._gone)
            size = old = 0
            now = self._clock_ms()
            end = self._gone
            for created, record in islice(self._waiting, None):
                if too_old(created, now, self._max_age_s):
                    old += 1
                elif found.records and size + len(record) > max_bytes:
                    break
                else:
                    size += len(record)
                    found.records.append(record)
                    found.ends.append(end + 1)
                end += 1
        return Batch(self, found.records, found.ends, end, old)

    def acknowledge(self, batch: Batch, count: int | None = None) -> None:
        end = batch.end if count is None else batch.ends[count - 1]
        with self._lock:
            for _ in range(end - self._gone):
                self._bytes -= len(self._waiting.popleft()[1])
            self._gone = end

    def adopt(self) -> int:
        return 0

    def pending_bytes(self) -> int:
        return self._bytes

    def close(self) -> None:
        pass
