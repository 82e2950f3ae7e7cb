"""One device's signed messages: which are new, which are copies of what is on disk, which are from the past.

Pure. A window remembers the highest boot and, of its highest 64 message numbers, which were taken and their tags. What is
older than that counts as taken, so that nothing is ever taken twice; what a device skipped may still come within the window.
"""

from __future__ import annotations

import struct
from typing import Literal

SIZE = 64
TAG_BYTES = 8  # the shortest signature; the first bytes of every one

Judgement = Literal["new", "repeated", "replayed"]

_HEAD = struct.Struct(">qqQ")
_MASK = (1 << SIZE) - 1


class Window:
    """Call order: `judge`, then, once the message is on disk, `take`."""

    __slots__ = ("_boot", "_highest", "_tags", "_taken")

    def __init__(self) -> None:
        self._boot = self._highest = -1
        self._taken = 0  # bit n: the message with the number highest - n was taken
        self._tags = bytearray(SIZE * TAG_BYTES)  # at its number modulo SIZE

    @property
    def last(self) -> tuple[int, int]:
        """(boot, sequence) of the highest message taken; -1 = none."""
        return self._boot, self._highest

    def judge(self, boot: int, sequence: int, tag: bytes) -> Judgement:
        if boot != self._boot:
            return "new" if boot > self._boot else "replayed"
        age = self._highest - sequence
        if age < 0:
            return "new"
        if age >= SIZE:
            return "replayed"
        if not self._taken >> age & 1:
            return "new"
        place = sequence % SIZE * TAG_BYTES
        return "repeated" if bytes(self._tags[place : place + TAG_BYTES]) == tag else "replayed"

    def take(self, boot: int, sequence: int, tag: bytes) -> None:
        """Taking a message again, or one that is older than the window, changes nothing."""
        if boot < self._boot:
            return
        if boot > self._boot:
            self._boot, self._highest, self._taken = boot, sequence, 0
        elif sequence > self._highest:
            self._taken = self._taken << min(SIZE, sequence - self._highest) & _MASK
            self._highest = sequence
        age = self._highest - sequence
        if age < SIZE and not self._taken >> age & 1:
            self._taken |= 1 << age
            place = sequence % SIZE * TAG_BYTES
            self._tags[place : place + TAG_BYTES] = tag

    def pack(self) -> bytes:
        return _HEAD.pack(self._boot, self._highest, self._taken) + self._tags

    @classmethod
    def unpack(cls, data: bytes) -> Window:
        """Raises ValueError."""
        if len(data) != _HEAD.size + SIZE * TAG_BYTES:
            raise ValueError(f"a window has {_HEAD.size + SIZE * TAG_BYTES} bytes, not {len(data)}")
        window = cls()
        window._boot, window._highest, window._taken = _HEAD.unpack_from(data)
        window._tags[:] = data[_HEAD.size :]
        return window
