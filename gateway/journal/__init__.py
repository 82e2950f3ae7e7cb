"""The journal's contract: a permanent, append-only record of every accepted payload.

Call order, writer: `open` -> `append` from any task of one event loop -> `close`.
Call order, reader: `read(cursor)` as often as wanted, from any process; the cursor is kept by who reads, never here.

Implementations: `files` (segment files in lanes, one writer per lane).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protocol.seams import Cursor, Position, RawPayload, TransientError

if TYPE_CHECKING:  # who only reads needs no event loop
    from asyncio import Future


class JournalFull(TransientError):
    """Disk full or quota reached: nothing was taken. The sender should come back later."""


class JournalBroken(TransientError):
    """The disk refused a write or an fsync: nothing was taken, the segment was given up and the next append begins another."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes in the journal that are no payload any more (a flipped bit, a lost block); reported once, in their place.

    position: just after the damaged bytes.
    """

    lane: str
    position: Position
    data: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read found: payloads and damages in journal order, lane by lane, and the cursor after them."""

    items: tuple[RawPayload | Damage, ...]
    cursor: Cursor
    more: bool  # True when a limit stopped the read and there is more to be had at once


class Writer(Protocol):
    def append(self, payload: RawPayload) -> Future[None]:
        """Done when the payload is on disk. Raises (through the future) JournalFull or JournalBroken: nothing was taken;
        PermanentError when the payload holds text that is no Unicode, which no journal can write down.

        Cancelling the future does not take the payload back.
        """
        ...

    def accepted(self) -> int:
        """Payloads ever made durable in this writer's lane."""
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
