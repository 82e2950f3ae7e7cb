"""A program in Lua -> the same in about half the bytes, which unpacks itself where it is loaded.

Pairs of bytes that stand together often are written as one byte that the program does not have, again and again; the reader
puts them back with string.gsub and gives the text to `load`; where string.dump can, it lets go of the names and lines that only a
debugger reads, a sixth of the program's memory. Needs a host that has `load` or `loadstring`.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

_FREE = [*range(128, 256), *range(1, 9), *range(14, 26), *range(27, 32)]  # no line ends, no 26, which ends a file on Windows
_READER = b"""local r,t,n={},[==[%s]==]
string.gsub([==[%s]==],"(.)(..)",function(c,p)r[c]=p end)
repeat t,n=string.gsub(t,"[\\1-\\8\\14-\\31\\128-\\255]",r)until n==0
r=rawget(_G,"loadstring")or load
t=r(t,"=spoorway")
if rawget(_G,"jit")or _VERSION>"Lua 5.2"then n,r=pcall(r,string.dump(t,true))t=n and r or t end
return t(...)
"""


def packed(program: str) -> bytes:
    """program: ASCII, without control characters but line feeds. Raises ValueError for another, or one with `]==]` in it."""
    text, rules = program.strip().encode("ascii"), b""
    if "]==]" in program or set(text) & set(_FREE):
        raise ValueError("cannot be packed: it has bytes, or a bracket, that the packed form needs for itself")
    for free in _FREE:
        pair, count = Counter(pairwise(text)).most_common(1)[0]
        if count < 4 or b"\n" in bytes(pair):
            break
        text = text.replace(bytes(pair), bytes([free]))
        rules += bytes([free, *pair])
    return _READER % (text, rules)
