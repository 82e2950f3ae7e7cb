"""One shard -> its payloads after a position, at the pace that Kinesis allows.

A place is found again by asking for the record before it: when that one does not come, the shard has lost it, and perhaps
others after it, which is told as a Damage in front of what comes instead. An iterator that has expired is asked for anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import Any, NamedTuple

from gateway.journal import Damage
from gateway.journal.kinesis.positions import number_of, position_of
from gateway.journal.kinesis.service import Expired, Missing, Service, Shard, Throttled, Unknown, translating
from protocol.payloads import from_json
from protocol.seams import START, Position, RawPayload, TransientError

_SHORTEST_PAUSE_S = 0.2  # five calls a second
_BYTES_PER_S = 2 << 20
_LEAST_RECORDS, _MOST_RECORDS = 1_000, 10_000  # asked for in one call


class Found(NamedTuple):
    """What stands before a position; a Damage and what follows it may have one place together."""

    items: tuple[RawPayload | Damage, ...]
    size: int
    position: Position


class ShardReader:
    """For one thread at a time. at: everything before was handed over; due: when it may be asked, by the clock.

    behind_ms: how far it is from the newest record, by the last answer; None before the first one. ended: the shard was closed
    and holds nothing after what was fetched.
    """

    def __init__(
        self,
        service: Service,
        shard: Shard,
        clock: Callable[[], float],
        listed: Callable[[], Container[str]],
        kept: Callable[[Position], bool],
        *,
        newest: bool = False,
    ) -> None:
        """listed: the ids of the shards that exist. kept: True when nothing can have been lost after a position although its
        record is gone. clock: seconds. newest: the shard begins with what comes after the first look.
        """
        self.shard = shard
        self.at, self.due, self.ended = START, 0.0, False
        self.behind_ms: int | None = None
        self._service, self._clock, self._listed, self._kept = service, clock, listed, kept
        self._fetched = START
        self._buffer: deque[Found] = deque()
        self._iterator: str | None = None
        self._beginning = "LATEST" if newest else "TRIM_HORIZON"
        self._before: Position | None = None  # the record that must come first
        self._lost = ""

    def seek(self, position: Position) -> None:
        """What was fetched stays, when the next one to hand over is wanted."""
        if position == self.at:
            return
        self.at = self._fetched = position
        self._buffer.clear()
        self._iterator, self.ended, self.behind_ms, self._lost = None, False, None, ""

    @property
    def waiting(self) -> int:
        """Places fetched and not handed over."""
        return len(self._buffer)

    def take(self, payloads: int, size: int) -> tuple[list[RawPayload | Damage], int]:
        """(items, bytes): up to so many payloads and until that many bytes are crossed; one place at least, if there is any."""
        items, taken = list[RawPayload | Damage](), 0
        while self._buffer and not (items and (len(items) >= payloads or taken >= size)):
            found = self._buffer.popleft()
            items += found.items
            taken += found.size
            self.at = found.position
        return items, taken

    def fetch(self, payloads: int) -> bool:
        """One call, when it is due; False: Kinesis did not say what there is. Raises TransientError, PermanentError."""
        most = min(max(payloads, _LEAST_RECORDS) + 1, _MOST_RECORDS)
        try:
            if self._iterator is None:
                self._iterator = self._sought()
            with translating(self.shard.id):
                answer: dict[str, Any] = self._service.kinesis.get_records(ShardIterator=self._iterator, Limit=most)
        except Throttled:
            self.due = self._clock() + max(1.0, self._service.config.poll_ms / 1000)
            return False
        except Expired:
            self._iterator, self.due = None, self._clock() + _SHORTEST_PAUSE_S
            return False
        except Missing as error:
            self._gone(error)
            return True
        records = answer["Records"]
        for record in records:
            self._keep(record)
        self._iterator = answer.get("NextShardIterator")
        self.behind_ms = int(answer.get("MillisBehindLatest") or 0) or int(len(records) == most)
        if self._iterator is None:
            self._end()
        pause = _SHORTEST_PAUSE_S if self.behind_ms else self._service.config.poll_ms / 1000
        size = sum(len(record["Data"]) for record in records)
        self.due = self._clock() + max(min(pause, self._service.config.poll_ms / 1000), size / _BYTES_PER_S)
        return True

    def _sought(self) -> str:
        self._before = None if self._fetched == START else self._fetched
        kind: dict[str, str] = {"ShardIteratorType": self._beginning}
        if self._before is not None:
            kind = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number_of(self._before)}
        place = {"StreamName": self._service.config.stream, "ShardId": self.shard.id}
        try:
            with translating(self.shard.id):
                return str(self._service.kinesis.get_shard_iterator(**place, **kind)["ShardIterator"])
        except Unknown as error:
            self._miss(str(error))
            with translating(self.shard.id):
                found = self._service.kinesis.get_shard_iterator(**place, ShardIteratorType="TRIM_HORIZON")
                return str(found["ShardIterator"])

    def _keep(self, record: dict[str, Any]) -> None:
        position, data = position_of(str(record["SequenceNumber"])), bytes(record["Data"])
        before, self._before = self._before, None
        if position == before:
            return
        if before is not None:
            self._miss("Kinesis does not have it any more")
        number = record["SequenceNumber"]
        item: RawPayload | Damage
        try:
            item = from_json(data)
        except ValueError as error:
            item = Damage(self.shard.lane, position, data, f"record {number} of {self.shard.id} is no payload: {error}")
        lost = self._damage(position)
        self._buffer.append(Found((*lost, item), len(data), position))
        self._fetched = position

    def _miss(self, why: str) -> None:
        """The record before the place that was sought is not there."""
        self._before = None
        if not self._kept(self._fetched):
            self._lost = f"records after {number_of(self._fetched)} of {self.shard.id} may be lost: {why}"

    def _damage(self, position: Position) -> tuple[Damage, ...]:
        lost, self._lost = self._lost, ""
        return (Damage(self.shard.lane, position, b"", lost),) if lost else ()

    def _end(self) -> None:
        self.ended, self.behind_ms = True, 0
        if self._before is not None:
            self._miss("the shard is closed, and Kinesis does not have it any more")
        if lost := self._damage(self._fetched):
            self._buffer.append(Found(lost, 0, self._fetched))

    def _gone(self, error: Missing) -> None:
        """The shard was closed, and is so old that nothing is left of it. Raises Missing when there is no stream."""
        if self.shard.id in self._listed():
            raise TransientError(str(error)) from error
        if not self._kept(self._fetched):
            place = number_of(self._fetched) if self._fetched != START else "the first one"
            self._lost = f"records after {place} of {self.shard.id} are lost: the shard is gone"
        self._before = None
        self._end()


__all__ = ["Found", "ShardReader"]
