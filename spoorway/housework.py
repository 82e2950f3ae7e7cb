"""What the loading process does in a target between two commits besides loading: erasures that somebody asked for, and retention.

One piece at a time, so that no commit waits long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from spoorway.config import Settings
from spoorway.erasures import Asked, folder, open_ones, part_file, part_of
from spoorway.files import write_json
from spoorway.retention import Expiry, rules_of
from storage.targets import Erasure

log = logging.getLogger("spoorway.housework")

_LOOK_EVERY_MS = 500


class Reopened(Protocol):
    def close(self) -> None:
        """The next read opens the files anew."""
        ...


class Housework:
    """For the thread that loads the target. reader: the one it reads the journal with. clock: milliseconds since 1970."""

    def __init__(self, settings: Settings, name: str, target: Any, reader: Reopened, clock: Callable[[], int]) -> None:
        self._settings, self._name, self._target, self._reader, self._clock = settings, name, target, reader, clock
        self._expiry = Expiry(settings.data, name, target, rules_of(settings.rules, name))
        self._erasure: Erasure | None = None
        self._after: Any = None
        self._looked_ms = 0

    def step(self) -> bool:
        """True when there was anything to do. Raises what the target raises; then it is done again."""
        if self._erasure is not None:
            self._erase(self._erasure)
            return True
        now_ms = self._clock()
        if 0 <= now_ms - self._looked_ms < _LOOK_EVERY_MS:
            return self._expiry.step(now_ms) if self._expiry.under_way else False
        self._looked_ms = now_ms
        if folder(self._settings.data).exists():
            for asked in open_ones(self._settings.data):
                if (
                    asked.ready
                    and self._name in asked.targets
                    and not part_file(self._settings.data, asked.id, self._name).exists()
                ):
                    self._begin(asked)
                    return True
        return self._expiry.step(now_ms)

    def _begin(self, asked: Asked) -> None:
        from spoorway.erasing import erasure_of  # large, and seldom needed

        erasure = erasure_of(self._settings, asked)
        self._reader.close()  # segments were replaced: what is open is what they were
        if hasattr(self._target, "erase"):
            self._erasure, self._after = erasure, None
        else:
            self._tell(erasure, {"state": "cannot", "message": "this kind of target cannot erase"})

    def _erase(self, erasure: Erasure) -> None:
        removed, self._after = self._target.erase(erasure, self._after)
        if self._after is None:
            self._erasure = None
            self._tell(erasure, part_of(removed))
            log.info("target %s: erasure %s removed %d events, %d failed", self._name, erasure.id, *removed)

    def _tell(self, erasure: Erasure, part: dict[str, Any]) -> None:
        write_json(part_file(self._settings.data, erasure.id, self._name), part)
