"""Where the time goes, line by line: looks at the running program a thousand times a second.

Each look counts for the time since the one before, because none is possible within C code: that time goes to the Python line
that called it. Costs the program a few percent, so what is measured for its speed is measured without. Main thread only.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

_EVERY_S = 0.001


class Spot(NamedTuple):
    """share: of the time, that the program was in this function itself. line: its costliest, with that line's share."""

    function: str
    share: float
    line: str
    line_share: float


@contextmanager
def sampled(root: Path, found: list[Spot]) -> Generator[None]:
    """Fills `found`, costliest first, when the block ends. root: paths below it are shown without it."""
    times: defaultdict[tuple[str, str, int], float] = defaultdict(float)
    last = time.perf_counter()

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if frame is not None:
            now, code = time.perf_counter(), frame.f_code
            name = code.co_qualname
            if code.co_filename == "<string>" and "self" in frame.f_locals:  # what dataclass writes: say whose it is
                name = f"{type(frame.f_locals['self']).__qualname__}.{code.co_name}"
            times[code.co_filename, name, frame.f_lineno or code.co_firstlineno] += now - last
            last = now

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    total = sum(times.values())
    functions: defaultdict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for (file, name, line), spent in times.items():
        functions[file, name].append((spent, line))
    for (file, name), lines in sorted(functions.items(), key=lambda one: -sum(spent for spent, _ in one[1])):
        most, line = max(lines)
        share = sum(spent for spent, _ in lines) / total
        found.append(Spot(f"{_shown(Path(file), root)} {name}", share, f"{line}: {_source(Path(file), line)}", most / total))


def _shown(file: Path, root: Path) -> str:
    if file.name == "<string>":
        return "generated:"
    return str(file.relative_to(root)) if file.is_relative_to(root) else "/".join(file.parts[-2:])


def _source(file: Path, line: int) -> str:
    try:
        return file.read_text("utf-8").splitlines()[line - 1].strip()
    except (OSError, IndexError):
        return ""
