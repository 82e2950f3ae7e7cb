"""One file per target; file name = name in the configuration.

Call order: `Plugin(config)` -> `cursor()` -> `commit(batch)` repeatedly -> `close()`.
`commit` makes the rows, the counts and the cursor durable in one transaction, or raises and has taken nothing:
TransientError = the same batch again later, PermanentError = stop this target. A batch may be offered again after a crash:
every event is kept once (event_id + fingerprint), every failed event once (its id).

A module with `TAKES = "payloads"` has a `PayloadTarget` instead: the same calls in the same order, with payloads as the journal
holds them and no pipeline before it; `pause_s` is asked before each batch.

Several loaders may load one target, each its own lanes of the journal: a batch says where it began (`Batch.since`), and in the
transaction of the commit the target compares that with its cursor. A loader that was overtaken is told so, and nothing is taken.

An error after the commit itself looks like one before it. So the very batch that was committed last (same cursor, same ids)
is recognised: `commit` changes nothing and answers what it counted the first time. After any error, either offer the same
batch again or ask `cursor()` anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from protocol.persons import Person
from protocol.seams import START, Cursor, Event, FailedEvent, Json, RawPayload, TransientError

# The schema document of an Iglu URI, or None when nobody knows it. Handed in by the wiring, for typed views and tables.
SchemaLookup = Callable[[str], dict[str, Json] | None]


class Overtaken(TransientError):
    """Another loader was here: nothing was taken. Ask `cursor()` anew, and read from there."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one stretch of the journal became. cursor: where the journal is read on after this batch.

    payloads: payloads and damaged places that the batch covers. more: the journal holds more already.
    erased: events in them that had been erased before.
    since: the cursor that it was read after; None = whoever made the batch knows that nobody else loads these lanes.
    """

    events: Sequence[Event]
    failed: Sequence[FailedEvent]
    cursor: Cursor
    payloads: int
    more: bool = False
    erased: int = 0
    since: Cursor | None = None

    def moved(self, there: Cursor) -> Cursor:
        """The lanes that the batch moves, and where to. there: the target's cursor, read in the transaction of the commit.

        Raises Overtaken when one of them does not stand where the batch began. Lanes that it does not move are other loaders'.
        """
        if self.since is None:
            return self.cursor
        since = self.since
        moved = {lane: at for lane, at in self.cursor.items() if at != since.get(lane, START)}
        for lane in moved:
            if there.get(lane, START) != since.get(lane, START):
                raise Overtaken(
                    f"another loader is at {there.get(lane, START)} of lane {lane}, this one at {since.get(lane, START)}"
                )
        return moved


@dataclass(frozen=True, slots=True)
class RawBatch:
    """One stretch of the journal as it is. failed: its damaged places. more: the journal holds more already.

    covered: payloads and damaged places.
    """

    payloads: Sequence[RawPayload]
    failed: Sequence[FailedEvent]
    cursor: Cursor
    more: bool = False

    @property
    def covered(self) -> int:
        return len(self.payloads) + len(self.failed)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a batch or of everything so far: events stored, failed, and dropped because they came before; payloads covered.

    duplicate: natural duplicates, and failed events the target had already. dropped: failed events that somebody gave up.
    erased, expired: events and failed events that are gone, for somebody's sake (`Keeper.erase`, and `Batch.erased`) or because
    they were older than a rule (`Keeper.expire`); they count as stored or failed no more.
    `stored + failed + duplicate + dropped + erased + expired` is the number of events (and of payloads that failed whole) that
    were accepted.
    forwarded: of a PayloadTarget, which counts payloads: `forwarded + failed + duplicate + dropped` is the number it covered.
    """

    payloads: int = 0
    stored: int = 0
    failed: int = 0
    duplicate: int = 0
    dropped: int = 0
    forwarded: int = 0
    erased: int = 0
    expired: int = 0


class Target(Protocol):
    """One that is better off with large batches may have `limits` and `pause_s`, as a PayloadTarget has them."""

    def cursor(self) -> Cursor:
        """Where the last committed batch ended; empty before the first."""
        ...

    def commit(self, batch: Batch) -> Counts: ...

    def totals(self) -> Counts:
        """Everything ever committed, from the same transactions as the rows; by others, at least up to the last `cursor()`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Contact:
    """How a PayloadTarget stands with its other side. contact_ms: its last answer, milliseconds since 1970; 0 = none yet.

    error: what went wrong last, at error_ms, also when all is well again. errors: how often, by kind, in this process.
    """

    contact_ms: int = 0
    error: str = ""
    error_ms: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])


class PayloadTarget(Protocol):
    limits: tuple[int, int]
    """(payloads, journal bytes) that one batch should not exceed."""

    def cursor(self) -> Cursor: ...

    def pause_s(self, finishing: bool) -> float:
        """Seconds until it wants a batch; 0 = now. finishing: nothing is gained by waiting for more."""
        ...

    def commit(self, batch: RawBatch) -> Counts:
        """As Target.commit. The other side has every payload before the cursor moves; what it will never take is kept here."""
        ...

    def totals(self) -> Counts: ...
    def contact(self) -> Contact: ...
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


@dataclass(frozen=True, slots=True)
class Erasure:
    """Whose events are to go. id: of this erasure; a store counts by it. until_ms: received until then, milliseconds since 1970.

    events: (event_id, when received in ms) of those the journal knew as theirs, which need not show in a row; failed: ids of
    failed events, likewise. cut: a payload without what is theirs, or None when it holds nothing of them.
    """

    id: str
    who: Person
    until_ms: int
    events: Collection[tuple[str, int]] = ()
    failed: Collection[str] = ()
    cut: Callable[[RawPayload], RawPayload | None] = lambda payload: None


@dataclass(frozen=True, slots=True)
class Rule:
    """Events are kept for older_than_ms after they were received, and then no longer: those that fit all of the rest.

    app_id, event: the columns app_id and event_name; schema: the event's own, such as iglu:com.acme/*; "" = any, * = anything.
    Failed events go by the same rule unless it names a schema.
    """

    older_than_ms: int
    app_id: str = ""
    event: str = ""
    schema: str = ""

    @property
    def glob(self) -> str:
        """The schema as Unix writes patterns, where more than * means something."""
        return self.schema.replace("[", "[[]").replace("?", "[?]")


class Removed(NamedTuple):
    """Events and failed events that are gone."""

    events: int = 0
    failed: int = 0


class Keeper(Protocol):
    """What a target offers beside `Target` when what it holds can be erased for somebody's sake, and when it can expire.

    Both work in bounded pieces, each a transaction of its own, so that no commit waits long. after: what the call before said,
    first None; None at the end. Only who loads the target may call them, between two commits.
    """

    def erase(self, erasure: Erasure, after: Any, *, dry: bool = False) -> tuple[Removed, Any]:
        """One piece. Of the events nothing is left, nor of failed events and their payloads.

        Removed: by this erasure in this store until now, earlier pieces and earlier attempts included. Totals follow.
        dry: nothing is removed; Removed is what this piece would remove. Then anybody may call it.
        """
        ...

    def expire(self, rule: Rule, now_ms: int, after: Any, *, dry: bool = False) -> tuple[Removed, Any]:
        """One piece. Removed: by this piece. Totals follow; an event that comes again soon after is a duplicate still.

        dry: as for erase.
        """
        ...


class Waiting(NamedTuple):
    """A failed event and what nobody knew of it: schemas (their URIs), or a template (its key)."""

    failed_id: str
    payload_id: str
    event_index: int | None
    unknown: frozenset[str]


class WaitingStore(FailedStore, Protocol):
    """What a target offers beside `FailedStore` when its failed events can come back by themselves."""

    def waiting(self, after: Any, rows: int) -> tuple[list[Waiting], Any]:
        """Of the next `rows` failed events, by payload: those that wait for something. And where to go on, None at the end.

        after: what the call before said, first None. Bounded by the rows it reads, so that no commit waits long.
        """
        ...

    def resolve_all(self, resolutions: Iterable[tuple[str, Sequence[Event], Sequence[FailedEvent]]], replayed_ms: int) -> int:
        """`resolve` for each (failed_id, events, failed), all in one transaction; how many are solved."""
        ...

    def see_schemas(self, uris: Collection[str]) -> None:
        """Their documents are new or others: what was made of them is made again. No event is touched."""
        ...
