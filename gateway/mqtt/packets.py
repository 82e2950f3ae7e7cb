"""Bytes <-> MQTT control packets, versions 3.1.1 (4) and 5, both sides of the wire.

Pure: bytes in, values out. `Reader` looks at a packet's length before anything else and never keeps more than the packet that is
under way; what is malformed ends it with a Malformed that says why. Source: the OASIS standards MQTT 3.1.1 and MQTT 5.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.mqtt.properties import (
    MALFORMED,
    NONE,
    PROTOCOL_ERROR,
    TOO_LARGE,
    Malformed,
    Properties,
    data_field,
    decoded,
    read_data,
    read_properties,
    read_text,
    text,
    variable,
    write_properties,
)

V311, V5 = 4, 5
LONGEST = 268_435_455  # the largest remaining length that can be written

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15
_FROM_CLIENT = {CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH}
_FROM_SERVER = {CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT, AUTH}
_FLAGS = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}  # of all others but PUBLISH: 0

UNSUPPORTED_VERSION, TOPIC_INVALID, FILTER_INVALID = 0x84, 0x90, 0x8F


class Will(NamedTuple):
    topic: str
    body: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NONE


class Connect(NamedTuple):
    client_id: str
    version: int = V311
    clean: bool = True
    keep_alive_s: int = 60
    will: Will | None = None
    user: str | None = None
    password: bytes | None = None
    properties: Properties = NONE


class Connack(NamedTuple):
    code: int = 0
    session_present: bool = False
    properties: Properties = NONE


class Publish(NamedTuple):
    """packet_id: 0 with QoS 0. topic: "" only in version 5, where an alias stands for it."""

    topic: str
    body: bytes
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    dup: bool = False
    properties: Properties = NONE


class Ack(NamedTuple):
    """kind: PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: int
    packet_id: int
    code: int = 0
    properties: Properties = NONE


class Subscribe(NamedTuple):
    """filters: (filter, options byte); its two lowest bits are the QoS."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    properties: Properties = NONE


class Unsubscribe(NamedTuple):
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NONE


class Suback(NamedTuple):
    """kind: SUBACK or UNSUBACK. codes: one per filter; none for UNSUBACK in 3.1.1."""

    kind: int
    packet_id: int
    codes: bytes = b""
    properties: Properties = NONE


class Ping(NamedTuple):
    kind: int = PINGREQ


class Disconnect(NamedTuple):
    code: int = 0
    properties: Properties = NONE


class Auth(NamedTuple):
    code: int = 0
    properties: Properties = NONE


Packet = Connect | Connack | Publish | Ack | Subscribe | Unsubscribe | Suback | Ping | Disconnect | Auth


class Reader:
    """One direction of one connection. fault: what ended it; packets that were read before it are good."""

    __slots__ = ("_buffer", "_from", "_need", "_topic", "_topic_raw", "fault", "max_bytes", "version")

    def __init__(self, max_bytes: int, *, server: bool = True, version: int = 0) -> None:
        """max_bytes: of a whole packet. server: it reads what clients send. version: 0 = the CONNECT will tell."""
        self.max_bytes = max_bytes
        self.version = version
        self.fault: Malformed | None = None
        self._from = _FROM_CLIENT if server else _FROM_SERVER
        self._buffer = bytearray()
        self._need = 0  # bytes without which nothing more can be read
        self._topic_raw, self._topic = b"", ""  # of the last PUBLISH: a device names the same one again and again

    @property
    def kept(self) -> int:
        """Bytes it holds of packets that are not read yet."""
        return len(self._buffer)

    def feed(self, data: bytes, most: int = 1_000) -> list[Packet]:
        """The packets that are complete now, `most` at a time: an empty `data` goes on. Never raises."""
        found: list[Packet] = []
        if self.fault is not None:
            return found
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return found
            data = bytes(self._buffer)
            self._buffer.clear()
        at, size = 0, len(data)
        self._need = 2
        try:
            while size - at >= 2 and len(found) < most:
                first = data[at]
                if (length := data[at + 1]) < 128:
                    start = at + 2
                elif size - at > 2 and data[at + 2] < 128:  # the usual length of a message
                    start, length = at + 3, length & 127 | data[at + 2] << 7
                elif (start := self._header_end(data, at, size)) == 0:
                    break
                else:
                    length = self._length(data, at + 1, start)
                end = start + length
                if end - at > self.max_bytes:
                    raise Malformed(f"a packet of more than {self.max_bytes} bytes", TOO_LARGE)
                if end > size:
                    self._need = end - at
                    break
                read = self._publish if first >> 4 == PUBLISH else self._other
                found.append(read(data, first, start, end))
                at = end
        except Malformed as fault:
            self.fault = fault
        else:
            self._buffer += memoryview(data)[at:]
        return found

    def _header_end(self, data: bytes, at: int, size: int) -> int:
        """Where the fixed header ends; 0 = not here yet."""
        for end in range(at + 2, min(at + 5, size)):
            if data[end] < 128:
                return end + 1
        if size - at >= 5:
            raise Malformed("the remaining length has no end")
        self._need = size - at + 1
        return 0

    @staticmethod
    def _length(data: bytes, at: int, end: int) -> int:
        length = shift = 0
        for byte in data[at:end]:
            length |= (byte & 127) << shift
            shift += 7
        return length

    def _publish(self, data: bytes, first: int, at: int, end: int) -> Publish:
        if not self.version:
            raise Malformed("the first packet is not CONNECT", PROTOCOL_ERROR)
        qos = first >> 1 & 3
        if qos == 3 or (first & 8 and not qos):
            raise Malformed("no such QoS, or DUP without one")
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > end or start > end:
            raise Malformed("the topic is longer than its packet")
        raw = data[start:at]
        if raw != self._topic_raw or not raw:
            topic = decoded(raw)
            if "+" in topic or "#" in topic or (not topic and self.version == V311):
                raise Malformed("a topic that cannot be published to", TOPIC_INVALID)
            self._topic_raw, self._topic = raw, topic
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(data[at : at + 2], "big")
            at += 2
            if at > end or not packet_id:
                raise Malformed("a packet identifier is missing or 0")
        if self.version == V5:
            properties, at = read_properties(data, at, end, "P")
        else:
            properties = NONE
        return Publish(self._topic, data[at:end], qos, packet_id, bool(first & 1), bool(first & 8), properties)

    def _other(self, data: bytes, first: int, at: int, end: int) -> Packet:
        kind = first >> 4
        if kind not in self._from or (kind == AUTH and self.version == V311):
            raise Malformed(f"a packet of kind {kind} has no place here", PROTOCOL_ERROR)
        if first & 15 != _FLAGS.get(kind, 0):
            raise Malformed("reserved flags are set")
        if kind == CONNECT:
            if self.version:
                raise Malformed("a second CONNECT", PROTOCOL_ERROR)
            packet = _connect(data, at, end)
            self.version = packet.version
            return packet
        if not self.version:
            raise Malformed("the first packet is not CONNECT", PROTOCOL_ERROR)
        packet_, at = _READERS[kind](kind, data, at, end, self.version)
        if at != end:
            raise Malformed("a packet is longer than what it holds")
        return packet_


def _connect(data: bytes, at: int, end: int) -> Connect:
    name, at = read_text(data, at, end)
    if at + 4 > end:
        raise Malformed("CONNECT is cut short")
    version, flags, keep_alive_s = data[at], data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
    if name == "MQIsdp" or (name == "MQTT" and version not in (V311, V5)):
        raise Malformed("only MQTT 3.1.1 and 5 are spoken here", UNSUPPORTED_VERSION)
    if name != "MQTT":
        raise Malformed("the protocol's name is not MQTT", UNSUPPORTED_VERSION)
    at += 4
    will_qos = flags >> 3 & 3
    if flags & 1 or will_qos == 3 or (not flags & 4 and flags & 0x38) or (version == V311 and flags & 0xC0 == 0x40):
        raise Malformed("the flags of CONNECT contradict each other")
    properties, will_properties = NONE, NONE
    if version == V5:
        properties, at = read_properties(data, at, end, "C")
    client_id, at = read_text(data, at, end)
    will = user = password = None
    if flags & 4:
        if version == V5:
            will_properties, at = read_properties(data, at, end, "W")
        topic, at = read_text(data, at, end)
        if not topic or "+" in topic or "#" in topic:
            raise Malformed("a will's topic that cannot be published to", TOPIC_INVALID)
        body, at = read_data(data, at, end)
        will = Will(topic, body, will_qos, bool(flags & 0x20), will_properties)
    if flags & 0x80:
        user, at = read_text(data, at, end)
    if flags & 0x40:
        password, at = read_data(data, at, end)
    if at != end:
        raise Malformed("CONNECT is longer than what it holds")
    return Connect(client_id, version, bool(flags & 2), keep_alive_s, will, user, password, properties)


def _packet_id(data: bytes, at: int, end: int) -> tuple[int, int]:
    packet_id = int.from_bytes(data[at : at + 2], "big")
    if at + 2 > end or not packet_id:
        raise Malformed("a packet identifier is missing or 0")
    return packet_id, at + 2


def _code(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[int, Properties, int]:
    """The reason code and the properties of a packet that may end before either."""
    if version != V5 or at == end:
        return 0, NONE, at
    code = data[at]
    if at + 1 == end:
        return code, NONE, end
    properties, at = read_properties(data, at + 1, end, {DISCONNECT: "D", AUTH: "X"}.get(kind, "A"))
    return code, properties, at


def _ack(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[Packet, int]:
    packet_id, at = _packet_id(data, at, end)
    code, properties, at = _code(kind, data, at, end, version)
    return Ack(kind, packet_id, code, properties), at


def _subscribe(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[Packet, int]:
    packet_id, at = _packet_id(data, at, end)
    properties = NONE
    if version == V5:
        properties, at = read_properties(data, at, end, "S" if kind == SUBSCRIBE else "U")
    filters: list[tuple[str, int]] = []
    while at < end:
        name, at = _filter(data, at, end)
        options = 0
        if kind == SUBSCRIBE:
            if at == end:
                raise Malformed("a filter without its options")
            options, at = data[at], at + 1
            if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC) or options & 0x30 == 0x30:
                raise Malformed("the options of a subscription do not exist")
            if options & 4 and name.startswith("$share/"):
                raise Malformed("a shared subscription cannot be no-local", PROTOCOL_ERROR)
        filters.append((name, options))
    if not filters:
        raise Malformed("a subscription to nothing", PROTOCOL_ERROR)
    if kind == SUBSCRIBE:
        return Subscribe(packet_id, tuple(filters), properties), at
    return Unsubscribe(packet_id, tuple([name for name, _ in filters]), properties), at


def _filter(data: bytes, at: int, end: int) -> tuple[str, int]:
    name, at = read_text(data, at, end)
    levels = name.split("/")
    # "#" stands alone and last, "+" alone (MQTT-4.7.1-2, MQTT-4.7.1-3)
    if not name or "#" in levels[:-1] or any(len(level) > 1 and ("#" in level or "+" in level) for level in levels):
        raise Malformed("a topic filter that cannot be", FILTER_INVALID)
    return name, at


def _suback(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[Packet, int]:
    packet_id, at = _packet_id(data, at, end)
    properties = NONE
    if version == V5:
        properties, at = read_properties(data, at, end, "s" if kind == SUBACK else "u")
    return Suback(kind, packet_id, data[at:end], properties), end


def _connack(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[Packet, int]:
    if end - at < 2 or data[at] > 1:
        raise Malformed("CONNACK is cut short or its flags do not exist")
    present, code, at = bool(data[at]), data[at + 1], at + 2
    properties = NONE
    if version == V5 and at < end:
        properties, at = read_properties(data, at, end, "c")
    return Connack(code, present, properties), at


def _ping(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[Packet, int]:
    return Ping(PINGREQ if kind == PINGREQ else PINGRESP), at


def _disconnect(kind: int, data: bytes, at: int, end: int, version: int) -> tuple[Packet, int]:
    code, properties, at = _code(kind, data, at, end, version)
    return (Disconnect if kind == DISCONNECT else Auth)(code, properties), at


_READERS: dict[int, Callable[[int, bytes, int, int, int], tuple[Packet, int]]] = {
    CONNACK: _connack,
    **dict.fromkeys((PUBACK, PUBREC, PUBREL, PUBCOMP), _ack),
    **dict.fromkeys((SUBSCRIBE, UNSUBSCRIBE), _subscribe),
    **dict.fromkeys((SUBACK, UNSUBACK), _suback),
    **dict.fromkeys((PINGREQ, PINGRESP), _ping),
    **dict.fromkeys((DISCONNECT, AUTH), _disconnect),
}


def encode(packet: Packet, version: int = V311) -> bytes:
    """The bytes of a packet. What only version 5 can say is left out in 3.1.1."""
    v5 = version == V5
    match packet:
        case Publish(topic, body, qos, packet_id, retain, dup, properties):
            head = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
            head += write_properties(properties) if v5 else b""
            return _framed(PUBLISH << 4 | dup << 3 | qos << 1 | retain, head + body)
        case Ack(kind, packet_id, code, properties):
            return _framed(kind << 4 | _FLAGS.get(kind, 0), packet_id.to_bytes(2, "big") + _coded(code, properties, v5))
        case Connack(code, present, properties):
            return _framed(CONNACK << 4, bytes((present, code)) + (write_properties(properties) if v5 else b""))
        case Suback(kind, packet_id, codes, properties):
            rest = write_properties(properties) + codes if v5 else codes if kind == SUBACK else b""
            return _framed(kind << 4, packet_id.to_bytes(2, "big") + rest)
        case Ping(kind):
            return _framed(kind << 4, b"")
        case Disconnect(code, properties):
            return _framed(DISCONNECT << 4, _coded(code, properties, v5))
        case Auth(code, properties):
            return _framed(AUTH << 4, _coded(code, properties, v5))
        case Connect():
            return _framed(CONNECT << 4, _written(packet))
        case Subscribe(packet_id, filters, properties):
            listed = b"".join([text(name) + bytes((options,)) for name, options in filters])
            head = packet_id.to_bytes(2, "big") + (write_properties(properties) if v5 else b"")
            return _framed(SUBSCRIBE << 4 | 2, head + listed)
        case Unsubscribe(packet_id, names, properties):
            listed = b"".join(map(text, names))
            head = packet_id.to_bytes(2, "big") + (write_properties(properties) if v5 else b"")
            return _framed(UNSUBSCRIBE << 4 | 2, head + listed)


def _written(packet: Connect) -> bytes:
    v5, will = packet.version == V5, packet.will
    flags = (packet.user is not None) << 7 | (packet.password is not None) << 6 | packet.clean << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    out = text("MQTT") + bytes((packet.version, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    out += (write_properties(packet.properties) if v5 else b"") + text(packet.client_id)
    if will is not None:
        out += (write_properties(will.properties) if v5 else b"") + text(will.topic) + data_field(will.body)
    if packet.user is not None:
        out += text(packet.user)
    return out if packet.password is None else out + data_field(packet.password)


def _coded(code: int, properties: Properties, v5: bool) -> bytes:
    if not v5 or not (code or properties):
        return b""
    return bytes((code,)) + (write_properties(properties) if properties else b"")


def _framed(first: int, body: bytes) -> bytes:
    return bytes((first,)) + variable(len(body)) + body


__all__ = ["LONGEST", "MALFORMED", "V5", "V311", "Malformed", "Packet", "Reader", "encode"]
