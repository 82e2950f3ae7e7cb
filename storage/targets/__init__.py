"""One file per target; file name = name in the configuration.

Call order: `Plugin(config)` -> `cursor()` -> `commit(batch)` repeatedly -> `close()`.
`commit` makes the rows, the counts and the cursor durable in one transaction, or raises and has taken nothing:
TransientError = the same batch again later, PermanentError = stop this target. A batch may be offered again after a crash:
every event is kept once (event_id + fingerprint), every failed event once (its id).

An error after the commit itself looks like one before it. So the very batch that was committed last (same cursor, same ids)
is recognised: `commit` changes nothing and answers what it counted the first time. After any error, either offer the same
batch again or ask `cursor()` anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocol.seams import Cursor, Event, FailedEvent, Json, RawPayload

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
    """Of a batch or of everything so far: events stored, failed, and dropped because they came before; payloads covered.

    duplicate: natural duplicates, and failed events the target had already. dropped: failed events that somebody gave up.
    `stored + failed + duplicate + dropped` is the number of events (and of payloads that failed whole) that were accepted.
    """

    payloads: int = 0
    stored: int = 0
    failed: int = 0
    duplicate: int = 0
    dropped: int = 0


class Target(Protocol):
    def cursor(self) -> Cursor:
        """Where the last committed batch ended; empty before the first."""
        ...

    def commit(self, batch: Batch) -> Counts: ...

    def totals(self) -> Counts:
        """Everything ever committed, from the same transactions as the rows."""
        ...

    def close(self) -> None: ...


class FailedStore(Protocol):
    """What a target offers beside `Target` when failed events can be looked at and replayed in it."""

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        """Newest first: the columns of `failed_events`. replayed: also those that were solved since."""
        ...

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        """Those that wait, in the order of `list_failed`, when there may be more than memory has room for."""
        ...

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        """One failed event and the payload it came from; the payload is gone once all of its events are solved."""
        ...

    def resolve(self, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int) -> Counts | None:
        """Store what a replay made of one failed event, in one transaction; None when it is unknown or solved already.

        If it failed again under the same id it stays, with its new reasons; otherwise it is marked as replayed and counts
        as failed no more. replayed_ms: when, milliseconds since 1970.
        """
        ...

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        """Give up those that wait among these, in one transaction: what was kept of them goes, that they were is counted.

        How many were dropped now. An id that was dropped is not taken in again.
        """
        ...

    def wipe(self) -> None:
        """Begin again: nothing stored, no cursor, all totals 0."""
        ...
