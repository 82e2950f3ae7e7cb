"""Which document an Iglu URI stands for: bundled, then folders, then what was fetched before. Never a network.

A document says `$supersededBy` also where only the newer one says `$supersedes`, as a schema server would answer.

Made for the hot path: an answer is remembered, "nobody knows it" too, and files are looked at again after a moment. What
appeared or changed since is told by `changes`, so that whoever compiled or waited for it can act. Thread-safe.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol import schemas
from protocol.iglu import SchemaKey
from spoorway.registry import layout
from spoorway.registry.cache import Cache
from spoorway.registry.layout import Document

log = logging.getLogger("spoorway.registry")

BUNDLED = "bundled"
LOOK_EVERY_S = 1.0
_MOST_KNOWN, _MOST_UNKNOWN = 5_000, 1_000

# Of every file that could hold a schema: a change of any is a reason to read again.
Stamp = tuple[tuple[Path, int, int, int], ...]


@dataclass(slots=True)
class _Entry:
    """source: bundled, or the file; "" = unknown."""

    key: SchemaKey
    document: Document | None
    source: str
    stamp: Stamp
    looked: float


class Lookup:
    """A `SchemaLookup`. clock: seconds, monotonic."""

    def __init__(
        self, folders: Sequence[Path] = (), cache: Cache | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folders, self._cache, self._clock = tuple(folders), cache, clock
        self._places = (*self._folders, *((cache.folder,) if cache else ()))
        self._known: dict[str, _Entry] = {}
        self._unknown: dict[str, _Entry] = {}
        self._changed: dict[str, int] = {}
        self._serial = 0
        self._lock = threading.Lock()

    def __call__(self, uri: str) -> Document | None:
        entry = self._entry(uri)
        return entry.document if entry else None

    def source(self, uri: str) -> str | None:
        """Where the document comes from: "bundled" or a file's path; None when nobody knows it."""
        entry = self._entry(uri)
        return entry.source if entry and entry.document is not None else None

    def every(self) -> dict[SchemaKey, str]:
        """Every schema there is, with its source: "bundled", a folder, or the registry it was fetched from; the first counts."""
        found = {key: BUNDLED for uri in schemas.uris() if (key := layout.key_of(uri))}
        for folder in self._folders:
            for key, _ in layout.walk(folder):
                found.setdefault(key, str(folder))
        for key, cached in self._cache.walk() if self._cache else ():
            found.setdefault(key, cached.registry)
        return found

    def changes(self, since: int) -> tuple[int, frozenset[str]]:
        """URIs that were unknown and are known, or whose document is another, after the mark `since` (first 0); the new mark."""
        if self._serial == since:
            return since, frozenset()
        with self._lock:
            return self._serial, frozenset(uri for uri, serial in self._changed.items() if serial > since)

    def unknown(self) -> list[SchemaKey]:
        """What was looked up in vain, the longest waiting first; bounded."""
        with self._lock:
            return [entry.key for entry in self._unknown.values()]

    def fetched(self) -> list[SchemaKey]:
        """What is in use from the cache."""
        if self._cache is None:
            return []
        with self._lock:
            return [e.key for e in self._known.values() if e.source == str(layout.place(self._cache.folder, e.key))]

    def look(self) -> None:
        """Looks at the files of everything that was ever asked for."""
        with self._lock:
            entries = [*self._known.items(), *self._unknown.items()]
        for uri, entry in entries:  # the lock is let go in between: nobody waits for a thousand files
            with self._lock:
                self._refresh(uri, entry)

    def _entry(self, uri: str) -> _Entry | None:
        with self._lock:
            entry = self._known.get(uri) or self._unknown.get(uri)
            if entry is None:
                key = layout.key_of(uri)
                if key is None:
                    return None
                entry = self._find(key)
                self._remember(uri, entry)
            elif self._clock() - entry.looked >= LOOK_EVERY_S:
                self._refresh(uri, entry)
            return entry

    def _remember(self, uri: str, entry: _Entry) -> None:
        shelf, most = (self._unknown, _MOST_UNKNOWN) if entry.document is None else (self._known, _MOST_KNOWN)
        if len(shelf) >= most:
            shelf.pop(next(iter(shelf)))
        shelf[uri] = entry

    def _refresh(self, uri: str, entry: _Entry) -> None:
        entry.looked = self._clock()
        if entry.source == BUNDLED or self._stamp(entry.key) == entry.stamp:
            return
        found = self._find(entry.key)
        entry.stamp = found.stamp
        # What is known stays known: a file that is gone or damaged must not turn good events into failed ones.
        if found.document is None or (uri not in self._known and uri not in self._unknown):
            return
        changed = found.document != entry.document
        entry.document, entry.source = found.document, found.source
        if self._unknown.pop(uri, None) is not None:
            self._remember(uri, entry)
        if changed:
            self._serial += 1
            self._changed[uri] = self._serial
            log.info("%s is read from %s", uri, found.source)

    def _find(self, key: SchemaKey) -> _Entry:
        now = self._clock()
        document = schemas.bundled(key.uri)
        if document is not None:
            return _Entry(key, document, BUNDLED, (), now)
        stamp = self._stamp(key)  # before the reading: what is written meanwhile is seen the next time
        source = ""
        newer: list[tuple[SchemaKey, Document]] = []
        for file, *_ in stamp:
            one = layout.key_of_place(file) or key
            if one == key and document is not None:
                continue
            try:
                read = self._read(file, one)
            except (OSError, layout.Unreadable) as error:
                log.warning("%s is passed over: %s", file, error)
                continue
            if read is not None and one != key:
                newer.append((one, read))
            elif read is not None:
                document, source = read, str(file)
        if document is None:
            return _Entry(key, None, "", stamp, now)
        by = [one for one, read in newer if _supersedes(read, key)]
        if by and "$supersededBy" not in document:
            document = {**document, "$supersededBy": max(by, key=_age).version}
        return _Entry(key, document, source, stamp, now)

    def _read(self, file: Path, key: SchemaKey) -> Document | None:
        """Raises OSError, Unreadable."""
        if self._cache is not None and file == layout.place(self._cache.folder, key):
            cached = self._cache.get(key)
            return cached.document if cached else None
        return layout.read(file)

    def _stamp(self, key: SchemaKey) -> Stamp:
        found: list[tuple[Path, int, int, int]] = []
        for folder in self._places:
            own = layout.place(folder, key)
            for file in (own, *_newer(own, key)):
                try:
                    stat = os.stat(file)
                except OSError:
                    continue
                found.append((file, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)


def _newer(file: Path, key: SchemaKey) -> list[Path]:
    """The files beside it of the same schema's later versions."""
    try:
        beside = sorted(os.listdir(file.parent))
    except OSError:
        return []
    keys = [(name, layout.key_of_place(file.with_name(name))) for name in beside if not name.endswith(".json")]
    return [file.with_name(name) for name, other in keys if other is not None and _age(other) > _age(key)]


def _age(key: SchemaKey) -> tuple[int, int, int]:
    return key.model, key.revision, key.addition


def _supersedes(document: Document, key: SchemaKey) -> bool:
    versions = document.get("$supersedes")
    return isinstance(versions, list) and key.version in versions
