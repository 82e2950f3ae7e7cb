"""kill -9 of the running product while an access log is written and rotated under it: every line is in SQL exactly once.

A writer appends lines, whole and in halves, renames the file, goes on writing to the old one for a moment, packs it and deletes
it, as nginx and logrotate do; at random moments the gateway, the loader or both are killed. Half of the lines name
their request, half do not; none has an event id.

    python -m tests.faults.access_log_kills --rounds 100 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from spoorway.database import open_read_only
from tests.faults.kills import DRAIN_S, Product

CONFIG = '[gateway.transports.http]\n[gateway.transports.access_log]\npath = "{}/access.log*"\nscan_s = 0.02\n'


@dataclass
class LogReport:
    """rereads: lines that came twice to the journal, because we were killed in between."""

    written: int = 0
    stored: int = 0
    rereads: int = 0
    lost: int = 0
    repeated: int = 0
    killed: dict[str, int] = field(default_factory=dict[str, int])


class Writer(threading.Thread):
    """Writes numbered lines until it is told to end; `numbers` is how many."""

    def __init__(self, folder: Path, seed: int, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.log, self.chance, self.ending = folder / "access.log", random.Random(seed), ending
        self.numbers = 0

    def run(self) -> None:
        file, rotations = self.log.open("ab", buffering=0), 0
        old: Path | None = None
        while not self.ending.is_set():
            for _ in range(self.chance.randrange(1, 60)):
                text = self._line()
                cut = self.chance.randrange(len(text)) if self.chance.random() < 0.05 else len(text)
                file.write(text[:cut])
                if cut < len(text):
                    time.sleep(0.002)
                    file.write(text[cut:])
            time.sleep(self.chance.uniform(0, 0.01))
            if self.chance.random() < 0.05:
                if old is not None:  # of the rotation before: packed beside it, then put in its place
                    part = old.with_name("part")
                    part.write_bytes(gzip.compress(old.read_bytes(), 1))
                    part.rename(old.with_name(old.name + ".gz"))
                    old.unlink()
                rotations += 1
                old = self.log.with_name(f"access.log.{rotations}")
                self.log.rename(old)
                file.write(self._line())
                file.close()
                file = self.log.open("ab", buffering=0)
        file.close()

    def _line(self) -> bytes:
        self.numbers += 1
        row = {
            "msec": f"{time.time():.3f}",
            "request_method": "GET",
            "request_uri": f"/i?e=se&se_ca=kill&se_ac=a&se_la={self.numbers}&p=web&aid=kills",
            "status": "200",
            "remote_addr": "192.0.2.7",
        }
        if self.numbers % 2:
            row["request_id"] = uuid.uuid4().hex
        return json.dumps(row).encode() + b"\n"


def storm(folder: Path, rounds: int, seed: int, pause_s: float = 0.6) -> LogReport:
    """Raises AssertionError when the product does not come back; losses are in the report."""
    chance = random.Random(seed)
    logs = folder / "logs"
    logs.mkdir()
    (folder / "spoorway.toml").write_text(CONFIG.format(logs))
    product, ending, report = Product(folder / "data", "--config", str(folder / "spoorway.toml")), threading.Event(), LogReport()
    writer = Writer(logs, seed, ending)
    writer.start()
    try:
        product.start()
        for number in range(rounds):
            time.sleep(chance.uniform(0.05, pause_s))
            what = chance.choice(("gateway", "gateway", "loader", "both"))
            report.killed[what] = report.killed.get(what, 0) + 1
            product.kill(what)
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
        ending.set()
        writer.join(30)
        report.written = writer.numbers
        _drained(product, report)
    finally:
        ending.set()
        code = product.stop()
    assert code == 0
    return report


def _drained(product: Product, report: LogReport) -> None:
    end = time.monotonic() + DRAIN_S
    while True:
        with contextlib.closing(open_read_only(product.data / "events.db")) as db:
            found = [int(label) for (label,) in db.execute("SELECT se_label FROM atomic.events")]
            (failed, report.rereads) = db.execute("SELECT failed, duplicate FROM atomic.totals").fetchone()
        assert failed == 0
        report.stored = len(found)
        report.lost = report.written - len(set(found))
        report.repeated = len(found) - len(set(found))
        if not report.lost or time.monotonic() > end:
            return
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = storm(Path(folder), args.rounds, args.seed)
    print(
        f"seed {args.seed}: {args.rounds} kills {report.killed}, {report.written:,} lines written, {report.stored:,} stored, "
        f"{report.rereads:,} read again and dropped, {report.lost} lost, {report.repeated} twice"
    )
    return 1 if report.lost or report.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
