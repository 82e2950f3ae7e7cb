"""A finished segment -> `<number>.ndjson.gz`, and reading such a file from any offset.

The file is a row of ordinary gzip members, each about `block_bytes` of whole lines, so `zcat` reads it. Each header's extra
field "SW" says how long the member is, what it holds and where that begins, so that a reader hops over members without
inflating them and a damaged one costs no other. The last member is empty: where it is missing, something was cut off.

Crash-safe at every step: the plain file goes only when the compressed one, and its name, are on the medium.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gateway.journal.disk import Disk, read_around, read_exactly, write_all
from gateway.journal.lines import MARK

# Magic, deflate, FEXTRA, no time, no flags, unknown system; 24 bytes of extra field: "SW" with 20 bytes.
_MAGIC = struct.pack("<4sIBBH2sH", b"\x1f\x8b\x08\x04", 0, 0, 255, 24, b"SW", 20)
_EXTRA = struct.Struct("<IIQI")  # member's length, inflated length, inflated start in the segment, CRC-32 of these three
_TRAILER = struct.Struct("<II")  # gzip's own: CRC-32 and length of the inflated bytes
_HEADER_BYTES = len(_MAGIC) + _EXTRA.size

# Returns true when the work should be given up now.
Pause = Callable[[float], object]


class Member(NamedTuple):
    """at, length: where it lies in the file; start, end: the bytes of the segment it holds. ok: its header is sound."""

    at: int
    length: int
    start: int
    end: int
    ok: bool


def seal(plain: Path, disk: Disk, *, block_bytes: int, level: int, pause: Pause = time.sleep) -> bool:
    """Compresses a finished segment and removes the plain file; False when `pause` said to give up.

    pause: called after each block with three times the processor seconds it took, so that sealing uses a quarter of a core.
    Raises OSError; the plain file is then still there.
    """
    sealed, unfinished = plain.with_suffix(".ndjson.gz"), plain.with_suffix(".ndjson.gz.tmp")
    source = disk.open(plain, os.O_RDONLY)
    try:
        target = disk.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            at = start = 0
            began = time.thread_time()
            for block in _blocks(source, disk, block_bytes):
                member = packed(block, start, level)
                write_all(disk, target, member, at)
                at, start = at + len(member), start + len(block)
                if block and pause(3 * (time.thread_time() - began)):
                    with suppress(OSError):
                        disk.unlink(unfinished)
                    return False
                began = time.thread_time()
            disk.set_modified(target, os.fstat(source).st_mtime_ns)  # retention goes by when it was written to
            disk.sync_data(target)
        finally:
            disk.close(target)
    finally:
        disk.close(source)
    disk.rename(unfinished, sealed)
    disk.sync_folder(plain.parent)
    disk.unlink(plain)
    disk.sync_folder(plain.parent)
    return True


def _blocks(source: int, disk: Disk, block_bytes: int) -> Iterator[bytes]:
    """The segment in pieces of at least `block_bytes` that end where a line ends, and an empty one last."""
    offset, rest = 0, b""
    boundary = b"\n" + MARK
    while data := disk.read(source, block_bytes, offset):
        offset += len(data)
        rest += data
        end = rest.rfind(boundary) + 1
        if len(rest) >= block_bytes and end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest
    yield b""


def packed(block: bytes, start: int, level: int) -> bytes:
    """The member that holds a block. start: where the block begins in the segment."""
    deflate = zlib.compressobj(max(level, 1), zlib.DEFLATED, -15)  # at level 0 the empty member would have another length
    body = deflate.compress(block) + deflate.flush()
    about = struct.pack("<IIQ", _HEADER_BYTES + len(body) + _TRAILER.size, len(block), start)
    return b"".join((_MAGIC, about, struct.pack("<I", zlib.crc32(about)), body, _TRAILER.pack(zlib.crc32(block), len(block))))


class SealedSegment:
    """Random access to the bytes of a sealed segment. Used from one thread."""

    def __init__(self, path: Path, disk: Disk) -> None:
        """Raises OSError."""
        self._disk = disk
        self._fd = disk.open(path, os.O_RDONLY)
        try:
            self._members = list(_members(self._fd, disk))
        except BaseException:
            disk.close(self._fd)
            raise
        self._starts = [member.start for member in self._members]
        self._inflated: tuple[int, bytes | None] = (-1, None)  # the last member used: a reader comes back to it

    def close(self) -> None:
        self._disk.close(self._fd)

    def size(self) -> int:
        """Length of the segment, uncompressed."""
        return self._members[-1].end if self._members else 0

    def read(self, offset: int, limit: int) -> tuple[bytes, int, bool]:
        """(bytes, offset after them, whole): from `offset`, which lies below size(), to the end of its block.

        When the block is damaged: (the block as it lies in the file, offset after the block, False).
        """
        index = bisect_right(self._starts, offset) - 1
        member = self._members[index]
        if self._inflated[0] != index:
            self._inflated = index, self._inflate(member)
        block = self._inflated[1]
        if block is None:
            return read_exactly(self._disk, self._fd, member.length, member.at), member.end, False
        return block[offset - member.start : limit - member.start], min(member.end, limit), True

    def blocks(self) -> Iterator[tuple[Member, bytes, bytes | None]]:
        """Every member in order, as it lies in the file, and inflated; None where it is damaged. Raises OSError."""
        for member in self._members:
            yield member, read_exactly(self._disk, self._fd, member.length, member.at), self._inflate(member)

    def block_before(self, end: int) -> tuple[int, bytes]:
        """(start, bytes) of the block that holds the byte before `end`; no bytes when it is damaged."""
        member = self._members[bisect_left(self._starts, end) - 1]
        return member.start, self._inflate(member) or b""

    def _inflate(self, member: Member) -> bytes | None:
        if not member.ok:
            return None
        try:
            data = read_exactly(self._disk, self._fd, member.length, member.at)
            inflate = zlib.decompressobj(-15)
            block = inflate.decompress(data[_HEADER_BYTES : -_TRAILER.size], member.end - member.start + 1)
        except (OSError, zlib.error):
            return None
        sound = _TRAILER.pack(zlib.crc32(block), member.end - member.start) == data[-_TRAILER.size :]
        return block if sound and len(block) == member.end - member.start else None


def sealed_size(path: Path, disk: Disk) -> int | None:
    """Length of a sealed segment, uncompressed, from its last member alone; None when that is damaged. Raises OSError."""
    fd = disk.open(path, os.O_RDONLY)
    try:
        at = max(0, os.fstat(fd).st_size - len(packed(b"", 0, 1)))
        member = _header(read_exactly(disk, fd, _HEADER_BYTES, at), at)
        return member.end if member and member.start == member.end else None
    finally:
        disk.close(fd)


def is_sealed(beginning: bytes) -> bool:
    """True when a .gz file that begins so was written by `seal`."""
    return beginning.startswith(_MAGIC)


def _members(fd: int, disk: Disk) -> Iterator[Member]:
    """Every member and every gap between them. A gap's bytes of the segment are those from one sound header's end to the next
    one's start; after the last sound one it has one byte, so that having reported it is a place of its own."""
    size, at, end = os.fstat(fd).st_size, 0, 0
    while at < size:
        member = _header(read_around(disk, fd, _HEADER_BYTES, at), at) or _resume(fd, disk, at + 1, size)
        if member is None or member.at + member.length > size:
            break
        if member.at > at:
            yield Member(at, member.at - at, end, max(member.start, end + 1), False)
        if member.start == member.end:
            return
        yield member
        at, end = member.at + member.length, member.end
    yield Member(at, size - at, end, end + 1, False)


def _resume(fd: int, disk: Disk, at: int, size: int) -> Member | None:
    """The next sound header at or after `at`."""
    data = read_around(disk, fd, size - at, at)
    found = data.find(_MAGIC)
    while found >= 0:
        if member := _header(data[found : found + _HEADER_BYTES], at + found):
            return member
        found = data.find(_MAGIC, found + 1)
    return None


def _header(data: bytes, at: int) -> Member | None:
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        return None
    length, inflated, start, check = _EXTRA.unpack_from(data, len(_MAGIC))
    return Member(at, length, start, start + inflated, True) if check == zlib.crc32(data[len(_MAGIC) : -4]) else None


__all__ = ["Member", "Pause", "SealedSegment", "is_sealed", "packed", "seal", "sealed_size"]
