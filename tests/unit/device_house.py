"""A register of devices with a real journal beside it, a clock that is moved by hand, and a device that signs."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.devices import Message, Secrets
from gateway.devices.book import Kind
from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from gateway.devices.options import Options
from gateway.devices.register import Register
from gateway.journal.writer import FileWriter
from protocol.devices import signature
from protocol.seams import RawPayload

_IDS = itertools.count(1)


class Clock:
    """Both clocks of a gateway."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def s(self) -> float:
        return self.seconds

    def ms(self) -> int:
        return 1_700_000_000_000 + round(self.seconds * 1000)


class House:
    def __init__(self, data: Path, clock: Clock, register: Register, writer: FileWriter) -> None:
        self.data, self.clock, self.register, self.writer = data, clock, register, writer

    async def send(self, message: Message) -> str:
        """As a transport does: "taken", "repeated" or the refusal."""
        verdict = self.register.signed(message)
        if verdict.refusal or verdict.repeated:
            return verdict.refusal or "repeated"
        await self.append(verdict.device, verdict.headers)
        self.register.settle(message, True)
        return "taken"

    async def append(self, device: str, headers: tuple[tuple[str, str], ...]) -> None:
        payload = RawPayload(f"{next(_IDS):032x}", self.clock.ms(), "http", "/i", device=device, headers=headers)
        await self.writer.append(payload)

    def crashed(self) -> Path:
        """The data folder as a crash at this moment would leave it."""
        copy = self.data.with_name(f"{self.data.name}-{next(_IDS)}")
        shutil.copytree(self.data, copy)
        return copy


def signed(secrets: Secrets, boot: int, sequence: int, body: bytes = b"{}", length: int = 32, target: str = "/i") -> Message:
    made = signature(bytes.fromhex(secrets.key), secrets.device, boot, sequence, target, body)
    return Message(secrets.device, boot, sequence, target, body, made[:length])


def issue(
    data: Path, *names: str, kind: Kind = "both", clock: Clock | None = None, limits: Limits | None = None, again: bool = False
) -> list[Secrets]:
    data.mkdir(exist_ok=True)
    issuer = Issuer(data, (clock or Clock()).ms, make=True)
    try:
        return [each for each in issuer.add(names, kind, limits or Limits(), again=again) if isinstance(each, Secrets)]
    finally:
        issuer.close()


@asynccontextmanager
async def house(data: Path, clock: Clock | None = None, options: Options | None = None) -> AsyncIterator[House]:
    clock = clock or Clock()
    writer = FileWriter.open(data / "journal")
    register = Register(data, options, clock_s=clock.s, clock_ms=clock.ms)
    await register.start()
    try:
        yield House(data, clock, register, writer)
    finally:
        await register.stop()
        await writer.close()


def in_house(
    data: Path, scenario: Callable[[House], Awaitable[None]], clock: Clock | None = None, options: Options | None = None
) -> None:
    data.mkdir(exist_ok=True)

    async def run() -> None:
        async with house(data, clock, options) as inside:
            await scenario(inside)

    asyncio.run(run())
