"""kill -9 of the running product under load: every acknowledged event is in SQL exactly once.

Senders keep posting events, each with an id; at random moments the gateway, the loader or both are killed and everything is
started again. An event that was not acknowledged is sent again with the same id, as a tracker would.

    python tests/faults/kills.py --rounds 100 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from protocol.seams import ConfigurationError  # noqa: E402  the checkout comes first on the path
from spoorway.database import open_read_only  # noqa: E402

SENDERS = 4
EVENTS_PER_POST = 5
START_S = 30
DRAIN_S = 180


@dataclass
class Report:
    rounds: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list[str])
    repeated: int = 0
    stored: int = 0
    duplicates: int = 0
    killed: dict[str, int] = field(default_factory=dict[str, int])


class Product:
    """`spoorway run` on one data folder and one port, started again and again."""

    def __init__(self, data: Path, *arguments: str) -> None:
        """arguments: more of `spoorway run`."""
        self.data, self.arguments = data, arguments
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.data / "running.json").unlink()
        listen = ("--http", f"127.0.0.1:{self.port}", "--admin", "127.0.0.1:0")
        command = [sys.executable, "-m", "spoorway", "run", "--data", str(self.data), *listen, *self.arguments]
        with (self.data.parent / "log.txt").open("ab") as errors:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        end = time.monotonic() + START_S
        while not (self.data / "running.json").exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"did not start: {(self.data.parent / 'log.txt').read_text()[-2000:]}")
            time.sleep(0.01)
        if not self.port:
            url = json.loads((self.data / "running.json").read_text())["urls"]["http"][0]
            self.port = urlsplit(url).port or 0

    def loader(self) -> int | None:
        """Process id of the loader that this product started."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        found = [pid for t in threads for pid in (t / "children").read_text().split()] if children.exists() else []
        return int(found[0]) if found else None

    def kill(self, what: str) -> None:
        assert self.process is not None
        loader = self.loader()
        if what in ("gateway", "both"):
            self.process.kill()
        if what in ("loader", "both") and loader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(loader, signal.SIGKILL)
        if what in ("gateway", "both"):
            self.process.wait()
            self.start()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)


class Sender(threading.Thread):
    """Posts batches; one that is not acknowledged is posted again until it is."""

    def __init__(self, product: Product, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.product, self.ending = product, ending
        self.acknowledged: list[str] = []

    def run(self) -> None:
        while not self.ending.is_set():
            ids = [str(uuid.uuid4()) for _ in range(EVENTS_PER_POST)]
            events = [{"e": "pv", "p": "web", "tv": "kills", "eid": i, "aid": "kills", "url": f"http://x/{i}"} for i in ids]
            body = json.dumps({"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": events})
            connection: http.client.HTTPConnection | None = None
            while True:
                try:
                    connection = connection or http.client.HTTPConnection("127.0.0.1", self.product.port, timeout=10)
                    connection.request(
                        "POST", "/com.snowplowanalytics.snowplow/tp2", body, {"Content-Type": "application/json; charset=utf-8"}
                    )
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 200:
                        self.acknowledged += ids
                        break
                except (OSError, http.client.HTTPException):
                    if connection is not None:
                        connection.close()
                    connection = None
                if self.ending.is_set():
                    break
                time.sleep(0.02)
            if connection is not None:
                connection.close()


def storm(folder: Path, rounds: int, seed: int, pause_s: float = 0.6) -> Report:
    """Raises AssertionError when the product does not come back; losses are in the report."""
    chance = random.Random(seed)
    product, ending, report = Product(folder / "data"), threading.Event(), Report(rounds)
    product.start()
    senders = [Sender(product, ending) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for number in range(rounds):
        time.sleep(chance.uniform(0.05, pause_s))
        what = chance.choice(("gateway", "loader", "both", "both"))
        report.killed[what] = report.killed.get(what, 0) + 1
        product.kill(what)
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    ending.set()
    for sender in senders:
        sender.join(30)
    acknowledged = {i for sender in senders for i in sender.acknowledged}
    report.acknowledged = len(acknowledged)
    drained(product, acknowledged, report)
    assert product.stop() == 0
    return report


def drained(product: Product, acknowledged: set[str], report: Report, *, damaged: bool = False) -> None:
    """Fills the report in once everything acknowledged is stored, or it took too long. damaged: events may have failed."""
    end = time.monotonic() + DRAIN_S
    while True:
        with contextlib.suppress(ConfigurationError), contextlib.closing(open_read_only(product.data / "events.db")) as db:
            found = [row[0] for row in db.execute("SELECT event_id FROM atomic.events")]
            report.lost = sorted(acknowledged - set(found))
            report.repeated = len(found) - len(set(found))
            report.stored, failed, report.duplicates = db.execute(
                "SELECT stored, failed, duplicate FROM atomic.totals"
            ).fetchone()
            assert damaged or failed == 0
            if not report.lost or time.monotonic() > end:
                return
        time.sleep(0.2)


def told(about: str | None, storm: Callable[[Path, int, int], Report], rounds: int) -> int:
    """A storm as a program: its arguments are read, its report is printed; the exit code."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = storm(Path(folder), args.rounds, args.seed)
    print(
        f"seed {args.seed}: {report.rounds} kills {report.killed}, {report.acknowledged:,} events acknowledged, "
        f"{report.stored:,} stored, {report.duplicates:,} resent ones dropped, {len(report.lost)} lost, {report.repeated} twice"
    )
    return 1 if report.lost or report.repeated else 0


if __name__ == "__main__":
    sys.exit(told(__doc__, storm, 100))
