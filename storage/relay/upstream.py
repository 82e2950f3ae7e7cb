"""One upstream over HTTP/1.1: a request -> its answer, on a connection that is kept. Everything about it is bounded in time.

Synchronous, one request at a time. Follows no redirect, takes no cookie; looks at no event.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from protocol.seams import ConfigurationError
from storage.relay.pauses import Pace

_MOST_ANSWER = 65_536  # bytes of an answer that are read


class Request(NamedTuple):
    """target: path and query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


class Answer(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


class Unreached(Exception):
    """No answer that can be trusted to be one. kind: dns, refused, tls, timeout, cut or network."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Upstream:
    """base: the path of its URL, without a slash at the end."""

    def __init__(self, url: str, timeout_s: float, ca_file: str, proxy_from_environment: bool, pace: Pace) -> None:
        """timeout_s: to connect, for each piece sent, and for the answer. Raises ConfigurationError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"url: {url!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ConfigurationError(f"url: expected one such as https://events.example.com, not {url!r}")
        self.host, self.secure, self.base = parts.hostname, parts.scheme == "https", parts.path.rstrip("/")
        self._port = port or (443 if self.secure else 80)
        self._authority = parts.netloc
        self._timeout_s, self._pace = timeout_s, pace
        self._context = _context(ca_file) if self.secure else None
        self._proxy = _proxy(parts) if proxy_from_environment else None
        self._kept: http.client.HTTPConnection | None = None
        self.sent_bytes = 0

    def ask(self, request: Request) -> Answer:
        """Raises Unreached. What was sent may have been taken all the same."""
        kept, self._kept = self._kept, None
        if kept is not None:
            try:
                return self._exchanged(kept, request)
            except Unreached as error:
                if error.kind != "cut":
                    raise
                # The upstream had closed the connection that we kept: the same bytes once more, on a new one.
        return self._exchanged(self._connected(), request)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self._proxy or (self.host, self._port)
        if self._context is None:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
            if self._proxy is not None:
                connection.set_tunnel(self.host, self._port)
        try:
            connection.connect()
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise self._unreached(error) from None
        return connection

    def _exchanged(self, connection: http.client.HTTPConnection, request: Request) -> Answer:
        line = connection.sock
        cut = threading.Event()

        def give_up() -> None:
            cut.set()
            with suppress(OSError):  # wakes whoever reads; a drop at a time is no way around the time-out
                socket.socket.shutdown(line, socket.SHUT_RDWR)

        watch = threading.Timer(self._timeout_s, give_up)
        watch.daemon = True
        good = False
        try:
            self._send(connection, request)
            watch.start()
            response = connection.getresponse()
            body = response.read(_MOST_ANSWER)
            if response.length and len(body) < _MOST_ANSWER:
                raise http.client.IncompleteRead(body, response.length)
            # Read to its end, or else the rest would be taken for the next answer.
            good = not response.will_close and response.isclosed()
            return Answer(response.status, response.getheader("Retry-After"), body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if cut.is_set():
                raise Unreached("timeout", f"{self.host} did not answer within {self._timeout_s:g} s") from None
            raise self._unreached(error) from None
        finally:
            watch.cancel()
            if good and not cut.is_set():
                self._kept = connection
            else:
                connection.close()

    def _send(self, connection: http.client.HTTPConnection, request: Request) -> None:
        target = self.base + request.target
        if self._proxy is not None and not self.secure:
            target = f"http://{self._authority}{target}"
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", self._authority)
        if all(name.lower() != "user-agent" for name, _ in request.headers):
            connection.putheader("User-Agent", "spoorway-relay")
        for name, value in request.headers:
            connection.putheader(name, value.encode())
        if request.body is None:
            connection.endheaders()
            return
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders()
        body = memoryview(request.body)
        try:
            for begin in range(0, len(body), self._pace.piece):
                piece = body[begin : begin + self._pace.piece]
                self._pace.wait(len(piece))
                connection.send(piece)
                self.sent_bytes += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have said why before it closed: the answer is read, or its absence is the error

    def _unreached(self, error: Exception) -> Unreached:
        message = f"{self.host}: {error or type(error).__name__}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreached("tls", f"{self.host}: its certificate is not accepted: {error.verify_message}")
        if isinstance(error, socket.gaierror):
            return Unreached("dns", f"no address is known for {self.host}: {error.strerror}")
        if isinstance(error, TimeoutError):
            return Unreached("timeout", f"{self.host} did not answer within {self._timeout_s:g} s")
        if isinstance(error, ConnectionRefusedError):
            return Unreached("refused", f"nothing listens on {self.host}:{self._port}")
        if isinstance(error, ConnectionError | http.client.HTTPException | ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return Unreached("cut", message)
        return Unreached("tls" if isinstance(error, ssl.SSLError) else "network", message)


def _context(ca_file: str) -> ssl.SSLContext:
    """Certificate and name are always checked; with ca_file against that file alone."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"ca_file: {ca_file}: {error}; it must hold certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _proxy(parts: SplitResult) -> tuple[str, int] | None:
    import urllib.request  # large, and seldom needed

    host = parts.hostname or ""
    found = urllib.request.getproxies().get(parts.scheme)
    if not found or urllib.request.proxy_bypass(host):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http" or not proxy.hostname or proxy.username:
        raise ConfigurationError("proxy_from_environment: only a proxy such as http://proxy.example:3128 can be used")
    return proxy.hostname, proxy.port or 80
