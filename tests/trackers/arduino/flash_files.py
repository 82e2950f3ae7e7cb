"""The file system of an Arduino board: the genuine littlefs 2 on a NOR flash in memory that loses its power when it is told to.

The library's journal in files (host/files.cpp) is compiled for this machine and asks it through the calls of host/FS.h, which are
those of the cores for ESP32 and ESP8266.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from littlefs import LittleFS, LittleFSError, UserContext
from littlefs import lfs as typed_lfs

from tests.conformance.adapters.arduino import compiled

_BLOCK, _BLOCKS = 512, 128
"""Small blocks, so that metadata is compacted more often than on a board."""
_IO_ERROR = -5
lfs: Any = typed_lfs  # its stub says of some words only that they exist


class Flash(UserContext):
    """At program or erase number `cut` the power fails: a part of it is done, one byte is garbage. erases: how many there were.

    broken: it refuses each write and erase.
    """

    def __init__(self, chance: random.Random, block: int = _BLOCK, blocks: int = _BLOCKS) -> None:
        super().__init__(block * blocks)
        self.block, self.blocks = block, blocks
        self.cut = self.done = self.erases = 0
        self.off = False
        self.broken = False
        self._chance = chance

    def read(self, cfg: typed_lfs.LFSConfig, block: int, off: int, size: int) -> bytearray:
        at = block * self.block + off
        return self.buffer[at : at + size]

    def prog(self, cfg: typed_lfs.LFSConfig, block: int, off: int, data: bytes) -> int:
        at = block * self.block + off  # bits that are 0 stay so: only an erase makes them 1
        return self._change(at, bytes(old & new for old, new in zip(self.buffer[at : at + len(data)], data, strict=True)))

    def erase(self, cfg: typed_lfs.LFSConfig, block: int) -> int:
        self.erases += 1
        return self._change(block * self.block, b"\xff" * self.block)

    def _change(self, at: int, data: bytes) -> int:
        if self.off or self.broken:
            return _IO_ERROR
        self.done += 1
        if self.done != self.cut:
            self.buffer[at : at + len(data)] = data
            return 0
        self.off = True
        n = self._chance.randint(0, len(data))
        self.buffer[at : at + n] = data[:n]
        if n < len(data):
            self.buffer[at + n] &= self._chance.getrandbits(8)
        return _IO_ERROR

    def formatted(self) -> Flash:
        self._fs(False).format()
        return self

    def mounted(self) -> Any:
        """Raises LittleFSError where littlefs finds no file system any more."""
        return self._fs(True)

    def _fs(self, mount: bool) -> Any:
        sizes: dict[str, Any] = {"read_size": 16, "prog_size": 16, "cache_size": 64, "lookahead_size": 16}
        return LittleFS(self, block_size=self.block, block_count=self.blocks, mount=mount, **sizes)


def _call(answer: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(answer, *arguments)


_INT, _TEXT, _BYTES, _COUNT = ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32
_TYPES = {
    "open": _call(_INT, _TEXT, _TEXT),
    "read": _call(_INT, _INT, _BYTES, _COUNT),
    "write": _call(_INT, _INT, _BYTES, _COUNT),
    "seek": _call(_INT, _INT, _COUNT),
    "size": _call(_INT, _INT),
    "close": _call(_INT, _INT),
    "exists": _call(_INT, _TEXT),
    "remove": _call(_INT, _TEXT),
}


class _Calls(ctypes.Structure):
    _fields_ = list(_TYPES.items())


@cache
def library() -> ctypes.CDLL:
    """host/files.cpp, with the undefined-behaviour sanitizer."""
    source = Path(__file__).parent / "host/files.cpp"
    options = ("-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    found = ctypes.CDLL(str(compiled(source, *options)))
    found.power_on.restype = found.stored.restype = found.waiting.restype = ctypes.c_uint32
    found.power_on.argtypes = [ctypes.c_void_p, ctypes.c_uint16, ctypes.c_uint, ctypes.c_uint32, ctypes.c_uint32]
    found.track.restype = ctypes.c_int32
    return found


class Files:
    """One start of a board with that flash: the calls of host/FS.h, at `address`. off: called when the power has failed.

    lose: no file can be opened, as where memory is short.
    """

    def __init__(self, flash: Flash, off: Callable[[], None]) -> None:
        self.flash = flash
        self.lose = False
        self._system = flash.mounted()
        self._off = off
        self._handles: dict[int, typed_lfs.LFSFile] = {}
        self._last = 0
        acts = (self._open, self._read, self._write, self._seek, self._size, self._close, self._exists, self._remove)
        self._calls = _Calls(*(made(self._tried(act)) for made, act in zip(_TYPES.values(), acts, strict=True)))
        self.address = ctypes.addressof(self._calls)

    def _tried(self, act: Callable[..., int]) -> Callable[..., int]:
        """Without power, and where littlefs refuses, the answer is 0."""

        def call(*words: Any) -> int:
            if self.flash.off:
                return 0
            try:
                return act(*words)
            except LittleFSError:
                return 0
            finally:
                if self.flash.off:
                    self._off()

        return call

    def _open(self, path: bytes, mode: bytes) -> int:
        if self.lose:
            return 0
        handle = lfs.file_open(self._system.fs, path.decode(), mode.decode())
        self._last += 1
        self._handles[self._last] = handle
        return self._last

    def _read(self, handle: int, into: Any, count: int) -> int:
        data = lfs.file_read(self._system.fs, self._handles[handle], count)
        ctypes.memmove(into, data, len(data))
        return len(data)

    def _write(self, handle: int, data: Any, count: int) -> int:
        return lfs.file_write(self._system.fs, self._handles[handle], ctypes.string_at(data, count))

    def _seek(self, handle: int, at: int) -> int:
        return int(lfs.file_seek(self._system.fs, self._handles[handle], at, 0) == at)

    def _size(self, handle: int) -> int:
        return lfs.file_size(self._system.fs, self._handles[handle])

    def _close(self, handle: int) -> int:
        return lfs.file_close(self._system.fs, self._handles.pop(handle))

    def _exists(self, path: bytes) -> int:
        lfs.stat(self._system.fs, path.decode())  # raises where there is none
        return 1

    def _remove(self, path: bytes) -> int:
        lfs.remove(self._system.fs, path.decode())
        return 1

    def names(self) -> list[str]:
        """What is in the root."""
        return self._system.listdir("/")

    def write(self, path: str, data: bytes) -> None:
        with self._system.open(path, "wb") as file:
            file.write(data)
