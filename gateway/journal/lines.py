"""A payload <-> one self-checking line: `{"crc":"xxxxxxxx","n":17,"id":…}` and a line feed.

The CRC-32 covers everything between the crc field and the line feed. It comes first, so that `{"crc":"` marks the start of a
line and occurs nowhere else (within JSON text every quote is escaped): however a line is damaged, the next one is found again.
Pure: bytes in, values out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, cast
from zlib import crc32

import orjson

from gateway.journal import Damage
from protocol.payloads import from_fields, to_json
from protocol.seams import Position, RawPayload

MARK = b'{"crc":"'
_FIELDS = len(MARK) + 8 + len(b'",')


def encode(payload: RawPayload, sequence: int) -> bytes:
    """The line of a payload. Raises TypeError when it holds text that is no Unicode."""
    fields = to_json(payload, sequence)[1:]
    return b'{"crc":"%08x",%b\n' % (crc32(fields), fields)


def encode_within(payload: RawPayload, sequence: int, size: int) -> bytes | None:
    """As encode, made `size` bytes long by spaces, which JSON does not see, so that no line after it moves; None: no room."""
    fields = to_json(payload, sequence)[1:-1]
    room = size - _FIELDS - len(fields) - len(b"}\n")
    if room < 0:
        return None
    fields += b" " * room + b"}"
    return b'{"crc":"%08x",%b\n' % (crc32(fields), fields)


def decode(line: bytes) -> tuple[int, RawPayload]:
    """(sequence, payload) of a line that `pieces` called good. Raises ValueError when another program wrote it."""
    fields = cast(dict[str, Any], orjson.loads(line[:-1]))
    sequence = fields.get("n")
    if not isinstance(sequence, int):
        raise ValueError('a line of the journal has its number in "n"')
    return sequence, from_fields(fields)


def encode_damage(damage: Damage) -> bytes:
    """The line that keeps, in a copy of a journal, what was damaged there: as it was told, in its place, without a number."""
    data64 = base64.b64encode(damage.data).decode()
    told = {"lane": damage.lane, "place": [*damage.position], "data64": data64, "what": damage.what}
    fields = orjson.dumps({"damage": told})[1:]
    return b'{"crc":"%08x",%b\n' % (crc32(fields), fields)


def decode_damage(line: bytes) -> Damage | None:
    """None when that is no line of `encode_damage`. line: one that `pieces` called good."""
    try:
        told = orjson.loads(line[:-1])["damage"]
        return Damage(told["lane"], Position(*told["place"]), base64.b64decode(told["data64"], validate=True), told["what"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None


def is_good(data: bytes, start: int, end: int) -> bool:
    """True when data[start:end] is an undamaged line. Its last byte is not looked at: a flipped line feed costs nothing."""
    fields = start + _FIELDS
    return (
        fields < end
        and data.startswith(MARK, start)
        and data[fields - 2 : fields] == b'",'
        and data[start + len(MARK) : fields - 2] == b"%08x" % crc32(memoryview(data)[fields : end - 1])
    )


def pieces(data: bytes, final: bool) -> Iterator[tuple[int, int, bool]]:
    """(start, end, good) of each line in `data`, which begins at one; what lies between good lines is a damaged piece.

    final: no bytes follow. Otherwise it stops early where only they can tell.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1
        if end and is_good(data, start, end):
            yield start, end, True
        else:
            end = data.find(MARK, start + 1)
            if end < 0:
                if not final:
                    return
                end = len(data)
            yield start, end, is_good(data, start, end)
        start = end


__all__ = ["MARK", "decode", "decode_damage", "encode", "encode_damage", "encode_within", "is_good", "pieces"]
