"""A server on loopback that answers each request as the test has written down, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HANG = b"hang"
RESET = b"reset"


def status(code: int, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {code} Because\r\n{lines}Content-Length: 0\r\n\r\n".encode()


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, str]]:
        if self.method == "GET":
            return [dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))]
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        data: list[dict[str, str]] = json.loads(body)["data"]
        return data


class Answering:
    """answers: one for each request in turn; the last one for all that follow. accepted: connections so far."""

    def __init__(self) -> None:
        self.answers: list[bytes] = [OK]
        self.asked: list[Asked] = []
        self.largest_body: int | None = None
        self.accepted = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()

    def __enter__(self) -> Answering:
        self._start(self._accept)
        return self

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while self._one(connection, stream):
                    pass
            except (OSError, ValueError):
                return

    def _one(self, connection: socket.socket, stream: Any) -> bool:
        line = stream.readline().decode()
        if not line:
            return False
        method, target, _ = line.split(" ", 2)
        headers: dict[str, str] = {}
        while text := stream.readline().decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        if self.largest_body is not None and len(body) > self.largest_body:
            connection.sendall(status(413))
            return True
        self.asked.append(Asked(method, target, headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == HANG:
            self._ending.wait(30)
            return False
        if answer == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        connection.sendall(answer)
        return b"close" not in answer

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
