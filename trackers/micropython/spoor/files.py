"""Lines <-> a bounded queue in flash that outlasts power cuts: a folder of segments `BOOT-PART`, each line with its CRC-32.

A line that `append` has taken while `unsaved` is 0 is on flash (littlefs: when the file is closed), and stays there until its
message was acknowledged. Nothing is ever appended to a segment of an earlier start or after an error: only a last
line can be torn.
`BOOT-0` is empty and keeps the number of the start, which so never goes back; `out` is there while nobody is to be tracked.
"""

import os
from binascii import crc32

from . import Ram

# A line that is written, sent and removed on its own costs fewer erases than this; tests/trackers/micropython count them.
ERASES = 3


class Files(Ram):
    """max_bytes: of all segments and RAM together. ram_bytes: of what may wait in RAM where the erases do not allow a write.

    erases_per_day: writes are spread so that about no more blocks are erased in a day; None: each line is written at once.
    errors: what flash refused or a power cut tore.
    """

    def __init__(self, folder, max_bytes=65536, ram_bytes=4096, segment_bytes=4096, erases_per_day=None) -> None:
        Ram.__init__(self, max_bytes)
        self.errors = 0
        self.out = False  # nobody is tracked
        self.folder = folder
        self.ram_bytes = ram_bytes
        self.segment_bytes = segment_bytes
        self.every_ms = ERASES * 86_400_000 // erases_per_day if erases_per_day else 0
        self._next_ms = 0
        self._waiting = 0  # bytes in RAM
        self._segments: list[tuple] = []  # (boot, part), the oldest first
        self._part = 0
        self._at = 0  # how far the first segment has been acknowledged
        self._mark: int | None = None  # where the last batch ends in it; -1: the batch is from RAM; None: it has moved meanwhile

    @property
    def unsaved(self) -> int:
        """Lines that are in RAM alone."""
        return len(self.items)

    def open(self, main) -> None:  # type: ignore[override]
        """main: the tracker, which gets the number of this start unless it was given one."""
        self.boot = main.boot or 0
        try:
            self._list(main.boot)
        except OSError:  # then in RAM; 0 is a number that a key never signed with, so it does no harm
            self.errors += 1
            self.folder = ""
        main.boot = self.boot
        if self.out:
            main.opt_out()  # which erases what a power cut left

    def _list(self, boot) -> None:
        try:
            os.mkdir(self.folder)
        except OSError:
            pass
        found = []
        for name in os.listdir(self.folder):
            self.out |= name == "out"
            first, _, part = name.partition("-")
            if part.isdigit():
                found.append((int(first), int(part)))
        found.sort()
        if boot is None:
            self.boot = found[-1][0] + 1 if found else 1
        self._append(self._path((self.boot, 0)), ())
        for segment in found:
            if segment[1]:
                self._segments.append(segment)
                self.size += self._size(segment)
                if segment[0] == self.boot:
                    self._part = segment[1] + 1
            elif segment != (self.boot, 0):
                os.remove(self._path(segment))

    def _path(self, segment) -> str:
        return "%s/%d-%d" % ((self.folder,) + segment)

    def _size(self, segment) -> int:
        return os.stat(self._path(segment))[6]

    def _append(self, path: str, lines) -> None:
        with open(path, "ab") as file:
            for line in lines:
                file.write(b"%08x%s\n" % (crc32(line), line))
            if hasattr(os, "fsync"):
                file.flush()
                os.fsync(file.fileno())

    def append(self, line: bytes, now_ms: int) -> bool:
        n = len(line) + 9
        if self.size + n > self.max_bytes:
            return False
        self.size += n
        self._waiting += n
        self.items.append(line)
        self.write(now_ms)
        if self._waiting > self.ram_bytes and self.items:
            self.items.pop()
            self.size -= n
            self._waiting -= n
            return False
        return True

    def write(self, now_ms: int) -> None:  # type: ignore[override]
        """now_ms: uptime; -1: now, whatever the erases."""
        if not self.folder or not self.items or 0 <= now_ms < self._next_ms:
            return
        self._next_ms = now_ms + self.every_ms
        segment = (self.boot, self._part)
        try:
            if segment not in self._segments or self._size(segment) + self._waiting > self.segment_bytes:  # a block each
                self._part += 1
                segment = (self.boot, self._part)
                self._segments.append(segment)
            self._append(self._path(segment), self.items)
        except OSError:  # how much of it was written is not known
            self.errors += 1
            self._part += 1
            self._next_ms = now_ms + 1000
            return
        self.items = []
        self._waiting = 0
        if self._mark == -1:
            self._mark = None

    def next(self):
        while self._segments:
            lines, self._mark = self._read()
            if lines:
                boot = self._segments[0][0]
                return None if boot == self.boot else boot, lines
            self._unlink()
        self._mark = -1
        return Ram.next(self)

    def _read(self):
        lines: list[bytes] = []
        at = self._at
        try:
            with open(self._path(self._segments[0]), "rb") as file:
                file.seek(at)
                while len(lines) < (self.max or 1):
                    line = file.readline()
                    if not line:
                        break
                    at += len(line)
                    text = line[8:-1]
                    if line == b"%08x%s\n" % (crc32(text), text):
                        lines.append(text)
                    else:
                        self.errors += 1
        except OSError:
            self.errors += 1
        return lines, at

    def remove(self, lines) -> None:
        if self._mark == -1:
            n = sum([len(line) + 9 for line in lines])
            self.items = self.items[len(lines) :]
            self._waiting -= n
            self.size -= n
        elif self._mark is not None:
            self._at = self._mark
            if self._at >= self._size(self._segments[0]):
                self._unlink()

    def _unlink(self) -> None:
        """The first segment, which is sent."""
        segment = self._segments.pop(0)
        if segment == (self.boot, self._part):
            self._part += 1
        self._at = 0
        try:
            self.size -= self._size(segment)
            os.remove(self._path(segment))
        except OSError:  # it is sent again after the next start
            self.errors += 1
        if not self._segments:
            self.size = self._waiting

    def opt(self, out: bool) -> None:
        """The decision is on flash before anything is erased; what a power cut leaves is erased by the next start."""
        self.out = out
        try:
            path = self.folder + "/out"
            if not self.folder:  # flash failed at the start
                self.errors += out
            elif out:
                self._append(path, ())
            else:
                os.remove(path)
        except OSError:
            self.errors += out
        if out:
            self.items = []
            self._waiting = 0
            self._mark = None
            while self._segments:
                self._unlink()
            self.size = 0
