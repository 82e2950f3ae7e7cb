"""Power cuts of a board with its journal in files: the library, the genuine littlefs, and a real gateway whose answers get lost.

    python -m tests.trackers.arduino.filecuts --cuts 5000 --seed 1

The power fails at each program and erase of the flash in turn. Checked: every event that the board knew to be stored is a row,
whatever a cut left; no event is two rows; the boot id goes up with every start.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from littlefs import LittleFSError

from tests.end_to_end.conftest import Running
from tests.trackers.arduino.flash_files import Files, Flash, library
from tests.trackers.arduino.powercuts import rows_by_sequence

_LOST_ANSWERS_PERCENT = 20
_MOST_BYTES = 6_000


@dataclass
class Outcome:
    """Of events: stored for certain, in rows, sent more than once. boots: the ids, in their order. odd: what must not happen."""

    cuts: int = 0
    stored: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    rows: int = 0
    lost: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    doubled: int = 0
    repeated: int = 0
    boots: list[int] = field(default_factory=list[int])
    odd: list[str] = field(default_factory=list[str])


def run(cuts: int, seed: int, folder: Path, hasty: bool = False) -> Outcome:
    """hasty: a planted fault, an event counts as stored when it was tracked."""
    chance = random.Random(seed)
    flash = Flash(chance).formatted()
    gateway = Running(folder / "data", [])
    port = urlsplit(gateway.url).port or 0
    found = Outcome()
    place, online = 0, False
    try:
        while found.cuts < cuts:
            place += 1
            flash.done, flash.cut = 0, place
            if _life(flash, found, port if online else 0, 6 if online else 4, chance, hasty):
                place, online = 0, chance.random() < 0.5  # it lived through: begin again with the first operation
            else:
                found.cuts += 1
                flash.off = False
        flash.cut = 0
        _life(flash, found, port, 1, chance, False, 0)
        if library().waiting():
            found.odd.append("the last start did not send everything")
        last = (found.boots[-1], 1)  # it comes after all others: what is not there with it never comes
        gateway.until(lambda: last in rows_by_sequence(gateway)[0], lambda: "the last event did not come")
        there, found.rows = rows_by_sequence(gateway)
        found.lost, found.doubled = found.stored - there, found.rows - len(there)
        found.repeated = gateway.query("SELECT duplicate AS n FROM atomic.totals")[0]["n"]
    finally:
        gateway.stop()
    return found


def _life(
    flash: Flash, found: Outcome, port: int, events: int, chance: random.Random, hasty: bool, lost: int = _LOST_ANSWERS_PERCENT
) -> bool:
    """Until the power fails, or all is done. Answers whether it lasted."""
    board = library()
    try:
        files = Files(flash, board.power_off)
    except LittleFSError as error:
        found.odd.append(f"mount: {error}")
        return False
    boot: int = board.power_on(files.address, port, lost, chance.getrandbits(32), _MOST_BYTES)
    if flash.off:
        return False
    if not boot:
        found.odd.append("no boot id")
        return True
    if found.boots and boot <= found.boots[-1]:
        found.odd.append(f"boot {boot} after {found.boots[-1]}")
    found.boots.append(boot)
    refused: set[int] = set()
    for n in range(1, events + 1):
        if board.track(chance.randint(1, 120)) < 0:
            refused.add(n)
        for _ in range(chance.choice((0, 1, 1, 3))):
            board.loop()
        if n % 4 == 0 and port:
            board.pump(40)
        if not flash.off:
            known: int = n if hasty else board.stored()
            found.stored |= {(boot, s) for s in range(1, known + 1) if s not in refused}
    if port and not flash.off:
        board.pump(4000)
    if not flash.off and board.errors():
        found.odd.append(f"{board.errors()} errors in boot {boot}")
    return not flash.off


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(words.cuts, words.seed, Path(folder))
    print(
        f"{found.cuts} cuts of {len(found.boots)} starts in {time.monotonic() - begun:.0f} s: {len(found.stored)} events stored,"
        f" {found.rows} rows, {found.repeated} copies not stored again: {len(found.lost)} lost, {found.doubled} doubled"
    )
    for what in found.odd:
        print(f"odd: {what}")
    return int(bool(found.lost or found.doubled or found.odd))


if __name__ == "__main__":
    sys.exit(main())
