"""Records -> one MQTT 3.1.1 PUBLISH with QoS 1, on a connection that is kept open. Taken means: its PUBACK came.

Nothing else of MQTT is spoken: no subscription, no session, no will.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from spoorway_tracker.transports import Answer, body_of

if TYPE_CHECKING:
    import socket
    import ssl

_KEEP_ALIVE_S = 60
_REFUSED = {1: "protocol version", 2: "client identifier", 3: "unavailable", 4: "user name or password", 5: "not authorized"}


class Mqtt:
    """mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/DEVICE publishes to spoorway/DEVICE/tp2. topic: another one instead.

    client_id: by default a random one, so that two processes do not push each other out. max_packet_bytes: what the other side
    takes; it would not answer a larger one, but end the connection.
    """

    def __init__(
        self, url: str, *, topic: str | None = None, client_id: str | None = None, tls: ssl.SSLContext | None = None,
        max_packet_bytes: int = 262_144,
    ) -> None:  # fmt: skip
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(url)
        device = unquote(parts.path.strip("/"))
        if not parts.hostname or (not device and not topic) or parts.query or parts.fragment:
            raise ValueError(f"{url.rpartition('@')[2]!r}: not mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/DEVICE")
        self._host, self._secure, self._tls = parts.hostname, parts.scheme == "mqtts", tls
        self._port = parts.port or (8883 if self._secure else 1883)
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = None if parts.password is None else unquote(parts.password)
        self._topic = (topic or f"spoorway/{device}/tp2").encode()
        self._client_id, self._largest = client_id, max_packet_bytes - len(self._topic) - 9  # head, lengths, packet id
        self._socket: socket.socket | None = None
        self._last = 0.0
        self._packet_id = 0

    @property
    def credentials_may_change(self) -> bool:
        return True  # a broker's 4 and 5 are also said while a device is being registered

    def send(self, records: Sequence[bytes], sent_ms: int, timeout_s: float) -> Answer:
        body = body_of(records, sent_ms)
        if len(body) > self._largest:
            return Answer(413, "more than max_packet_bytes")
        kept = self._socket is not None and monotonic() - self._last < _KEEP_ALIVE_S
        if not kept:
            self.close()
        try:
            try:
                return self._publish(body, timeout_s)
            except ConnectionError:
                if not kept:
                    raise
                self.close()  # closed while it was idle; said by who closed it only now
                return self._publish(body, timeout_s)
        except _NotAccepted as refusal:
            self.close()
            return Answer(401 if refusal.code in (4, 5) else 503, f"refused: {_REFUSED.get(refusal.code, refusal.code)}")
        except (OSError, ValueError) as error:
            self.close()
            return Answer(0, f"{type(error).__name__}: {error}")

    def _publish(self, body: bytes, timeout_s: float) -> Answer:
        connection = self._connect(timeout_s)
        connection.settimeout(timeout_s)
        self._packet_id = self._packet_id % 65_535 + 1
        number = self._packet_id.to_bytes(2, "big")
        connection.sendall(_packet(0x32, _text(self._topic) + number + body))
        while True:  # an acknowledgement that came too late for its attempt is not this one's
            kind, content = _receive(connection)
            if kind >> 4 == 4 and content == number:
                self._last = monotonic()
                return Answer(200)

    def _connect(self, timeout_s: float) -> socket.socket:
        if self._socket is not None:
            return self._socket
        import socket

        connection = socket.create_connection((self._host, self._port), timeout_s)
        self._socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._secure:
            import ssl

            self._socket = connection = (self._tls or ssl.create_default_context()).wrap_socket(
                connection, server_hostname=self._host
            )
        flags = 0x02 | (0x80 if self._user is not None else 0) | (0x40 if self._password is not None else 0)
        name = self._client_id or f"spoorway-py-{os.urandom(6).hex()}"
        fields = [name, *(part for part in (self._user, self._password) if part is not None)]
        head = _text(b"MQTT") + bytes((4, flags)) + (2 * _KEEP_ALIVE_S).to_bytes(2, "big")
        connection.sendall(_packet(0x10, head + b"".join(_text(part.encode()) for part in fields)))
        kind, content = _receive(connection)
        if kind != 0x20 or len(content) != 2:
            raise ConnectionError("no CONNACK")
        if content[1]:
            raise _NotAccepted(content[1])
        self._last = monotonic()
        return connection

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(OSError):
                connection.close()


class _NotAccepted(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _text(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part


def _packet(head: int, content: bytes) -> bytes:
    length, rest = bytearray(), len(content)
    while True:
        length.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))
        rest >>= 7
        if not rest:
            return bytes((head,)) + bytes(length) + content


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    """First byte and content of the next packet. Raises ConnectionError at the end, ValueError for a length no broker should
    send."""
    kind = _exactly(connection, 1)[0]
    length = 0
    for shift in (0, 7, 14):
        byte = _exactly(connection, 1)[0]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return kind, _exactly(connection, length)
    raise ValueError("a packet of more than 2 MiB")


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := connection.recv(count - len(data))):
            raise ConnectionError("closed by the other side")
        data += more
    return data
