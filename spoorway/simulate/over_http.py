"""A simulated device's HTTP: one connection, one POST at a time, signed where the device has a key."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from protocol.devices import (
    BOOT_HEADER,
    DEVICE_HEADER,
    SEQUENCE_HEADER,
    SIGNATURE_HEADER,
    TP2_PATH,
    signature,
)
from protocol.seams import PermanentError, TransientError

_ANSWER_S = 30.0


class HttpSender:
    """A `Sender`. boot: of the messages' numbers. key: 32 bytes, None = unsigned."""

    def __init__(self, host: str, port: int, device: str, boot: int, key: bytes | None) -> None:
        self._host, self._port, self._device, self._key = host, port, device, key
        self._boot, self._sequence = boot, 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, body: bytes, *, cut: bool = False) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._post(body, cut)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _post(self, body: bytes, cut: bool) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(self._head(body) + body)
        await writer.drain()
        if cut:
            raise ConnectionError("cut")
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        await reader.readexactly(int(fields.get("content-length", "0")))
        status = int(lines[0].split()[1])
        if fields.get("connection", "").lower() == "close":
            await self.close()
        if status in (429, 503):
            raise TransientError(lines[0])
        if status != 200:
            raise PermanentError(f"http://{self._host}:{self._port} does not take what {self._device} sends: {lines[0]}")

    def _head(self, body: bytes) -> bytes:
        lines = [
            f"POST {TP2_PATH} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        if self._key is not None:
            self._sequence += 1
            boot, sequence = self._boot, self._sequence
            lines += [
                f"{DEVICE_HEADER}: {self._device}",
                f"{BOOT_HEADER}: {boot}",
                f"{SEQUENCE_HEADER}: {sequence}",
                f"{SIGNATURE_HEADER}: {signature(self._key, self._device, boot, sequence, TP2_PATH, body).hex()}",
            ]
        return "\r\n".join([*lines, "\r\n"]).encode()
