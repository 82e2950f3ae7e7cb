"""kill -9 of programs that track at full speed: every call that had returned is in the gateway's SQLite exactly once.

A program writes each event's id to its standard output when the call has returned; it is killed at a random
moment. The next one finds what was left in the folder. Half of the calls are durable=True: those would survive a power
cut as well.

    python -m tests.trackers.python.python_kills --rounds 1000 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from spoorway.database import open_read_only
from tests.faults.kills import Product

SOURCES = Path(__file__).parents[3] / "trackers/python"
DRAIN_S = 60
STARTS_S = 60
_AT_ONCE = 2

_PROGRAM = """
import os, sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], "kills", folder=sys.argv[2], linger_s=0.05)
number = 0
while True:
    number += 1
    durable = number % 2 == 0
    event_id = tracker.track_structured("kill", "durable" if durable else "plain", value=number, durable=durable)
    if event_id:
        os.write(1, f"{event_id}\\n".encode())
"""
_LAST = """
import sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], "kills", folder=sys.argv[2])
sys.exit(0 if tracker.close(60) else 1)
"""


@dataclass
class Report:
    rounds: int
    returned: int = 0
    lost: list[str] = field(default_factory=list[str])
    repeated: int = 0
    left: int = 0


def storm(folder: Path, rounds: int, seed: int, longest_s: float = 0.12) -> Report:
    """Raises AssertionError when something does not start, or the last program cannot deliver what was left."""
    chance = random.Random(seed)
    product = Product(folder / "data")
    product.start()
    url, queues = f"http://127.0.0.1:{product.port}", folder / "queues"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    ids, lock = set[str](), threading.Lock()

    def round_(lives_s: float) -> None:
        command = [sys.executable, "-c", _PROGRAM, url, str(queues)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            ending = threading.Timer(STARTS_S, program.kill)
            ending.start()
            first = program.stdout.readline()
            ending.cancel()
            threading.Timer(lives_s, program.kill).start()
            assert first.endswith(b"\n"), "the program did not track"
            said = (first + program.stdout.read()).split(b"\n")[:-1]  # the last piece may be torn
            program.wait()
        with lock:
            ids.update(line.decode() for line in said)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in [pool.submit(round_, chance.uniform(0.0, longest_s)) for _ in range(rounds)]:
            done.result()
    left = sum(1 for _ in queues.glob("*/lane-*"))
    last = subprocess.run([sys.executable, "-c", _LAST, url, str(queues)], env=environment, timeout=90, check=False)
    assert last.returncode == 0, "what was left was not delivered"
    assert not list(queues.glob("*/lane-*")), [(str(p), p.stat().st_size, p.read_bytes()[:80]) for p in queues.glob("*/lane-*/*")]
    report = Report(rounds, len(ids), left=left)
    end = time.monotonic() + DRAIN_S
    while True:
        with closing(open_read_only(product.data / "events.db")) as db:
            stored = Counter(str(row[0]) for row in db.execute("SELECT event_id FROM atomic.events WHERE app_id = 'kills'"))
        report.lost = sorted(ids - stored.keys())
        report.repeated = sum(1 for count in stored.values() if count > 1)
        if not report.lost or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert product.stop() == 0
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = storm(Path(folder), args.rounds, args.seed)
    print(
        f"seed {args.seed}: {report.rounds:,} kills, {report.returned:,} calls had returned, {report.left} lanes left: "
        f"{len(report.lost)} lost, {report.repeated} twice"
    )
    return 1 if report.lost or report.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
