"""A running HTTP transport on loopback with a recorder as its journal, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
import functools
import gzip
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from gateway.transports.http import Config, Plugin
from protocol.seams import RawPayload

TP2 = "/com.snowplowanalytics.snowplow/tp2"
NOW_NS = 1_700_000_000_123_456_789
UUID = "7b1c0f2e-58a4-4c55-9a57-3f5ad1f4a001"
PATIENCE_S = 10


@dataclass
class Recorder:
    """The seam: keeps payloads. `trouble` is raised instead; while `gate` is closed, nothing is taken."""

    payloads: list[RawPayload] = field(default_factory=list)
    trouble: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def accept(self, payload: RawPayload) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.payloads.append(payload)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, head: bool = False) -> Reply:
        """The next answer, 100 Continue left out. head: it answers a HEAD request."""
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            status = int(lines[0].split()[1])
            if status == 100:
                return await self.reply(head=head)
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
            length = next(int(value) for name, value in headers if name == "Content-Length")
            return Reply(status, headers, b"" if head else await self.reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Wait until the server ended the connection; False when it sent something instead."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def is_silent(self, seconds: float = 0.05) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the server work until something shows, without a guess how long that takes."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is a counter, which has no event
            await asyncio.sleep(0.001)


class Site:
    def __init__(self, plugin: Plugin, recorder: Recorder) -> None:
        self.plugin, self.recorder = plugin, recorder
        ((self.host, self.port),) = plugin.addresses
        self._clients: list[Client] = []

    @property
    def counters(self) -> Any:
        return self.plugin.counters

    @property
    def payload(self) -> RawPayload:
        """The only one that was recorded."""
        (payload,) = self.recorder.payloads
        return payload

    async def connect(self, **options: Any) -> Client:
        client = Client(*await asyncio.open_connection(self.host, self.port, **options))
        self._clients.append(client)
        return client

    async def ask(self, target: str, method: str = "GET", body: bytes | None = None, **headers: str | bytes) -> Reply:
        """One request on a connection of its own. headers: underscores stand for hyphens."""
        client = await self.connect()
        await client.send(request(target, method, body, **headers))
        reply = await client.reply(head=method == "HEAD")
        client.close()
        return reply

    async def post(self, body: bytes = b"{}", target: str = TP2, **headers: str | bytes) -> Reply:
        return await self.ask(target, "POST", body, **{"Content_Type": "application/json", **headers})

    def close(self) -> None:
        for client in self._clients:
            client.close()


def request(target: str | bytes, method: str = "GET", body: bytes | None = None, **headers: str | bytes) -> bytes:
    target = target if isinstance(target, bytes) else target.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1"]
    headers.setdefault("Host", "events.example:8080")
    for name, value in headers.items():
        lines.append(name.replace("_", "-").encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    recorder = Recorder()
    ids = (f"{n:032x}" for n in range(1, 1_000_000))
    plugin = Plugin(Config(port=0, **options), clock_ns=lambda: NOW_NS, new_id=lambda: next(ids), new_uuid=lambda: UUID)
    await plugin.start(recorder.accept)
    running = Site(plugin, recorder)
    try:
        yield running
    finally:
        recorder.gate.set()
        running.close()
        await plugin.stop()


def served(**options: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Makes a test of `async def test(site, …)`: run on both event loops, with a site that has these options."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        async def scenario(arguments: dict[str, Any]) -> None:
            async with site(**options) as running:
                await test(running, **arguments)

        @functools.wraps(test)
        def run(loop: str, **arguments: Any) -> None:
            factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(scenario(arguments))

        # pytest reads the parameters it has to fill in from here.
        names = list(inspect.signature(test).parameters.values())[1:]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD), *names]
        )
        return pytest.mark.parametrize("loop", ["asyncio", "uvloop"])(run)

    return decorate


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
