"""kill -9 of a program with the Lua tracker, while it tracks and sends: what track() had answered is in SQL exactly once.

Each life has the tracker as it is written or its packed build, by chance.

python -m tests.trackers.lua.lua_kills --rounds 1000 --seed 1 --lua luajit
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.end_to_end.conftest import Running

ROOT = Path(__file__).parents[3]
TRACKER = ROOT / "trackers" / "lua"
PLAYER = Path(__file__).with_name("player.lua")
_EVENTS = 400  # of one life, if nobody ends it


class Report(NamedTuple):
    """tracked: ids that track() gave. lost: those in no row. repeated: rows beyond the first. torn: files that were damaged."""

    kills: int
    tracked: int
    stored: int
    lost: list[str]
    repeated: int
    resent: int
    torn: int


def packed(folder: Path) -> Path:
    """Where `require "spoorway"` finds the packed build from now on, and the parts beside it."""
    subprocess.run([sys.executable, str(TRACKER / "build.py"), str(folder)], check=True, capture_output=True, timeout=60)
    (folder / "spoorway.packed.lua").rename(folder / "spoorway.lua")
    for part in TRACKER.glob("spoorway_*.lua"):
        shutil.copy(part, folder)
    return folder


def life(lua: str, tracker: Path, url: str, folder: Path, kill_after_s: float | None) -> list[str]:
    """One start of the program: the whole lines that it printed. None: it tracks nothing, sends what waits, and ends."""
    command = [lua, str(PLAYER), str(tracker), url, str(folder), str(_EVENTS if kill_after_s is not None else 0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        if kill_after_s is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(kill_after_s)
            program.kill()
        said, errors = program.communicate(timeout=60)
    assert program.returncode in (0, -9), errors
    lines = said.splitlines()
    return lines if said.endswith("\n") else lines[:-1]  # a torn last line was not read by anybody


def garbage(folder: Path, chance: random.Random) -> int:
    """What a write that was cut off leaves behind, at the end of some file of the queue."""
    files = sorted(folder.glob("spoorway-sp-[0-9]*"))
    if not files:
        return 0
    record = b'\n0f00ba12 {"e":"ue","eid":"6de9024e-17b9-4026-bd4d-efec50ae84cb","dtm":"176'
    with chance.choice(files).open("ab") as file:
        file.write(record[: chance.randrange(1, len(record))])
    return 1


def storm(folder: Path, product: Running, rounds: int, seed: int, lua: str = "luajit") -> Report:
    chance = random.Random(seed)
    queue = folder / "queue"
    queue.mkdir()
    trackers = [TRACKER, packed(folder / "packed")]
    tracked: list[str] = []
    torn = 0
    nowhere = "http://127.0.0.1:9"  # nobody listens: the queue has to wait for a later life
    for number in range(rounds):
        url = nowhere if chance.random() < 0.3 else product.url
        said = life(lua, chance.choice(trackers), url, queue, chance.uniform(0.005, 0.25))
        tracked += [line for line in said if len(line) == 36]
        if chance.random() < 0.2:
            torn += garbage(queue, chance)
        if sys.stderr.isatty():
            print(f"\rkill {number + 1} of {rounds}", end="", file=sys.stderr)
    last = life(lua, TRACKER, product.url, queue, None)
    assert last[-1] == "done", last[-3:]
    product.until(lambda: _settled(product), lambda: "the store did not come to rest")
    stored = [row["event_id"] for row in product.query("SELECT event_id FROM atomic.events WHERE app_id = 'killed-game'")]
    (total,) = product.query("SELECT duplicate, failed FROM atomic.totals")
    assert total["failed"] == 0, product.query("SELECT * FROM atomic.failed_events LIMIT 1")
    lost = sorted(set(tracked) - set(stored))
    return Report(rounds, len(tracked), len(stored), lost, len(stored) - len(set(stored)), total["duplicate"], torn)


def _settled(product: Running) -> bool:
    before = product.totals()
    time.sleep(0.5)
    return product.totals() == before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--lua", default="luajit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "product").mkdir()
        product = Running(Path(folder) / "product" / "data", [])
        try:
            report = storm(Path(folder), product, args.rounds, args.seed, args.lua)
        finally:
            product.stop()
    print(
        f"seed {args.seed}, {args.lua}: {report.kills} kills, {report.torn} torn files, {report.tracked:,} events tracked, "
        f"{report.stored:,} stored, {report.resent:,} resent ones dropped, {len(report.lost)} lost, {report.repeated} twice"
    )
    return 1 if report.lost or report.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
