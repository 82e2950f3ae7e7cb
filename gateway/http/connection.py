"""One client connection: bytes -> requests in order -> answers in order, on aiohttp's HTTP parser.

Every limit of time and size is kept here, so that no client can hold memory or a connection for long. Knows nothing of events.
One task per connection; deadlines are looked at by the listener's tick, so the hot path sets no timer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable
from typing import Literal, Protocol

from gateway.http.answers import BAD_REQUEST, Answer
from gateway.http.bodies import TooLarge
from gateway.http.config import Config
from gateway.http.counters import Counters
from gateway.http.parser import (
    EMPTY_PAYLOAD,
    BaseProtocol,
    HttpProcessingError,
    HttpRequestParser,
    HttpVersion10,
    RawRequestMessage,
    StreamReader,
)

_READ_BUFFER = 32_768  # reading pauses when twice this much of a body waits to be taken
_PIPELINE = 16  # requests parsed ahead of the one being answered
_MAX_HEADERS = 256
_LINGER_S = 2.0  # how long a refused client may take to read why, before the connection is cut
_REQUEST_LINE_REST = len("OPTIONS  HTTP/1.1")
_NOT_ASCII = re.compile(b"[\x80-\xff]")

log = logging.getLogger(__name__)


class OverBudget(Exception):
    """All bodies together would hold more memory than allowed."""


class BadBody(Exception):
    """The body's framing is broken."""


class Site(Protocol):
    """What a connection needs to know of the listener it belongs to."""

    config: Config
    counters: Counters
    now: float  # event loop time of the last tick
    held_bytes: int  # of bodies in memory, all connections together
    tail: bytes  # header lines that every answer ends with: Date and the like
    busy: Answer

    def answer(self, request: Request) -> Awaitable[Answer]: ...
    def late(self, request: Request | None, *, answering: bool) -> Answer:
        """The answer to a request that took too long: to arrive (None: not even its headers did), or to be answered."""
        ...

    def opened(self, connection: Connection) -> bool:
        """False: there are too many."""
        ...

    def closed(self, connection: Connection) -> None: ...


# idle: between requests. head, body: a part of it is here. writing: the client does not read its answers.
# lingering: the last answer is written; what still comes is thrown away.
# (Literals, not an Enum: looking a member up costs as much as a call, several times per request.)
State = Literal["idle", "head", "body", "answering", "writing", "lingering", "closed"]


class Request:
    """A request whose headers are here. Its body may still be coming."""

    __slots__ = ("_connection", "_stream", "message", "peer")

    def __init__(self, message: RawRequestMessage, stream: StreamReader, connection: Connection, peer: str | None) -> None:
        self.message = message
        self.peer = peer
        self._stream = stream
        self._connection = connection

    async def body(self, growth: int = 1) -> bytes:
        """All of it; to be called once. growth: so many times the usual limit. Raises TooLarge, OverBudget, BadBody."""
        limit = growth * self._connection.max_body_bytes
        if not self._stream.is_eof():
            return await self._connection.receive(self.message, self._stream, limit)
        body = self._stream.read_nowait()  # as good as always: it came with the headers
        if len(body) > limit:
            raise TooLarge
        self._connection.hold(len(body))
        return body

    def hold(self, size: int) -> None:
        """Count bytes that live as long as the request. Raises OverBudget."""
        self._connection.hold(size)


class Connection(BaseProtocol):
    __slots__ = (
        "_closing",
        "_deaf",
        "_head_bytes",
        "_held",
        "_in_line",
        "_peer",
        "_queue",
        "_reader",
        "_request",
        "_site",
        "_stream",
        "_task",
        "_waiter",
        "deadline",
        "max_body_bytes",
        "state",
    )

    def __init__(self, site: Site) -> None:
        loop = asyncio.get_running_loop()
        config = site.config
        self._reader = HttpRequestParser(
            self,
            loop,
            _READ_BUFFER,
            max_line_size=config.max_request_line_bytes - _REQUEST_LINE_REST,
            max_field_size=config.max_header_bytes,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
            max_msg_queue_size=_PIPELINE,
        )
        super().__init__(loop, self._reader)
        self._site = site
        self.max_body_bytes = config.max_body_bytes
        self._queue: deque[tuple[RawRequestMessage | None, StreamReader]] = deque()
        self._stream: StreamReader = EMPTY_PAYLOAD  # of the last request that was parsed
        self._request: Request | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._peer: str | None = None
        self._head_bytes = 0  # of a request whose headers are not complete
        self._in_line = True  # at, or within, a request line
        self._held = 0
        self._closing = False  # no request after those that are here
        self._deaf = False  # what comes cannot be understood any more
        self.state: State = "idle"
        self.deadline = 0.0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else None
        self.deadline = self._site.now + self._site.config.header_timeout_s
        if self._site.opened(self):
            self._task = self._loop.create_task(self._serve(), name="http connection")
        elif self.transport is not None and not self.transport.is_closing():
            self._last_words(self._site.busy)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        site = self._site
        site.counters.received_bytes += len(data)
        is_head = self._stream.is_eof()  # or else it is, or begins with, the rest of a body
        if is_head and self._in_line:
            data = self._spell_out(data)
        try:
            messages, _, _ = self._reader.feed_data(data)
        except HttpProcessingError:
            self._misunderstood()
            return
        if messages:
            if self._head_bytes + len(data) > site.config.max_header_bytes and any(
                sum(len(name) + len(value) + 4 for name, value in message.raw_headers) > site.config.max_header_bytes
                for message, _ in messages
            ):
                self._misunderstood()
                return
            self._head_bytes = 0
            self._in_line = True
            self._stream = messages[-1][1]
            self._queue.extend(messages)
            self._wake()
            if len(self._queue) >= _PIPELINE and not self._buffer_paused:
                self._pause_reading_for_buffer()
        elif is_head and data:
            self._head_bytes += len(data)
            if self.state == "idle":
                self.state, self.deadline = "head", site.now + site.config.header_timeout_s
            if self._head_bytes > site.config.max_header_bytes + site.config.max_request_line_bytes:
                self._misunderstood()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # Stream readers ask for it with every read, and it is not cheap.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:
        """True keeps our side open: a client may half-close and still wait for the answers to what it sent."""
        self._closing = True
        waits = (bool(self._queue) or self.state == "answering") and self._stream.is_eof()
        return waits and self.transport is not None and self.transport.can_write_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """A request that is complete is still recorded: a browser that leaves the page does not wait for answers."""
        super().connection_lost(exc)
        self._closing = self._deaf = True
        if not self._stream.is_eof():
            self._stream.set_exception(BadBody())
        self._wake()
        self._forget()

    # What the listener calls.

    def expire(self) -> None:
        """The deadline has passed."""
        if self.state in ("head", "body", "answering"):
            self._last_words(self._site.late(self._request, answering=self.state == "answering"))
            if self._task is not None:
                self._task.cancel()
        elif self.transport is not None:
            self.transport.abort()

    def finish(self) -> asyncio.Task[None] | None:
        """Take nothing new. The task that still has answers to give, if any."""
        self._closing = True
        if self.state in ("idle", "head") and not self._queue and self.transport is not None:
            self.transport.close()
        self._wake()
        return self._task

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self.transport is not None:
            self.transport.abort()

    # What requests call.

    async def receive(self, message: RawRequestMessage, stream: StreamReader, limit: int) -> bytes:
        """A body that is still coming. Raises TooLarge, OverBudget, BadBody."""
        headers = message.headers
        if int(headers.get("Content-Length", 0)) > limit:
            raise TooLarge
        if self.transport is None:
            raise BadBody
        if headers.get("Expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.state, self.deadline = "body", self._site.now + self._site.config.body_timeout_s
        gathered = bytearray()  # not a list: a chunk may be a single byte
        while part := await stream.readany():
            if len(gathered) + len(part) > limit:
                raise TooLarge
            self.hold(len(part))
            gathered += part
        self.state, self.deadline = "answering", self._site.now + self._site.config.accept_timeout_s
        return bytes(gathered)

    def hold(self, size: int) -> None:
        if self._site.held_bytes + size > self._site.config.max_buffered_bytes:
            raise OverBudget
        self._site.held_bytes += size
        self._held += size

    # The connection's own task.

    async def _serve(self) -> None:
        try:
            while await self._arrived():
                message, stream = self._queue.popleft()
                self._free_a_place()
                if message is None:
                    self._last_words(BAD_REQUEST)
                    return
                if not await self._exchange(message, stream):
                    return
            if self.transport is not None:
                self.transport.close()
        except Exception:  # a fault of ours: this connection ends, the others live
            log.exception("http connection failed")
            if self.transport is not None:
                self.transport.abort()
        finally:
            self._task = None
            self._forget()

    async def _arrived(self) -> bool:
        """Wait for a request; False when none will come."""
        while not self._queue:
            if self._closing:
                return False
            config = self._site.config
            if self._head_bytes:
                self.state, self.deadline = "head", self._site.now + config.header_timeout_s
            elif self.state != "idle":
                self.state, self.deadline = "idle", self._site.now + config.idle_timeout_s
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return True

    def _free_a_place(self) -> None:
        self._reader.message_consumed()
        if self._buffer_paused and len(self._queue) <= _PIPELINE // 2:
            self.data_received(b"")  # what the parser kept back while the queue was full
            if len(self._queue) < _PIPELINE:
                self._resume_reading_for_buffer()

    async def _exchange(self, message: RawRequestMessage, stream: StreamReader) -> bool:
        """Answer one request; True when the next one may follow."""
        site = self._site
        self.state, self.deadline = "answering", site.now + site.config.accept_timeout_s
        self._request = Request(message, stream, self, self._peer)
        try:
            answer = await site.answer(self._request)
        finally:
            self._request = None
            site.held_bytes -= self._held
            self._held = 0
        unread = not stream.is_eof()
        if self._is_lingering():  # the last words were said while `answer` was not to be stopped
            return False
        if self.transport is None:
            site.counters.requests["aborted" if unread else answer.outcome] += 1
            return bool(self._queue)
        keep = not (message.should_close or unread or message.upgrade or (self._closing and not self._queue))
        self._write(answer, message, keep=keep)
        if not keep:
            if unread or self._queue:
                self._linger()
            else:
                self.transport.close()
            return False
        if self._reading_paused:  # by a body nobody wanted
            stream.read_nowait()
        if self.writing_paused:
            self.state, self.deadline = "writing", site.now + site.config.header_timeout_s
            await self._drain_helper()
        return True

    def _write(self, answer: Answer, message: RawRequestMessage | None, *, keep: bool) -> None:
        site = self._site
        site.counters.requests[answer.outcome] += 1
        if self.transport is None:
            return
        body = b"" if message is not None and message.method == "HEAD" else answer.body
        if not keep:
            data = answer.head + site.tail + b"Connection: close\r\n\r\n" + body
        elif message is not None and message.version == HttpVersion10:
            data = answer.head + site.tail + b"Connection: keep-alive\r\n\r\n" + body
        else:
            data = answer.head + site.tail + b"\r\n" + body
        site.counters.sent_bytes += len(data)
        self.transport.write(data)

    def _last_words(self, answer: Answer) -> None:
        self._write(answer, self._request.message if self._request is not None else None, keep=False)
        self._linger()

    def _linger(self) -> None:
        """Close, but not before the client could read the answer: closing at once would reset what it still sends."""
        self.state, self.deadline = "lingering", self._site.now + _LINGER_S
        self._closing = self._deaf = True
        if self.transport is None or self.transport.is_closing():
            return
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has just left
            self.transport.abort()
        else:
            self._resume_transport_reading()

    def _spell_out(self, data: bytes) -> bytes:
        """Raw non-ASCII bytes of a request line as percent codes, which mean the same; the parser refuses them raw."""
        end = data.find(b"\n") + 1
        self._in_line = not end
        line = data[:end] if end else data
        return data if line.isascii() else _NOT_ASCII.sub(lambda byte: b"%%%02X" % ord(byte[0]), line) + data[len(line) :]

    def _is_lingering(self) -> bool:
        return self.state == "lingering"

    def _misunderstood(self) -> None:
        self._deaf = True
        if self._stream.is_eof():
            self._queue.append((None, EMPTY_PAYLOAD))
        else:
            self._stream.set_exception(BadBody())
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _forget(self) -> None:
        if self.transport is None and self._task is None:
            self.state = "closed"
            self._site.closed(self)
