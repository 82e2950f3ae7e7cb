"""A module in Lua -> the same in about half the bytes, which unpacks itself when something of it is first asked for.

Pairs of bytes that stand together often are written as one byte that the program does not have, again and again; reader.lua
puts them back. Needs a host that has `load` or `loadstring`.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

from minify import minified

_FREE = [*range(128, 256), *range(1, 9), *range(14, 26), *range(27, 32)]  # no line ends, no 26, which ends a file on Windows
_READER = Path(__file__).with_name("reader.lua")


def packed(program: str, ascii_only: bool = False) -> bytes:
    """program: ASCII, without control characters but line feeds. Raises ValueError for another, or one with `]==]` in it.

    ascii_only: a quarter larger, for hosts whose tools take a source for UTF-8.
    """
    text, rules = program.strip().encode("ascii"), b""
    if "]==]" in program or set(text) & set(_FREE):
        raise ValueError("cannot be packed: it has bytes, or a bracket, that the packed form needs for itself")
    for free in (code for code in _FREE if code < 128 or not ascii_only):
        pair, count = Counter(pairwise(text)).most_common(1)[0]
        if count < 4 or b"\n" in bytes(pair):
            break
        text = text.replace(bytes(pair), bytes([free]))
        rules += bytes([free, *pair])
    reader = minified(_READER.read_text("utf-8"), keep_globals=False).encode()
    return reader.replace(b'"TEXT"', b"[==[%s]==]" % text).replace(b'"PAIRS"', b"[==[%s]==]" % rules)
