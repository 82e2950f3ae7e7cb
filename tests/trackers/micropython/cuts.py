"""Power cuts of a board's queue: lives.py in MicroPython on littlefs, against a gateway that runs here. Judges what was lost.

`python -m tests.trackers.micropython.cuts --cuts 2000`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.end_to_end.conftest import Running
from tests.trackers.micropython import boards

_LONGEST_S = 1200


class Outcome(NamedTuple):
    """accepted: events that were on flash when track_… returned; lost: of those, not in the store; twice: rows beyond one."""

    cuts: int
    lives: int
    boots: int
    accepted: int
    lost: int
    twice: int
    copies: int
    drained: bool
    odd: list[str]


def cut(gateway: Running, cuts: int, seed: int, fault: str = "") -> Outcome:
    arguments = (boards.PACKAGE, gateway.url, str(cuts), str(seed), fault)
    command = boards.command("micropython", "lives.py", *arguments)
    # What Python's finalisers say of files that were open when the power failed goes to standard error.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_LONGEST_S, check=True, text=True)
    *lines, last = done.stdout.splitlines()
    accepted = {line[1:] for line in lines if line.startswith("+")}
    facts = json.loads(last)

    def stored() -> set[str]:
        return {row["event_id"] for row in gateway.query("SELECT event_id FROM atomic.events")}

    # The last event comes after all others, so what is not there with it never comes.
    gateway.until(lambda: facts["last"] in stored(), lambda: "the last event did not arrive")
    (row,) = gateway.query("SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM atomic.events")
    (totals,) = gateway.query("SELECT duplicate FROM atomic.totals")
    return Outcome(
        facts["cuts"],
        facts["lives"],
        facts["boot"],
        len(accepted),
        len(accepted - stored()),
        row["n"] - row["ids"],
        totals["duplicate"],
        facts["drained"],
        facts["odd"],
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cuts", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gateway = Running(Path(folder) / "data", [])
        try:
            found = cut(gateway, given.cuts, given.seed)
        finally:
            gateway.stop()
    print(
        f"{found.cuts} power cuts in {found.lives} lives: {found.accepted} events accepted, {found.lost} lost, "
        f"{found.twice} stored twice; {found.copies} copies were sent again and dropped by the store"
    )
    for why in found.odd:
        print(f"odd: {why}")
    return int(bool(found.lost or found.twice or found.odd or not found.drained))


if __name__ == "__main__":
    sys.exit(main())
