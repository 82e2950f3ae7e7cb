"""What the tests of enrichments share: an event's raw side, and a web service that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from enrich.enrichments import RawEvent
from protocol.seams import RawPayload


def raw(*headers: tuple[str, str]) -> RawEvent:
    return RawEvent(RawPayload("0" * 32, 1_700_000_000_000, "http", "/i", headers=headers), 0, {"e": "pv"})


@dataclass
class Service:
    """port: of 127.0.0.1. asked: method, path with query, body and headers of each request."""

    port: int
    asked: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.asked]


@contextlib.contextmanager
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.asked.append((self.command, self.path, body, dict(self.headers)))
            parts = urlsplit(self.path)
            with contextlib.suppress(OSError):  # the client has gone: that is what is tested
                getattr(self, parts.path.split("/")[1].replace("-", "_"), self.echo)(parse_qs(parts.query), body)

        do_POST = do_GET

        def send(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def echo(self, query: dict[str, list[str]], body: bytes) -> None:
            answer = {"path": self.path, "query": {k: v[0] for k, v in query.items()}, "body": body.decode()}
            self.send(200, json.dumps({"found": [answer]}).encode())

        def status(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(int(query["code"][0]), b'{"found": [1]}')

        def to(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(int(query.get("code", ["302"])[0]), b"", Location=query.get("url", [""])[0])

        def circle(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(307, b"", Location="/circle")

        def huge(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(200, b'"' + b"x" * 3_000_000 + b'"')

        def endless(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            while not stopped.is_set():
                self.wfile.write(b" " * 100_000)

        def drop(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while not stopped.wait(0.02):
                self.wfile.write(b"1")

        def header_drop(self, query: dict[str, list[str]], body: bytes) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not stopped.wait(0.02):
                self.wfile.write(b"y")

        def hang(self, query: dict[str, list[str]], body: bytes) -> None:
            stopped.wait(5)

        def text(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(200, query.get("t", [""])[0].encode())

        def gzip(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(200, b"x", **{"Content-Encoding": "gzip"})

        def close(self, query: dict[str, list[str]], body: bytes) -> None:
            """Answers, promises to keep the connection and closes it."""
            self.send(200, b'{"found": [1]}')
            self.close_connection = True

        def rubbish(self, query: dict[str, list[str]], body: bytes) -> None:
            self.wfile.write(b"\x00\xff\r\n\r\n")
            self.close_connection = True

        def half(self, query: dict[str, list[str]], body: bytes) -> None:
            self.send(200, b'{"fo', **{"Content-Length": "100"})
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that goes away is what is tested

    stopped = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as server:
        found = Service(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            stopped.set()
            server.shutdown()
            thread.join()


class Stopwatch:
    def __enter__(self) -> Stopwatch:
        self._start = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._start
