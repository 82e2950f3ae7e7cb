"""Runs a function of ours in a fresh process on one core and returns what it returned: no warm caches, no garbage of another run.

python -m benchmarks.pinned MODULE FUNCTION '["arguments"]'
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.server import environment

_LONGEST_S = 120


def processor_µs(runs: Iterable[Mapping[str, Any]]) -> float:
    """Microseconds of processor an event, the median of runs that told `processor_s`, in seconds, and `events`."""
    return median(1e6 * one["processor_s"] / one["events"] for one in runs)


def pinned(function: Callable[..., dict[str, Any]], folder: Path, *arguments: str | float, core: int = 0) -> dict[str, Any]:
    """function: takes the folder as text, then the arguments. core: another one, for what runs beside.

    Raises subprocess.CalledProcessError (its complaints are on standard error), subprocess.TimeoutExpired.
    """
    command = ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.pinned", function.__module__, function.__name__]
    done = subprocess.run(
        [*command, json.dumps([str(folder), *arguments])], env=environment(), cwd=folder, stdout=subprocess.PIPE, check=True,
        timeout=_LONGEST_S,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    module, name, given = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(given))))
