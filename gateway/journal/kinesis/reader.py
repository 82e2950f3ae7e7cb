"""The journal's reader for Kinesis: a cursor -> payloads after it, from all shards of the stream or from those leased to it.

Every read looks once at each shard that it has nothing of, when that may be asked again: so a read that finds nothing has taken
up to `poll_ms`, and did look. A shard that was made of others is read when the target has all of those. Kinesis tells how many
milliseconds a reader is behind, and not how many payloads.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from gateway.journal import Chunk, Damage, Reassigned
from gateway.journal.kinesis import Config
from gateway.journal.kinesis.leases import Leases
from gateway.journal.kinesis.service import Service, Shard, Stream
from gateway.journal.kinesis.shards import ShardReader
from protocol.seams import START, ConfigurationError, Cursor, PermanentError, Position, RawPayload, TransientError

log = logging.getLogger("gateway.kinesis.reader")

_LISTED_EVERY_S = 30.0
_CALLS = 8  # at once
_LONGEST_LOOK_S = 60.0


class KinesisReader:
    """A `gateway.journal.GroupReader`, or, without a group, a Reader of every shard. For one thread."""

    def __init__(
        self,
        service: Service,
        group: str = "",
        *,
        ahead: bool = False,
        newest: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """group: its name and the target's; "" = no leases, every shard. ahead: what is handed over is not had for good before
        `loaded` says so. newest: to look on, without leases: of a shard that is there at the first read, and in which
        the cursor names no place, only what comes after that. clock, wait: seconds. Nobody is asked yet."""
        self._service, self._group, self._clock = service, group, clock
        self._closing = threading.Event()
        self._wait = wait or self._closing.wait
        self._stream: Stream | None = None
        self._leases: Leases | None = None
        self._had: set[str] | None = None  # at the last read; None: there was none
        self._held: Mapping[str, Shard] = {}  # as of the last read
        self._loaded: Cursor | None = {} if ahead else None  # what is had for good; None: what is read after is
        self._readers: dict[str, ShardReader] = {}
        self._newest, self._old = newest, frozenset[str]()  # the shards that were there at the first read
        self._finished: set[str] = set()  # without leases, which know it
        self._listed: dict[str, Shard] = {}
        self._list_at = 0.0
        self._turn = 0
        self._threads: ThreadPoolExecutor | None = None

    @classmethod
    def open(cls, config: Config, target: str = "", *, ahead: bool = False, newest: bool = False) -> KinesisReader:
        """target: the name of the target that it reads for, with others of the group; "" = every shard, and no leases. ahead,
        newest: as above.

        Raises ConfigurationError, PermanentError. Where the service is out of reach it is asked again at the first read.
        """
        reader = cls(Service(config), f"{config.group}.{target}" if target else "", ahead=ahead, newest=newest)
        with suppress(TransientError):
            reader._begin()
        return reader

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        readers = self._looked(cursor, max_payloads)
        while not any(reader.waiting for reader in readers) and self._finish(self._kept_of(cursor)):  # then their children may be
            readers = self._looked(cursor, max_payloads)
        items, after, lanes = list[RawPayload | Damage](), dict(cursor), list[tuple[str, int]]()
        self._turn += 1  # another shard is the first one every time, and none takes more than its share while others wait
        having = [reader for reader in readers if reader.waiting]
        for index in range(len(having)):
            reader = having[(index + self._turn) % len(having)]
            if items and (len(items) >= max_payloads or max_bytes <= 0):
                break
            rest = len(having) - index
            found, size = reader.take(max(1, (max_payloads - len(items)) // rest), max(1, max_bytes // rest))
            items += found
            max_bytes -= size
            if reader.at != START:
                after[reader.shard.lane] = reader.at
                lanes.append((reader.shard.lane, len(found)))
        more = any(reader.waiting or reader.behind_ms for reader in readers)
        return Chunk(tuple(items), after, more, tuple(lanes))

    def pending(self, cursor: Cursor) -> int:
        """What was fetched and not handed over, and one more for each shard that has more: Kinesis counts no payloads."""
        return sum(reader.waiting + bool(reader.behind_ms) for reader in self._readers.values())

    def lanes(self) -> Mapping[str, bool]:
        found: dict[str, bool] = {}
        for name, shard in self._held.items():
            reader = self._readers.get(name)
            found[shard.lane] = reader is not None and reader.ended and not reader.waiting
        return found

    def lag(self) -> Mapping[str, int]:
        """Lane -> milliseconds, not payloads, that the last look was behind the newest record."""
        return {reader.shard.lane: reader.behind_ms for reader in self._readers.values() if reader.behind_ms is not None}

    def loaded(self, cursor: Cursor) -> None:
        """Closed shards that the target has all of are told to be finished."""
        if self._loaded is not None:
            self._loaded = dict(cursor)
        self._finish(cursor)

    def close(self) -> None:
        self._closing.set()
        if self._leases is not None:
            self._leases.close()
        if self._threads is not None:
            self._threads.shutdown()
        self._service.close()

    # Which shards ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Raises ConfigurationError, TransientError, PermanentError."""
        stream = self._service.stream()
        if self._group:
            owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            leases = Leases(self._service, stream, self._group, owner, clock=self._clock)
            leases.check()
            self._leases = leases
        self._stream = stream

    def _assigned(self, cursor: Cursor) -> None:
        """Makes `_readers` those of the shards that are to be read now. Raises Reassigned."""
        try:
            if self._stream is None:
                self._begin()
            self._finish(self._kept_of(cursor))
            self._held = shards = self._unfinished() if self._leases is None else self._leases.held()
        except ConfigurationError as error:
            raise PermanentError(str(error)) from error
        if self._leases is None:
            self._keep(shards)
            return
        had, self._had = self._had, set(shards)
        if had != self._had:
            log.info("%d shards of %s are read here", len(shards), self._group)
            self._readers.clear()
            raise Reassigned(f"{len(shards)} shards are read here, {len(had or ())} were")
        self._keep(shards)

    def _unfinished(self) -> dict[str, Shard]:
        """Without leases: every shard, once those that it was made of are finished."""
        if self._clock() >= self._list_at:
            self._listed = self._shards()
            if self._newest and not self._old:
                self._old = frozenset(self._listed)
            self._list_at = self._clock() + _LISTED_EVERY_S
        open_ = {name: shard for name, shard in self._listed.items() if name not in self._finished}
        return {name: shard for name, shard in open_.items() if not any(parent in open_ for parent in shard.parents)}

    def _keep(self, shards: Mapping[str, Shard]) -> None:
        for name in [name for name in self._readers if name not in shards]:
            del self._readers[name]
        for name, shard in shards.items():
            if name not in self._readers:
                self._readers[name] = ShardReader(
                    self._service, shard, self._clock, self._shards, self._kept(shard), newest=name in self._old
                )

    def _shards(self) -> dict[str, Shard]:
        assert self._stream is not None
        return self._service.shards(self._stream)

    def _kept(self, shard: Shard) -> Callable[[Position], bool]:
        leases = self._leases
        return lambda position: leases is not None and leases.was_idle(shard, position)

    def _kept_of(self, cursor: Cursor) -> Cursor:
        """What the target has for good, when this is what it is read after."""
        return cursor if self._loaded is None else self._loaded

    def _finish(self, cursor: Cursor) -> bool:
        """Leaves closed shards, all of which the target has; True when there was any."""
        ended = False
        for name, reader in list(self._readers.items()):
            if reader.ended and not reader.waiting and cursor.get(reader.shard.lane, START) == reader.at:
                ended = True
                del self._readers[name]
                if self._leases is None or self._had is None:
                    self._finished.add(name)
                    self._list_at = 0.0
                else:
                    self._leases.finish(reader.shard)
                    self._had.discard(name)
        return ended

    # What is in them ------------------------------------------------------------------------------------------------

    def _looked(self, cursor: Cursor, payloads: int) -> list[ShardReader]:
        """The shards to be read now, each after the cursor, with what there is."""
        self._assigned(cursor)
        readers = list(self._readers.values())
        for reader in readers:
            place = cursor.get(reader.shard.lane, START)
            if self._leases is not None and START < reader.at < place:  # somebody else went on from here
                self._leases.hurry()
            reader.seek(place)
        self._look(readers, payloads)
        return readers

    def _look(self, readers: list[ShardReader], payloads: int) -> None:
        """Fetches until there is something to hand over, or each shard has said that there is nothing."""
        unseen = [reader for reader in readers if not reader.waiting and not reader.ended]
        end = self._clock() + max(_LONGEST_LOOK_S, 2 * self._service.config.poll_ms / 1000)
        while unseen:
            now = self._clock()
            answered = self._fetch([reader for reader in unseen if reader.due <= now], payloads)
            for reader in answered:
                if not reader.waiting and not reader.behind_ms and self._leases is not None and reader.at != START:
                    kept = self._kept_of({reader.shard.lane: reader.at})
                    if kept.get(reader.shard.lane) == reader.at:
                        self._leases.idle(reader.shard, reader.at)
            if any(reader.waiting for reader in readers):
                return
            unseen = [reader for reader in unseen if reader not in answered or reader.behind_ms]
            if unseen and self._closing.is_set():
                raise TransientError("the reader is closed")
            if unseen and now > end:
                raise TransientError(f"{unseen[0].shard.id}: for a minute Kinesis has not said whether there is more")
            if unseen:
                self._wait(max(0.0, min(reader.due for reader in unseen) - self._clock()))

    def _fetch(self, due: list[ShardReader], payloads: int) -> list[ShardReader]:
        """Those that were answered. Raises TransientError, PermanentError, when all calls have ended."""
        if len(due) < 2:
            return [reader for reader in due if reader.fetch(payloads)]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_CALLS, "kinesis-read")
        calls = [self._threads.submit(reader.fetch, payloads) for reader in due]
        futures.wait(calls)
        return [reader for reader, call in zip(due, calls, strict=True) if call.result()]


__all__ = ["KinesisReader"]
