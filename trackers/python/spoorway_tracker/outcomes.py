"""What became of a call or an event: refused, counted, told. Nothing is dropped in silence, and nothing thrown at the host."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from threading import RLock
from typing import Any

QUEUE_HEALTH = "iglu:io.spoorway/queue_health/jsonschema/1-0-0"

Told = Callable[[str, int, str], None]
"""(reason, how many events, details) of what went wrong."""


class Refusal(Enum):
    """Why a call took nothing. False in a condition, where an event id is true: `if not (event_id := tracker.track_…(…)): …`"""

    OPTED_OUT = "opted_out"
    """opt_out() was called."""
    EMPTY = "empty"
    """A required argument is empty or missing."""
    NOT_JSON = "not_json"
    """The data of an event or entity has no form in JSON: NaN, a set, a cycle."""
    INVALID = "invalid"
    """The data does not fit the schema file it was declared with."""
    FULL = "full"
    """The queue has reached its `max_bytes`; what is in it is kept, the newest is refused."""
    LARGE = "large"
    """One event alone is larger than a request may be."""
    STORAGE = "storage"
    """The disk did not take it."""
    NOT_DURABLE = "not_durable"
    """durable=True, and the disk did not confirm. The event is in the queue and will be sent; a power cut may lose it."""
    CLOSED = "closed"
    """close() was called."""

    def __bool__(self) -> bool:
        return False


class Counters:
    """tracked = sent + dropped + pending; what was refused was never taken. resent: events in attempts after their first.

    refused: by the value of Refusal. dropped: after they were taken: `old`, `large`, `damaged`, `rejected` (by the gateway).
    """

    def __init__(self) -> None:
        self.tracked = self.sent = self.resent = self.attempts = self.failed_attempts = self.storage_errors = 0
        self.refused: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self._lock = RLock()

    def took(self) -> None:
        with self._lock:
            self.tracked += 1

    def refuse(self, why: Refusal) -> Refusal:
        with self._lock:
            self.refused[why.value] = self.refused.get(why.value, 0) + 1
            if why in (Refusal.STORAGE, Refusal.NOT_DURABLE):
                self.storage_errors += 1
        return why

    def drop(self, why: str, count: int) -> None:
        with self._lock:
            self.dropped[why] = self.dropped.get(why, 0) + count

    def health(self, pending_bytes: int) -> dict[str, Any]:
        """A queue_health entity or event."""
        return {
            "schema": QUEUE_HEALTH,
            "data": {
                "queued_bytes": pending_bytes,
                "sent": self.sent,
                "resent": self.resent,
                "dropped_full": self.refused.get("full", 0),
                "dropped_old": self.dropped.get("old", 0),
                "dropped_large": self.dropped.get("large", 0) + self.refused.get("large", 0),
                "storage_errors": self.storage_errors,
            },
        }


def teller(on_error: Told | None) -> Told:
    """To the host's function, and to the logger `spoorway_tracker`; the root logger is not touched and no handler installed."""

    def tell(reason: str, count: int, details: str) -> None:
        if on_error is not None:
            with suppress(Exception):  # the host's own fault must not end the sending thread
                on_error(reason, count, details)
        if logging := sys.modules.get("logging"):  # who has not imported it has configured nothing
            logger = logging.getLogger("spoorway_tracker")
            if logger.hasHandlers():  # else Python would print it on stderr
                logger.warning("%s: %d events %s", reason, count, details)

    return tell
