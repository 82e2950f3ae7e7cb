"""A port -> the lines its board says, as they come. Answers none of them: a tracker keeps what nobody acknowledged."""

from __future__ import annotations

import time
from collections.abc import Iterator

from protocol.lines import Damaged, Line, Text, device_lines
from protocol.seams import TransientError
from spoorway.flashing.ports import open_here


def listen(port: str, baud: int, limit_s: float | None = None) -> Iterator[Line | Text | Damaged]:
    """Until limit_s are over, or without end. Raises TransientError when the port is gone."""
    deframer = device_lines()
    end = None if limit_s is None else time.monotonic() + limit_s
    try:
        with open_here(port, baud) as wire:
            while end is None or time.monotonic() < end:
                yield from deframer.feed(wire.read(4_096))
    except OSError as error:
        raise TransientError(f"{port}: {error}") from None


__all__ = ["listen"]
