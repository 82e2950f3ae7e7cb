"""The codecs of the wire: query strings, base64 as trackers write it.

Pure and total: any text or bytes give a result, never an exception. Source: tracker protocol, "GET", "Base64 variant".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

try:  # the extra "fast": a quarter of the time, for what is most of a browser's events
    from pybase64 import b64decode
except ImportError:
    from base64 import b64decode  # type: ignore[assignment]  # the same but for names nobody uses here

# Values as short as these are most of a query string; only what holds "%" or "+" needs decoding.
_ENCODED = re.compile(r"[%+]")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_PADDING = ("", "", "==", "=")


def parse_query(query: str) -> dict[str, str | None]:
    """Names to values; None for a name without "=". The last of duplicates wins, empty names are dropped.

    Separators are both "&" and ";"; "+" is a space; bytes that are no UTF-8 become U+FFFD.
    """
    found: dict[str, str | None] = {}
    encoded = _ENCODED.search(query) is not None
    for pair in query.replace(";", "&").split("&"):
        name, equals, value = pair.partition("=")
        if encoded and _ENCODED.search(pair):
            name, value = _decode(name), _decode(value)
        if name:
            found[name] = value if equals else None
    return found


def write_query(parameters: Mapping[str, str]) -> str:
    """The query string of parameters, every reserved character percent-encoded."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters.items())


def decode_base64(text: str) -> bytes:
    """Lenient: both alphabets, padding optional, foreign characters skipped, stops at padding."""
    standard = text.partition("=")[0].replace("-", "+").replace("_", "/")
    try:
        return b64decode(standard + _PADDING[len(standard) % 4], validate=True)
    except ValueError:
        pass  # the slow way, for what no tracker should send
    data = _NOT_BASE64.sub(b"", standard.encode("ascii", "ignore"))
    if len(data) % 4 == 1:  # six bits are no byte
        data = data[:-1]
    return binascii.a2b_base64(data + b"==")


def encode_base64(text: str) -> str:
    """URL-safe alphabet without padding, as browser and Lua trackers send it."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _decode(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "replace")
