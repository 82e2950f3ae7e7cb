"""Every system call by which the journal touches a disk, one thin method each.

Nothing is decided here. It exists so that a test can record, fail or lose exactly what a real disk can.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


class Disk:
    """The operating system's own calls. All raise OSError."""

    def open(self, path: Path, flags: int) -> int:
        """A file descriptor. New files are readable by owner and group only: they hold personal data."""
        return os.open(path, flags, 0o640)

    def close(self, fd: int) -> None:
        os.close(fd)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Bytes written, possibly fewer than given."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def set_modified(self, fd: int, time_ns: int) -> None:
        os.utime(fd, ns=(time_ns, time_ns))

    def sync_data(self, fd: int) -> None:
        """The file's bytes and its length are on the medium."""
        if sys.platform == "darwin":  # there, fsync leaves the bytes in the drive's cache, and fdatasync does not exist
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """The names in this folder are on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folder(self, path: Path) -> None:
        os.mkdir(path, 0o750)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def free_bytes(self, path: Path) -> int:
        """What an ordinary user may still write on this file system."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


DISK = Disk()
_PAGE = 4096


def write_all(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Writes every byte, or raises OSError with some of them written."""
    rest = memoryview(data)
    while rest:
        written = disk.write(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def read_exactly(disk: Disk, fd: int, size: int, offset: int) -> bytes:
    """`size` bytes, or fewer at the end of the file: one call may return less than there is."""
    data = disk.read(fd, size, offset)
    while len(data) < size and (more := disk.read(fd, size - len(data), offset + len(data))):
        data += more
    return data


def read_around(disk: Disk, fd: int, size: int, offset: int) -> bytes:
    """As read_exactly, but with zeros where the medium cannot be read, so that a bad sector costs what lies on it."""
    try:
        return read_exactly(disk, fd, size, offset)
    except OSError:
        data = b""
        while len(data) < size and (at := offset + len(data)) < os.fstat(fd).st_size:
            page = min(_PAGE - at % _PAGE, size - len(data))
            try:
                data += read_exactly(disk, fd, page, at)
            except OSError:
                data += bytes(page)
        return data


__all__ = ["DISK", "Disk", "read_around", "read_exactly", "write_all"]
