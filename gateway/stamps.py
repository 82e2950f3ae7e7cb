"""What every transport puts on a payload: the time of its receipt, and an id that is unique for ever."""

from __future__ import annotations

import os
import time


def now_ms() -> int:
    """The gateway's clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


_fresh: list[str] = []  # taken from any thread: pop and extend are one step each
os.register_at_fork(after_in_child=_fresh.clear)  # a child that went on with these would give ids twice


def new_id() -> str:
    """A payload's id: 32 lower-case hex digits. The system is asked for many at once, for that is most of their cost."""
    while True:
        try:
            return _fresh.pop()
        except IndexError:
            digits = os.urandom(16 * 256).hex()
            _fresh.extend(digits[at : at + 32] for at in range(0, len(digits), 32))
