"""The journal's contract: a permanent, append-only record of every accepted payload.

Call order, writer: `open` -> `append` from any task of one event loop -> `close`.
Call order, reader: `read(cursor)` as often as wanted, from any process; the cursor is kept by who reads, never here.
Call order, reader of a group: `read`, or `pending` where nothing is wanted, every few seconds, which keeps the place in the
group; `loaded` after each commit of the target; `close`, which leaves the group at once.

Implementations: `files` (segment files in lanes, one writer per lane), `kafka` (a topic, whose partitions are the lanes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protocol.seams import Cursor, PermanentError, Position, RawPayload, TransientError

if TYPE_CHECKING:  # who only reads needs no event loop
    from asyncio import Future


class JournalFull(TransientError):
    """Disk full or quota reached: nothing was taken. The sender should come back later."""


class JournalBroken(TransientError):
    """The disk refused a write or an fsync: nothing was taken, the segment was given up and the next append begins another."""


class Reassigned(TransientError):
    """A `GroupReader` has other lanes than at its last read. Nothing was read; ask the target's cursor anew, then read again."""


JOINED_IN_MS = 30_000
"""A group that takes longer to hand out its lanes is a trouble."""


class Joining(TransientError):
    """The group of a `GroupReader` has not handed out its lanes yet, as at every start. Nothing was read; read again."""


class TooLarge(PermanentError):
    """The payload is larger than a record of this journal may be: nothing was taken. The sender may split it."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes in the journal that are no payload any more (a flipped bit, a lost block); reported once, in their place.

    position: just after the damaged bytes. what: what happened and where, when the bytes do not say it.
    """

    lane: str
    position: Position
    data: bytes
    what: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read found: payloads and damages in journal order, lane by lane, and the cursor after them."""

    items: tuple[RawPayload | Damage, ...]
    cursor: Cursor
    more: bool  # True when a limit stopped the read and there is more to be had at once
    lanes: tuple[tuple[str, int], ...] = ()  # of a GroupReader: whose the items are, as (lane, how many of them), in their order


class Writer(Protocol):
    def append(self, payload: RawPayload) -> Future[None]:
        """Done when the payload is on disk. Raises (through the future) JournalFull or JournalBroken: nothing was taken;
        PermanentError when the payload holds text that is no Unicode, which no journal can write down.

        Cancelling the future does not take the payload back.
        """
        ...

    def accepted(self) -> int:
        """Payloads ever made durable in this writer's lane; where writers share lanes, by this writer."""
        ...

    async def close(self) -> None:
        """Finish what is under way; later appends raise JournalBroken."""
        ...


class Reader(Protocol):
    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        """Durable payloads after `cursor`, at least one if there is any. Never waits for new ones.

        max_bytes: journal bytes; the read stops after the payload that crosses it.
        Raises PermanentError when the journal is not readable at all.
        """
        ...

    def pending(self, cursor: Cursor) -> int:
        """Durable payloads after `cursor`."""
        ...


class GroupReader(Reader, Protocol):
    """Of a journal that the readers of one group share: it has those lanes that the group gave it, and no others.

    For one thread. A read begins at the cursor it is handed, wherever the group's own record stands. Who reads ahead of what it
    has for good says so when the reader is made, and what it has for good by `loaded`.
    """

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        """As Reader.read, in the lanes it has now. In a lane that the cursor does not name it begins at the lane's beginning.

        Raises Reassigned, once, when these are others than at the last read, the first time included; Joining before that;
        TransientError when the journal is out of reach.
        """
        ...

    def pending(self, cursor: Cursor) -> int:
        """Payloads after `cursor` in the lanes it has now, as far as is known without asking. Keeps the place, never raises."""
        ...

    def lanes(self) -> Mapping[str, bool]:
        """The lanes it has now, also just after Reassigned. True: the lane is closed for ever, and all of it was handed over."""
        ...

    def lag(self) -> Mapping[str, int]:
        """Of each lane it has now: payloads after the cursor of the last read or `loaded`, whichever came last."""
        ...

    def loaded(self, cursor: Cursor) -> None:
        """The target has everything before `cursor`. Told to the group, so that the usual tools show the lag; never raises."""
        ...

    def close(self) -> None: ...
