"""Records -> one HTTP request, on a connection that is kept open. Taken means: a 2xx whose body came to its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from spoorway_tracker.transports import Answer, body_of
from spoorway_tracker.version import TRACKER_VERSION

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection, HTTPResponse

    from spoorway_tracker.signing import Signer

_PATH = "/com.snowplowanalytics.snowplow/tp2"
_MAX_ANSWER_BYTES = 1 << 20
_WORTH_GZIP_BYTES = 1024
_URL = re.compile(r"(https?)://(\[[0-9a-fA-F:.%]+\]|[^/:?#@\[\]]+)(?::(\d{1,5}))?(/[^?#]*)?")

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


class Http:
    """headers: more of them; a function is asked at each attempt. A 401 or 403 may pass with time only then, and with a signer.

    gzip: None = once an answer has said `Accept-Encoding: gzip`; True where it is known, as of a Spoorway gateway.
    tls: as ssl.create_default_context makes it where none is given. method: "get" sends each event in a request of its own.
    """

    def __init__(
        self, url: str, *, method: str = "post", headers: Headers | None = None, gzip: bool | None = None,
        tls: ssl.SSLContext | None = None, signer: Signer | None = None,
    ) -> None:  # fmt: skip
        found = _URL.fullmatch(url)
        if not found or method not in ("get", "post"):
            raise ValueError(f"{url!r}, {method}: not http(s)://HOST[:PORT][/PATH], get or post")
        self._secure, self._host = found[1] == "https", found[2].strip("[]")
        self._port = int(found[3]) if found[3] else (443 if self._secure else 80)
        self._base = (found[4] or "").rstrip("/")
        self._method, self._headers, self._gzip, self._tls, self._signer = method, headers, gzip, tls, signer
        self._connection: HTTPConnection | None = None

    @property
    def credentials_may_change(self) -> bool:
        return callable(self._headers) or self._signer is not None

    def send(self, records: Sequence[bytes], sent_ms: int, timeout_s: float) -> Answer:
        if self._method == "post":
            return self._request("POST", self._base + _PATH, body_of(records, sent_ms), timeout_s)
        answer = Answer(0)
        for place, record in enumerate(records):
            answer = self._request("GET", f"{self._base}/i?{query_of(record, sent_ms)}", None, timeout_s)
            if not 200 <= answer.status < 300:
                return Answer(answer.status, answer.why, answer.retry_after_s, taken=place, about=1)
        return answer

    def _request(self, method: str, target: str, body: bytes | None, timeout_s: float) -> Answer:
        from http.client import HTTPException

        kept = self._connection is not None
        try:
            headers, body = self._packed(target, body)
            try:
                return self._exchange(method, target, body, headers, timeout_s)
            except (ConnectionError, HTTPException):
                if not kept:
                    raise
                self.close()  # the server had closed the connection that was kept open: that is no failure of its own
                return self._exchange(method, target, body, headers, timeout_s)  # byte for byte: a signed copy is taken as one
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a header that cannot be sent
            self.close()
            return Answer(0, f"{type(error).__name__}: {error}")

    def _packed(self, target: str, body: bytes | None) -> tuple[dict[str, str], bytes | None]:
        """Headers, and the body as it is sent. Raises OSError, ValueError."""
        headers = {"User-Agent": TRACKER_VERSION}
        if body is not None:
            headers["Content-Type"] = "application/json; charset=utf-8"
            if self._gzip and len(body) > _WORTH_GZIP_BYTES:
                from zlib import DEFLATED, compressobj

                deflate = compressobj(4, DEFLATED, 31)  # 31: with gzip's head and tail
                body = deflate.compress(body) + deflate.flush()
                headers["Content-Encoding"] = "gzip"
        try:
            more = self._headers() if callable(self._headers) else self._headers
            headers |= more or {}
        except Exception as error:  # the host's own fault must not end the sending thread
            raise ValueError(f"headers: {type(error).__name__}: {error}") from error
        if self._signer is not None:
            headers |= self._signer.headers(target, body or b"")
        return headers, body

    def _exchange(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float) -> Answer:
        connection = self._connect(timeout_s)
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        answer = response.read(_MAX_ANSWER_BYTES)
        if response.length and len(answer) < _MAX_ANSWER_BYTES:  # read(n) does not say that the body broke off
            self.close()
            return Answer(0, "the answer broke off")
        if response.will_close or len(answer) == _MAX_ANSWER_BYTES:
            self.close()
        if self._gzip is None and "gzip" in (response.getheader("Accept-Encoding") or "").lower():
            self._gzip = True
        if response.status == 409 and self._signer is not None:
            self._signer.refused()
        return Answer(response.status, response.reason, _retry_after(response))

    def _connect(self, timeout_s: float) -> HTTPConnection:
        if self._connection is None:
            from http.client import HTTPConnection, HTTPSConnection

            if self._secure:
                self._connection = HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
            else:
                self._connection = HTTPConnection(self._host, self._port, timeout=timeout_s)
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()


def query_of(record: bytes, sent_ms: int) -> str:
    """A record as a query string."""
    import json
    from urllib.parse import quote, urlencode

    return urlencode(json.loads(record) | {"stm": str(sent_ms)}, quote_via=quote)


def _retry_after(response: HTTPResponse) -> float:
    """Seconds; 0 where nothing is said. RFC 9110, 10.2.3: seconds or a date."""
    text = response.getheader("Retry-After") or ""
    if text.isascii() and text.isdigit():
        return float(min(int(text), 86_400))
    if text:
        import time
        from email.utils import parsedate_to_datetime

        with suppress(ValueError):
            return min(max(0.0, parsedate_to_datetime(text).timestamp() - time.time()), 86_400.0)
    return 0.0
