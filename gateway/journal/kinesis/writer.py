"""The journal's writer for Kinesis: payloads from one event loop -> records of a stream, many per request.

PutRecords succeeds or fails record by record, in no order. So of one key no more than one record is under way, and the next
follows when it was taken: what comes again after a failure never overtakes or is overtaken. Other keys do not wait for it.
A payload's future is done when Kinesis has acknowledged the record. When one was not in time, all that waits is refused, in
order, so that whoever keeps it instead keeps it in order.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.journal import JournalBroken, JournalFull, TooLarge
from gateway.journal.kinesis import REQUEST_BYTES, REQUEST_RECORDS, Config
from gateway.journal.kinesis.positions import key_of
from gateway.journal.kinesis.service import Missing, Service, translating
from protocol.payloads import to_json
from protocol.seams import PermanentError, RawPayload, TransientError

_REQUESTS = 4  # at once
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 2.0


class _Record:
    __slots__ = ("attempts", "data", "future", "key", "size", "until")

    def __init__(self, key: str, data: bytes, size: int, future: asyncio.Future[None], until: float) -> None:
        self.key, self.data, self.size, self.future, self.until = key, data, size, future, until
        self.attempts = 0


class KinesisWriter:
    """A `gateway.journal.Writer`. Belongs to the event loop; requests are made in threads of its own."""

    def __init__(self, service: Service, *, chance: Callable[[], float] = random.random) -> None:
        """For `open`, which has looked at the stream. chance: from 0 to 1, for the length of pauses."""
        self._service, self._config, self._chance = service, service.config, chance
        self._ready: deque[_Record] = deque()  # no two of one key, and none whose key is under way
        self._behind: dict[str, deque[_Record]] = {}  # of every key that is ready, held or under way: what follows
        self._held: dict[_Record, asyncio.TimerHandle] = {}  # refused for now, to be tried again
        self._under_way = 0  # requests
        self._bytes = 0
        self._scheduled = self._closing = False
        self._refusing = ""  # why; until nothing is under way
        self._idle: asyncio.Future[None] | None = None
        self._threads = ThreadPoolExecutor(_REQUESTS, "kinesis")
        self.acknowledged = self.requests = self.retries = 0

    @classmethod
    def open(cls, config: Config) -> KinesisWriter:
        """Looks at the stream, if it is within reach. Raises ConfigurationError, PermanentError."""
        service = Service(config)
        with suppress(TransientError):  # it may come back; until then appends are refused
            service.stream()
        return cls(service)

    def append(self, payload: RawPayload) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        key = key_of(payload)
        if self._closing or (self._refusing and key not in self._behind):
            future.set_exception(JournalBroken(self._refusing or "the journal is closed"))
            return future
        try:
            data = to_json(payload)
            size = len(data) + len(key.encode())
        except (TypeError, ValueError) as error:
            future.set_exception(PermanentError(f"a payload that cannot be written down: {error}"))
            return future
        if size > self._config.max_record_bytes:
            future.set_exception(TooLarge(f"{size} bytes, a record of the stream has {self._config.max_record_bytes}"))
            return future
        if self._bytes and self._bytes + size > self._config.waiting_bytes:
            future.set_exception(JournalFull("Kinesis is slower than what arrives"))
            return future
        self._bytes += size
        record = _Record(key, data, size, future, loop.time() + self._config.delivery_s)
        if (behind := self._behind.get(key)) is not None:
            behind.append(record)
        else:
            self._behind[key] = deque()
            self._send_soon(record)
        return future

    def accepted(self) -> int:
        """Payloads that Kinesis acknowledged to this process: it counts no others."""
        return self.acknowledged

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._behind:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        self._threads.shutdown()
        self._service.close()

    # What follows a record, and in which order.

    def _send_soon(self, record: _Record, *, first: bool = False) -> None:
        (self._ready.appendleft if first else self._ready.append)(record)
        if not self._scheduled:
            self._scheduled = True
            record.future.get_loop().call_soon(self._send)

    def _done(self, record: _Record, error: Exception | None) -> None:
        """The last word on a record; the next one of its key is ready, or refused with it."""
        self._tell(record, error)
        behind = self._behind[record.key]
        while behind and self._refusing:
            self._tell(behind.popleft(), JournalBroken(self._refusing))
        if behind:
            self._send_soon(behind.popleft())
        else:
            del self._behind[record.key]
        if not self._behind and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _tell(self, record: _Record, error: Exception | None) -> None:
        self._bytes -= record.size
        if record.future.done():  # cancelled
            return
        if error is None:
            record.future.set_result(None)
        else:
            record.future.set_exception(error)

    def _refuse(self, why: str) -> None:
        """Everything that waits, and what arrives until the requests under way have their answers."""
        self._refusing = why
        waiting = [*self._held, *self._ready]
        for timer in self._held.values():
            timer.cancel()
        self._held.clear()
        self._ready.clear()
        for record in waiting:
            self._done(record, JournalBroken(why))

    # Requests.

    def _send(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        while self._ready and self._under_way < _REQUESTS:
            records, size = list[_Record](), 0
            while self._ready and len(records) < REQUEST_RECORDS:
                size += self._ready[0].size
                if records and size > REQUEST_BYTES:
                    break
                records.append(self._ready.popleft())
            self._under_way += 1
            self.requests += 1
            call = loop.run_in_executor(self._threads, self._put, records)
            call.add_done_callback(partial(self._answered, records))

    def _put(self, records: list[_Record]) -> list[str]:
        """Of each record why it was not taken; "" = it was. In a thread. Raises TransientError, PermanentError."""
        name = self._service.config.stream
        try:
            with translating(f"the stream {name!r}"):
                answer: dict[str, Any] = self._service.kinesis.put_records(
                    StreamName=name, Records=[{"Data": record.data, "PartitionKey": record.key} for record in records]
                )
        except Missing as error:
            if not self._config.create:
                raise
            self._service.stream()
            raise TransientError(str(error)) from error
        return [
            f"{each['ErrorCode']} {each.get('ErrorMessage', '')}".rstrip() if each.get("ErrorCode") else ""
            for each in answer["Records"]
        ]

    def _answered(self, records: list[_Record], call: asyncio.Future[list[str]]) -> None:
        self._under_way -= 1
        loop = call.get_loop()
        try:
            refused = call.result()
        except TransientError as error:  # perhaps it was taken: a copy of it has the same id
            refused = [str(error)] * len(records)
        except Exception as error:  # the loop's rim: no future may be forgotten
            self._refusing = str(error) or repr(error)
            refused = [self._refusing] * len(records)
        late = ""
        for record, why in zip(records, refused, strict=True):
            if not why:
                self.acknowledged += 1
                self._done(record, None)
            elif self._refusing:
                self._done(record, JournalBroken(self._refusing))
            elif (delay := self._backoff_s(record)) + loop.time() > record.until:
                late = f"not acknowledged within {self._config.delivery_s:g} s: {why}"
                self._held[record] = loop.call_later(0, self._again, record)
            else:
                self._held[record] = loop.call_later(delay, self._again, record)
        if late or (self._refusing and (self._held or self._ready)):
            self._refuse(late or self._refusing)
        if self._refusing and not self._under_way:
            self._refusing = ""
        if self._ready:
            self._send()

    def _backoff_s(self, record: _Record) -> float:
        longest: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(record.attempts, 10))
        record.attempts += 1
        self.retries += 1
        return longest * (1 + self._chance()) / 2

    def _again(self, record: _Record) -> None:
        del self._held[record]
        self._send_soon(record, first=True)


__all__ = ["KinesisWriter"]
