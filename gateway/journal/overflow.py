"""A remote journal, and the journal in files for when it is out of reach: payloads -> whichever can take them, in order.

While the remote takes payloads they go there, and an append is done when it has acknowledged them. When it fails, what was under
way and whatever comes next is taken by the journal in files (on disk here: edge first) and handed over to the remote, in
order, as soon as it answers again; until nothing is left here nothing passes that by. A failure leaves copies where it is unknown
whether the remote had taken a payload: they have the same payload id, so their events are duplicates by construction. What
waits here at the end of the process is handed over first by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway.journal import Chunk, Damage, JournalBroken
from gateway.journal.lanes import lanes, lock, recover
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import START, Cursor, PermanentError, Position, RawPayload, TransientError

log = logging.getLogger("gateway.journal.overflow")

HANDED = "handed"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
_LOOK_FOR_LEFT_S = 30.0
_HAND_PAYLOADS, _HAND_BYTES = 2_000, 4 << 20

Done = Callable[[Exception | None], None]


class Remote(Protocol):
    """A journal somewhere else, which may be out of reach. Everything is called on one event loop, and calls back on it.

    Call order: `reach` -> `send` as often as wanted -> after a TransientError `abandon`, then `reach` again -> `close`.
    Implementations: `kafka.writer`.
    """

    lost: Callable[[TransientError], None]
    """Set by who uses it; called when it is out of reach for certain while something is under way, before that times out."""

    async def reach(self) -> None:
        """Returns when it answers and has what is written to. Raises TransientError: the cause and the next step in a line."""
        ...

    def check(self, payload: RawPayload) -> None:
        """Raises what `send` would raise of the payload itself: TooLarge, PermanentError."""
        ...

    def send(self, items: Sequence[RawPayload | Damage], done: Done) -> None:
        """Calls done(None) once, when all items are acknowledged for good; until then they are kept in order by key.

        done(error) instead: TooLarge or another PermanentError of the items themselves; or TransientError, and then any
        of them may have been taken. A Damage is sent as the bytes it has, for the remote's readers to find.
        """
        ...

    def abandon(self) -> None:
        """Gives up what is under way, without a word: no `done` of it is called any more, and nothing of it is sent any more."""
        ...

    async def close(self) -> None:
        """Waits for what is under way, as long as that may take, and lets go."""
        ...


@dataclass(slots=True)
class Counts:
    """Payloads acknowledged by the remote itself, taken here instead, handed over since; and how often the remote failed."""

    remote: int = 0
    local: int = 0
    drained: int = 0
    errors: int = 0


class OverflowWriter:
    """A `gateway.journal.Writer`. Call order: `OverflowWriter(…)` -> `start` on the event loop -> append -> `close`."""

    def __init__(self, remote: Remote, local: FileWriter, begun: Cursor | None = None) -> None:
        """local: opened; it is closed with this. begun: of lanes older than the remote, what need not be handed over."""
        self.local, self.counts, self.trouble = local, Counts(), "the journal's servers have not answered yet"
        self._remote, self._begun = remote, dict(begun or {})
        self._reader: FileReader | None = None
        self._direct = False  # appends go to the remote
        self._under_way: dict[asyncio.Future[None], Sequence[RawPayload]] = {}
        self._local_under_way: set[asyncio.Future[None]] = set()
        self._held: list[tuple[asyncio.Future[None], Sequence[RawPayload]]] | None = None
        self._handing: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begins to look for the remote; what is appended meanwhile is taken here."""
        self._remote.lost = self._lost
        self._draining = asyncio.get_running_loop().create_task(self._drain(), name="journal overflow")

    def append(self, payload: RawPayload) -> asyncio.Future[None]:
        return self.append_all((payload,))

    def append_all(self, payloads: Sequence[RawPayload]) -> asyncio.Future[None]:
        """As `append`, for all of them; when it fails, some may have been taken."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closing:
            future.set_exception(JournalBroken("the journal is closed"))
        elif self._direct:
            self._remotely(future, payloads)
        else:
            try:
                for payload in payloads:
                    self._remote.check(payload)
            except PermanentError as error:
                future.set_exception(error)
                return future
            if self._held is not None:
                self._held.append((future, payloads))
            else:
                self._locally(future, payloads)
        return future

    def accepted(self) -> int:
        """Payloads this writer has made durable, there or here."""
        return self.counts.remote + self.counts.local

    def waiting(self) -> int:
        """Payloads on disk here that the remote does not have yet; those of gateway processes that are gone included."""
        reader = FileReader(self.local.folder)
        try:
            return reader.pending(handed_over(self.local.folder, self._begun))
        finally:
            reader.close()

    def handed_over(self) -> Cursor:
        """How far the journal in files is in the remote: what need not be kept."""
        return handed_over(self.local.folder, self._begun)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        if self._handing is not None:
            _settle(self._handing, TransientError("the gateway ends"))
        if self._draining is not None:
            await self._draining
        await self._remote.close()
        if self._under_way:
            self._overflow(TransientError("the gateway ends"))
        await self.local.close()

    # Where appends go. All of this happens between two awaits, so that nobody sees half of it.

    def _remotely(self, future: asyncio.Future[None], payloads: Sequence[RawPayload]) -> None:
        self._under_way[future] = payloads
        self._remote.send(payloads, partial(self._answered, future))

    def _answered(self, future: asyncio.Future[None], error: Exception | None) -> None:
        if isinstance(error, TransientError):
            if future in self._under_way:
                self._lost(error)
            return
        if (payloads := self._under_way.pop(future, None)) is None:
            return
        if error is None:
            self.counts.remote += len(payloads)
        _settle(future, error)

    def _lost(self, error: TransientError) -> None:
        if self._under_way:
            self._overflow(error)
        if self._handing is not None:
            _settle(self._handing, error)

    def _overflow(self, error: Exception) -> None:
        """From now on everything is taken here, first what was under way, in the order it came."""
        self._note(error)
        self._direct = False
        under_way, self._under_way = self._under_way, {}
        self._remote.abandon()
        for future, payloads in under_way.items():
            self._locally(future, payloads)
        self._wake.set()

    def _locally(self, future: asyncio.Future[None], payloads: Sequence[RawPayload]) -> None:
        written = self.local.append_all(payloads)
        self._local_under_way.add(written)
        written.add_done_callback(partial(self._written, future, len(payloads)))

    def _written(self, future: asyncio.Future[None], count: int, written: asyncio.Future[None]) -> None:
        self._local_under_way.discard(written)
        if (error := written.exception()) is None:
            self.counts.local += count
        _settle(future, error)

    def _note(self, error: Exception) -> None:
        if self._closing:
            return
        self.counts.errors += 1
        if self.trouble != str(error):
            self.trouble = str(error)
            log.error("events are kept on this machine's disk for now: %s", error)

    # Handing over.

    async def _drain(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing:
            self._wake.clear()
            try:
                if not self._direct:
                    await self._remote.reach()
                await self._hand_over()
            except Exception as error:  # the loop's rim: whatever is wrong, what waits here is on disk, and is tried again
                if not isinstance(error, TransientError | PermanentError | OSError):
                    log.exception("handing over failed")
                self._overflow(error)
                if not self._closing:
                    self._wake.clear()  # it is known here already
                wait_s, pause_s = pause_s, min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                wait_s, pause_s = _LOOK_FOR_LEFT_S, _FIRST_PAUSE_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _hand_over(self) -> None:
        """Returns when nothing is left here and appends go to the remote. Raises TransientError, PermanentError."""
        folder, own = self.local.folder, self.local.lane
        for lane in await asyncio.to_thread(lanes, folder):
            # Of a gateway process that is gone, unless somebody has its lock.
            if lane != own and (held := await asyncio.to_thread(lock, lane, self.local.disk)) is not None:
                try:
                    await asyncio.to_thread(recover, lane, self.local.disk)
                    await self._hand_over_lane(lane)
                finally:
                    self.local.disk.close(held)
        if self._direct:
            return
        await self._hand_over_lane(own)
        self._held = []  # from here on, what comes waits for the last stretch, which is short
        try:
            while self._local_under_way:
                await asyncio.wait(self._local_under_way)
            await self._hand_over_lane(own)
            self._direct, self.trouble = True, ""
            log.info("the journal's servers take events")
        finally:
            late, self._held = self._held, None
            for future, payloads in late:
                # A failure in the middle of it sends the rest the other way.
                (self._remotely if self._direct else self._locally)(future, payloads)

    async def _hand_over_lane(self, lane: Path) -> None:
        """Until its end. Raises TransientError, PermanentError."""
        reader = FileReader(self.local.folder, only=lane.name)
        try:
            at = handed_over(self.local.folder, self._begun).get(lane.name, START)
            while (chunk := await asyncio.to_thread(_read, reader, {lane.name: at})).items:
                await self._sent(chunk.items)  # raises when this is being closed
                at = chunk.cursor[lane.name]
                await asyncio.to_thread(_mark, lane, at)
                self.counts.drained += sum(isinstance(item, RawPayload) for item in chunk.items)
                if not chunk.more and self._held is None:
                    return
        except OSError as error:
            raise TransientError(f"the journal in {self.local.folder}: {error}") from error
        finally:
            reader.close()

    async def _sent(self, items: Sequence[RawPayload | Damage]) -> None:
        if self._closing:
            raise TransientError("the gateway ends")
        self._handing = future = asyncio.get_running_loop().create_future()
        try:
            self._remote.send(items, partial(_settle, future))
            await future
        finally:
            self._handing = None


def handed_over(folder: Path, begun: Mapping[str, Position] | None = None) -> Cursor:
    """How far each lane of a journal in files has been handed over to the remote. begun: of those where nobody has begun."""
    found = dict(begun or {})
    for lane in lanes(folder):
        with suppress(OSError, ValueError, TypeError):
            found[lane.name] = Position(*map(int, (lane / HANDED).read_text("ascii").split()))
    return found


def _mark(lane: Path, position: Position) -> None:
    """Lost in a power cut it costs copies only, so it is not fsynced. Raises OSError."""
    fresh = lane / f"{HANDED}.{os.getpid()}"
    fresh.write_text("{} {} {}\n".format(*position), "ascii")
    fresh.replace(lane / HANDED)


def _read(reader: FileReader, cursor: Cursor) -> Chunk:
    return reader.read(cursor, max_payloads=_HAND_PAYLOADS, max_bytes=_HAND_BYTES)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


__all__ = ["Counts", "Done", "OverflowWriter", "Remote", "handed_over"]
