"""Where the time goes, line by line: looks at the running program a thousand times a second.

Time in C code counts for the Python line that called it. Costs the program a few percent, so what is measured for its speed
is measured without. For the main thread only.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

_EVERY_S = 0.001


class Spot(NamedTuple):
    """share: of all samples that found the program in this function itself. line: its costliest, with that line's share."""

    function: str
    share: float
    line: str
    line_share: float


@contextmanager
def sampled(root: Path, found: list[Spot]) -> Generator[None]:
    """Fills `found`, costliest first, when the block ends. root: paths below it are shown without it."""
    samples: Counter[tuple[str, str, int]] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        if frame is not None:
            samples[frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno or frame.f_code.co_firstlineno] += 1

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    total = samples.total()
    functions: Counter[tuple[str, str]] = Counter()
    for (file, name, _), count in samples.items():
        functions[file, name] += count
    for (file, name), count in functions.most_common():
        (line, most) = max(((place[2], n) for place, n in samples.items() if place[:2] == (file, name)), key=lambda one: one[1])
        where = _shown(Path(file), root)
        found.append(Spot(f"{where} {name}", count / total, f"{line}: {_source(Path(file), line)}", most / total))


def _shown(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else "/".join(file.parts[-2:])


def _source(file: Path, line: int) -> str:
    try:
        return file.read_text("utf-8").splitlines()[line - 1].strip()
    except (OSError, IndexError):
        return ""
