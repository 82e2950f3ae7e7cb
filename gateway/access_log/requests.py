"""One line of an access log -> the payload that the HTTP transport would have made of the request, or why there is none.

Pure but for the clock it is handed. What is no line of a log becomes a payload too, of its bytes, and fails later with a reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from gateway.access_log.config import Config
from gateway.access_log.counters import Outcome
from gateway.access_log.formats import Formats, Logged
from gateway.http.client_address import ClientAddresses
from gateway.http.config import Cookie
from gateway.http.headers import StoredHeaders
from gateway.http.identity import Identities
from gateway.http.target import host_of, split_target
from protocol.seams import ConfigurationError, RawPayload

# Where an event is sent by GET. Other paths may be anything that a web server has.
PATHS = (
    "/i",
    "/ice.png",
    "/com.snowplowanalytics.snowplow/tp1",
    "/com.snowplowanalytics.snowplow/tp2",
    "/com.snowplowanalytics.iglu/v1",
)
# The client comes back for the same, and that is logged as well.
_REDIRECTS = (301, 302, 303, 307, 308)


class Requests:
    def __init__(self, config: Config, now_ms: Callable[[], int]) -> None:
        """Raises ConfigurationError."""
        for own, stands_for in config.paths.items():
            if not own.startswith("/") or stands_for not in PATHS:
                raise ConfigurationError(f"access_log: paths: {own!r} = {stands_for!r}; possible are {', '.join(PATHS)}")
        self._paths = {path: path for path in PATHS} | dict(config.paths)
        self._now_ms = now_ms
        self._addresses = ClientAddresses((), "X-Forwarded-For", truncate=config.truncate_ip)
        self._headers = StoredHeaders(config.stored_headers)
        # No id is made here: who asked has had its answer long ago.
        self._identities = Identities(Cookie(name=config.cookie), "", ".*", str)

    def payload(self, formats: Formats, line: bytes, torn: bool, place: str) -> tuple[RawPayload | None, Outcome]:
        """place: names the line among all there are, should the line not name its request itself. torn: it is a part of one."""
        try:
            if torn:
                raise ValueError("longer than longest_line_bytes")
            logged = formats.read(line)
        except ValueError:
            return RawPayload(_id(place, line), self._now_ms(), "access_log", "/invalid", body=line), "bad"
        if logged is None:
            return None, "comment"
        if logged.status in _REDIRECTS:
            return None, "redirected"
        path, query = split_target(logged.target)
        if logged.method not in ("GET", "HEAD") or path not in self._paths:
            return None, "other"
        payload_id = _id("request", logged.id.encode()) if logged.id else _id(place, line)
        return self._event(logged, payload_id, self._paths[path], query), "accepted"

    def _event(self, logged: Logged, payload_id: str, path: str, query: str) -> RawPayload:
        told = {name.lower(): value for name, value in logged.headers}
        who = self._identities.of(
            query, told.get("cookie"), told.get("origin"), anonymous="sp-anonymous" in told, pixel=True, now_s=0
        )
        headers = self._headers.of([(name.encode(), value.encode()) for name, value in logged.headers], anonymous=who.anonymous)
        if logged.method == "HEAD":
            headers = (*headers, (":method", "HEAD"))
        return RawPayload(
            payload_id,
            logged.received_ms,
            "access_log",
            path,
            query,
            headers=headers,
            ip=None if who.anonymous else self._addresses.of(logged.ip, _NO_HEADERS),
            host=host_of(logged.target, logged.host),
            network_userid=who.network_userid,
        )


class _NoHeaders:
    def getall(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return default


_NO_HEADERS = _NoHeaders()


def _id(place: str, line: bytes) -> str:
    return hashlib.blake2b(line, digest_size=16, key=hashlib.blake2b(place.encode()).digest()).hexdigest()
