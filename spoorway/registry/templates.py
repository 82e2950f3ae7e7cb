"""Which template an id and version stand for: bundled, or a file in a folder. Looked at again every second; thread-safe.

A template that was read once keeps its meaning for as long as the process runs, whatever becomes of its file: a frame must not
mean one thing now and another thing later. What is not known is told by `changes` as soon as it is.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from protocol.templates import BadTemplate, Template, bundled, template
from spoorway.registry.lookup import BUNDLED, LOOK_EVERY_S

log = logging.getLogger("spoorway.registry")


def read(file: Path) -> Template:
    """Of a file whose name ends in .toml or .json. Raises OSError, BadTemplate."""
    try:
        text = file.read_text("utf-8")
        return template(json.loads(text) if file.suffix == ".json" else tomllib.loads(text))
    except (BadTemplate, OSError):
        raise
    except (ValueError, RecursionError) as error:
        raise BadTemplate(f"not {file.suffix[1:].upper()}: {error}") from None


class Templates:
    """A `TemplateLookup`. clock: seconds, monotonic."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._known = {key: (each, BUNDLED) for key, each in bundled().items()}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._order: list[str] = []  # keys in the order they became known
        self._lock = threading.Lock()
        self._looked = clock()
        self._look()

    def __call__(self, number: int, version: int) -> Template | None:
        """None when nobody knows it."""
        found = self._known.get((number, version))
        if found is None:
            self._refresh()
            found = self._known.get((number, version))
        return found and found[0]

    def key(self, key: str) -> Template | None:
        """As `Template.key` names it."""
        number, _, version = key.partition("/")
        return self(int(number), int(version)) if number.isdecimal() and version.isdecimal() else None

    def changes(self, since: int) -> tuple[int, frozenset[str]]:
        """Keys of the templates that became known after the mark `since` (first 0); the new mark."""
        self._refresh()
        return len(self._order), frozenset(self._order[since:])

    def every(self) -> list[tuple[Template, str]]:
        """Each with its source, "bundled" or a file, sorted by id and version."""
        return [found for _, found in sorted(self._known.items())]

    def _refresh(self) -> None:
        with self._lock:
            if self._clock() - self._looked >= LOOK_EVERY_S:
                self._looked = self._clock()
                self._look()

    def _look(self) -> None:
        try:
            entries = sorted((e for e in os.scandir(self._folder) if e.name.endswith((".toml", ".json"))), key=lambda e: e.name)
        except OSError:
            return  # there is no such folder as long as nobody added any
        for entry in entries:
            try:
                stat = entry.stat()
                stamp = stat.st_mtime_ns, stat.st_size, stat.st_ino
                if entry.name.startswith(".") or self._seen.get(entry.name) == stamp:
                    continue
                self._seen[entry.name] = stamp
                found = read(Path(entry.path))
            except (OSError, BadTemplate) as error:
                log.warning("%s is passed over: %s", entry.path, error)
                continue
            known = self._known.get((found.id, found.version))
            if known is None:
                self._known[found.id, found.version] = found, entry.path
                self._order.append(found.key)
            elif known[0] != found:
                log.warning("%s is passed over: template %s has another meaning in %s", entry.path, found.key, known[1])
