"""Payloads of one lane of a journal that is not in files, in order -> one sealed segment, as `sealing` has them.

What a server's journal gave is written down as the journal in files would have: a numbered line per payload, and a line that
tells of each damage. Not made durable here: the journal has it still, and until somebody has the segment for good it is read
there again. Of what was gathered, a block is in memory; the rest lies compressed in the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gateway.journal import Damage
from gateway.journal.disk import DISK, Disk, write_all
from gateway.journal.lines import encode, encode_damage
from gateway.journal.options import Options
from gateway.journal.sealing import packed
from protocol.seams import RawPayload


def gathered_lane(lane: str) -> str:
    """What a lane of any journal is called where lanes are folders: always the same, twice as long as those made at random."""
    return hashlib.sha256(lane.encode()).hexdigest()[:16]


class Gathering:
    """A segment that grows. Call order: add as often as wanted -> finish -> the file is whole; `drop` at any time. One thread.

    bytes: of the segment, uncompressed; size: of the file. payloads, damaged: in it. last: the number of the lane's last payload.
    first_ms, last_ms: the earliest and latest time a payload was received; 0 while there is none.
    """

    def __init__(self, path: Path, before: int, options: Options, disk: Disk = DISK) -> None:
        """before: how many payloads of the lane lie in segments before this one."""
        self.path, self.last = path, before
        self.bytes = self.size = self.payloads = self.damaged = self.first_ms = self.last_ms = 0
        self.finished = False
        self._options, self._disk = options, disk
        self._lines: list[bytes] = []
        self._start = 0  # of the block in memory

    def add(self, items: Iterable[RawPayload | Damage]) -> None:
        """Raises OSError; then all of it is of no use."""
        for item in items:
            if isinstance(item, Damage):
                self.damaged += 1
                line = encode_damage(item)
            else:
                self.last += 1
                self.first_ms = min(self.first_ms, item.received_ms) if self.payloads else item.received_ms
                self.last_ms = max(self.last_ms, item.received_ms)
                self.payloads += 1
                line = encode(item, self.last)
            self._lines.append(line)
            self.bytes += len(line)
            if self.bytes - self._start >= self._options.block_bytes:
                self._write_block()

    def finish(self) -> None:
        """Nothing is added after it. Raises OSError, as `add`."""
        if not self.finished:
            if self._lines:
                self._write_block()
            self._write(packed(b"", self._start, self._options.gzip_level))
            self.finished = True

    def drop(self) -> None:
        """Forgets all of it."""
        self._lines.clear()
        with suppress(OSError):
            self._disk.unlink(self.path)

    def _write_block(self) -> None:
        block = b"".join(self._lines)
        self._lines.clear()
        self._write(packed(block, self._start, self._options.gzip_level))
        self._start = self.bytes

    def _write(self, data: bytes) -> None:
        # Opened for each block: there may be more lanes than a process may have open files.
        fd = self._disk.open(self.path, os.O_WRONLY | os.O_CREAT | (0 if self.size else os.O_TRUNC))
        try:
            write_all(self._disk, fd, data, self.size)
        finally:
            self._disk.close(fd)
        self.size += len(data)


__all__ = ["Gathering", "gathered_lane"]
