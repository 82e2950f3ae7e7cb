"""Looks after the journal in the background: finishes old segments, seals finished ones, deletes what all have stored.

Called from a thread now and then; never in the way of an append. Nothing that some given cursor has not passed is deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.journal.disk import DISK, Disk
from gateway.journal.lanes import FINISH, lanes, lock, open_record, plain, published, recover, sealed, segments
from gateway.journal.options import Options
from gateway.journal.sealing import Pause, seal, sealed_size
from protocol.seams import START, Cursor, Position

if TYPE_CHECKING:  # who erases needs no event loop
    from gateway.journal.writer import FileWriter


@dataclass(frozen=True, slots=True)
class Kept:
    """What one round did: files sealed and files deleted."""

    sealed: tuple[Path, ...]
    deleted: tuple[Path, ...]


class Keeper:
    """The housekeeping of one writer, and of lanes whose writer is gone. For one thread; not the event loop's."""

    def __init__(self, writer: FileWriter) -> None:
        self._writer = writer
        self._finished, self._since_ms = -1, 0

    def housekeep(
        self,
        *,
        now_ms: int,
        stored: Sequence[Cursor],
        keep_ms: int | None = None,
        keep_bytes: int | None = None,
        pause: Pause = time.sleep,
    ) -> Kept:
        """One round: call it every few seconds.

        stored: what each target, and the archive, has taken in for good; see `retire`, as for keep_ms and keep_bytes. The
        budget of the options is kept as well.
        pause: waits so many seconds; returns true when the round should end early (`threading.Event.wait` does).
        Raises OSError; whatever it had in hand is as it was.
        """
        writer, done = self._writer, list[Path]()
        with writer.sealing:
            if writer.closing:
                return Kept((), ())
            if writer.finished() != self._finished:
                self._finished, self._since_ms = writer.finished(), now_ms
            elif now_ms - self._since_ms >= writer.options.segment_age_ms:
                writer.finish_segment()
                self._finished, self._since_ms = writer.finished(), now_ms
            if (asked := writer.lane / FINISH).exists():  # somebody erases, which only finished segments allow
                writer.finish_segment()
                asked.unlink(missing_ok=True)
            wait: Pause = lambda seconds: pause(seconds) or writer.closing  # noqa: E731
            done += _seal_finished(writer.lane, writer.finished(), writer.options, writer.disk, wait)
        for lane in lanes(writer.folder):
            if lane != writer.lane:
                done += _adopt(lane, now_ms, writer.options, writer.disk, pause)
        bounds = [bound for bound in (keep_bytes, writer.options.kept_bytes) if bound is not None]
        most = min(bounds, default=None)
        kept = retire(writer.folder, older_than_ms=keep_ms, max_bytes=most, stored=stored, now_ms=now_ms, disk=writer.disk)
        return Kept(tuple(done), kept)


def _seal_finished(lane: Path, last: int, options: Options, disk: Disk, pause: Pause) -> list[Path]:
    """Seals the segments up to number `last`. Raises OSError."""
    done: list[Path] = []
    open_numbers, sealed_numbers = segments(lane)
    newest = max((*open_numbers, *sealed_numbers), default=0)
    for number in open_numbers:
        path = plain(lane, number)
        if number > last:
            break
        if number in sealed_numbers or (not path.stat().st_size and number != newest):
            disk.sync_folder(lane)  # the sealed one's name first
            disk.unlink(path)
            disk.sync_folder(lane)
        elif path.stat().st_size:
            if not seal(path, disk, block_bytes=options.block_bytes, level=options.gzip_level, pause=pause):
                break
            done.append(sealed(lane, number))
    return done


def _adopt(lane: Path, now_ms: int, options: Options, disk: Disk, pause: Pause) -> list[Path]:
    """Recovers a lane that no writer holds, so that its last payloads are read, and seals it when none has come back to it.

    The lock is held briefly where it can be: a gateway process that starts meanwhile would have to make another lane.
    Raises OSError.
    """
    sizes = {number: plain(lane, number).stat().st_size for number in segments(lane)[0]}
    if not any(sizes.values()):
        return []
    record, modified_ms = _record(lane, disk)
    idle = now_ms - modified_ms >= options.segment_age_ms
    whole = record is not None and max(sizes) <= record.segment and sizes.get(record.segment, 0) <= record.offset
    if whole and not idle:
        return []
    held = lock(lane, disk)
    if held is None:
        return []
    try:
        end = recover(lane, disk)
        return _seal_finished(lane, end.segment, options, disk, pause) if idle else []
    finally:
        disk.close(held)


def finish_and_seal(lane: Path, options: Options, disk: Disk) -> None:
    """Recovers a lane whose lock is held and seals all that it holds. Raises OSError."""
    _seal_finished(lane, recover(lane, disk).segment, options, disk, lambda _: False)


def _record(lane: Path, disk: Disk) -> tuple[Position | None, int]:
    """(how far a lane is published, when that was in milliseconds). Raises OSError."""
    fd = open_record(lane, disk)
    if fd is None:
        return None, 0
    try:
        return published(disk, fd), os.fstat(fd).st_mtime_ns // 1_000_000
    finally:
        disk.close(fd)


def retire(
    folder: Path,
    *,
    older_than_ms: int | None,
    max_bytes: int | None,
    stored: Sequence[Cursor],
    now_ms: int,
    disk: Disk = DISK,
) -> tuple[Path, ...]:
    """Deletes sealed segments, oldest first, and returns them.

    older_than_ms: those last written to longer ago than this; None = age is no reason.
    max_bytes: until the journal holds no more than this; None = size is no reason.
    stored: never one that some cursor here has not passed. When it is empty, nobody is waited for.
    The newest segment of a lane stays: it carries the numbers on. Raises OSError.
    """
    total = 0
    candidates: list[tuple[int, Path, int, int]] = []
    for lane in lanes(folder):
        open_numbers, sealed_numbers = segments(lane)
        filled: list[int] = []
        oldest = 0
        for number in sorted({*open_numbers, *sealed_numbers}):
            with suppress(FileNotFoundError):
                found = os.stat((sealed if number in sealed_numbers else plain)(lane, number))
                total += found.st_size
                if found.st_size:
                    filled.append(number)
                oldest = max(oldest, found.st_mtime_ns)  # in a lane, number goes before time
                if number in sealed_numbers and number not in open_numbers:
                    candidates.append((oldest, lane, number, found.st_size))
        candidates = [one for one in candidates if one[1] != lane or one[2] != filled[-1]]
    deleted: list[Path] = []
    needed: set[Path] = set()
    for modified_ns, lane, number, size in sorted(candidates):
        too_old = older_than_ms is not None and modified_ns // 1_000_000 < now_ms - older_than_ms
        too_much = max_bytes is not None and total > max_bytes
        if not too_old and not too_much:
            break
        path = sealed(lane, number)
        if lane in needed or not all(_has_passed(cursor, lane.name, number, path, disk) for cursor in stored):
            needed.add(lane)
            continue
        with suppress(FileNotFoundError):  # another gateway process was faster
            disk.unlink(path)
            deleted.append(path)
        total -= size
    for lane in {path.parent for path in deleted}:
        disk.sync_folder(lane)
    return tuple(deleted)


def _has_passed(cursor: Cursor, lane: str, number: int, path: Path, disk: Disk) -> bool:
    segment, offset, _ = cursor.get(lane, START)
    if segment != number:
        return segment > number
    size = sealed_size(path, disk)
    return size is not None and offset >= size


__all__ = ["Keeper", "Kept", "finish_and_seal", "retire"]
