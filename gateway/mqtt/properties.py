"""Bytes of an MQTT 5 property list <-> values by name, driven by one table.

Pure. What the table does not allow raises Malformed with the reason code that the standard asks for. Source: MQTT 5.0, 2.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

# user: pairs in their order; all others at most once.
Value = int | str | bytes | tuple[tuple[str, str], ...]
Properties = Mapping[str, Value]
NONE: Properties = MappingProxyType({})

MOST_BYTES = 16_384  # of one list; a packet may be larger, what describes it may not

# Reason codes of MQTT 5 that are sent or understood here.
MALFORMED, PROTOCOL_ERROR, TOO_LARGE = 0x81, 0x82, 0x95


class Malformed(Exception):
    """Bytes that are no MQTT. code: the reason code of MQTT 5; the message is for logs and reason strings."""

    def __init__(self, message: str, code: int = MALFORMED) -> None:
        super().__init__(message)
        self.code = code


class Property(NamedTuple):
    """kind: how it is written. packets: the letters of those that may carry it."""

    name: str
    kind: str
    packets: str


# Letters: C CONNECT, W its will, c CONNACK, P PUBLISH, A PUBACK to PUBCOMP, S SUBSCRIBE, s SUBACK, U UNSUBSCRIBE, u UNSUBACK,
# D DISCONNECT, X AUTH.
BY_ID = {
    0x01: Property("payload_format", "bit", "PW"),
    0x02: Property("message_expiry_s", "four", "PW"),
    0x03: Property("content_type", "text", "PW"),
    0x08: Property("response_topic", "text", "PW"),
    0x09: Property("correlation_data", "data", "PW"),
    0x0B: Property("subscription_identifier", "variable", "PS"),
    0x11: Property("session_expiry_s", "four", "CcD"),
    0x12: Property("assigned_client_id", "text", "c"),
    0x13: Property("server_keep_alive_s", "two", "c"),
    0x15: Property("authentication_method", "text", "CcX"),
    0x16: Property("authentication_data", "data", "CcX"),
    0x17: Property("request_problem_information", "bit", "C"),
    0x18: Property("will_delay_s", "four", "W"),
    0x19: Property("request_response_information", "bit", "C"),
    0x1A: Property("response_information", "text", "c"),
    0x1C: Property("server_reference", "text", "cD"),
    0x1F: Property("reason", "text", "cAsuDX"),
    0x21: Property("receive_maximum", "two", "Cc"),
    0x22: Property("topic_alias_maximum", "two", "Cc"),
    0x23: Property("topic_alias", "two", "P"),
    0x24: Property("maximum_qos", "bit", "c"),
    0x25: Property("retain_available", "bit", "c"),
    0x26: Property("user", "pair", "CWcPASsUuDX"),
    0x27: Property("maximum_packet_size", "four", "Cc"),
    0x28: Property("wildcards_available", "bit", "c"),
    0x29: Property("subscription_identifiers_available", "bit", "c"),
    0x2A: Property("shared_available", "bit", "c"),
}
_BY_NAME = {found.name: (number, found) for number, found in BY_ID.items()}
_WIDTHS = {"bit": 1, "two": 2, "four": 4}
# A value of 0 is an error of its own here. The alias has a code of its own, too (3.3.2.3.4).
_NOT_ZERO = {
    "receive_maximum": PROTOCOL_ERROR,
    "maximum_packet_size": PROTOCOL_ERROR,
    "subscription_identifier": PROTOCOL_ERROR,
    "topic_alias": 0x94,
}


def variable(number: int) -> bytes:
    """A variable byte integer, 0 to 268,435,455."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_variable(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(number, where it ends). Raises Malformed when it is cut short or longer than four bytes."""
    number = shift = 0
    while at < end and shift < 28:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise Malformed("a variable byte integer has no end")


def text(value: str) -> bytes:
    return data_field(value.encode())


def data_field(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def read_data(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    start = at + 2
    stop = start + int.from_bytes(data[at:start], "big")
    if start > end or stop > end:
        raise Malformed("a field is longer than its packet")
    return data[start:stop], stop


def read_text(data: bytes, at: int, end: int) -> tuple[str, int]:
    raw, at = read_data(data, at, end)
    return decoded(raw), at


def decoded(raw: bytes) -> str:
    """Strict: no surrogates, no U+0000 (MQTT-1.5.3-1, MQTT-1.5.3-2). A byte order mark is text like any other."""
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None
    if "\0" in value:
        raise Malformed("a text holds U+0000")
    return value


def read_properties(data: bytes, at: int, end: int, packet: str) -> tuple[Properties, int]:
    """(properties, where they end). packet: the letter of what carries them. Raises Malformed."""
    length, at = read_variable(data, at, end)
    if not length:
        return NONE, at
    if length > MOST_BYTES:
        raise Malformed(f"more than {MOST_BYTES} bytes of properties", TOO_LARGE)
    stop = at + length
    if stop > end:
        raise Malformed("the properties are longer than their packet")
    found: dict[str, Value] = {}
    user: list[tuple[str, str]] = []
    while at < stop:
        number, at = read_variable(data, at, stop)
        if (known := BY_ID.get(number)) is None or packet not in known.packets:
            raise Malformed(f"property 0x{number:02X} does not belong here")
        value: Value
        match known.kind:
            case "pair":
                name, at = read_text(data, at, stop)
                value, at = read_text(data, at, stop)
                user.append((name, value))
                continue
            case "text":
                value, at = read_text(data, at, stop)
            case "data":
                value, at = read_data(data, at, stop)
            case "variable":
                value, at = read_variable(data, at, stop)
            case kind:
                width = _WIDTHS[kind]
                if at + width > stop:
                    raise Malformed(f"{known.name} is cut short")
                value = int.from_bytes(data[at : at + width], "big")
                at += width
                if kind == "bit" and value > 1:
                    raise Malformed(f"{known.name} is neither 0 nor 1", PROTOCOL_ERROR)
        if known.name in found:
            raise Malformed(f"{known.name} stands twice", PROTOCOL_ERROR)
        if value == 0 and known.name in _NOT_ZERO:
            raise Malformed(f"{known.name} is 0", _NOT_ZERO[known.name])
        found[known.name] = value
    if user:
        found["user"] = tuple(user)
    return found, stop


def write_properties(properties: Properties) -> bytes:
    """With their length before them."""
    out = bytearray()
    for name, value in properties.items():
        number, known = _BY_NAME[name]
        pairs = value if isinstance(value, tuple) else ()
        for key, item in pairs:
            out += bytes((number,)) + text(key) + text(item)
        if isinstance(value, str):
            out += bytes((number,)) + text(value)
        elif isinstance(value, bytes):
            out += bytes((number,)) + data_field(value)
        elif isinstance(value, int):
            out.append(number)
            out += variable(value) if known.kind == "variable" else value.to_bytes(_WIDTHS[known.kind], "big")
    return variable(len(out)) + bytes(out)
