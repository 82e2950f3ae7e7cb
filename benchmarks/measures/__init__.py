"""One file per measurement; file name = name on the command line.

Each has `measure(effort) -> Result` and keeps what it was given in `effort`: it stops by itself, and raises when what it
measured did not do the whole job (an answer that was no 200, an event that did not arrive), so that no wrong work is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Effort:
    """seconds: of load per round and server. rounds: how often, alternating; medians are told. events: for the loader.

    folder: empty, on the disk that is to be measured; removed afterwards. wanted: how many events a store is to have, where a
    measure fills one; 0 = its own choice.
    """

    seconds: float
    rounds: int
    events: int
    folder: Path
    wanted: int = 0
