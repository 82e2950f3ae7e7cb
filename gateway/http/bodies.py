"""A request's body and media type -> what the payload keeps. Undoes gzip and deflate, within bounds; looks at nothing inside."""

from __future__ import annotations

import zlib
from functools import lru_cache

from gateway.http.headers import json_safe

# Below this an inflated body can do no harm, whatever its ratio.
HARMLESS_BYTES = 65_536
_CHUNK = 65_536
_MAX_MEMBERS = 64  # gzip streams in one body; each costs time, however small it is


class TooLarge(Exception):
    """The body is, or inflates to, more than the limit."""


def inflate(body: bytes, encoding: str, *, max_bytes: int, max_ratio: int) -> bytes | None:
    """The decoded body; None when it is not what `encoding` says, or that is an encoding we do not know.

    Never holds more than the limit and one chunk. Raises TooLarge. Source: RFC 9110, 8.4.1.
    """
    limit = min(max_bytes, max(HARMLESS_BYTES, max_ratio * len(body)))
    match encoding.strip().lower():
        case "gzip" | "x-gzip":
            return _inflate(body, zlib.MAX_WBITS | 16, limit)
        case "deflate":  # zlib by the standard; some clients send the bare stream
            decoded = _inflate(body, zlib.MAX_WBITS, limit)
            return _inflate(body, -zlib.MAX_WBITS, limit) if decoded is None else decoded
        case _:
            return None


def _inflate(body: bytes, wbits: int, limit: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    rest = body
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            try:
                part = stream.decompress(rest, min(_CHUNK, limit - size + 1))
            except zlib.error:
                return None
            if not part and not stream.eof:  # cut off
                return None
            size += len(part)
            if size > limit:
                raise TooLarge
            parts.append(part)
            rest = stream.unconsumed_tail
        rest = stream.unused_data
        if not rest:
            return b"".join(parts)
        if wbits != zlib.MAX_WBITS | 16:
            return None
    return None


@lru_cache(maxsize=256)
def _normal(header: str) -> str:
    media_type, *parameters = (part.strip() for part in json_safe(header).lower().split(";"))
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if parameter:
            media_type += f"; {name.strip()}{equals}{value.strip().strip(chr(34))}"
    return media_type


def normal_content_type(header: str) -> str:
    """Lower case, `; ` before each parameter, no quotes: `application/json; charset=utf-8`."""
    return _normal(header) if len(header) <= 256 else json_safe(header).lower()
