"""WebSocket for MQTT, the server's side: bytes in -> bytes of MQTT, and what to answer. Pure, keeps no more than one header.

Only what MQTT over WebSocket needs: subprotocol mqtt, binary frames; where they begin and end means nothing (MQTT-6.0.0-2).
Source: RFC 6455; MQTT 3.1.1, 6.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha1

_MOST_HEAD = 8_192
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUED, _BINARY, _CLOSE, _PING, _PONG = 0, 2, 8, 9, 10
_PROTOCOL_ERROR, _NOT_BINARY = 1002, 1003


class WebSocketEnded(Exception):
    """Nothing more is read. last: what the client is told before the connection is closed."""

    def __init__(self, last: bytes) -> None:
        super().__init__("the WebSocket ended")
        self.last = last


class WebSocket:
    """out: to be sent now; whoever sends it empties it."""

    def __init__(self) -> None:
        self.out = b""
        self._open = False
        self._buffer: bytes = b""
        self._left, self._mask, self._at = 0, b"", 0  # of the frame that is under way

    def feed(self, data: bytes) -> bytes:
        """Raises WebSocketEnded."""
        data, self._buffer = self._buffer + data, b""
        if not self._open:
            head, end, data = data.partition(b"\r\n\r\n")
            if len(head) > _MOST_HEAD:
                raise WebSocketEnded(_refusal("the request is too long"))
            if not end:
                self._buffer = head
                return b""
            self.out += _answer(head)
            self._open = True
        found: list[bytes] = []
        while data:
            if not self._left:
                if (rest := self._header(data)) is None:
                    self._buffer = data
                    break
                data = rest
            part, data = data[: self._left], data[self._left :]
            if part:
                found.append(_masked(part, self._mask, self._at))
                self._left -= len(part)
                self._at += len(part)
        return b"".join(found)

    def _header(self, data: bytes) -> bytes | None:
        """Reads a frame's header, and a control frame whole; what follows it, or None when it is not complete."""
        if len(data) < 2:
            return None
        kind, length, at = data[0] & 15, data[1] & 127, 2
        if data[0] & 0x70 or not data[1] & 128:
            raise WebSocketEnded(_closing(_PROTOCOL_ERROR))
        if kind >= _CLOSE:
            if length > 125 or not data[0] & 128:
                raise WebSocketEnded(_closing(_PROTOCOL_ERROR))
            if len(data) < 6 + length:
                return None
            body = _masked(data[6 : 6 + length], data[2:6], 0)
            if kind == _CLOSE:
                raise WebSocketEnded(_frame(_CLOSE, body[:2]))
            if kind == _PING:
                self.out += _frame(_PONG, body)
            return data[6 + length :]
        if kind not in (_BINARY, _CONTINUED):
            raise WebSocketEnded(_closing(_NOT_BINARY))
        if length > 125:
            width = 2 if length == 126 else 8
            if len(data) < at + width:
                return None
            length, at = int.from_bytes(data[at : at + width], "big"), at + width
        if len(data) < at + 4:
            return None
        self._left, self._mask, self._at = length, data[at : at + 4], 0
        return data[at + 4 :]


def frame(data: bytes) -> bytes:
    return _frame(_BINARY, data)


def _frame(kind: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((kind | 128, size)) + data
    length = bytes((126,)) + size.to_bytes(2, "big") if size < 65_536 else bytes((127,)) + size.to_bytes(8, "big")
    return bytes((kind | 128,)) + length + data


def _closing(code: int) -> bytes:
    return _frame(_CLOSE, code.to_bytes(2, "big"))


def _masked(data: bytes, mask: bytes, at: int) -> bytes:
    """at: how much of the frame came before."""
    size = len(data)
    turned = mask[at % 4 :] + mask[: at % 4]
    key = (turned * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _answer(head: bytes) -> bytes:
    """101, or WebSocketEnded with the refusal."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        fields[name] = f"{fields[name]},{value.strip()}" if name in fields else value.strip()
    method, _, rest = first.partition(" ")
    tokens = {token.strip().lower() for token in fields.get("connection", "").split(",")}
    protocols = {token.strip() for token in fields.get("sec-websocket-protocol", "").split(",")}
    key = fields.get("sec-websocket-key", "")
    if method != "GET" or not rest.endswith("HTTP/1.1") or "upgrade" not in tokens:
        raise WebSocketEnded(_refusal("this port speaks MQTT, plain or over WebSocket"))
    if fields.get("upgrade", "").lower() != "websocket" or fields.get("sec-websocket-version") != "13" or not _is_key(key):
        raise WebSocketEnded(_refusal("not a WebSocket request of version 13"))
    if "mqtt" not in protocols:
        raise WebSocketEnded(_refusal("the subprotocol is mqtt"))
    accept = base64.b64encode(sha1(key.encode() + _MAGIC).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        "Sec-WebSocket-Protocol: mqtt",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _refusal(why: str) -> bytes:
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len(why)}\r\nConnection: close\r\n"
    return f"{head}Sec-WebSocket-Version: 13\r\n\r\n{why}".encode()
