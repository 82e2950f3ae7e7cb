"""One question to one static registry over HTTP: a schema's document, "the same as before", or "not here".

Bounded in size and time as a whole, however slowly an answer drips. The address that was checked is the one connected to.
Redirects are followed within the registry's own host only, never from https to http. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urljoin, urlsplit

from protocol.iglu import SchemaKey
from spoorway.registry import layout
from spoorway.registry.layout import Document
from spoorway.registry.options import Remote

_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
# Whatever stands behind it is an IPv4 address that was not looked at.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# A static site may answer 403 for a file that does not exist (S3 without the right to list).
_MISSING = (403, 404, 410)


@dataclass(frozen=True, slots=True)
class Answer:
    """document: with status "found" only. etag: names this version of it, if the registry names versions."""

    status: Literal["found", "same", "missing"]
    document: Document | None = None
    etag: str | None = None


class Down(Exception):
    """The registry is in trouble, for every schema; the message says which."""


class Refused(Exception):
    """What it answered for this schema cannot be used; the message says why."""


def fetch(remote: Remote, key: SchemaKey, etag: str | None = None) -> Answer:
    """etag: of the document that is known. Raises Down, Refused."""
    url = f"{remote.url.rstrip('/')}/schemas/{key.vendor}/{key.name}/{key.format}/{key.version}"
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "spoorway", "Connection": "close"}
    if etag is not None:
        headers["If-None-Match"] = etag
    if remote.apikey_file:
        headers["apikey"] = _apikey(remote.apikey_file)
    connection = _Connection(remote)
    ending = threading.Timer(remote.timeout_s, connection.cut)
    ending.daemon = True
    ending.start()
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            status, location, new_etag, body = connection.get(urlsplit(url), headers)
            if status not in _REDIRECTS:
                return _answer(remote, key, status, new_etag, body)
            url = _followed(url, location)
    except (OSError, ValueError, http.client.HTTPException) as error:
        late = f"no whole answer within {remote.timeout_s:g} s" if connection.late else str(error) or type(error).__name__
        raise Down(late) from error
    finally:
        ending.cancel()
        connection.close()
    raise Refused("too many redirects")


def _answer(remote: Remote, key: SchemaKey, status: int, etag: str | None, body: bytes) -> Answer:
    if status == 304:
        return Answer("same", None, etag)
    if status in _MISSING:
        return Answer("missing")
    if status != 200:
        raise Down(f"status {status}")
    if len(body) > remote.max_bytes:
        raise Refused(f"more than {remote.max_bytes} bytes")
    try:
        document = layout.decode(body)
    except layout.Unreadable as error:
        raise Refused(str(error)) from None
    if layout.key_of_document(document) != key:
        raise Refused(f"its self does not say that it is {key.uri}")
    return Answer("found", document, etag)


def _followed(url: str, location: str | None) -> str:
    before, after = urlsplit(url), urlsplit(urljoin(url, location or ""))
    upgraded = (before.scheme, after.scheme) == ("http", "https") and before.hostname == after.hostname
    if not upgraded and (before.scheme, before.netloc) != (after.scheme, after.netloc):
        raise Refused(f"redirects to another host: {after.scheme}://{after.netloc}")
    return after.geturl()


class _Connection:
    """One socket at a time, that `cut` ends from another thread, whatever it waits for."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self.late = False

    def get(self, url: SplitResult, headers: dict[str, str]) -> tuple[int, str | None, str | None, bytes]:
        """Status, Location, ETag and up to one byte more than the limit. Raises OSError, HTTPException, Down."""
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        self.close()
        sock = self._opened(host, port)
        if url.scheme == "https":
            sock = _tls().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            self._take(sock)
            sock.do_handshake()
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        path = url.path + (f"?{url.query}" if url.query else "")
        connection.request("GET", path, headers={"Host": url.netloc, **headers})
        with connection.getresponse() as answer:
            body = answer.read(self._remote.max_bytes + 1) if answer.status == 200 else b""
            # Cut while it is read: without a length that looks like the end.
            if self.late or (answer.length and len(body) <= self._remote.max_bytes and answer.status == 200):
                raise ConnectionError("the answer broke off")
            return answer.status, answer.headers.get("Location"), answer.headers.get("ETag"), body

    def cut(self) -> None:
        with self._lock:
            self.late = True
            if self._socket is not None:
                with suppress(OSError):
                    # Of the plain socket, also under TLS: that one's own would pull its state from under the reader.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _opened(self, host: str, port: int) -> socket.socket:
        error: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if not self._remote.allow_private and not _public(str(address[0])):
                raise Down(f"{host} is at {address[0]}, which is no public address; allow_private = true lets it")
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(self._remote.timeout_s)
            self._take(sock)
            try:
                sock.connect(address)
                return sock
            except OSError as caught:
                error = caught
        raise error or OSError(f"{host} has no address")

    def _take(self, sock: socket.socket) -> None:
        with self._lock:
            if self._socket is not None and self._socket is not sock and self._socket.fileno() >= 0:
                self._socket.close()
            self._socket = sock
            if self.late:
                sock.close()
                raise TimeoutError("timed out")


def _public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None) or found
    return inner.is_global and not inner.is_multicast and found not in _NAT64


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _apikey(file: str) -> str:
    try:
        key = Path(file).expanduser().read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise Down(f"apikey_file {file}: {error}") from None
    if not key.isprintable() or not key.isascii() or not key:
        raise Down(f"apikey_file {file}: holds no key")
    return key
