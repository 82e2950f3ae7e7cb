"""The journal's writer: payloads from one event loop -> one lane, many payloads per fsync.

Everything that arrived while the last fsync ran goes into the next one (group commit). The event loop only encodes; one
thread of the writer's own does every write. A payload's future is done after fdatasync, never before. A failed fsync is never
repeated and trusted: the segment is cut back to what the last good one covered and given up.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock

from gateway.journal import JournalBroken, JournalFull
from gateway.journal.disk import DISK, Disk, write_all
from gateway.journal.lanes import claim, lanes, open_record, plain, publish, recover
from gateway.journal.lines import encode
from gateway.journal.options import Options
from protocol.seams import PermanentError, Position, RawPayload

_FULL = {errno.ENOSPC, errno.EDQUOT}


class FileWriter:
    """A `gateway.journal.Writer`. `append` and `close` belong to the event loop, `finish_segment` to any other thread."""

    def __init__(self, folder: Path, lane: Path, options: Options, disk: Disk, lock: int, record: int, end: Position) -> None:
        """For `open`, which knows what to give."""
        self.folder, self.lane, self.options, self.disk = folder, lane, options, disk
        self.sealing = Lock()  # held while the lane's finished segments are compressed
        self.closing = False
        self._lock, self._record = lock, record
        # The event loop's: what waits for the disk, and the number of the next payload.
        self._next = end.sequence + 1
        self._lines: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._bytes = 0
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        # The thread's: the segment it writes, how far that is durable, what the journal holds.
        self._thread = ThreadPoolExecutor(1, "journal")
        self._fd: int | None = None
        self._end = end._replace(offset=0)
        self._finished = end.segment
        self._named = False  # the segment's name is on the medium
        self._uncut: tuple[Path, int] | None = None
        self._used = _measure(folder) if options.max_bytes else 0

    @classmethod
    def open(cls, folder: Path, options: Options | None = None, disk: Disk = DISK) -> FileWriter:
        """Takes the first free lane, or makes one, and recovers it. Raises PermanentError when that is impossible."""
        opened: list[int] = []
        try:
            lane, lock = claim(folder, disk)
            opened.append(lock)
            end = recover(lane, disk)
            record = open_record(lane, disk, write=True)
            assert record is not None
            opened.append(record)
            return cls(folder, lane, options or Options(), disk, lock, record, end)
        except BaseException as error:
            for fd in opened:
                disk.close(fd)
            if isinstance(error, OSError):
                raise PermanentError(f"the journal cannot be opened in {folder}: {error}") from error
            raise

    def append(self, payload: RawPayload) -> asyncio.Future[None]:
        return self.append_all((payload,))

    def append_all(self, payloads: Sequence[RawPayload]) -> asyncio.Future[None]:
        """As `append`, for all of them or none: they are in one commit."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.closing:
            future.set_exception(JournalBroken("the journal is closed"))
            return future
        try:
            lines = [encode(payload, number) for number, payload in enumerate(payloads, self._next)]
        except (TypeError, ValueError) as error:
            future.set_exception(PermanentError(f"a payload that cannot be written down: {error}"))
            return future
        size = sum(map(len, lines))
        if self._lines and self._bytes + size > self.options.waiting_bytes:
            future.set_exception(JournalFull("the disk is slower than what arrives"))
            return future
        self._next += len(lines)
        self._bytes += size
        self._lines += lines
        self._waiting.append(future)
        if not self._busy:
            self._busy = True
            future.get_loop().call_soon(self._kick)
        return future

    def accepted(self) -> int:
        return self._end.sequence

    def finished(self) -> int:
        """Segments up to this number will never be written again."""
        return self._finished

    def finish_segment(self) -> None:
        """Finishes the open segment; the next append begins another. For any thread but the event loop's."""
        self._thread.submit(self._finish).result()

    async def close(self) -> None:
        if self.closing:
            return
        self.closing = True
        loop = asyncio.get_running_loop()
        if self._busy:
            self._idle = loop.create_future()
            await self._idle
        await asyncio.to_thread(self.sealing.acquire)  # sealing sees `closing` and stops
        try:
            await loop.run_in_executor(self._thread, self._close)
        finally:
            self.sealing.release()
        self._thread.shutdown()

    # On the event loop.

    def _kick(self) -> None:
        lines, waiting = self._lines, self._waiting
        self._lines, self._waiting, self._bytes = [], [], 0
        commit = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, lines)
        commit.add_done_callback(partial(self._committed, waiting))

    def _committed(self, waiting: list[asyncio.Future[None]], commit: asyncio.Future[None]) -> None:
        error = commit.exception()
        if error is None:
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        else:
            # What arrived meanwhile has numbers that follow the lost ones: it is refused with them, so that no number is missing.
            kind = JournalFull if isinstance(error, JournalFull) else JournalBroken
            for future in waiting + self._waiting:
                if not future.done():
                    future.set_exception(kind(str(error)))
            self._lines, self._waiting, self._bytes = [], [], 0
            self._next = self._end.sequence + 1
        if self._lines:
            self._kick()
            return
        self._busy = False
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    # In the thread.

    def _commit(self, lines: list[bytes]) -> None:
        """Returns when the lines are on the medium; otherwise nothing was taken, and it raises JournalFull or JournalBroken."""
        data = b"".join(lines)
        if self._fd is not None and self._end.offset and self._end.offset + len(data) > self.options.finished_bytes:
            self._finish()
        self._refuse_when_full(len(data))
        try:
            fd = self._fd = self._fd if self._fd is not None else self._begin()
            self._write(fd, data)
            self.disk.sync_data(fd)
            if not self._named:
                self.disk.sync_folder(self.lane)
                self._named = True
            end = Position(self._end.segment, self._end.offset + len(data), self._end.sequence + len(lines))
            publish(self.disk, self._record, end)
        except OSError as error:
            self._give_up()
            raise (JournalFull if error.errno in _FULL else JournalBroken)(f"the disk refused: {error}") from error
        except JournalFull:
            raise
        except BaseException:
            self._give_up()
            raise
        self._end = end
        self._used += len(data)

    def _refuse_when_full(self, size: int) -> None:
        options = self.options
        if options.max_bytes and self._used + size > options.max_bytes:
            self._used = _measure(self.folder)  # sealing and retention have made room, perhaps
            if self._used + size > options.max_bytes:
                raise JournalFull(f"the journal's quota of {options.max_bytes} bytes is used up by what not everybody has stored")
        try:
            free = self.disk.free_bytes(self.lane)
        except OSError as error:
            raise JournalBroken(f"the disk does not answer: {error}") from error
        if free - size < options.min_free_bytes:
            raise JournalFull(f"{free} bytes are free, {options.min_free_bytes} of them are kept free")

    def _begin(self) -> int:
        """Opens the next segment. Raises OSError."""
        if self._uncut is not None:
            path, size = self._uncut
            fd = self.disk.open(path, os.O_RDWR)
            try:
                self._cut(fd, size)
            finally:
                self.disk.close(fd)
            self._uncut, self._finished = None, self._end.segment
        number = self._end.segment + 1
        fd = self.disk.open(plain(self.lane, number), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._end, self._named = Position(number, 0, self._end.sequence), False
        return fd

    def _write(self, fd: int, data: bytes) -> None:
        """Raises OSError; a full disk leaves the segment as it was and raises JournalFull."""
        try:
            write_all(self.disk, fd, data, self._end.offset)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.disk.truncate(fd, self._end.offset)
            raise JournalFull(f"the disk is full: {error}") from error

    def _give_up(self) -> None:
        """Leaves the segment at what is known to be durable. No other is begun before that has worked."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        path = plain(self.lane, self._end.segment)
        try:
            self._cut(fd, self._end.offset)
            if not self._end.offset:
                self.disk.unlink(path)  # a disk that fails for hours must not be left full of empty segments
            self._finished = self._end.segment
        except OSError:
            self._uncut = path, self._end.offset
        finally:
            self._close_quietly(fd)

    def _cut(self, fd: int, size: int) -> None:
        """Takes refused bytes away for good. This sync vouches for a length, not for bytes whose sync has failed before."""
        self.disk.truncate(fd, size)
        self.disk.sync_data(fd)

    def _finish(self) -> None:
        """Everything in the segment is durable already."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._finished = self._end.segment
            self._close_quietly(fd)

    def _close(self) -> None:
        self._finish()
        with suppress(OSError):  # readers have it, and recovery does without
            self.disk.sync_data(self._record)
        for fd in (self._record, self._lock):
            self._close_quietly(fd)

    def _close_quietly(self, fd: int) -> None:
        """What matters was synced before; a descriptor is gone even when close complains."""
        with suppress(OSError):
            self.disk.close(fd)


def _measure(folder: Path) -> int:
    """Bytes the journal holds. A file that goes meanwhile counts nothing. Raises OSError."""
    total = 0
    for lane in lanes(folder):
        with os.scandir(lane) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
    return total


__all__ = ["FileWriter", "Options"]
