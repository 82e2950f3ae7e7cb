"""A lane: the log of one process, in a folder of its own. What is in it survives the process; another may take it over.

    lane-…/lock                    held (flock) by the process it belongs to
    lane-…/00000000000000000000    segments; the name is the position of their first byte
    lane-…/acknowledged            the position up to which the gateway has everything

A line is `CRC32 CREATED_MS RECORD` and a line feed. A line that was torn or damaged costs itself only.
"""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from spoorway_tracker.queues import Batch, too_old

_NAME_DIGITS = 20


def line_of(created_ms: int, record: bytes) -> bytes:
    text = b"%d %b" % (created_ms, record)
    return b"%08x %b\n" % (crc32(text), text)


def claim(folder: Path) -> int | None:
    """The descriptor that holds the lane; None when it is another's, or just being removed."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == os.stat(folder / "lock").st_ino:  # its last owner may have removed it in between
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


class Lane:
    """Reading and forgetting. lock: from claim. end: how far it may be read."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self.lock = folder, lock
        self.segments = sorted(int(name) for name in os.listdir(folder) if name.isdigit())
        last = self.segments[-1] if self.segments else 0
        self.end: int = last + (os.stat(self.path(last)).st_size if self.segments else 0)
        self.acknowledged = self._acknowledged()

    def path(self, start: int) -> Path:
        return self.folder / f"{start:0{_NAME_DIGITS}d}"

    def _acknowledged(self) -> int:
        first = self.segments[0] if self.segments else 0
        try:
            position = int((self.folder / "acknowledged").read_bytes())
        except (OSError, ValueError):
            return first
        # What a power cut left there may be anything: too little means sent again, with the same ids.
        return position if first <= position <= self.end else first

    def pending_bytes(self) -> int:
        return self.end - self.acknowledged

    def batch(self, max_bytes: int, now_ms: int, max_age_s: float) -> Batch | None:
        """See Queue.batch; of one segment at a time. Raises OSError."""
        at = self.acknowledged
        if at >= self.end:
            return None
        place = bisect_right(self.segments, at)
        start, stop = self.segments[place - 1], (self.segments[place] if place < len(self.segments) else self.end)
        data = _read(self.path(start), at - start, max_bytes, stop - at)
        if not data.endswith(b"\n"):
            whole = data.rfind(b"\n") + 1
            if not whole:  # the rest of a segment without a line's end: torn
                return Batch(self, [], [], stop, damaged=1)
            data = data[:whole]
        records, ends, old, damaged, size = list[bytes](), list[int](), 0, 0, 0
        for line in data[:-1].split(b"\n"):
            following = at + len(line) + 1
            record = _checked(line)
            if record is None:
                damaged += 1
            elif too_old(int(line[9 : -len(record) - 1]), now_ms, max_age_s):
                old += 1
            elif records and size + len(record) > max_bytes:
                break
            else:
                size += len(record)
                records.append(record)
                ends.append(following)
            at = following
        return Batch(self, records, ends, at, old, damaged)

    def acknowledge(self, position: int) -> None:
        """Raises OSError; the position counts for this process all the same."""
        self.acknowledged = position
        # First of all room is made: on a full disk nothing else can be written.
        while len(self.segments) > 1 and self.segments[1] <= position:
            os.unlink(self.path(self.segments[0]))
            del self.segments[0]
        fd = os.open(self.folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, b"%020d" % position, 0)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Removes the lane when nothing is left in it; otherwise it is there to be taken over."""
        with suppress(OSError):
            if self.acknowledged >= self.end:
                for start in self.segments:
                    os.unlink(self.path(start))
                for name in ("acknowledged", "lock"):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
        os.close(self.lock)


def _read(path: Path, offset: int, size: int, available: int) -> bytes:
    """At least one whole line, if there is one; a line feed beyond `size` is looked for in ever larger steps."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            data = os.pread(fd, min(size, available), offset)
            if b"\n" in data or size >= available:
                return data
            size *= 2
    finally:
        os.close(fd)


def _checked(line: bytes) -> bytes | None:
    """The record of a line; None when the line is not as it was written."""
    try:
        if int(line[:8], 16) != crc32(line[9:]) or line[8:9] != b" ":
            return None
    except ValueError:
        return None
    _, found, record = line[9:].partition(b" ")
    return record if found else None
