"""kill -9 of the running product while boards talk to it over bad cables: every acknowledged message is in SQL exactly once.

Each board is an independent device in C (tests/peers/serial_device.c) that keeps a message until it is answered; at random
moments the gateway, the loader or both are killed, or a cable is pulled out and plugged in again.

    python -m tests.faults.serial_kills --rounds 100 --seed 1
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from tests.faults.kills import Product, Report, drained
from tests.peers.serial_wire import Cable, bad_cable, build_device

_AHEAD = 50  # messages that a board has been given and not been answered


class Board(threading.Thread):
    """Gives a device messages, each with an event id, and notes which it saw acknowledged."""

    def __init__(self, program: Path, cable: Cable, name: str, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.name_, self.ending = name, ending
        self.given: dict[int, str] = {}
        self.acknowledged: list[str] = []
        self.strange: list[str] = []
        self._room = threading.Semaphore(_AHEAD)
        self._device = subprocess.Popen(
            [program, cable.device, name, "1", "1", "300"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._hearing = threading.Thread(target=self._hear, daemon=True)

    def run(self) -> None:
        device = self._device
        assert device.stdin is not None
        self._hearing.start()
        number = 0
        while not self.ending.is_set():
            if not self._room.acquire(timeout=0.1):
                continue
            number += 1
            self.given[number] = str(uuid.uuid4())
            device.stdin.write(f"q e=se&se_ca=kill&se_ac=a&p=iot&tv=c-1&aid={self.name_}&eid={self.given[number]}\n")
            device.stdin.flush()
        device.stdin.close()  # it ends when the last one is answered
        self._hearing.join(60)
        device.kill()
        device.wait()

    def _hear(self) -> None:
        assert self._device.stdout is not None
        for line in self._device.stdout:
            kind, _, number, *_ = line.split()
            if kind == "a":
                self.acknowledged.append(self.given[int(number)])
                self._room.release()
            elif not line.endswith("busy\n"):
                self.strange.append(line)
        self._device.stdout.close()


def storm(folder: Path, rounds: int, seed: int, boards: int = 3, pause_s: float = 0.6) -> tuple[Report, list[Board]]:
    """Raises AssertionError when the product does not come back; losses are in the report."""
    chance = random.Random(seed)
    (folder / "dev").mkdir()
    product, ending, report = Product(folder / "data", "--serial", f"{folder}/dev/tty*"), threading.Event(), Report(rounds)
    program = build_device(folder)
    with ExitStack() as stack:
        cables = [Cable(folder / "dev" / f"ttyUSB{n}", bad_cable(seed + n, 0.0005)) for n in range(boards)]
        for cable in cables:
            stack.callback(cable.close)
        product.start()
        talking = [Board(program, cable, f"uno-{n}", ending) for n, cable in enumerate(cables)]
        for board in talking:
            board.start()
        for number in range(rounds):
            time.sleep(chance.uniform(0.05, pause_s))
            what = chance.choice(("gateway", "loader", "both", "both", "cable"))
            report.killed[what] = report.killed.get(what, 0) + 1
            if what == "cable":
                cable = chance.choice(cables)
                cable.unplug()
                time.sleep(chance.uniform(0, 0.1))
                cable.plug()
            else:
                product.kill(what)
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
        ending.set()
        for board in talking:
            board.join(90)
        acknowledged = {eid for board in talking for eid in board.acknowledged}
        report.acknowledged = len(acknowledged)
        drained(product, acknowledged, report, damaged=True)
        assert product.stop() == 0
    return report, talking


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report, boards = storm(Path(folder), args.rounds, args.seed)
    unanswered = sum(len(board.given) - len(board.acknowledged) for board in boards)
    print(
        f"seed {args.seed}: {report.rounds} faults {report.killed}, {report.acknowledged:,} messages acknowledged, "
        f"{unanswered} not, {report.stored:,} stored, {report.duplicates:,} resent ones dropped, "
        f"{len(report.lost)} lost, {report.repeated} twice"
    )
    return 1 if report.lost or report.repeated or unanswered or any(board.strange for board in boards) else 0


if __name__ == "__main__":
    sys.exit(main())
