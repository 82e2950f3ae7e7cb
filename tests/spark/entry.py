"""What spark-submit is given by the runs that die: the job, which kills itself with SIGKILL, or waits for another, at one point.

entry.py POINT PLACE BUNDLE [...]     POINT: see _POINTS; PLACE: a folder of the test's own
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from spoorway.spark import job
from storage.lake import commits


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _meet(place: Path, add: Any) -> Any:
    """Commits once two are ready to."""

    def wait(*args: Any, **kwargs: Any) -> Any:
        (place / str(os.getpid())).touch()
        end = time.monotonic() + 300
        while len(list(place.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        return add(*args, **kwargs)

    return wait


def main(point: str, place: Path, arguments: list[str]) -> int:
    if point == "before the commit":
        commits.add = _die
    elif point == "after the commit":
        commits.settle = _die
    elif point == "amid the files":
        copied = commits._copied  # pyright: ignore[reportPrivateUsage]

        def half(objects: Any, commit: Any) -> Any:
            middle = len(commit.staged) // 2
            names = {"staged": commit.staged[:middle], "objects": commit.objects[:middle]}
            copied(objects, type(commit)(**{f: getattr(commit, f) for f in commit.__dataclass_fields__} | names))
            return _die()

        commits._copied = half  # pyright: ignore[reportPrivateUsage]
    elif point == "two at once":
        commits.add = _meet(place, commits.add)
    return job.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
