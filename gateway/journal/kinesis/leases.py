"""Which worker reads which shard: a row per shard in DynamoDB, changed only by conditional writes.

A row has its owner and a counter that the owner raises. Nobody compares clocks: whoever sees a counter stand still for
`lease_ms` by its own clock may take the shard; the owner stops using it so long after its last raise began, which is earlier.
A shard is there to be taken when the shards that it was made of are finished; `finished` is written when the target has all.
Two workers with the same shard do no harm: the target refuses the second (storage.targets.Overtaken).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.journal.kinesis.positions import lane_of
from gateway.journal.kinesis.service import Service, Shard, Stream
from gateway.journal.kinesis.table import Lease, LeaseTable
from protocol.seams import ConfigurationError, PermanentError, Position, TransientError

log = logging.getLogger("gateway.kinesis.leases")

_ROUNDS = 4  # per lease


class Leases:
    """One worker's, for one target. `held` from its thread, rounds from a thread of its own from the first `held` on."""

    def __init__(
        self,
        service: Service,
        stream: Stream,
        reader: str,
        owner: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """reader: whose leases these are, among all in the table; owner: unique among all workers. clock: seconds."""
        self.owner = owner
        self._service, self._stream, self._clock, self._now_ms = service, stream, clock, now_ms
        self._table = LeaseTable(service, f"{stream.name}/{reader}", owner)
        self._lease_s = service.config.lease_ms / 1000
        self._lock = threading.Lock()
        # Within the lock: what is held, each with the time its last raise began; what is known of all.
        self._mine: dict[str, float] = {}
        self._shards: dict[str, Shard] = {}
        self._rows: dict[str, Lease] = {}
        self._finished: set[str] = set()  # of these, what is to be written
        self._idle: dict[str, tuple[Position, int]] = {}  # to be written
        self._trouble: TransientError | PermanentError | None = None
        # The rounds' own.
        self._seen: dict[str, tuple[str, int, float]] = {}
        self._ending, self._hurry = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Makes the table where that is wanted. Raises ConfigurationError, TransientError, PermanentError."""
        self._table.read()

    def held(self) -> dict[str, Shard]:
        """The shards that nobody else reads now, by id. Raises TransientError or PermanentError when nothing is known of them."""
        if self._thread is None:
            self.round()
            self._thread = threading.Thread(target=self._run, name="kinesis-leases", daemon=True)
            self._thread.start()
        with self._lock:
            end = self._clock() - self._lease_s
            valid = [name for name, raised in self._mine.items() if raised > end]
            held = {name: self._shards[name] for name in valid if name not in self._finished}
            if not valid and self._trouble is not None:
                raise self._trouble
            return held

    def finish(self, shard: Shard) -> None:
        """The shard was closed and the target has all of it: it is held no more, and those made of it may be read.

        Where that cannot be written because somebody else has the shard by now, whoever has it finds the same.
        """
        with self._lock:
            if shard.id in self._mine:
                self._finished.add(shard.id)
                self._hurry.set()

    def hurry(self) -> None:
        """Somebody else reads what is held here: it was taken, it seems. Looks soon."""
        self._hurry.set()

    def idle(self, shard: Shard, position: Position) -> None:
        """The target has everything before `position`, and nothing follows it at this moment."""
        with self._lock:
            self._idle[shard.id] = position, self._now_ms()

    def was_idle(self, shard: Shard, position: Position) -> bool:
        """True when nothing can have followed `position` and be forgotten since: somebody looked after that."""
        with self._lock:
            row = self._rows.get(shard.id)
            told = self._idle.get(shard.id) or (row.idle if row is not None else None)
        return told is not None and told[0] == position and self._now_ms() - told[1] < self._stream.retention_s * 1000

    def close(self) -> None:
        """Gives everything back at once."""
        self._ending.set()
        self._hurry.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            mine, self._mine = list(self._mine), {}
        for name in mine:
            with suppress(TransientError, PermanentError):
                self._table.update(name, "SET #o = :nobody", "#o = :me", {":nobody": {"S": ""}})

    # Rounds ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending.is_set():
            self._hurry.wait(self._lease_s / _ROUNDS)
            self._hurry.clear()
            if self._ending.is_set():
                return
            try:
                self.round()
            except (TransientError, PermanentError, ConfigurationError) as error:
                with self._lock:
                    if str(self._trouble) != str(error):
                        log.warning("the leases of the shards cannot be renewed: %s", error)
                    self._trouble = PermanentError(str(error)) if isinstance(error, ConfigurationError) else error
            except Exception as error:  # the loop's rim: without rounds every lease is lost, and that must be told
                log.exception("the leases of the shards cannot be renewed")
                with self._lock:
                    self._trouble = PermanentError(f"a fault in the leases: {error}")

    def round(self) -> None:
        """Writes what is to be told, keeps what is ours, takes what is free, and takes from who has more."""
        shards = self._service.shards(self._stream)
        rows = self._table.read()
        for name in [name for name, row in rows.items() if row.finished and name not in shards]:
            self._table.forget(name)
            del rows[name]
        with self._lock:
            for name in rows:  # a closed shard that is no longer listed
                if name not in shards:
                    shards[name] = Shard(name, lane_of(self._stream.name, name), ())
            self._shards, self._rows = {**self._shards, **shards}, rows
            mine, finished, idle = list(self._mine), set(self._finished), dict(self._idle)
        for name in mine:
            self._renew(name, name in finished, idle.get(name))
        rows = self._table.read() if finished else rows
        self._take(shards, rows)
        with self._lock:
            self._trouble = None

    def _take(self, shards: dict[str, Shard], rows: dict[str, Lease]) -> None:
        done = {name for name, row in rows.items() if row.finished}
        there = [
            shard
            for name, shard in shards.items()
            if name not in done and not any(p in shards and p not in done for p in shard.parents)
        ]
        with self._lock:
            mine = set(self._mine)
        owners: dict[str, str] = {}
        for shard in there:
            row = rows.get(shard.id)
            owners[shard.id] = self.owner if shard.id in mine else "" if row is None or self._stands_still(row) else row.owner
        loads = Counter(owner for owner in owners.values() if owner)
        loads[self.owner] += 0
        share = -(-len(there) // len(loads))
        free = [name for name, owner in owners.items() if not owner]
        random.shuffle(free)
        for name in free[: max(0, share - loads[self.owner])]:
            loads[self.owner] += self._take_one(name, rows.get(name))
        while True:
            most, theirs = max(loads.items(), key=lambda each: each[1])
            if theirs - loads[self.owner] < 2:
                return
            name = random.choice([name for name, owner in owners.items() if owner == most])
            owners[name] = self.owner
            loads[most] -= 1
            loads[self.owner] += 1
            self._take_one(name, rows[name], steal=True)

    def _stands_still(self, row: Lease) -> bool:
        """Nobody's, or of somebody who was not heard of for a whole lease."""
        if not row.owner or row.owner == self.owner:
            return True
        owner, counter, since = self._seen.get(row.shard, ("", -1, 0.0))
        if (owner, counter) != (row.owner, row.counter):
            self._seen[row.shard] = row.owner, row.counter, self._clock()
            return False
        return self._clock() - since >= self._lease_s

    def _take_one(self, name: str, row: Lease | None, *, steal: bool = False) -> bool:
        began = self._clock()
        if row is None:
            condition, values = "attribute_not_exists(#s)", {}
        elif steal:
            condition, values = "#o = :owner AND #f = :no", {":owner": {"S": row.owner}}
        else:
            condition = "#o = :owner AND #c = :counter AND #f = :no"
            values = {":owner": {"S": row.owner}, ":counter": {"N": str(row.counter)}}
        if not self._table.update(name, "SET #o = :me, #f = :no ADD #c :one", condition, values):
            return False
        with self._lock:
            self._mine[name] = began
        return True

    def _renew(self, name: str, finished: bool, idle: tuple[Position, int] | None) -> None:
        began = self._clock()
        change, values = "SET #f = :no", dict[str, Any]()
        if idle is not None:
            change += ", #i = :idle"
            values[":idle"] = {"S": " ".join(map(str, (*idle[0], idle[1])))}
        if finished:
            change = change.replace(":no", ":yes") + ", #o = :nobody"
            values |= {":yes": {"BOOL": True}, ":nobody": {"S": ""}}
        kept = self._table.update(name, f"{change} ADD #c :one", "#o = :me", values)
        with self._lock:
            if kept and not finished:
                self._mine[name] = began
            else:
                self._mine.pop(name, None)
                self._finished.discard(name)
            if self._idle.get(name) == idle:
                self._idle.pop(name, None)


__all__ = ["Leases"]
