"""MQTT 3.1.1 load over raw sockets, so that the server is measured and not a client library. A process of its own, on core 1.

python -m benchmarks.mqtt_load flood PORT CONNECTIONS WINDOW SECONDS      QoS 1, 200 bytes of payload; prints one line of JSON
python -m benchmarks.mqtt_load idle PORT CONNECTIONS                      connects, prints the number, waits for end of input
python -m benchmarks.mqtt_load reconnect PORT CONNECTIONS                 all at once, one event each, until acknowledged
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from functools import partial
from typing import cast

import uvloop

_TV = b"e=se&p=iot&tv=load-1&aid=load&se_ca=a&se_ac=b"
_LENGTH = 200
_IDS = 60_000
_LONGEST_S = 60.0


def connect(name: str) -> bytes:
    client = name.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(client)) + client
    return b"\x10" + _size(len(body)) + body


def publish(topic: str, packet_id: int, payload: bytes, *, again: bool = False) -> bytes:
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + struct.pack(">H", packet_id) + payload
    return (b"\x3a" if again else b"\x32") + _size(len(body)) + body


def _size(length: int) -> bytes:
    return bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])


class Flooding(asyncio.Protocol):
    """One connection that keeps `window` publishes unacknowledged. acknowledged: how many came back."""

    def __init__(self, number: int, window: int, ready: asyncio.Future[None]) -> None:
        self.acknowledged = 0
        self.sent = 0
        self._name, self._window, self._ready = f"load-{number}", window, ready
        text = _TV + b"&se_la=" + b"x" * (_LENGTH - len(_TV) - 7)
        self._packets = [publish(f"spoorway/{self._name}/tp1", number + 1, text) for number in range(_IDS)]
        self._greeted, self._rest, self.stopping = False, 0, False
        self.lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class
        self._transport.write(connect(self._name))

    def begin(self) -> None:
        self._send(self._window)

    def data_received(self, data: bytes) -> None:
        if not self._greeted:
            if data[:4] != b"\x20\x02\x00\x00":
                raise RuntimeError(f"not welcome: {data!r}")
            self._greeted, data = True, data[4:]
            self._ready.set_result(None)
        done, self._rest = divmod(self._rest + len(data), 4)  # nothing but PUBACKs of four bytes comes
        self.acknowledged += done
        if not self.stopping:
            self._send(done)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopping:
            self.lost = error or EOFError("closed by the server")

    def close(self) -> None:
        self._transport.close()

    def _send(self, count: int) -> None:
        place = self.sent % _IDS
        packets = self._packets[place : place + count]
        if len(packets) < count:
            packets += self._packets[: count - len(packets)]
        self._transport.write(b"".join(packets))
        self.sent += count


def _same(client: Flooding) -> Flooding:
    return client


async def flood(port: int, connections: int, window: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    clients: list[Flooding] = []
    for number in range(connections):
        ready = loop.create_future()
        client = Flooding(number, window, ready)
        await loop.create_connection(partial(_same, client), "127.0.0.1", port)
        await ready
        clients.append(client)
    began = time.perf_counter()
    for client in clients:
        client.begin()
    await asyncio.sleep(seconds)
    acknowledged, elapsed = sum(client.acknowledged for client in clients), time.perf_counter() - began
    for client in clients:
        client.stopping = True
    async with asyncio.timeout(_LONGEST_S):
        while any(client.acknowledged < client.sent for client in clients):
            if lost := next((client.lost for client in clients if client.lost), None):
                raise lost
            await asyncio.sleep(0.01)
    for client in clients:
        client.close()
    return {"acknowledged": acknowledged, "seconds": elapsed, "all": sum(client.acknowledged for client in clients)}


async def idle(port: int, connections: int) -> None:
    streams: list[asyncio.StreamWriter] = []
    for start in range(0, connections, 200):
        numbers = range(start, min(start + 200, connections))
        streams += await asyncio.gather(*(_connected(port, f"idle-{number}") for number in numbers))
    print(json.dumps({"connected": len(streams)}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def _connected(port: int, name: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(connect(name))
    if await reader.readexactly(4) != b"\x20\x02\x00\x00":
        raise RuntimeError("not welcome")
    return writer


async def reconnect(port: int, connections: int) -> dict[str, float]:
    """Every device tries until its one event is acknowledged. attempts: connections begun."""
    attempts = 0

    async def one(number: int) -> None:
        nonlocal attempts
        name = f"device-{number}"
        while True:
            attempts += 1
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    try:
                        writer.write(connect(name))
                        await reader.readexactly(4)
                        writer.write(publish(f"spoorway/{name}/tp1", 1, _TV + f"&se_la={number}".encode()))
                        if await reader.readexactly(4) == b"\x40\x02\x00\x01":
                            return
                    finally:
                        writer.close()
            except (OSError, EOFError):
                await asyncio.sleep(0.05 + (number % 100) / 500)

    began = time.perf_counter()
    async with asyncio.timeout(_LONGEST_S), asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(one(number))
    return {"attempts": attempts, "seconds": time.perf_counter() - began}


def main() -> None:
    what, port, connections, *rest = sys.argv[1:]
    if what == "flood":
        print(json.dumps(uvloop.run(flood(int(port), int(connections), int(rest[0]), float(rest[1])))))
    elif what == "idle":
        uvloop.run(idle(int(port), int(connections)))
    else:
        print(json.dumps(uvloop.run(reconnect(int(port), int(connections)))))


if __name__ == "__main__":
    main()
