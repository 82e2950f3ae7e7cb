"""Payloads from one event loop -> records of the stream, many per request: the remote of an `overflow.OverflowWriter`.

PutRecords succeeds or fails record by record, in no order. So of one key no more than one record is under way, and the next
follows when it was taken: what is sent again after a refusal neither overtakes nor is overtaken. Other keys do not wait for it.
Refusals are waited out, longer each time, until one record has been refused for `delivery_ms`.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from gateway.journal import Damage, JournalBroken, TooLarge
from gateway.journal.kinesis import REQUEST_BYTES, REQUEST_RECORDS, Config
from gateway.journal.kinesis.positions import key_of
from gateway.journal.kinesis.service import Service, translating
from gateway.journal.overflow import Done
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, PermanentError, RawPayload, TransientError

_REQUESTS = 4  # at once
_ANSWER_S = 5.0  # senders wait for it
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 2.0


class _Sending:
    """What one `send` was handed: how many of its records are not acknowledged yet."""

    __slots__ = ("done", "left")

    def __init__(self, left: int, done: Done) -> None:
        self.left, self.done = left, done


class _Record:
    __slots__ = ("attempts", "data", "key", "sending", "size", "until")

    def __init__(self, key: str, data: bytes, sending: _Sending) -> None:
        self.key, self.data, self.sending = key, data, sending
        self.size = len(data) + len(key.encode())
        self.attempts, self.until = 0, 0.0  # until: it is sent for the first time now


class KinesisWriter:
    """A `gateway.journal.overflow.Remote`, and by itself a `gateway.journal.Writer`. Belongs to the event loop; requests are made
    in threads of its own.

    requests, retries: PutRecords made, and records that were refused and sent again.
    """

    def __init__(
        self, config: Config, *, chance: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Asks nobody yet. chance: from 0 to 1, for the length of pauses. clock: seconds. Raises ConfigurationError."""
        self.lost: Callable[[TransientError], None] = lambda error: None
        self.requests = self.retries = self._acknowledged = 0
        self.service = Service(config, _ANSWER_S)
        self._config, self._chance, self._clock = config, chance, clock
        self._threads = ThreadPoolExecutor(_REQUESTS, "kinesis")
        self._under_way = 0  # requests
        self._closed: asyncio.Future[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._ready: deque[_Record] = deque()  # no two of one key, and none whose key is under way
        self._behind: dict[str, deque[_Record]] = {}  # of every key that is ready, held or under way: what follows
        self._held: dict[_Record, asyncio.TimerHandle] = {}  # refused for now, to be sent again
        self._sendings: dict[_Sending, None] = {}  # whose `done` is to be called, in the order they came
        self._round = object()  # answers of earlier rounds are nobody's
        self._bytes = 0
        self._scheduled = False

    # As a Writer.

    def append(self, payload: RawPayload) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed is None:
            self.send((payload,), partial(_tell, future))
        else:
            future.set_exception(JournalBroken("the journal is closed"))
        return future

    def accepted(self) -> int:
        return self._acknowledged

    # As a Remote.

    async def reach(self) -> None:
        """Raises TransientError, or PermanentError when the stream is missing or not fit."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self.service.stream)
        except ConfigurationError as error:
            raise PermanentError(str(error)) from error

    def check(self, payload: RawPayload) -> None:
        self._written(payload)

    def send(self, items: Sequence[RawPayload | Damage], done: Done) -> None:
        try:
            written = [self._written(item) for item in items]
        except PermanentError as error:
            done(error)
            return
        if not items:
            done(None)
            return
        sending = _Sending(len(items), done)
        records = [_Record(key, data, sending) for key, data in written]
        size = sum(record.size for record in records)
        if self._bytes and self._bytes + size > self._config.waiting_bytes:
            done(TransientError("Kinesis is slower than what arrives"))
            return
        self._bytes += size
        self._sendings[sending] = None
        for record in records:
            if (behind := self._behind.get(record.key)) is not None:
                behind.append(record)
            else:
                self._behind[record.key] = deque()
                self._send_soon(record)

    def abandon(self) -> None:
        for timer in self._held.values():
            timer.cancel()
        self._forget()
        self._check_closed()

    async def close(self) -> None:
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
            self._check_closed()
        await self._closed
        await asyncio.to_thread(self._threads.shutdown)
        self.service.close()

    def _check_closed(self) -> None:
        if self._closed is not None and not self._behind and not self._closed.done():
            self._closed.set_result(None)

    def _written(self, item: RawPayload | Damage) -> tuple[str, bytes]:
        """(key, data) of the record. Raises TooLarge, PermanentError."""
        most = self._config.max_record_bytes
        if isinstance(item, Damage):
            key = secrets.token_hex(16)
            return key, item.data[: most - len(key)]
        try:
            key, data = key_of(item), to_json(item)
            size = len(data) + len(key.encode())
        except (TypeError, ValueError) as error:
            raise PermanentError(f"a payload that cannot be written down: {error}") from error
        if size > most:
            raise TooLarge(
                f"the payload makes a record of {size} bytes; the journal takes {most} (journal.kinesis.max_record_bytes)"
            )
        return key, data

    def _send_soon(self, record: _Record, *, first: bool = False) -> None:
        (self._ready.appendleft if first else self._ready.append)(record)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send, self._round)

    def _send(self, round_: object) -> None:
        if round_ is not self._round:
            return
        self._scheduled = False
        loop = asyncio.get_running_loop()
        while self._ready and self._under_way < _REQUESTS:
            records, size = list[_Record](), 0
            while self._ready and len(records) < REQUEST_RECORDS:
                size += self._ready[0].size
                if records and size > REQUEST_BYTES:
                    break
                records.append(self._ready.popleft())
                records[-1].until = records[-1].until or self._clock() + self._config.delivery_ms / 1000
            self._under_way += 1
            self.requests += 1
            call = loop.run_in_executor(self._threads, self._put, records)
            call.add_done_callback(partial(self._answered, records, self._round))

    def _put(self, records: list[_Record]) -> list[str]:
        """Of each record why it was not taken; "" = it was. In a thread. Raises TransientError, PermanentError."""
        name = self._config.stream
        with translating(f"the stream {name!r}"):
            answer: dict[str, Any] = self.service.kinesis.put_records(
                StreamName=name, Records=[{"Data": record.data, "PartitionKey": record.key} for record in records]
            )
        return [
            f"{each['ErrorCode']} {each.get('ErrorMessage', '')}".rstrip() if each.get("ErrorCode") else ""
            for each in answer["Records"]
        ]

    def _answered(self, records: list[_Record], round_: object, call: asyncio.Future[list[str]]) -> None:
        self._under_way -= 1
        lost = ""
        try:
            refused = call.result()
        except TransientError as error:  # perhaps it was taken: a copy of it has the same id
            refused = [str(error)] * len(records)
        except Exception as error:  # the loop's rim: it would be refused again, and somebody waits for an answer
            lost = str(error) or repr(error)
            refused = [lost] * len(records)
        if round_ is self._round:
            for record, why in zip(records, refused, strict=True):
                if not why:
                    self._taken(record)
                elif not lost:
                    lost = self._send_again(record, why)
            if lost:
                self._lose(TransientError(lost))
        self._send(self._round)

    def _lose(self, error: TransientError) -> None:
        """Everybody who waits is told, and nothing of theirs is sent any more."""
        sendings = list(self._sendings)
        self.abandon()
        for sending in sendings:
            sending.done(error)

    def _taken(self, record: _Record) -> None:
        self._acknowledged += 1
        self._bytes -= record.size
        if behind := self._behind[record.key]:
            self._send_soon(behind.popleft())
        else:
            del self._behind[record.key]
        record.sending.left -= 1
        if not record.sending.left:
            del self._sendings[record.sending]
            record.sending.done(None)
        self._check_closed()

    def _send_again(self, record: _Record, why: str) -> str:
        """Later; why it is too late for that, or ""."""
        longest: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(record.attempts, 10))
        pause_s = longest * (1 + self._chance()) / 2
        if self._clock() + pause_s > record.until:
            return f"Kinesis has not acknowledged a record within {self._config.delivery_ms / 1000:g} s: {why}"
        record.attempts += 1
        self.retries += 1
        self._held[record] = asyncio.get_running_loop().call_later(pause_s, self._again, record)
        return ""

    def _again(self, record: _Record) -> None:
        del self._held[record]
        self._send_soon(record, first=True)


def _tell(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(JournalBroken(str(error)) if isinstance(error, TransientError) else error)


__all__ = ["KinesisWriter"]
