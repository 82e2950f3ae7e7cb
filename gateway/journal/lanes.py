"""A lane as it lies on the disk: `<journal>/<8 hex digits>/` with segments, a `lock` and the `durable` record.

`00000001.ndjson` is a segment as it is written, `00000001.ndjson.gz` a sealed one. `lock` is held by the one writer.
`durable` says how far fsync has come: readers believe it and never read beyond. A lane's name is random so that a cursor
can never fit another journal's lane.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from gateway.journal.disk import Disk, read_around, write_all
from gateway.journal.lines import decode, pieces
from gateway.journal.sealing import SealedSegment
from protocol.seams import START, Position

# A file of this name asks the lane's writer to finish its segment; it is gone when that is done.
FINISH = "finish"

_LANE = re.compile(r"(?:[0-9a-f]{8}){1,2}")  # with 16 digits it is one that was gathered (gathering.py)
_SEGMENT = re.compile(r"(\d{8,})\.ndjson(\.gz)?")
_RECORD_BYTES = 8 + 1 + 20 + 1 + 20 + 1 + 8 + 1
_WINDOW = 1 << 20


def lanes(folder: Path) -> list[Path]:
    """The lanes of a journal by name; none when the journal does not exist yet. Raises OSError."""
    try:
        with os.scandir(folder) as found:
            return [folder / name for name in sorted(entry.name for entry in found) if _LANE.fullmatch(name)]
    except FileNotFoundError:
        return []


def plain(lane: Path, segment: int) -> Path:
    return lane / f"{segment:08d}.ndjson"


def sealed(lane: Path, segment: int) -> Path:
    return lane / f"{segment:08d}.ndjson.gz"


def segments(lane: Path) -> tuple[list[int], list[int]]:
    """Numbers of the (plain, sealed) segments, rising. For a moment after sealing a number is in both. Raises OSError."""
    found: tuple[list[int], list[int]] = [], []
    with os.scandir(lane) as entries:
        for entry in entries:
            if name := _SEGMENT.fullmatch(entry.name):
                found[1 if name[2] else 0].append(int(name[1]))
    return sorted(found[0]), sorted(found[1])


def lock(lane: Path, disk: Disk) -> int | None:
    """Makes the caller the lane's writer until it closes the returned descriptor; None while another is. Raises OSError."""
    fd = disk.open(lane / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        disk.close(fd)
        return None
    except BaseException:
        disk.close(fd)
        raise
    return fd


def claim(folder: Path, disk: Disk) -> tuple[Path, int]:
    """The first lane that has no writer, or a new one, and its lock. Every name on the way is on the medium. Raises OSError."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, path in enumerate(missing) if path.exists())]
    for path in reversed(missing):
        with suppress(FileExistsError):  # another gateway process starts at the same time
            disk.make_folder(path)
    for path in missing or [folder]:
        disk.sync_folder(path.parent)
    while True:
        for lane in lanes(folder):
            if (held := lock(lane, disk)) is not None:
                disk.sync_folder(folder)  # whoever made the lane may have died before it did this
                return lane, held
        disk.make_folder(folder / os.urandom(4).hex())


def open_record(lane: Path, disk: Disk, *, write: bool = False) -> int | None:
    """A descriptor of the durable record; None when a reader finds none. Raises OSError."""
    try:
        return disk.open(lane / "durable", os.O_RDWR | os.O_CREAT if write else os.O_RDONLY)
    except FileNotFoundError:
        return None


def publish(disk: Disk, fd: int, position: Position) -> None:
    """Lets readers read up to `position`. Raises OSError."""
    text = b"%08d %020d %020d " % position
    write_all(disk, fd, b"%b%08x\n" % (text, crc32(text)), 0)


def published(disk: Disk, fd: int) -> Position | None:
    """The durable record; None when it is lost or, for a moment, half written. Raises OSError."""
    data = disk.read(fd, _RECORD_BYTES, 0)
    text = data[:-9]
    if len(data) != _RECORD_BYTES or data[-9:] != b"%08x\n" % crc32(text):
        return None
    return Position(*map(int, text.split()))


def recover(lane: Path, disk: Disk) -> Position:
    """Brings a lane whose lock is held into order after any crash, and returns the end of what it holds.

    Half finished sealing is undone, what follows the last good line of an open segment is cut, what stays is made durable
    and published. The position names the newest segment, which is never written again, and the last payload's number.
    Doing it twice changes nothing. Raises OSError.
    """
    disk.sync_folder(lane)  # a name that only the cache knows must not be built upon
    open_numbers, sealed_numbers = segments(lane)
    for path in [*lane.glob("*.tmp"), *(plain(lane, number) for number in set(open_numbers) & set(sealed_numbers))]:
        disk.unlink(path)
    record_fd = open_record(lane, disk, write=True)
    assert record_fd is not None
    try:
        record = published(disk, record_fd) or START
        end, found = record, 0
        # Segments before the record's were complete when the next one was begun: nothing of them can be torn.
        for number in sorted({number for number in open_numbers + sealed_numbers if number >= record.segment}):
            if number in sealed_numbers:
                offset, last = _last_sealed(sealed(lane, number), disk)
            else:
                offset, last = _cut(plain(lane, number), record.offset if number == record.segment else 0, disk)
            found = max(found, last)
            end = Position(number, offset, max(record.sequence, found))
        disk.sync_folder(lane)
        publish(disk, record_fd, end)
        disk.sync_data(record_fd)
    finally:
        disk.close(record_fd)
    return end


def _cut(path: Path, durable: int, disk: Disk) -> tuple[int, int]:
    """Cuts a torn tail: (the segment's length, number of its last good payload or 0).

    durable: known to have been fsynced, so a damaged line before it is reported to readers, not cut.
    """
    fd = disk.open(path, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        start = durable if durable <= size else 0
        end, last = start, b""
        buffer, at = b"", start
        while data := read_around(disk, fd, _WINDOW, at):
            at += len(data)
            buffer += data
            used = 0
            for first, used, good in pieces(buffer, at >= size):
                if good:
                    end, last = start + used, buffer[first:used]
            buffer, start = buffer[used:], start + used
        if end < size:
            disk.truncate(fd, end)
        disk.sync_data(fd)  # it may have been in the cache only, and readers are about to believe it
    finally:
        disk.close(fd)
    return end, _number(last)


def _last_sealed(path: Path, disk: Disk) -> tuple[int, int]:
    """(length, number of the last good payload or 0) of a sealed segment."""
    segment = SealedSegment(path, disk)
    try:
        size = end = segment.size()
        while end > 0:
            start, block = segment.block_before(end)
            good = [block[first:stop] for first, stop, ok in pieces(block, True) if ok]
            if good:
                return size, _number(good[-1])
            end = start
    finally:
        segment.close()
    return size, 0


def _number(line: bytes) -> int:
    try:
        return decode(line)[0] if line else 0
    except ValueError:
        return 0
