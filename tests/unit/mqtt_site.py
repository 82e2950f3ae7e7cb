"""A running MQTT listener on loopback with a recorder as its journal, and a client that sends packets as they are."""

from __future__ import annotations

import asyncio
import functools
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from gateway.devices import Message, Verdict
from gateway.mqtt.packets import V311, Connack, Connect, Packet, Publish, Reader, encode
from gateway.transports.mqtt import Config, Plugin
from protocol.seams import RawPayload

NOW_MS = 1_700_000_000_123
PATIENCE_S = 10


@dataclass
class Recorder:
    """The seam: keeps payloads. `trouble` is raised instead; while `gate` is closed, nothing is taken."""

    payloads: list[RawPayload] = field(default_factory=list)
    trouble: Exception | None = None
    offered: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def accept(self, payload: RawPayload) -> None:
        self.offered += 1
        self.entered.set()
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.payloads.append(payload)

    def reasons(self) -> list[str]:
        """Of the presence events, in their order."""
        found = [p for p in self.payloads if p.path.startswith("/com.snowplowanalytics.iglu")]
        return [orjson.loads(p.body or b"")["data"]["reason"] for p in found]

    def queries(self) -> list[str]:
        return [p.query for p in self.payloads if p.path == "/i"]


class Register:
    """Devices with passwords. delays: what `delay_s` says, one after the other, then 0."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.delays: list[float] = []
        self.watching: dict[str, list[Callable[[], None]]] = {}

    async def login(self, device: str, secret: str) -> Verdict:
        await asyncio.sleep(0)
        if device not in self.secrets:
            return Verdict(refusal="unknown")
        return Verdict(device) if self.secrets[device] == secret else Verdict(refusal="secret")

    def certified(self, device: str) -> Verdict:
        return Verdict(device) if device in self.secrets else Verdict(refusal="unknown")

    def known(self, device: str) -> bool:
        return device in self.secrets

    def signed(self, message: Message) -> Verdict:
        raise NotImplementedError

    def settle(self, message: Message, taken: bool) -> None:
        raise NotImplementedError

    def delay_s(self, device: str, size: int) -> float:
        return self.delays.pop(0) if self.delays else 0

    def watch(self, device: str, ended: Callable[[], None]) -> Callable[[], None]:
        self.watching.setdefault(device, []).append(ended)
        return lambda: self.watching[device].remove(ended)

    def revoke(self, device: str) -> None:
        for ended in list(self.watching.get(device, ())):
            ended()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int) -> None:
        self.reader, self.writer, self.version = reader, writer, version
        self.packets = Reader(1 << 20, server=False, version=version)
        self.waiting: list[Packet] = []

    def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join([encode(packet, self.version) for packet in packets]))

    async def next(self) -> Packet | None:
        """None at the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.waiting:
                try:
                    data = await self.reader.read(65_536)
                except OSError:
                    return None
                if not data:
                    return None
                self.waiting += self.packets.feed(data)
        return self.waiting.pop(0)

    async def silent(self, seconds: float = 0.05) -> bool:
        """True when nothing came. A client cannot know of a silence but by waiting."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return not self.waiting and not await self.reader.read(1)
        return True

    def drop(self) -> None:
        self.writer.transport.abort()


@dataclass
class Site:
    plugin: Plugin
    recorder: Recorder
    register: Register | None
    clients: list[Client] = field(default_factory=list)

    async def open(self, version: int = V311, ssl: ssl.SSLContext | None = None) -> Client:
        ((host, port),) = self.plugin.addresses
        client = Client(*await asyncio.open_connection(host, port, ssl=ssl), version)
        self.clients.append(client)
        return client

    async def connect(
        self, name: str = "c", *, tls: ssl.SSLContext | None = None, present: bool = False, **fields: Any
    ) -> Client:
        """Connected and accepted."""
        connect = Connect(name, **fields)
        client = await self.open(connect.version, tls)
        client.send(connect)
        answer = await client.next()
        assert isinstance(answer, Connack)
        assert (answer.code, answer.session_present) == (0, present)
        return client

    async def refused(self, name: str = "c", *, tls: ssl.SSLContext | None = None, **fields: Any) -> int:
        """The code of the CONNACK that says no."""
        connect = Connect(name, **fields)
        client = await self.open(connect.version, tls)
        client.send(connect)
        answer = await client.next()
        assert isinstance(answer, Connack)
        assert await client.next() is None
        return answer.code

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110  what is waited for has no event
                await asyncio.sleep(0.005)


@asynccontextmanager
async def site(register: Register | None = None, recorder: Recorder | None = None, **options: Any) -> AsyncIterator[Site]:
    recorder = recorder or Recorder()
    plugin = Plugin(Config(port=0, **options), register, clock_ms=lambda: NOW_MS)
    await plugin.start(recorder.accept)
    running = Site(plugin, recorder, register)
    try:
        yield running
    finally:
        await plugin.stop()
        for client in running.clients:
            client.writer.close()


def publish(number: int, qos: int = 1, device: str = "d1", dup: bool = False) -> Publish:
    return Publish(f"spoorway/{device}/tp1", b"e=pv&n=%d" % number, qos, number if qos else 0, dup=dup)


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test on the product's event loop."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        async def main() -> None:
            await test(**arguments)

        uvloop.run(main())

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run
