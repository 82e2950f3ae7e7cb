"""The listening sockets and all their connections: opens, counts, watches the deadlines, drains. Knows nothing of events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Protocol

from gateway.http.answers import Answer, unavailable
from gateway.http.config import Config
from gateway.http.connection import Connection, Request
from gateway.http.cors import cors_lines
from gateway.http.counters import Counters
from gateway.listening import server_tls, why_not
from protocol.seams import ConfigurationError

_LEAST = {
    "max_request_line_bytes": 64,
    "max_header_bytes": 64,
    **dict.fromkeys(("max_body_bytes", "max_inflate_ratio", "max_buffered_bytes", "max_connections"), 1),
    **dict.fromkeys(("header_timeout_s", "body_timeout_s", "accept_timeout_s", "idle_timeout_s"), 0.01),
}
_MAX_REFUSED = 256  # connections beyond the limit that are told so; more are cut without a word


class Service(Protocol):
    async def answer(self, request: Request) -> Answer: ...
    def late(self, request: Request | None, *, answering: bool) -> Answer: ...


class Listener:
    """One Site (see connection.Site) on one host and port. Call order: open -> close."""

    def __init__(self, config: Config, service: Service, counters: Counters, clock_ns: Callable[[], int]) -> None:
        """Raises ConfigurationError."""
        for name, least in _LEAST.items():
            if getattr(config, name) < least:
                raise ConfigurationError(f"http: {name} = {getattr(config, name)}; it must be at least {least}")
        self.config = config
        self.counters = counters
        self.now = 0.0
        self.held_bytes = 0
        self.tail = b""
        busy = unavailable(config.retry_after_s, "too many connections")
        self.busy = busy._replace(head=busy.head + cors_lines(None))
        self.late = service.late
        self._answer = service.answer
        self._clock_ns = clock_ns
        self._context = server_tls("http", config.tls_certificate, config.tls_key)
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._refused: set[Connection] = set()
        self._emptied: asyncio.Future[None] | None = None  # while closing: when the last connection is gone
        self._timer: asyncio.TimerHandle | None = None
        shortest = min(config.header_timeout_s, config.body_timeout_s, config.accept_timeout_s, config.idle_timeout_s)
        self._tick_s = min(1.0, max(0.01, shortest / 8))

    def answer(self, request: Request) -> Awaitable[Answer]:
        return self._answer(request)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, the real port where 0 was asked for; empty when it does not."""
        sockets = self._server.sockets if self._server is not None else ()
        return [socket.getsockname()[:2] for socket in sockets]

    async def open(self) -> None:
        """Raises ConfigurationError."""
        config = self.config
        self._tick()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self),
                config.host,
                config.port,
                ssl=self._context,
                ssl_handshake_timeout=config.header_timeout_s if self._context else None,
                backlog=config.backlog,
                reuse_port=config.reuse_port or None,
            )
        except (OSError, OverflowError) as error:
            self._stop_ticking()
            elsewhere = " by another program; stop it or choose another port"
            raise ConfigurationError(why_not("http", config.host, config.port, error, elsewhere)) from error

    async def close(self) -> None:
        """Take no new connection, answer what is under way for at most stop_timeout_s, cut the rest."""
        if self._server is not None:
            self._server.close()
        tasks = [task for connection in list(self._connections) if (task := connection.finish()) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self.config.stop_timeout_s)
        if self._connections or self._refused:
            self._emptied = asyncio.get_running_loop().create_future()
            for connection in [*self._connections, *self._refused]:
                connection.abort()
            await self._emptied
        if self._server is not None:
            await self._server.wait_closed()
        self._stop_ticking()

    def opened(self, connection: Connection) -> bool:
        self.counters.connections += 1
        if len(self._connections) < self.config.max_connections:
            self._connections.add(connection)
            self.counters.open_connections = len(self._connections)
            return True
        self.counters.refused_connections += 1
        if len(self._refused) >= _MAX_REFUSED:
            connection.abort()
        self._refused.add(connection)
        return False

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._refused.discard(connection)
        self.counters.open_connections = len(self._connections)
        if self._emptied is not None and not (self._connections or self._refused or self._emptied.done()):
            self._emptied.set_result(None)

    def _tick(self) -> None:
        """Deadlines are as exact as this; so is the Date header."""
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        tail = f"Date: {formatdate(self._clock_ns() / 1e9, usegmt=True)}\r\n"
        if self._context is not None and self.config.hsts_max_age_s:
            tail += f"Strict-Transport-Security: max-age={self.config.hsts_max_age_s}\r\n"
        self.tail = tail.encode("ascii")
        self._timer = loop.call_later(self._tick_s, self._tick)
        for connection in [c for group in (self._connections, self._refused) for c in group if c.deadline < self.now]:
            connection.expire()

    def _stop_ticking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
