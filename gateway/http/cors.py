"""Origin header -> the response headers that let a browser's script see our answer.

An origin is echoed only after it was taken apart and put together again, so nothing else can get into the response.
"""

from __future__ import annotations

import re
from functools import lru_cache

_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_LONGEST = 512  # of an Origin header; a longer one is none, and is not kept in the cache


def origins(header: str | None) -> list[tuple[str, str, str]]:
    """(scheme, host, port with its colon or "") of every origin in the header that is well-formed."""
    if not header or len(header) > _LONGEST:
        return []
    return [(m[1], m[2], m[3] or "") for text in header.split() if (m := _ORIGIN.fullmatch(text))]


def cors_lines(origin: str | None) -> bytes:
    """The two header lines of every answer on an event route."""
    return _lines(origin) if origin is not None and len(origin) <= _LONGEST else _ANY


@lru_cache(maxsize=1024)
def _lines(origin: str) -> bytes:
    found = origins(origin)
    allowed = "{}://{}{}".format(*found[0]) if found else "*"
    return f"Access-Control-Allow-Origin: {allowed}\r\nAccess-Control-Allow-Credentials: true\r\n".encode("ascii")


_ANY = _lines("*")


def preflight_lines(max_age_s: int) -> bytes:
    return (f"Access-Control-Allow-Headers: Content-Type, SP-Anonymous\r\nAccess-Control-Max-Age: {max_age_s}\r\n").encode(
        "ascii"
    )
