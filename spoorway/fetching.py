"""Asks web services for the enrichments: one request at a time, everything about it bounded.

A redirect is followed on the same host only, so that a service cannot send us to another. No proxy, no cookie, no compression.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from enrich.enrichments import Unanswered, WebAnswer, WebRequest
from spoorway import __version__

_MOST_REDIRECTS = 3
_MOST_IN_A_ROW = 5
_REST_S = 10.0
_CHUNK = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)


class Breaker:
    """Lets what failed several times in a row rest, so that it does not cost every event its time-out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._failures, self._until = clock, 0, 0.0

    def check(self) -> None:
        """Raises Unanswered while it rests."""
        left = self._until - self._clock()
        if self._failures >= _MOST_IN_A_ROW and left > 0:
            raise Unanswered(f"not asked: it failed {self._failures} times in a row and is left alone for {_REST_S:.0f} s")

    def worked(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._until = self._clock() + _REST_S


class Web:
    """Call it with a WebRequest. Keeps one connection per host; not safe to share between threads."""

    def __init__(
        self,
        timeout_s: float,
        most_bytes: int,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timeout_s, self._most_bytes = timeout_s, most_bytes
        self._gap_s = 1 / per_second if per_second > 0 else 0.0
        self._clock, self._sleep, self._next = clock, sleep, 0.0
        self._breakers: dict[str, Breaker] = {}
        self._open: dict[tuple[str, str], http.client.HTTPConnection] = {}
        weakref.finalize(self, _close, self._open)

    def __call__(self, request: WebRequest) -> WebAnswer:
        parts = urlsplit(request.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unanswered("only http:// and https:// are asked")
        breaker = self._breakers.setdefault(parts.netloc, Breaker(self._clock))
        breaker.check()
        self._wait_for_turn()
        try:
            answer = self._followed(request, parts, self._clock() + self._timeout_s)
        except TimeoutError:
            breaker.failed()
            raise Unanswered(f"no answer from {parts.hostname} within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            breaker.failed()
            raise Unanswered(f"{parts.hostname}: {type(error).__name__}: {error}") from None
        if answer.status >= 500 or answer.status == 429:
            breaker.failed()
        else:
            breaker.worked()
        return answer

    def _wait_for_turn(self) -> None:
        if self._gap_s:
            now = self._clock()
            if self._next > now:
                self._sleep(self._next - now)
            self._next = max(now, self._next) + self._gap_s

    def _followed(self, request: WebRequest, parts: SplitResult, deadline: float) -> WebAnswer:
        for _ in range(_MOST_REDIRECTS + 1):
            answer, location = self._asked(request, parts, deadline)
            if answer.status not in _REDIRECTS:
                return answer
            there = urlsplit(urljoin(parts.geturl(), location))
            if request.body is not None or (there.scheme, there.netloc) != (parts.scheme, parts.netloc):
                raise Unanswered(f"{parts.hostname}: a redirect to {there.netloc[:100]!r} is not followed")
            parts = there
        raise Unanswered(f"{parts.hostname}: more than {_MOST_REDIRECTS} redirects")

    def _asked(self, request: WebRequest, parts: SplitResult, deadline: float) -> tuple[WebAnswer, str]:
        place = (parts.scheme, parts.netloc)
        kept = self._open.pop(place, None)
        if kept is not None:
            try:
                return self._exchanged(kept, request, parts, deadline)
            except TimeoutError:
                raise
            except (ConnectionError, http.client.BadStatusLine):
                pass  # the service had closed the connection that we kept: once more on a new one
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self._left(deadline))
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return self._exchanged(connection, request, parts, deadline)

    def _exchanged(
        self, connection: http.client.HTTPConnection, request: WebRequest, parts: SplitResult, deadline: float
    ) -> tuple[WebAnswer, str]:
        finished = False
        try:
            timed: Any = connection.sock
            if not isinstance(timed, _Timed):
                timed = connection.sock = _Timed(timed)  # it is what http.client needs of a socket
            timed.left = lambda: self._left(deadline)
            headers = {"User-Agent": f"spoorway/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}
            headers |= dict(request.headers)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET" if request.body is None else "POST", target, request.body, headers)
            response = connection.getresponse()
            body = self._body(response)
            finished = not response.will_close
            return WebAnswer(response.status, body), response.getheader("Location") or ""
        finally:
            if finished:
                self._open[parts.scheme, parts.netloc] = connection
            else:
                connection.close()

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise Unanswered("the answer is compressed, which was not asked for")
        found = bytearray()
        while chunk := response.read(_CHUNK):
            found += chunk
            if len(found) > self._most_bytes:
                raise Unanswered(f"the answer is larger than {self._most_bytes} bytes")
        if response.length:  # it was cut off, which http.client does not say of what is read in parts
            raise http.client.IncompleteRead(bytes(found), response.length)
        return bytes(found)

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left


class _Timed:
    """A socket whose every operation has what is left of the request's time: a drop at a time is no way around it."""

    left: Callable[[], float]

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner

    def sendall(self, data: Any) -> None:
        self._inner.settimeout(self.left())
        self._inner.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self, self._inner.makefile("rb", buffering=0)))

    def before_reading(self) -> None:
        self._inner.settimeout(self.left())

    def close(self) -> None:
        self._inner.close()  # once the files made of it are closed, too


class _TimedReader(io.RawIOBase):
    def __init__(self, timed: _Timed, inner: Any) -> None:
        self._timed, self._inner = timed, inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._timed.before_reading()
        count: int | None = self._inner.readinto(buffer)
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()


def _close(connections: dict[Any, http.client.HTTPConnection]) -> None:
    for connection in connections.values():
        connection.close()
