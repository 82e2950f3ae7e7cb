"""One MQTT client: bytes -> packets -> steps, done in order; acknowledgements leave in one write when their payloads are on disk.

While a batch is under way what comes is kept back, then no longer read: a client is as fast as the disk. One task per batch;
deadlines are looked at by the listener's tick, so the hot path sets no timer. The rules are in `session`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from itertools import groupby
from typing import Any, Protocol, cast

from gateway.devices import Devices
from gateway.journal import TooLarge
from gateway.mqtt.admission import NOT_AUTHORIZED, QUOTA, UNAVAILABLE, UNSUPPORTED_VERSION, Admitted, admit, refusal, welcome
from gateway.mqtt.config import Config
from gateway.mqtt.counters import Counters
from gateway.mqtt.packets import Connect, Packet, Reader
from gateway.mqtt.properties import TOO_LARGE, Malformed
from gateway.mqtt.session import End, Session, Step
from gateway.mqtt.sessions import Kept, Key, Sessions
from gateway.mqtt.websocket import WebSocket, WebSocketEnded, frame
from protocol.seams import RawPayload, TransientError

log = logging.getLogger(__name__)

_AHEAD = 65_536  # bytes read while a batch is under way
_LINGER_S = 2.0  # how long a client may take to read why its connection ends
_RETRY_S = 0.25
_FIRST_OF_WEBSOCKET = ord("G")  # of GET; a CONNECT begins with 0x10


class Site(Protocol):
    """What a connection needs to know of the listener it belongs to."""

    config: Config
    counters: Counters
    now: float  # event loop time of the last tick
    held_bytes: int  # of packets that are not complete, all connections together
    devices: Devices | None
    sessions: Sessions
    live: dict[Key, Connection]

    def opened(self, connection: Connection) -> bool:
        """False: there are too many."""
        ...

    def closed(self, connection: Connection) -> None: ...
    def session(self, connect: Connect, kept: Kept, admitted: Admitted, ip: str | None) -> Session: ...
    def new_id(self) -> str: ...
    def address(self, peer: str) -> str | None: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...

    async def accept(self, payloads: Sequence[RawPayload]) -> Sequence[RawPayload]:
        """Returns those that were not taken, once the others are on disk."""
        ...

    def came(self, key: Key, session: Session) -> None: ...
    async def left(self, key: Key, session: Session, end: End) -> None: ...


class Connection(asyncio.Protocol):
    """deadline: event loop time at which `expire` is called. gone: done when nothing of it is under way any more."""

    def __init__(self, site: Site) -> None:
        self.deadline = float("inf")
        self.session: Session | None = None
        self._site = site
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(site.config.max_packet_bytes)
        self._web: WebSocket | None = None
        self._begun = False
        self._waiting = bytearray()
        self._reading_paused = False
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None  # while the client does not read what we send
        self._ending: End | None = None
        self._closed = False
        self._eof = False
        self._lost = False
        self._finishing = False
        self._key: Key | None = None
        self._unwatch = _nothing
        self._silence_s = site.config.connect_timeout_s
        self._held = 0
        self._peer = ""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = cast("tuple[str, ...] | None", transport.get_extra_info("peername"))
        self._peer = peer[0] if peer else ""
        if not self._site.opened(self):
            self._closed = True
            self._transport.abort()
            return
        self.deadline = self._loop.time() + self._silence_s

    def data_received(self, data: bytes) -> None:
        self._site.counters.received_bytes += len(data)
        if self._closed or self._ending is not None:
            return
        if not self._begun:
            self._begun = True
            if self._site.config.websocket and data[0] == _FIRST_OF_WEBSOCKET:
                self._web = WebSocket()
        if self._web is not None:
            try:
                data = self._web.feed(data)
            except WebSocketEnded as ended:
                self._web.out += ended.last
                self._send(b"")
                self.end(End("connection_lost"))
                return
            self._send(b"")
        if self._task is None:
            self._go_on(data)
            return
        self._waiting += data
        if len(self._waiting) > _AHEAD and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """True keeps our side open for the acknowledgements of what is under way."""
        self._eof = True
        return self._task is not None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = True
        self._wake()
        if self._task is None:
            self._finish()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        self._wake()

    # What the listener calls.

    def end(self, end: End) -> None:
        """Takes nothing new, lets what is under way finish, says why and closes."""
        if self._ending is None:
            self._ending = end
            self._wake()
            if self._task is None:
                self._close()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._closed or self._room is not None:
            self.abort()
        elif self._task is None:
            self.end(End("keep_alive" if self.session is not None else "connection_lost", 0x8D))

    def abort(self) -> None:
        self._closed = True
        if self._ending is None:
            self._ending = End("connection_lost")
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def send(self, message: bytes) -> None:
        """A message to everything the client listens to; nothing while it does not read."""
        if self.session is not None and self._ending is None and self._room is None:
            self._send(self.session.down(message))

    # The batch.

    def _go_on(self, data: bytes) -> None:
        packets = self._read(data)
        if packets or self._reader.fault is not None:
            self.deadline = float("inf")  # the batch has deadlines of its own
            self._task = self._loop.create_task(self._serve(packets), name="mqtt batch")

    def _read(self, data: bytes) -> list[Packet]:
        packets = self._reader.feed(data)
        site, kept = self._site, self._reader.kept
        site.held_bytes += kept - self._held
        self._held = kept
        if site.held_bytes > site.config.max_buffered_bytes and kept:
            self.end(End("connection_lost", QUOTA, "too much is under way"))
        return packets

    async def _serve(self, packets: list[Packet]) -> None:
        try:
            while packets and self._ending is None:
                await self._batch(packets)
                if self._ending is None:
                    packets = self._take_waiting()
            if self._ending is None and self._reader.fault is not None:
                self._broken(self._reader.fault)
        except Exception:  # a fault of ours: this connection ends, the others live
            log.exception("an MQTT connection failed")
            self._ending = self._ending or End("connection_lost")
        finally:
            self._task = None
            self.deadline = self._loop.time() + self._silence_s
            if self._eof and self._ending is None:
                self._ending = End("connection_lost")
            if self._ending is not None or self._lost:
                self._close()

    def _take_waiting(self) -> list[Packet]:
        data = bytes(self._waiting)
        self._waiting.clear()
        if self._reading_paused and self._transport is not None and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return self._read(data)

    async def _batch(self, packets: list[Packet]) -> None:
        session, first = self.session, 0
        if session is None:
            connect = packets[0]
            assert isinstance(connect, Connect)  # the reader knows that nothing else comes first
            if (session := await self._admit(connect)) is None:
                return
            first = 1
        steps: list[Step] = []
        for packet in packets[first:]:
            steps.append(step := session.receive(packet))
            if step.end is not None:
                break
        for kind, group in groupby(steps, _kind):
            done = await self._do(session, kind, list(group))
            if not done or (self._ending is not None and self._lost):
                return
        session.unanswered = 0

    async def _do(self, session: Session, kind: str, steps: list[Step]) -> bool:
        """A stretch of steps of one kind. False: it was not done, and the connection ends."""
        site, key = self._site, self._key
        assert key is not None
        if kind == "end":
            self._ending = self._ending or steps[0].end
            return True
        if kind == "take":
            return await self._take(session, key, steps)
        try:
            if kind == "free":
                packets = [step.free for step in steps]
                if session.kept.stored:
                    await site.sessions.free(key, packets)
                for packet in packets:
                    session.kept.held.pop(packet, None)
            elif session.kept.stored:
                await site.sessions.listen(key, session.kept.topics)
        except TransientError as error:
            self._refuse_to_go_on(error)
            return False
        return await self._answer(steps)

    async def _take(self, session: Session, key: Key, steps: list[Step]) -> bool:
        devices, device = self._site.devices, session.device
        if devices is None or device is None:
            return await self._keep(session, key, steps)
        ready: list[Step] = []
        for step in steps:
            payload = step.payload
            if payload is not None:
                size = len(payload.body or b"") + len(payload.query)
                while (delay_s := devices.delay_s(device, size)) > 0:
                    if ready and not await self._keep(session, key, ready):
                        return False
                    ready = []
                    if not await self._pause(delay_s):
                        return False
            ready.append(step)
        return await self._keep(session, key, ready)

    async def _keep(self, session: Session, key: Key, steps: list[Step]) -> bool:
        """Payloads to the journal, then all answers in one write."""
        site, held = self._site, session.kept.held
        payloads = [step.payload for step in steps if step.payload is not None]
        holds = [(step.hold, held[step.hold]) for step in steps if step.hold]
        taken = False
        try:
            if holds and session.kept.stored:
                await site.sessions.hold(key, holds)
            taken = not payloads or await self._accepted(payloads)
        except TransientError as error:
            self._refuse_to_go_on(error)
        finally:
            if not taken:
                for _, each in holds:
                    each.certain = False  # the same message again has the same payload id
        if taken and holds and session.kept.stored:
            site.sessions.taken(key, [packet for packet, _ in holds])
        return taken and await self._answer(steps)

    async def _accepted(self, payloads: Sequence[RawPayload]) -> bool:
        """Offers them until all are taken, for accept_timeout_s; False = some were not, and the connection ends."""
        until = self._loop.time() + self._site.config.accept_timeout_s
        messages = self._site.counters.messages
        while True:
            before = len(payloads)
            try:
                payloads = await self._site.accept(payloads)
            except TooLarge as error:
                self._ending = self._ending or End("connection_lost", TOO_LARGE, str(error))
                return False
            messages["accepted"] += before - len(payloads)
            if not payloads:
                return True
            if self._ending is not None or self._lost or self._loop.time() > until:
                messages["not_taken"] += len(payloads)
                self._ending = self._ending or End("connection_lost", QUOTA, "the journal takes nothing")
                return False
            await asyncio.sleep(_RETRY_S)

    async def _answer(self, steps: list[Step]) -> bool:
        """False when the client is gone, or does not read."""
        self._send(b"".join([step.answer for step in steps]))
        if (room := self._room) is not None:
            self.deadline = self._loop.time() + self._site.config.write_timeout_s
            await room
            self.deadline = float("inf")
        return not self._lost

    async def _pause(self, delay_s: float) -> bool:
        """Waits; False when the connection ended meanwhile."""
        until = self._loop.time() + delay_s
        while (left_s := until - self._loop.time()) > 0:
            if self._ending is not None or self._lost:
                return False
            await asyncio.sleep(min(left_s, _RETRY_S))
        return True

    async def _admit(self, connect: Connect) -> Session | None:
        """The session of a CONNECT; None when it was refused."""
        site, config = self._site, self._site.config
        admitted = await admit(connect, config, site.devices, self._certificate(), site.new_id)
        if isinstance(admitted, int):
            if admitted != UNAVAILABLE:
                site.counters.refused_logins += 1
            self._refuse(connect, admitted)
            return None
        key = Key(admitted.device or "", admitted.client_id)
        while (other := site.live.get(key)) is not None:
            other.end(End("taken_over", 0x8E))
            await asyncio.shield(other.gone)
        if self._ending is not None or self._lost:
            return None
        self._key, site.live[key] = key, self
        try:
            if connect.clean and key in site.sessions:
                await site.sessions.forget(key)
            kept = await site.sessions.resume(key, admitted.expiry_s) if admitted.expiry_s else Kept()
            if not admitted.expiry_s and key in site.sessions:
                # 5: clean start 0, expiry 0: what was kept is used up by this connection.
                kept = await site.sessions.resume(key, 0) or Kept()
        except TransientError as error:
            log.error("mqtt: %s", error)
            self._refuse(connect, UNAVAILABLE)
            return None
        if kept is None:
            self._refuse(connect, QUOTA)
            return None
        session = site.session(connect, kept, admitted, site.address(self._peer))
        if session.will is not None and session.publishable(session.will.topic) == NOT_AUTHORIZED:
            self._refuse(connect, NOT_AUTHORIZED)
            return None
        self.session = session
        self._silence_s = admitted.keep_alive_s * 1.5
        if site.devices is not None and admitted.device is not None:
            self._unwatch = site.devices.watch(admitted.device, lambda: self.end(End("revoked", 0x98)))
        site.came(key, session)
        self._send(welcome(connect, admitted, config, session_present=kept.present) + session.greeting())
        return session

    def _refuse(self, connect: Connect, code: int) -> None:
        self._send(refusal(connect.version, code))
        self._ending = self._ending or End("connection_lost")

    def _refuse_to_go_on(self, error: Exception) -> None:
        log.error("mqtt: %s", error)
        self._ending = self._ending or End("connection_lost", UNAVAILABLE)

    def _broken(self, fault: Malformed) -> None:
        self._site.counters.malformed += 1
        if self.session is None and fault.code == UNSUPPORTED_VERSION:
            self._send(refusal(0, fault.code))
        self._ending = End("connection_lost", fault.code, str(fault))

    def _certificate(self) -> str | None:
        found: Any = self._transport.get_extra_info("peercert") if self._transport is not None else None
        subject: tuple[tuple[tuple[str, str], ...], ...] = found.get("subject", ()) if found else ()
        for name, value in (pair for part in subject for pair in part):
            if name == "commonName":
                return value
        return None

    def _send(self, data: bytes) -> None:
        if self._web is not None:
            data, self._web.out = self._web.out + (frame(data) if data else b""), b""
        if data and self._transport is not None and not self._lost and not self._closed:
            self._site.counters.sent_bytes += len(data)
            self._transport.write(data)

    def _close(self) -> None:
        """Nothing is under way any more."""
        if self._lost:
            self._finish()
            return
        if self._closed or self._transport is None:
            return
        assert self._ending is not None
        if self.session is not None:
            if self._ending.why:
                log.warning("mqtt: %s: %s", self.session.device or "somebody", self._ending.why)
            self._send(self.session.farewell(self._ending))
        self._closed = True
        self.deadline = self._loop.time() + _LINGER_S
        self._transport.close()

    def _finish(self) -> None:
        site, session = self._site, self.session
        site.held_bytes -= self._held
        self._held = 0
        self._unwatch()
        if not self.gone.done() and not self._finishing:
            self._finishing = True
            end = self._ending or End("connection_lost")
            site.counters.ended[end.reason] = site.counters.ended.get(end.reason, 0) + 1
            if session is not None and self._key is not None:
                site.spawn(self._leave(self._key, session, end))
            else:
                self._forget()

    async def _leave(self, key: Key, session: Session, end: End) -> None:
        try:
            await self._site.left(key, session, end)
        finally:
            self._forget()

    def _forget(self) -> None:
        if self._key is not None and self._site.live.get(self._key) is self:
            del self._site.live[self._key]
        self._site.closed(self)
        if not self.gone.done():
            self.gone.set_result(None)

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)


def _kind(step: Step) -> str:
    if step.end is not None:
        return "end"
    return "free" if step.free else "listen" if step.listens else "take"


def _nothing() -> None:
    return
