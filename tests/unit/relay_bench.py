"""A relay on a real socket with an upstream that answers by a script; time is a number that only tests and waits move."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.devices import signature
from protocol.seams import Cursor, Position, RawPayload
from storage.targets import RawBatch
from storage.targets.relay import Config, Plugin

KEY = bytes(range(32))
TP2 = "/com.snowplowanalytics.snowplow/tp2"
NOW_MS = 1_700_000_000_000


@dataclass
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> bytes:
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body

    @property
    def lines(self) -> list[bytes]:
        return self.text.splitlines()


def said(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def taken(request: Seen) -> bytes:
    return said(200, b'{"accepted":%d}' % len(request.lines))


# What a script may say beside an answer: nothing at all, or nothing and hang up.
HANG, CUT = b"hang", b"cut"


class Upstream:
    """answer: called with each request, from the server's thread; bytes to say, HANG or CUT."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Seen] = []
        self.connections = 0
        self.answer: Callable[[Seen], bytes] = taken
        self._ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in [self._serving, *self._threads]:
            thread.join(10)
            assert not thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            if self._tls is not None:
                try:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                except OSError:
                    connection.close()
                    continue
            thread = threading.Thread(target=self._talk, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            connection.settimeout(20)
            while line := stream.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers: dict[str, str] = {}
                while (line := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
                    headers[name.lower()] = value
                seen = Seen(method, target, headers, stream.read(int(headers.get("content-length", 0))))
                self.requests.append(seen)
                answer = self.answer(seen)
                if answer == HANG:
                    self._ended.wait(20)
                    return
                if answer == CUT:
                    return
                connection.sendall(answer)


@dataclass
class Time:
    """ms: since 1970; also what the monotonic clock tells. slept: what the relay slept by itself."""

    ms: float = NOW_MS
    slept: list[float] = field(default_factory=list[float])

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ms += seconds * 1000


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.time, self.upstream = folder, Time(), Upstream()
        self.chance = 1.0
        self.key_file = folder / "relay.key"
        self.key_file.write_text(KEY.hex() + "\n")
        self._opened: list[Plugin] = []

    def open(self, **options: Any) -> Plugin:
        filled = {
            "url": self.upstream.url,
            "device": "site-7",
            "key_file": str(self.key_file),
            "state": str(self.folder / "upstream.relay.db"),
            "every_s": 0.0,
            **options,
        }
        relay = Plugin(
            Config(**filled),
            clock_ms=lambda: int(self.time.ms),
            timer=lambda: self.time.ms / 1000,
            sleep=self.time.sleep,
            chance=lambda: self.chance,
        )
        self._opened.append(relay)
        return relay

    def close(self) -> None:
        for relay in self._opened:
            relay.close()
        self.upstream.close()


@contextlib.contextmanager
def benched(folder: Path) -> Iterator[Bench]:
    bench = Bench(folder)
    try:
        yield bench
    finally:
        bench.close()


def payload_of(number: int, size: int = 0) -> RawPayload:
    return RawPayload(f"{number:032x}", NOW_MS + number, "http", "/i", query=f"e=pv&n={number}{'x' * size}", ip="192.0.2.7")


def at(number: int, lane: str = "lane") -> Cursor:
    return {lane: Position(1, number * 100, number)}


def batch_of(*payloads: RawPayload, end: int = 1, more: bool = False) -> RawBatch:
    return RawBatch(payloads, [], at(end), more)


def signed_right(request: Seen) -> bool:
    get = request.headers.get
    head = "site-7", int(get("spoorway-boot", "0")), int(get("spoorway-sequence", "0"))
    return signature(KEY, *head, request.target, request.body).hex() == get("spoorway-signature")
