"""Serial lines <-> values: what a device says (`@`), what the gateway answers (`!`), and both out of a noisy stream of bytes.

Pure: bytes in, values out, no port and no clock. Nothing raises on bytes that were received, whatever they are, and nothing
keeps more of them than the longest line; what cannot be read comes out as Text or Damaged, never as nothing. docs/devices.md,
"Serial lines", is the text of it, protocol/vectors/serial the cases.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, crc_hqx
from collections.abc import Callable, Iterator
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from protocol.devices import LARGEST, NAME, SHORTEST_SIGNATURE, signature

Kind = Literal["j", "q", "c", "h"]
# Why a line was not taken. busy: later again. crc, line: at once again. The others: never again.
Refusal = Literal["busy", "crc", "line", "form", "large", "secret", "unknown", "revoked", "replayed"]

LONGEST = 4_096  # bytes of a line, without its line feed
_KINDS: dict[bytes, Kind] = {kind.encode(): kind for kind in get_args(Kind)}

_NUMBER = rb"(0|[1-9][0-9]{0,9})"
_HEAD = re.compile(rb"@([jqch]),((?:%b)?),%b,%b(?:,((?:[0-9A-Fa-f]{2}){8,32}))?:" % (NAME.pattern.encode(), _NUMBER, _NUMBER))
_ANSWER = re.compile(rb"!(?:a,%b,%b|n,%b?,%b?,([a-z]+)|([tr]),([0-9]{1,15}))\Z" % (_NUMBER, _NUMBER, _NUMBER, _NUMBER))
_END = re.compile(rb"\*([0-9A-Fa-f]{4})\Z")
_FORBIDDEN = re.compile(rb"[\r\n\0]")
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*\Z")
_STANDARD = bytes.maketrans(b"-_", b"+/")
# Where a line may begin within another whose line feed was lost; beyond so many the last ones are tried.
_MOST_STARTS = 8
_HEAD_BYTES = 256  # of a line that is too long are kept: enough for whose it was


class Line(NamedTuple):
    """What a device says. body: as sent, so base64url text where kind is c. signature: as many bytes of it as were sent."""

    kind: Kind
    device: str
    boot: int
    sequence: int
    body: bytes = b""
    signature: bytes = b""


class Answer(NamedTuple):
    """What the gateway says. a: on disk. n: not taken, see reason. t: the time. r: the least time between two messages.

    boot, sequence: None in an n whose line could not be read, and in t and r. milliseconds: since 1970 in t, a span in r.
    """

    kind: Literal["a", "n", "t", "r"]
    boot: int | None = None
    sequence: int | None = None
    reason: str = ""
    milliseconds: int = 0


class Text(NamedTuple):
    """A line of somebody else: the sketch's own print-out, a boot loader's, noise. Shortened where it was too long."""

    data: bytes


class Damaged(NamedTuple):
    """A line meant for us that cannot be read. boot, sequence: what its head says, which may itself be damaged; or None.

    reason: crc (sum and line differ), line (its end is missing), form (its sum is right, its head or body is not as described),
    large (longer than the longest; data is its first and its last part).
    """

    data: bytes
    reason: Literal["crc", "line", "form", "large"]
    boot: int | None = None
    sequence: int | None = None


def checksum(data: bytes) -> int:
    """CRC-16, polynomial 0x1021, start 0xFFFF; of b"123456789" it is 0x29B1."""
    return crc_hqx(data, 0xFFFF)


def encode(line: Line) -> bytes:
    """The line with its line feed. Raises ValueError where no line can say this."""
    kind, device, boot, sequence, body, code = line
    if kind.encode() not in _KINDS:
        raise ValueError(f"there is no kind {kind!r}")
    if device and not NAME.fullmatch(device):
        raise ValueError(f"{device!r} is no device name")
    if not (0 <= boot <= LARGEST and 1 <= sequence <= LARGEST):
        raise ValueError("boot or sequence is out of range")
    if _FORBIDDEN.search(body):
        raise ValueError("a body has no CR, LF or NUL")
    if code and not SHORTEST_SIGNATURE <= len(code) <= 32:
        raise ValueError("a signature has 8 to 32 bytes")
    signed = b"," + code.hex().encode() if code else b""
    return _closed(b"@%b,%b,%d,%d%b:%b" % (kind.encode(), device.encode(), boot, sequence, signed, body))


def signed(line: Line, key: bytes, length: int = 16) -> Line:
    """The line with its signature. length: bytes of it, 8 to 32."""
    code = signature(key, line.device, line.boot, line.sequence, line.kind, line.body)
    return line._replace(signature=code[:length])


def decode(data: bytes) -> Line | Damaged:
    """A line that begins with `@`, without its line ending. What does not begin so is Damaged too."""
    head = _HEAD.match(data)
    end = _END.search(data, len(data) - 5 if len(data) > 5 else 0)
    if end is None:
        return _damaged(data, "line", head)
    star = len(data) - 5
    if crc_hqx(data[1:star], 0xFFFF) != int(end[1], 16):
        return _damaged(data, "crc", head)
    if head is None or (start := head.end()) > star:
        return _damaged(data, "form", head)
    kind, device, boot, sequence, code = head.groups()
    numbers = int(boot), int(sequence)
    if numbers[0] > LARGEST or not 0 < numbers[1] <= LARGEST or _FORBIDDEN.search(data, start, star):
        return _damaged(data, "form", head)
    return Line(
        _KINDS[kind],
        device.decode(),
        *numbers,
        data[start:star],
        bytes.fromhex(code.decode()) if code else b"",
    )


def encode_answer(answer: Answer) -> bytes:
    """The line with its line feed. Raises ValueError where no line can say this."""
    kind, boot, sequence, reason, milliseconds = answer
    if kind in ("t", "r"):
        return _closed(b"!%b,%d" % (kind.encode(), milliseconds))
    if boot is not None and sequence is not None:
        numbers = b"%d,%d" % (boot, sequence)
    elif kind == "n" and boot is sequence:
        numbers = b","
    else:
        raise ValueError("an answer names both boot and sequence; only n may name neither")
    return _closed(b"!n,%b,%b" % (numbers, reason.encode()) if kind == "n" else b"!a,%b" % numbers)


def decode_answer(data: bytes) -> Answer | Damaged:
    """A line that begins with `!`, without its line ending."""
    end = _END.search(data)
    if end is None:
        return Damaged(data, "line")
    if crc_hqx(data[1 : end.start()], 0xFFFF) != int(end[1], 16):
        return Damaged(data, "crc")
    found = _ANSWER.match(data[: end.start()])
    if found is None:
        return Damaged(data, "form")
    boot, sequence, boot_n, sequence_n, reason, kind, milliseconds = found.groups()
    if kind:
        return Answer("t" if kind == b"t" else "r", milliseconds=int(milliseconds))
    if boot:
        return Answer("a", int(boot), int(sequence))
    if boot_n and sequence_n:
        return Answer("n", int(boot_n), int(sequence_n), reason.decode())
    return Answer("n", reason=reason.decode())


def frames(body: bytes) -> bytes:
    """The compact frames in the body of a line of kind c. Raises ValueError when it is no unpadded base64url."""
    if not _BASE64URL.match(body) or len(body) % 4 == 1:
        raise ValueError("the body is no unpadded base64url")
    return a2b_base64(body.translate(_STANDARD) + b"=" * (-len(body) % 4))


T = TypeVar("T")


class Deframer(Generic[T]):
    """Bytes in any split -> lines, text and damage, in their order. Holds at most the longest line and the chunk it is fed.

    A line that follows a print-out without a line feed, or noise, or the first half of another line, is found all the same.
    """

    def __init__(self, mark: bytes, read: Callable[[bytes], T | Damaged], longest: int = LONGEST) -> None:
        """mark: the byte our lines begin with. read: of a line that does."""
        self._mark, self._read, self._longest = mark, read, longest
        self._starts = re.compile(re.escape(mark) + b"[a-z],")
        self._rest = b""
        self._head = b""  # the beginning of a line that became too long

    def feed(self, data: bytes) -> list[T | Text | Damaged]:
        if 0 in data:  # a break, or a line at another speed; no line holds any, so the sum still tells
            data = data.translate(None, b"\0")
        if b"\n" in data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            found = [item for line in lines for item in self._items(line)]
        else:
            self._rest += data
            found = []
        if len(self._rest) > self._longest + 1:  # a CR may follow
            self._head = self._head or self._rest[:_HEAD_BYTES]
            self._rest = self._rest[-self._longest - 1 :]
        return found

    def end(self) -> list[T | Text | Damaged]:
        """What is left when nothing follows: a last line may lack its line feed."""
        return self.feed(b"\n") if self._rest or self._head else []

    def _items(self, line: bytes) -> Iterator[T | Text | Damaged]:
        head, self._head = self._head, b""
        if len(line) > self._longest + 1:
            head, line = head or line[:_HEAD_BYTES], line[-self._longest - 1 :]
        line = line.rstrip(b"\r")
        if len(line) > self._longest:
            head, line = head or line[:_HEAD_BYTES], line[-self._longest :]
        damage: Damaged | None = None
        if not head:
            if not line:
                return
            if line.startswith(self._mark):
                read = self._read(line)
                if not isinstance(read, Damaged):
                    yield read
                    return
                damage = read
        for start in [found.start() for found in self._starts.finditer(line, 0 if head else 1)][-_MOST_STARTS:]:
            read = self._read(line[start:])
            if not isinstance(read, Damaged):
                yield from self._unread(head, line[:start], None)
                yield read
                return
        yield from self._unread(head, line, damage)

    def _unread(self, head: bytes, data: bytes, damage: Damaged | None) -> Iterator[Text | Damaged]:
        """What lies before a line, or is none. damage: what it is, where that is known."""
        if head:
            data = head + data
        if damage is None and data.startswith(self._mark) and self._starts.match(data):
            damage = _damaged(data, "large" if head else "line", _HEAD.match(data))
        if damage is not None:
            yield damage
        elif data:
            yield Text(data)


def device_lines(longest: int = LONGEST) -> Deframer[Line]:
    """What the gateway reads: what devices say."""
    return Deframer(b"@", decode, longest)


def gateway_lines(longest: int = LONGEST) -> Deframer[Answer]:
    """What a device reads: what the gateway answers."""
    return Deframer(b"!", decode_answer, longest)


def _closed(line: bytes) -> bytes:
    return b"%b*%04x\n" % (line, crc_hqx(line[1:], 0xFFFF))


def _damaged(data: bytes, reason: Literal["crc", "line", "form", "large"], head: re.Match[bytes] | None) -> Damaged:
    if head is None or max(numbers := (int(head[3]), int(head[4]))) > LARGEST:
        return Damaged(data, reason)
    return Damaged(data, reason, *numbers)


__all__ = [
    "LONGEST",
    "Answer",
    "Damaged",
    "Deframer",
    "Kind",
    "Line",
    "Refusal",
    "Text",
    "checksum",
    "decode",
    "decode_answer",
    "device_lines",
    "encode",
    "encode_answer",
    "frames",
    "gateway_lines",
    "signed",
]
