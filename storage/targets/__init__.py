"""One file per target; file name = name in the configuration.

Call order: `Plugin(config)` -> `cursor()` -> `commit(batch)` repeatedly -> `close()`.
`commit` makes the rows, the counts and the cursor durable in one transaction, or raises and has taken nothing:
TransientError = the same batch again later, PermanentError = stop this target. A batch may be offered again after a crash:
every event is kept once (event_id + fingerprint), every failed event once (its id).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocol.seams import Cursor, Event, FailedEvent, Json

# The schema document of an Iglu URI, or None when nobody knows it. Handed in by the wiring, for typed views and tables.
SchemaLookup = Callable[[str], dict[str, Json] | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one stretch of the journal became. cursor: where the journal is read on after this batch.

    payloads: payloads and damaged places that the batch covers.
    """

    events: Sequence[Event]
    failed: Sequence[FailedEvent]
    cursor: Cursor
    payloads: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a batch or of everything so far: events stored, failed, and dropped as natural duplicates; payloads covered.

    `stored + failed + duplicate` is the number of events (and of payloads that failed whole) that were accepted.
    """

    payloads: int = 0
    stored: int = 0
    failed: int = 0
    duplicate: int = 0


class Target(Protocol):
    def cursor(self) -> Cursor:
        """Where the last committed batch ended; empty before the first."""
        ...

    def commit(self, batch: Batch) -> Counts: ...

    def totals(self) -> Counts:
        """Everything ever committed, from the same transactions as the rows."""
        ...

    def close(self) -> None: ...
