"""Power cuts of an emulated Uno that fills its EEPROM journal and drains it into a real gateway, over a line that loses answers.

    python -m tests.trackers.arduino.powercuts --cuts 10000 --seed 1

Checked: every event that the board knew to be stored is a row, whatever cell a cut tore; no event is two rows. Board time runs as
fast as the processor lets it. The sketch is sketches/powercuts.ino, what a cut does to a cell stands in board.c.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.conftest import Running
from tests.trackers.arduino.avr_board import SKETCHES, Board, compiled, symbol

LOST_ANSWERS_PERCENT = 60
DEFINES = ("-DFORMAT=Compact", "-DEVERY_MS=15", "-DMOST=9")
_KNOWN = struct.Struct("<3I32I")


@dataclass
class Outcome:
    """boots, and of events: stored for certain, refused because all was full, in rows; sent more than once."""

    cuts: int = 0
    stored: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    refused: int = 0
    rows: int = 0
    lost: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    doubled: int = 0
    repeated: int = 0
    board: str = ""


def run(cuts: int, seed: int, folder: Path) -> Outcome:
    """Raises AssertionError where the machinery fails; what the journal does is in the outcome."""
    elf = compiled(SKETCHES / "powercuts.ino", *DEFINES)
    (folder / "dev").mkdir()
    shown = f"{symbol(elf, 'known'):x},{_KNOWN.size}"
    gateway = Running(folder / "data", ["--serial", str(folder / "dev/tty*")])
    options = ("-f", "-r", str(seed), "-k", str(cuts), "-a", str(LOST_ANSWERS_PERCENT), "-p", shown)
    board = Board(elf, folder / "dev/ttyUSB0", *options, eeprom=folder / "eeprom")
    found = Outcome()
    try:
        while (line := board.said()).startswith("knew "):
            boot, stored, refusals, *refused = _KNOWN.unpack(bytes.fromhex(line[5:]))
            found.cuts += 1
            found.refused += refusals
            found.stored |= {(boot, s) for s in range(1, stored + 1) if s not in refused[:refusals]}
        assert line.startswith("cut"), line
        found.board = line
        end = time.monotonic() + 90
        while time.monotonic() < end and not found.stored <= rows_by_sequence(gateway)[0]:
            time.sleep(0.2)
        rows, found.rows = rows_by_sequence(gateway)
        found.lost, found.doubled = found.stored - rows, found.rows - len(rows)
        found.repeated = gateway.query("SELECT duplicate AS n FROM atomic.totals")[0]["n"]
    finally:
        board.off()
        gateway.stop()
    return found


def rows_by_sequence(gateway: Running) -> tuple[set[tuple[int, int]], int]:
    """(boot, sequence) of each event in the store, and the number of rows."""
    if not gateway.totals():
        return set(), 0
    found: set[tuple[int, int]] = set()
    rows = gateway.query("SELECT contexts FROM atomic.events")
    for row in rows:
        for entity in json.loads(row["contexts"])["data"]:
            if "device_clock" in entity["schema"]:
                found.add((entity["data"]["boot_id"], entity["data"]["sequence"]))
    return found, len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(words.cuts, words.seed, Path(folder))
    print(f"{found.board}; {time.monotonic() - begun:.0f} s")
    print(
        f"{len(found.stored)} events stored, {found.refused} refused (full), {found.rows} rows,"
        f" {found.repeated} copies not stored again:"
        f" {len(found.lost)} lost, {found.doubled} doubled"
    )
    return 1 if found.lost or found.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
