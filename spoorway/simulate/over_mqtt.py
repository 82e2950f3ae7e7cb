"""A simulated device's MQTT: version 3.1.1, QoS 1, one publish at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.mqtt.packets import PUBACK, Ack, Connack, Connect, Packet, Publish, Reader, encode
from protocol.seams import PermanentError, TransientError

_ANSWER_S = 30.0
_BUSY = 3  # CONNACK of 3.1.1: server unavailable
_MOST_BYTES = 65_536
_READ = 4_096


class MqttSender:
    """A `Sender`. secret: the password of a device that the gateway knows."""

    def __init__(self, host: str, port: int, device: str, secret: str | None = None) -> None:
        self._host, self._port, self._device, self._secret = host, port, device, secret
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._packets: Reader | None = None
        self._waiting: list[Packet] = []
        self._number = 0

    async def send(self, body: bytes, *, cut: bool = False) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._publish(body, cut)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams, self._packets, self._waiting = None, None, []
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _publish(self, body: bytes, cut: bool) -> None:
        if self._streams is None:
            await self._connect()
        assert self._streams is not None
        self._number = self._number % 65_535 + 1
        writer = self._streams[1]
        writer.write(encode(Publish(f"spoorway/{self._device}/tp2", body, 1, self._number)))
        await writer.drain()
        if cut:
            raise ConnectionError("cut")
        while True:
            match await self._next():
                case Ack(kind, number) if (kind, number) == (PUBACK, self._number):
                    return
                case _:
                    pass

    async def _connect(self) -> None:
        self._streams = await asyncio.open_connection(self._host, self._port)
        self._packets = Reader(_MOST_BYTES, server=False, version=4)
        password = None if self._secret is None else self._secret.encode()
        user = None if self._secret is None else self._device
        self._streams[1].write(encode(Connect(self._device, user=user, password=password)))
        answer = await self._next()
        if not isinstance(answer, Connack):
            raise ConnectionError(f"expected a CONNACK, not {type(answer).__name__}")
        if answer.code == _BUSY:
            raise TransientError("the gateway is unavailable")
        if answer.code:
            raise PermanentError(f"mqtt://{self._host}:{self._port} refuses {self._device}: CONNACK {answer.code}")

    async def _next(self) -> Packet:
        assert self._streams is not None and self._packets is not None
        while not self._waiting:
            data = await self._streams[0].read(_READ)
            if not data:
                raise EOFError("the gateway closed the connection")
            self._waiting = self._packets.feed(data)
            if self._packets.fault is not None:
                raise self._packets.fault
        return self._waiting.pop(0)
