"""What happened to events, counted by its reason; nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from spoorway_tracker.refusal import Refusal

QUEUE_HEALTH = "iglu:io.spoorway/queue_health/jsonschema/1-0-0"


@dataclass(slots=True)
class Counters:
    """tracked = sent + dropped + pending; what was refused was never taken. resent counts events in attempts after their
    first."""

    tracked: int = 0
    sent: int = 0
    resent: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])
    """By the value of Refusal."""
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    """After they were taken: `old`, `large`, `damaged`, `rejected` (by the gateway, for good)."""
    storage_errors: int = 0
    _lock: RLock = field(default_factory=RLock, repr=False)

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
