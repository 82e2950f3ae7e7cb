"""The listening socket and all its connections: opens, counts, watches the deadlines, tells of who comes and goes, drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from gateway.devices import Devices
from gateway.http.client_address import parse_address, truncate
from gateway.listening import server_tls, why_not
from gateway.mqtt.admission import Admitted
from gateway.mqtt.config import Config
from gateway.mqtt.connection import Connection
from gateway.mqtt.counters import Counters
from gateway.mqtt.packets import Connect, Will
from gateway.mqtt.presence import Reason, presence
from gateway.mqtt.session import End, Session
from gateway.mqtt.sessions import Kept, Key, Sessions
from gateway.mqtt.topics import Topics
from gateway.transports import Accept, AcceptMany
from protocol.seams import ConfigurationError, RawPayload, TransientError

_LEAST = {
    **dict.fromkeys(("max_connections", "max_in_flight", "max_keep_alive_s", "max_sessions"), 1),
    **dict.fromkeys(("max_packet_bytes", "max_buffered_bytes"), 256),
    **dict.fromkeys(("max_topic_aliases", "session_expiry_s", "min_interval_ms", "accept_timeout_s"), 0),
    **dict.fromkeys(("connect_timeout_s", "write_timeout_s"), 0.01),
}
_MOST = {"max_in_flight": 65_535, "max_topic_aliases": 65_535, "max_keep_alive_s": 43_690, "session_expiry_s": 0xFFFF_FFFE}


class _Delayed(NamedTuple):
    timer: asyncio.TimerHandle
    session: Session
    will: Will


class Listener:
    """A `connection.Site`. Call order: open -> close."""

    def __init__(
        self,
        config: Config,
        devices: Devices | None,
        counters: Counters,
        clock_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        """Raises ConfigurationError."""
        for name, least in _LEAST.items():
            if getattr(config, name) < least:
                raise ConfigurationError(f"mqtt: {name} = {getattr(config, name)}; it must be at least {least}")
        for name, most in _MOST.items():
            if getattr(config, name) > most:
                raise ConfigurationError(f"mqtt: {name} = {getattr(config, name)}; it must be at most {most}")
        self.config, self.devices, self.counters = config, devices, counters
        self.now = 0.0
        self.held_bytes = 0
        self.live: dict[Key, Connection] = {}
        self.sessions = Sessions(config.sessions, config.max_sessions, clock_ms)
        self.new_id = new_id
        self._clock_ms = clock_ms
        self._topics = Topics(config.topics)
        self._context = server_tls("mqtt", config.tls_certificate, config.tls_key, config.tls_client_ca)
        self._accept: Accept | None = None
        self._accept_many: AcceptMany | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._wills: dict[Key, _Delayed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = min(1.0, max(0.01, min(config.connect_timeout_s, config.write_timeout_s) / 8))

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, the real port where 0 was asked for; empty when it does not."""
        sockets = self._server.sockets if self._server is not None else ()
        return [socket.getsockname()[:2] for socket in sockets]

    async def open(self, accept: Accept) -> None:
        """Raises ConfigurationError."""
        self._accept, self._accept_many = accept, getattr(accept, "many", None)
        config = self.config
        await self.sessions.open()
        self._tick()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self),
                config.host,
                config.port,
                ssl=self._context,
                ssl_handshake_timeout=config.connect_timeout_s if self._context else None,
                backlog=config.backlog,
            )
        except (OSError, OverflowError) as error:
            self._stop_ticking()
            await self.sessions.close()
            elsewhere = ", perhaps by a broker; choose another port, or let mqtt_bridge subscribe to that broker"
            raise ConfigurationError(why_not("mqtt", config.host, config.port, error, elsewhere)) from error

    async def close(self) -> None:
        """Take no new connection, finish what is under way for at most stop_timeout_s, cut the rest."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.end(End("gateway_stopped", 0x8B))
        if connections:
            await asyncio.wait([connection.gone for connection in connections], timeout=self.config.stop_timeout_s)
        if self._connections:
            left = [connection.gone for connection in self._connections]
            for connection in list(self._connections):
                connection.abort()
            await asyncio.wait(left)
        for key in list(self._wills):  # who waits for them has nobody left to wait for
            self._publish_delayed(key)
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._server is not None:
            await self._server.wait_closed()
            await self.sessions.close()
        self._stop_ticking()

    def tell(self, device: str | None, message: bytes) -> int:
        """Sends a JSON down to a device, or to all that listen; to how many connections."""
        found = [c for key, c in self.live.items() if device is None or key.device == device]
        for connection in found:
            connection.send(message)
        return len(found)

    # What connections call.

    def opened(self, connection: Connection) -> bool:
        self.counters.connections += 1
        if len(self._connections) >= self.config.max_connections:
            self.counters.refused_connections += 1
            return False
        self._connections.add(connection)
        self.counters.open_connections = len(self._connections)
        return True

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.counters.open_connections = len(self._connections)

    def session(self, connect: Connect, kept: Kept, admitted: Admitted, ip: str | None) -> Session:
        return Session(
            connect,
            kept,
            config=self.config,
            counters=self.counters,
            topics=self._topics,
            device=admitted.device,
            known=self.devices.known if self.devices is not None else _nobody,
            ip=ip,
            expiry_s=admitted.expiry_s,
            clock_ms=self._clock_ms,
            new_id=self.new_id,
        )

    def address(self, peer: str) -> str | None:
        found = parse_address(peer)
        return None if found is None else str(truncate(found) if self.config.truncate_ip else found)

    async def accept(self, payloads: Sequence[RawPayload]) -> Sequence[RawPayload]:
        """Returns those that were not taken, once the others are on disk."""
        accept, many = self._accept, self._accept_many
        assert accept is not None
        if many is not None or len(payloads) == 1:
            try:
                await (many(payloads) if many is not None else accept(payloads[0]))
            except TransientError:
                return payloads
            return ()
        results = await asyncio.gather(*map(accept, payloads), return_exceptions=True)
        refused: list[RawPayload] = []
        for payload, result in zip(payloads, results, strict=True):
            if isinstance(result, TransientError):
                refused.append(payload)
            elif result is not None:
                raise result
        return refused

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="mqtt presence")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def came(self, key: Key, session: Session) -> None:
        """A client is here: its will that was about to be told is not, and it is an event when it proved a name."""
        if (delayed := self._wills.pop(key, None)) is not None:
            delayed.timer.cancel()
        if session.device is not None and self.config.presence:
            self.spawn(self._report([self._presence(session, "connect")]))

    async def left(self, key: Key, session: Session, end: End) -> None:
        """A client is gone: its session begins to age, its will and its absence are told."""
        if session.kept.stored:
            try:
                if session.expiry_s:
                    await self.sessions.leave(key, session.expiry_s)
                else:
                    await self.sessions.forget(key)
            except TransientError:
                pass  # it ages from the next start on
        told: list[RawPayload] = []
        if (will := session.will) is not None:
            delay_s = will.properties.get("will_delay_s", 0)
            delay_s = min(delay_s if isinstance(delay_s, int) else 0, session.expiry_s)
            if delay_s and end.reason != "gateway_stopped":
                timer = asyncio.get_running_loop().call_later(delay_s, self._publish_delayed, key)
                self._wills[key] = _Delayed(timer, session, will)
            elif (payload := self._last(session, will)) is not None:
                told.append(payload)
        if session.device is not None and self.config.presence:
            told.append(self._presence(session, end.reason))
        await self._report(told)

    def _last(self, session: Session, will: Will) -> RawPayload | None:
        if session.publishable(will.topic):
            return None
        return session.payload(will.topic, will.body, self.new_id())

    def _publish_delayed(self, key: Key) -> None:
        delayed = self._wills.pop(key)
        delayed.timer.cancel()
        if (payload := self._last(delayed.session, delayed.will)) is not None:
            self.spawn(self._report([payload]))

    def _presence(self, session: Session, reason: Reason) -> RawPayload:
        assert session.device is not None
        return presence(id=self.new_id(), received_ms=self._clock_ms(), device=session.device, reason=reason, ip=session.ip)

    async def _report(self, payloads: list[RawPayload]) -> None:
        """Nobody waits for these, and nobody sends them again: what the journal does not take is counted."""
        if payloads:
            self.counters.lost_presence += len(await self.accept(payloads))

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self._timer = loop.call_later(self._tick_s, self._tick)
        for connection in [c for c in self._connections if c.deadline < self.now]:
            connection.expire()

    def _stop_ticking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _nobody(device: str) -> bool:
    return False
