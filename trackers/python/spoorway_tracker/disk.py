"""The durable queue: an append-only log per process, and what ended processes left behind in the same folder.

A record is with the kernel when append returns, so it outlives kill -9; sync puts it on the disk, for power cuts. Several
processes share a
folder without waiting for each other: each writes a lane of its own, and one that has ended is taken over by whoever comes by.
When max_bytes are pending, the newest event is refused: what was taken is never dropped but for its age.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock

from spoorway_tracker.lane import Lane, claim, line_of
from spoorway_tracker.queues import Batch, Full

_SEGMENT_BYTES = 4 << 20
_datasync = getattr(os, "fdatasync", os.fsync)  # macOS has none


class _OwnLane(Lane):
    """A lane that is written. synced: how far the disk has confirmed; lost: what it refused to confirm and never will."""

    def __init__(self, folder: Path, lock: int, segment_bytes: int) -> None:
        super().__init__(folder, lock)
        self.fd = -1
        self.synced = 0
        self.lost = (0, 0)
        self.syncing = RLock()
        self._segment_bytes = segment_bytes
        self._begin_anew = True
        self.acknowledge(0)  # the file has its place before the disk is full

    def write(self, line: bytes) -> int:
        if self._begin_anew or self.end - self.segments[-1] + len(line) > self._segment_bytes:
            self._rotate()
        written = os.write(self.fd, line)
        if written != len(line):  # a full disk takes what fits
            try:
                os.ftruncate(self.fd, self.end - self.segments[-1])
            except OSError:
                self.end += written
                self._begin_anew = True
            raise OSError(errno.ENOSPC, "the disk is full")
        self.end += written
        return self.end

    def sync(self, position: int) -> bool:
        with self.syncing:
            if self.synced < position:
                mark = self.end
                try:
                    _datasync(self.fd)
                except OSError:
                    # What an fsync failed for is gone from the kernel's list: asking again would be answered with a lie.
                    self.lost = (self.synced, mark)
                    self._begin_anew = True
                self.synced = mark
            return not self.lost[0] < position <= self.lost[1]

    def _rotate(self) -> None:
        with self.syncing:
            if self.fd >= 0:
                self.sync(self.end)
                os.close(self.fd)
                self.fd = -1
            start = self.end
            self._begin_anew = True  # until all of it has worked
            self.fd = os.open(self.path(start), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _sync_folder(self.folder)
            if not self.segments or self.segments[-1] != start:
                self.segments.append(start)
            self._begin_anew = False

    def drop(self) -> None:
        """Closes what is open, without touching a file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class DiskQueue:
    """Raises OSError when the folder cannot be made. clock_ms: milliseconds since 1970."""

    def __init__(
        self, folder: Path, max_bytes: int, max_age_s: float, clock_ms: Callable[[], int], segment_bytes: int = _SEGMENT_BYTES
    ) -> None:
        self.folder = folder
        self._max_bytes, self._max_age_s, self._clock_ms, self._segment_bytes = max_bytes, max_age_s, clock_ms, segment_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own: _OwnLane | None = None
        self._adopted: list[Lane] = []
        self._lock = RLock()
        self._in_write = False

    def append(self, created_ms: int, record: bytes) -> int:
        line = line_of(created_ms, record)
        with self._lock:
            if self._in_write:  # a signal handler, in the middle of this thread's own append
                raise OSError(errno.EBUSY, "interrupted by itself")
            self._in_write = True
            try:
                own = self._own
                if own is None:
                    own = self._own = self._open()
                if self.pending_bytes() + len(line) > self._max_bytes:
                    raise Full
                return own.write(line)
            finally:
                self._in_write = False

    def _open(self) -> _OwnLane:
        while True:
            folder = self.folder / f"lane-{os.urandom(8).hex()}"
            folder.mkdir(mode=0o700, parents=True)
            lock = claim(folder)
            if lock is not None:
                _sync_folder(self.folder)
                return _OwnLane(folder, lock, self._segment_bytes)

    def sync(self, position: int | None = None) -> bool:
        own = self._own
        return own is None or own.sync(own.end if position is None else position)

    def adopt(self) -> int:
        own = self._own
        taken = 0
        for folder in self.folder.glob("lane-*"):
            if (own is not None and folder == own.folder) or any(folder == lane.folder for lane in self._adopted):
                continue
            lock = claim(folder)
            if lock is None:
                continue
            try:
                lane = Lane(folder, lock)
            except OSError:
                os.close(lock)
                continue
            if lane.pending_bytes():
                self._adopted.append(lane)
                taken += lane.pending_bytes()
            else:
                lane.release()
        return taken

    def batch(self, max_bytes: int) -> Batch | None:
        now = self._clock_ms()
        while self._adopted:
            if (found := self._adopted[0].batch(max_bytes, now, self._max_age_s)) is not None:
                return found
            self._adopted.pop(0).release()
        own = self._own
        return None if own is None else own.batch(max_bytes, now, self._max_age_s)

    def acknowledge(self, batch: Batch, count: int | None = None) -> None:
        assert isinstance(batch.source, Lane)
        batch.source.acknowledge(batch.end if count is None else batch.ends[count - 1])

    def pending_bytes(self) -> int:
        own = self._own
        return sum(lane.pending_bytes() for lane in self._adopted) + (0 if own is None else own.pending_bytes())

    def close(self) -> None:
        with self._lock:
            own, self._own = self._own, None
            if own is not None:
                with suppress(OSError):
                    own.sync(own.end)
                own.drop()
                own.release()
            while self._adopted:
                self._adopted.pop().release()

    def forget(self) -> None:
        """The child's copies of the descriptors are closed; the parent's keep their locks."""
        if self._own is not None:
            self._own.drop()
            os.close(self._own.lock)
        for lane in self._adopted:
            os.close(lane.lock)
        self._own, self._adopted, self._lock, self._in_write = None, [], RLock(), False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
