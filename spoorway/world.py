"""The outside of the enrichments: files that are watched, a clock. The input and output that `enrich` must not do itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from protocol.seams import ConfigurationError

log = logging.getLogger("spoorway.world")

T = TypeVar("T")

_LOOK_EVERY_S = 2.0


class World:
    """An `enrich.enrichments.World`."""

    def watch(self, path: str, build: Callable[[bytes], T]) -> Callable[[], T]:
        file = Path(path).expanduser()
        try:
            seen, made = _stamp(file), build(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{file}: {error}") from None
        looked = time.monotonic()

        def current() -> T:
            nonlocal seen, made, looked
            now = time.monotonic()
            if now - looked < _LOOK_EVERY_S:
                return made
            looked = now
            try:
                stamp = _stamp(file)
                if stamp != seen:
                    seen = stamp
                    made = build(file.read_bytes())
                    log.info("%s was read again", file)
            except (OSError, ValueError) as error:
                log.warning("%s: %s; what was read before stays in use", file, error)
            return made

        return current

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
