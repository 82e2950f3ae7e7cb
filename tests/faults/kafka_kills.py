"""kill -9 of the product and of its Kafka under load: every acknowledged event is in SQL exactly once.

Senders keep posting events; at random moments the gateway, the worker beside it or both are killed and started again, also while
the gateway hands over what it kept on disk; the broker is killed too, and started again a while later.

    python -m tests.faults.kafka_kills --rounds 50 --seed 1
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.faults.kills import ROOT, SENDERS, Product, Report, Sender, drained, told
from tests.peers.kafka_server import KafkaServer


def storm(folder: Path, rounds: int, seed: int, pause_s: float = 0.6) -> Report:
    """Raises AssertionError when the product or the broker does not come back; losses are in the report."""
    chance, ending, report = random.Random(seed), threading.Event(), Report(rounds)
    with KafkaServer(folder / "kafka") as kafka:
        configuration = folder / "spoorway.toml"
        configuration.write_text(
            f'[journal]\nmin_free_bytes = 0\n[journal.kafka]\nbrokers = ["{kafka.bootstrap}"]\ncreate = true\nsession_ms = 6000\n'
        )
        product = Product(folder / "data", "--config", str(configuration))
        product.start()
        senders = [Sender(product, ending) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        away = 0
        for number in range(rounds):
            time.sleep(chance.uniform(0.05, pause_s))
            if away == 1:
                kafka.start()  # what waits is being handed over when the next one is killed
            away -= 1
            choices = ["gateway", "loader", "both"] + ["broker"] * 2 * (away < 1)
            what = "broker" if number == 0 else chance.choice(choices)
            report.killed[what] = report.killed.get(what, 0) + 1
            if what == "broker":
                kafka.kill()
                away = chance.randint(1, 3)
            else:
                product.kill(what)
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
        if away >= 1:
            kafka.start()
        ending.set()
        for sender in senders:
            sender.join(30)
        acknowledged = {i for sender in senders for i in sender.acknowledged}
        report.acknowledged = len(acknowledged)
        drained(product, acknowledged, report)
        asked = [sys.executable, "-m", "spoorway", "doctor", "--data", str(product.data), "--config", str(configuration)]
        doctor = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        assert "✓ identity: accepted" in doctor.stdout
        assert product.stop() == 0
    return report


if __name__ == "__main__":
    sys.exit(told(__doc__, storm, 50))
