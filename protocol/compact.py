"""Compact frames <-> readings; protocol/compact.md is the standard's text, protocol/vectors/compact the cases.

Pure and total: any bytes give readings or refusals, never an exception. Knows no keys: `split` says what a frame's seal covers,
whoever has the key compares. Numbers come out exact: a float here is the one that its decimal text stands for.
"""

from __future__ import annotations

import hmac
from binascii import crc_hqx
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from hashlib import sha256
from typing import Any, NamedTuple, cast

from protocol.devices import LARGEST, NAME
from protocol.seams import Json
from protocol.templates import LARGEST_CODE, LARGEST_ID, Field, Template

NAMED, SEALED, EARLIER, BATCH = 1, 2, 4, 8  # the low four bits of a frame's first byte
VERSION = 0xC0  # and its high four: no text begins like this
CRC_BYTES, SEAL_BYTES = 2, 4
LARGEST_FRAME = 257
MOST_READINGS = 255

# id, version -> what is known by these.
TemplateLookup = Callable[[int, int], Template | None]


class Frame(NamedTuple):
    """A whole frame. device: "" where it names none. covered: what its seal was made over, "" unless sealed.

    mark_ms: the uptime that ages count back from. content: its readings, not looked at yet. at: where it begins in the payload.
    """

    at: int
    device: str
    earlier: bool
    batch: bool
    readings: int
    template_id: int
    template_version: int
    boot: int
    sequence: int
    mark_ms: int
    content: bytes
    covered: bytes
    seal: bytes


class Reading(NamedTuple):
    """One event. uptime_ms: when it was tracked; sent_ms: when it was sent, on the same scale, None of an earlier boot."""

    template: Template
    device: str
    sealed: bool
    boot: int
    sequence: int
    uptime_ms: int
    sent_ms: int | None
    data: dict[str, Json]


class Refused(NamedTuple):
    """What is no reading. keyword: the rule that was broken. template: "id/version" that was asked for, "" if none was.

    Of a frame whose count is known there is one for each of its readings, so that a reading's place in its payload never changes.
    """

    keyword: str
    message: str
    at: int
    template: str = ""


class _Bad(Exception):
    pass


def seal(key: bytes, device: str, covered: bytes) -> bytes:
    """The 4 bytes that end a sealed frame. covered: the frame without them. key: protocol.devices.device_key."""
    return hmac.digest(key, device.encode() + b"\n" + covered, sha256)[:SEAL_BYTES]


# Reading ------------------------------------------------------------------------------------------------------------


def split(payload: bytes) -> list[Frame | Refused]:
    """The frames of a payload, in order. Behind a frame that is not whole only a whole one is believed; else one Refused tells
    of all the rest."""
    found: list[Frame | Refused] = []
    at = 0
    if not payload:
        return [Refused("Truncated", "there is no frame", 0)]
    while at < len(payload):
        end, frame = _frame(payload, at)
        if isinstance(frame, Refused) and frame.keyword != "Malformed" and found and found[-1][0] == "WrongCheck":
            return found  # its length was not to be believed: what follows belongs to the same refusal
        found.append(frame)
        at = end
    return found


def _frame(payload: bytes, at: int) -> tuple[int, Frame | Refused]:
    """Where the next frame begins, and this one."""
    head, size = payload[at], len(payload)
    if head & 0xF0 != VERSION:
        return size, Refused("UnknownVersion", f"no frame of a known version begins with 0x{head:02x}", at)
    if head & BATCH:
        end = at + 2 + payload[at + 1] if at + 1 < size else size + 1
        if end > size:
            return size, Refused("Truncated", "the frame goes on behind the end of the payload", at)
    else:
        end = size
    whole = payload[at:end]
    if head & SEALED:
        body, mac = whole[:-SEAL_BYTES], whole[-SEAL_BYTES:]
    elif crc_hqx(whole, 0xFFFF) != 0:
        return end, Refused("WrongCheck", "its CRC-16 is wrong: bits were changed or are missing", at)
    else:
        body, mac = whole[:-CRC_BYTES], b""
    try:
        return end, _head(body, mac, head, at)
    except (_Bad, IndexError) as error:
        return end, Refused("Malformed", str(error) if isinstance(error, _Bad) else "it is too short to be a frame", at)


def _head(body: bytes, mac: bytes, head: int, at: int) -> Frame:
    here, count, device = 1, 1, ""
    if head & BATCH:
        here, count = 3, body[2]
        if count == 0:
            raise _Bad("a batch of no readings")
    if head & NAMED:
        here, length = here + 1, body[here]
        device = body[here : here + length].decode("ascii", "replace")
        here += length
        if len(device) != length or not NAME.fullmatch(device):
            raise _Bad("its device name is none")
    number, here = _number(body, here)
    boot, here = _number(body, here)
    sequence, here = _number(body, here)
    mark, content = body[here : here + 4], body[here + 4 :]
    if not 8 <= number < LARGEST_ID + 1 << 3:
        raise _Bad(f"there is no template {number >> 3}")
    if sequence == 0 or sequence + count - 1 > LARGEST:
        raise _Bad("event sequences go from 1 to 4294967295")
    # One byte for each age and value at least, so that a short frame cannot claim many readings.
    if len(mark) < 4 or len(content) < (2 * count if head & BATCH else 1):
        raise _Bad("it is too short for its readings")
    return Frame(
        at,
        device,
        bool(head & EARLIER),
        bool(head & BATCH),
        count,
        number >> 3,
        (number & 7) + 1,
        boot,
        sequence,
        int.from_bytes(mark, "little"),
        content,
        body if head & SEALED else b"",
        mac,
    )


def decode(payload: bytes, templates: TemplateLookup) -> list[Reading | Refused]:
    """Every reading of a payload in its order, or why there is none. Seals are not looked at: see `split`."""
    found: list[Reading | Refused] = []
    for frame in split(payload):
        if isinstance(frame, Refused):
            found.append(frame)
            continue
        template = templates(frame.template_id, frame.template_version)
        if template is None:
            key = f"{frame.template_id}/{frame.template_version}"
            message = f"no template {frame.template_id} of version {frame.template_version} is known"
            found += [Refused("UnknownTemplate", message, frame.at, key)] * frame.readings
            continue
        try:
            found += _readings(frame, template)
        except (_Bad, IndexError) as error:
            message = str(error) if isinstance(error, _Bad) else "it ends before its last value"
            found += [Refused("Malformed", message, frame.at, template.key)] * frame.readings
    return found


def _readings(frame: Frame, template: Template) -> list[Reading]:
    content, plan, here = frame.content, _plan(template), 0
    device, sealed, boot, mark = frame.device, frame.seal != b"", frame.boot, frame.mark_ms
    found: list[Reading] = []
    age = 0
    for sequence in range(frame.sequence, frame.sequence + frame.readings):
        if frame.batch:
            age, here = _number(content, here)
        data: dict[str, Json] = {}
        for name, above, kind, offset, divisor, values in plan:
            number = content[here]
            here += 1
            if number > 0x7F:
                number, here = _number(content, here - 1)
            if number == 0:
                continue
            value: Json
            if kind <= _BYTES:
                part = content[here : here + number - 1]
                here += number - 1
                if len(part) != number - 1 or len(part) > offset:
                    raise _Bad(f"{name} is longer than {offset} bytes, or than the frame")
                value = part.hex() if kind == _BYTES else _utf8(part, name)
            else:
                # 1, 2, 3, 4, 5 stand for 0, -1, 1, -2, 2; 0 for "absent".
                number -= 1
                code = (number >> 1 ^ -(number & 1)) + offset
                if kind == _INTEGER:
                    value = code
                elif kind == _DECIMAL:
                    value = code / divisor  # both exact, so the quotient is the float its decimal text stands for
                elif 0 <= code < divisor:
                    value = values[code]
                else:
                    raise _Bad(f"{name} has no value number {code}")
            if above:
                _put(data, above, name, value)
            else:
                data[name] = value
        uptime = mark - age & LARGEST
        found.append(Reading(template, device, sealed, boot, sequence, uptime, None if frame.earlier else uptime + age, data))
    if here != len(content):
        raise _Bad(f"{len(content) - here} bytes follow its last value")
    return found


def _number(data: bytes, here: int) -> tuple[int, int]:
    """An unsigned number of up to 32 bits, seven in a byte, the lowest first, in no more bytes than needed; and what follows."""
    byte = data[here]
    if byte < 0x80:
        return byte, here + 1
    number, shift = byte & 0x7F, 7
    while True:
        here += 1
        byte = data[here]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise _Bad("a number of more than 32 bits")
    if byte == 0 or number > LARGEST:
        raise _Bad("a number of more than 32 bits, or in more bytes than it needs")
    return number, here + 1


def _utf8(part: bytes, name: str) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise _Bad(f"{name} is no UTF-8") from None


def _put(data: dict[str, Json], above: Sequence[str], name: str, value: Json) -> None:
    inner: Any = data
    for level in above:
        inner = inner.setdefault(level, {})
    inner[name] = value


_TEXT, _BYTES, _INTEGER, _DECIMAL, _CHOICE = range(5)
_KINDS = {"integer": _INTEGER, "decimal": _DECIMAL, "text": _TEXT, "bytes": _BYTES, "boolean": _CHOICE, "enum": _CHOICE}
_Plan = tuple[tuple[str, tuple[str, ...], int, int, int, tuple[Json, ...]], ...]
_plans: dict[int, tuple[Template, _Plan]] = {}


def _plan(template: Template) -> _Plan:
    """What decoding asks of each field: name, levels above it, kind, offset or most bytes, divisor or how many values, values."""
    kept = _plans.get(template.number)
    if kept is not None and kept[0] is template:
        return kept[1]
    plan = tuple(_step(each) for each in template.fields)
    _plans[template.number] = template, plan
    return plan


def _step(each: Field) -> tuple[str, tuple[str, ...], int, int, int, tuple[Json, ...]]:
    *above, name = each.path
    values: tuple[Json, ...] = (False, True) if each.type == "boolean" else each.values
    return name, tuple(above), _KINDS[each.type], each.offset or each.most, len(values) or 10**each.scale, values


# Writing ------------------------------------------------------------------------------------------------------------


def encode(
    template: Template,
    readings: Sequence[tuple[int, Mapping[str, Any]]],
    boot: int,
    sequence: int,
    mark_ms: int,
    *,
    device: str = "",
    sealed_by: tuple[str, bytes] | None = None,
    earlier: bool = False,
    batch: bool | None = None,
) -> bytes:
    """One frame, the reference for every other encoder. readings: (uptime_ms, data); numbers are rounded to the template's scale.

    sequence: of the first reading. mark_ms: uptime at sending; with `earlier` any that is not before the readings. device: named
    in the frame. sealed_by: (device, key). batch: None = only where it must be. Raises ValueError: what no frame can hold.
    """
    if not 1 <= len(readings) <= MOST_READINGS or not 1 <= sequence <= LARGEST - len(readings) + 1:
        raise ValueError(f"expected 1 to {MOST_READINGS} readings, and sequences of 32 bits that begin with 1")
    if device and not NAME.fullmatch(device):
        raise ValueError(f"{device!r} is no device name")
    ages = [mark_ms - uptime & LARGEST for uptime, _ in readings]
    if batch is None:
        batch = len(readings) > 1 or ages != [0]
    elif not batch and ages != [0]:
        raise ValueError("only one reading, sent at once, needs no batch")
    flags = (NAMED if device else 0) | (SEALED if sealed_by else 0) | (EARLIER if earlier else 0) | (BATCH if batch else 0)
    body = bytearray([VERSION | flags])
    if batch:
        body += bytes([0, len(readings)])
    if device:
        body.append(len(device))
        body += device.encode()
    for number in (template.number, boot, sequence):
        body += _written(number)
    body += (mark_ms & LARGEST).to_bytes(4, "little")
    for age, (_, data) in zip(ages, readings, strict=True):
        if batch:
            body += _written(age)
        for each in template.fields:
            body += _value(each, data)
    if batch:
        size = len(body) - 2 + (SEAL_BYTES if sealed_by else CRC_BYTES)
        if size > LARGEST_FRAME - 2:
            raise ValueError(f"{size + 2} bytes; a frame has {LARGEST_FRAME} at most")
        body[1] = size
    covered = bytes(body)
    return covered + (seal(sealed_by[1], sealed_by[0], covered) if sealed_by else crc_hqx(covered, 0xFFFF).to_bytes(2, "big"))


def _written(number: int) -> bytes:
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{number} does not fit 32 bits")
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _value(each: Field, data: Mapping[str, Any]) -> bytes:
    value: Any = data
    for name in each.path:
        value = cast(Mapping[str, Any], value).get(name) if isinstance(value, Mapping) else None
    if value is None:
        return b"\0"
    if each.type in ("text", "bytes"):
        part: bytes = bytes.fromhex(value) if each.type == "bytes" else value.encode()
        if len(part) > each.most:
            raise ValueError(f"{each.name}: {len(part)} bytes, the template allows {each.most}")
        return _written(len(part) + 1) + part
    if each.type == "enum":
        code = each.values.index(value)
    elif each.type == "boolean":
        code = int(value)
    else:
        code = int(Decimal(str(value)).scaleb(each.scale).quantize(Decimal(1), ROUND_HALF_EVEN)) - each.offset
    if abs(code) > LARGEST_CODE:
        raise ValueError(f"{each.name}: {value} is out of the wire's reach")
    return _written((code << 1 ^ code >> 63) + 1)
