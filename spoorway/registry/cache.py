"""What registries answered, on disk: it outlives restarts and serves while a registry is gone.

One file per schema, in the layout of a static registry; beside the document it holds where and when it came from. A file
that is damaged counts as absent. Bounded in number; nothing is evicted, because an event may need any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from protocol.iglu import SchemaKey
from spoorway.registry import layout
from spoorway.registry.layout import Document

log = logging.getLogger("spoorway.registry")

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Cached:
    """registry: its URL. checked_ms: when it last said that this is the document, milliseconds since 1970."""

    document: Document
    registry: str
    etag: str | None
    checked_ms: int


class Cache:
    def __init__(self, folder: Path) -> None:
        """The folder is made when something is put into it."""
        self.folder = folder

    def get(self, key: SchemaKey) -> Cached | None:
        try:
            held = layout.read(layout.place(self.folder, key))
        except (OSError, layout.Unreadable):
            return None
        document, registry, etag, checked = (held.get(name) for name in ("document", "registry", "etag", "checked_ms"))
        if not isinstance(document, dict) or not isinstance(registry, str) or not isinstance(checked, int):
            return None
        return Cached(document, registry, etag if isinstance(etag, str) else None, checked)

    def put(self, key: SchemaKey, cached: Cached) -> bool:
        """False when it could not be kept; the log says why."""
        place = layout.place(self.folder, key)
        try:
            if not place.exists() and sum(1 for _ in self.folder.glob("*/*/*/*")) >= _MOST:
                log.warning("%s holds %d schemas: %s is not kept", self.folder, _MOST, key.uri)
                return False
            held = {
                "registry": cached.registry,
                "etag": cached.etag,
                "checked_ms": cached.checked_ms,
                "document": cached.document,
            }
            layout.write(place, cast(Document, held))
        except OSError as error:
            log.warning("%s cannot be kept in %s: %s", key.uri, self.folder, error)
            return False
        return True

    def walk(self) -> Iterator[tuple[SchemaKey, Cached]]:
        for key, _ in layout.walk(self.folder):
            cached = self.get(key)
            if cached is not None:
                yield key, cached
