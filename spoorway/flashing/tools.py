"""Other programs, run so that they cannot hang us: each under a time limit, killed with all it started, its words kept.

avrdude turns round for ever when its board goes away, and esptool and mpremote wait for boards that never answer.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

_LOOK_EVERY_S = 0.2
_KEPT = 65_536
_PERCENT = re.compile(rb"(\d{1,3})(?:\.\d)? ?%")


class Outcome(NamedTuple):
    """code: None = it was ended at its time limit. text: what it said, the last 64 KiB of it."""

    code: int | None
    text: str


def run(
    arguments: Sequence[str], limit_s: float, share: Callable[[float], None] = lambda share: None, silent_s: float | None = None
) -> Outcome:
    """Runs a program to its end, or ends it after limit_s, or after silent_s without a word. Raises FileNotFoundError.

    share: told how much is done, 0 to 1, as far as its words show; several steps begin anew at 0.
    """
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    said = b""
    begin = heard = time.monotonic()
    code: int | None = None
    try:
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while (now := time.monotonic()) < begin + limit_s and (silent_s is None or now < heard + silent_s):
                if not ready.select(_LOOK_EVERY_S):
                    continue
                part = os.read(process.stdout.fileno(), 4_096)
                if not part:
                    with suppress(subprocess.TimeoutExpired):
                        code = process.wait(max(0.0, begin + limit_s - time.monotonic()))
                    break
                said, heard = (said + part)[-_KEPT:], time.monotonic()
                if (done := _done(said)) is not None:
                    share(done)
    finally:
        if code is None:
            # Also when we are interrupted: no program of ours may keep a port.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    return Outcome(code, said.decode("utf-8", "replace"))


def _done(said: bytes) -> float | None:
    """Of the step that is under way: avrdude draws 50 marks, the others print per cents."""
    last = said[-200:].replace(b"\r", b"\n").rpartition(b"\n")[2] or said[-200:]
    if b" | " in last:
        return min(1.0, last.rpartition(b" | ")[2].count(b"#") / 50)
    found = _PERCENT.findall(last)
    return min(1.0, int(found[-1]) / 100) if found else None


__all__ = ["Outcome", "run"]
