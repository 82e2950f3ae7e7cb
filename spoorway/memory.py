"""Values that outlive the process, by key, in one SQLite file that any number of processes share: DATA/memory.db.

Written a second after they were put, together; losing that second loses facts that only tighten, never an event. Trouble
with the file is told once and costs the memory, not the loading.
"""

from __future__ import annotations

import atexit
import logging
import sqlite3
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, TypeVar

from enrich.enrichments import Remembered

log = logging.getLogger("spoorway.memory")

T = TypeVar("T")

WRITE_AFTER_S = 1.0
_CACHED = 4_096
_BUSY_S = 5.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS memory (name TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, put_ms INTEGER NOT NULL,"
    " PRIMARY KEY (name, key)) WITHOUT ROWID"
)


class Memory(Generic[T]):
    """An `enrich.enrichments.Memory`. path: None = in RAM only. now_ms: the clock. For use by any thread."""

    def __init__(self, path: Path | None, name: str, remembered: Remembered[T], most: int, now_ms: Callable[[], int]) -> None:
        self._path, self._name, self._remembered, self._most, self._now_ms = path, name, remembered, most, now_ms
        self._lock = threading.Lock()  # of the cache; never held over the disk but for a look-up
        self._writing = threading.Lock()
        self._cache: OrderedDict[str, T] = OrderedDict()
        self._unwritten: dict[str, T] = {}
        self._reader: sqlite3.Connection | None = None
        self._timer: threading.Timer | None = None
        self._told = False
        if path is not None:
            atexit.register(_flush, weakref.ref(self))

    def get(self, key: str) -> T | None:
        with self._lock:
            found = self._unwritten.get(key)
            if found is None:
                found = self._cache.get(key)
            if found is not None:
                self._cache[key] = found
                self._cache.move_to_end(key)
                return found
            if (found := self._looked_up(key)) is not None:
                self._keep(key, found)
            return found

    def put(self, key: str, value: T) -> None:
        with self._lock:
            self._keep(key, value)
            if self._path is not None:
                self._unwritten[key] = value
                if self._timer is None:
                    self._timer = threading.Timer(WRITE_AFTER_S, _flush, [weakref.ref(self)])
                    self._timer.name, self._timer.daemon = f"memory-{self._name}", True
                    self._timer.start()

    def flush(self) -> None:
        """Everything that was put is in the file when this returns, unless the file is in trouble."""
        with self._writing:
            with self._lock:
                self._timer = None
                unwritten = dict(self._unwritten)
            if not unwritten or self._path is None:
                return
            try:
                merged = self._written(self._path, unwritten)
            except (sqlite3.Error, OSError) as error:
                self._tell(error)
                with self._lock:  # kept for the next second, as far as there is room
                    while len(self._unwritten) > _CACHED:
                        del self._unwritten[next(iter(self._unwritten))]
                return
            with self._lock:
                for key, value in merged.items():
                    if self._unwritten.get(key) is unwritten[key]:
                        del self._unwritten[key]
                        self._keep(key, value)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _keep(self, key: str, value: T) -> None:
        self._cache[key] = value
        self._cache.move_to_end(key)
        if len(self._cache) > (self._most if self._path is None else _CACHED):
            self._cache.popitem(last=False)

    def _looked_up(self, key: str) -> T | None:
        if self._path is None or (self._reader is None and not self._path.exists()):
            return None
        try:
            if self._reader is None:
                self._reader = _opened(self._path)
            row = self._reader.execute("SELECT value FROM memory WHERE name = ? AND key = ?", (self._name, key)).fetchone()
        except sqlite3.Error as error:
            self._tell(error)
            return None
        return None if row is None else self._read(row[0])

    def _read(self, text: bytes) -> T | None:
        try:
            return self._remembered.read(text)
        except (ValueError, TypeError, KeyError) as error:
            self._tell(error)
            return None

    def _written(self, path: Path, unwritten: dict[str, T]) -> dict[str, T]:
        """What is in the file now, merged with what others put there meanwhile."""
        path.parent.mkdir(parents=True, exist_ok=True)
        merged: dict[str, T] = {}
        with closing(_opened(path)) as db:
            db.execute("BEGIN IMMEDIATE")
            fresh = False
            for key, value in unwritten.items():
                row = db.execute("SELECT value FROM memory WHERE name = ? AND key = ?", (self._name, key)).fetchone()
                fresh |= row is None
                theirs = None if row is None else self._read(row[0])
                merged[key] = value if theirs is None else self._remembered.merge(value, theirs)
                text = self._remembered.write(merged[key])
                db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", (self._name, key, text, self._now_ms()))
            if fresh:
                db.execute(
                    "DELETE FROM memory WHERE name = ?1 AND key IN (SELECT key FROM memory WHERE name = ?1 ORDER BY put_ms, key"
                    " LIMIT max(0, (SELECT count(*) FROM memory WHERE name = ?1) - ?2))",
                    (self._name, self._most),
                )
            db.execute("COMMIT")
        return merged

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            log.warning("%s cannot be used: %s; what is learned of devices is lost at the end of this process", self._path, error)


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, _BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(_TABLE)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _flush(memory: weakref.ref[Memory[Any]]) -> None:
    if (found := memory()) is not None:
        found.flush()
