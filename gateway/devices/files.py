"""The files of the register as a gateway sees them: what changed since the last look. For one thread; blocks.

A file may be replaced as a whole (put back from a backup), so it is known by what it is, not by an open descriptor alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.devices.book import Book, Record
from gateway.devices.credentials import MasterKey
from gateway.devices.issuing import book_file, master_key_file, mismatch
from gateway.devices.seen import Loaded, Seen
from protocol.seams import Cursor

_Mark = tuple[int, ...]


class Look(NamedTuple):
    """records: rows that changed, or all of them where `anew`. master: None with the reason in `trouble`."""

    records: list[Record]
    anew: bool
    master: bytes | None
    trouble: str


class Files:
    def __init__(self, data: Path) -> None:
        self._data = data
        self._key = MasterKey(master_key_file(data))
        self._book: Book | None = None
        self._book_mark: _Mark | None = None
        self._version = self._revision = 0
        self._key_mark: _Mark | None = None
        self._seen: Seen | None = None

    def look(self) -> Look | None:
        """None when nothing changed. Raises ConfigurationError, PermanentError, TransientError."""
        mark = _mark(book_file(self._data), 2)
        anew = mark != self._book_mark
        if anew:
            self._forget_book()
            if mark is not None:
                self._book = Book(book_file(self._data))
            self._book_mark = mark
        version = self._book.data_version() if self._book is not None else 0
        key_mark = _mark(self._key.path)
        if not anew and (version, key_mark) == (self._version, self._key_mark):
            return None
        records = self._book.records(self._revision) if self._book is not None else []
        master, trouble = self._master()
        self._revision = max((record.revision for record in records), default=self._revision)
        self._version, self._key_mark = version, key_mark
        return Look(records, anew, master, trouble)

    def load(self) -> Loaded | None:
        """The windows of signed messages; None while another process keeps them. Raises PermanentError."""
        self._seen = self._seen or Seen.open(self._data)
        return self._seen.load() if self._seen is not None else None

    def save(self, windows: Mapping[str, tuple[int, bytes]], cursor: Cursor) -> None:
        """Raises TransientError."""
        assert self._seen is not None
        self._seen.save(windows, cursor)

    def close(self) -> None:
        self._forget_book()
        if self._seen is not None:
            self._seen.close()

    def _forget_book(self) -> None:
        if self._book is not None:
            self._book.close()
        self._book, self._book_mark, self._version, self._revision = None, None, 0, 0

    def _master(self) -> tuple[bytes | None, str]:
        if self._book is None:
            return None, ""
        if trouble := mismatch(self._book, self._key):
            return None, trouble
        return self._key.read(), ""


def _mark(path: Path, length: int = 6) -> _Mark | None:
    """Another one when the file is another one, or (with all of its parts) was changed; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)[:length]
