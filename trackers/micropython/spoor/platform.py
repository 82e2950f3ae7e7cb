"""What MicroPython has and CPython lacks: milliseconds that count, and sockets that are streams. Not copied to boards."""

from __future__ import annotations

import socket as _socket
import time
from types import SimpleNamespace
from typing import Any

from . import http


def ticks_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def ticks_diff(later: int, earlier: int) -> int:
    return later - earlier


def sleep_ms(milliseconds: int) -> None:
    time.sleep(milliseconds / 1000)


class Stream:
    """A socket whose read and write return None where nothing can be done now, as MicroPython's."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def read(self, size: int) -> bytes | None:
        try:
            return self._sock.recv(size)
        except (BlockingIOError, _WantRead, _WantWrite):
            return None

    def write(self, data: bytes) -> int | None:
        try:
            return self._sock.send(data)
        except (BlockingIOError, _WantRead, _WantWrite):
            return None


def _stream(family: int) -> Stream:
    return Stream(_socket.socket(family))


try:
    from ssl import SSLWantReadError as _WantRead
    from ssl import SSLWantWriteError as _WantWrite
except ImportError:  # a Python without TLS
    _WantRead = _WantWrite = BlockingIOError  # type: ignore[assignment,misc]

# Instead of the module of that name.
http.socket = SimpleNamespace(getaddrinfo=_socket.getaddrinfo, socket=_stream)  # type: ignore[attr-defined]
