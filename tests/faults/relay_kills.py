"""kill -9 of two running gateways, one forwarding to the other: every acknowledged event is upstream exactly once.

Senders post to the edge; at random moments the edge, its loader, the upstream, its loader or all of them are killed and started
again, and connections between the two are cut in the middle of answers.

    python -m tests.faults.relay_kills --rounds 50 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from tests.faults.kills import SENDERS, Product, Report, Sender, drained


class Cutter(threading.Thread):
    """A wire between the two that passes everything on, and now and then ends after some bytes of an answer."""

    def __init__(self, to_port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.to_port, self.chance, self.cuts = to_port, random.Random(seed), 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self.listening.accept()
                threading.Thread(target=self._pass, args=(here,), daemon=True).start()

    def _pass(self, here: socket.socket) -> None:
        try:
            there = socket.create_connection(("127.0.0.1", self.to_port), timeout=10)
        except OSError:
            here.close()
            return
        threading.Thread(target=self._copy, args=(here, there, -1), daemon=True).start()
        # An answer is some 150 bytes: what is cut is often the answer to a batch that was taken, and the first one is.
        most = 1_000 if self.cuts else 100
        self._copy(there, here, self.chance.randrange(0, most) if not self.cuts or self.chance.random() < 0.5 else -1)

    def _copy(self, source: socket.socket, sink: socket.socket, budget: int) -> None:
        with contextlib.suppress(OSError):
            source.settimeout(60)
            while data := source.recv(65_536):
                if 0 <= budget < len(data):
                    self.cuts += 1
                    break
                sink.sendall(data)
                budget -= len(data) if budget >= 0 else 0
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def storm(folder: Path, rounds: int, seed: int, pause_s: float = 0.6) -> tuple[Report, int]:
    """The report, and how many connections were cut. Raises AssertionError when a side does not come back."""
    chance = random.Random(seed)
    places = {name: folder / name for name in ("upstream", "edge")}
    for place in places.values():
        place.mkdir()
    (places["upstream"] / "data").mkdir()
    issuer = Issuer(places["upstream"] / "data", lambda: time.time_ns() // 1_000_000, make=True)
    (secrets,) = issuer.add(["edge"], "hmac", Limits())
    issuer.close()
    assert not isinstance(secrets, str)
    (folder / "relay.key").write_text(secrets.key)
    (folder / "upstream.toml").write_text("[gateway.transports.http]\nrelays = ['edge']\n")
    upstream = Product(places["upstream"] / "data", "--config", str(folder / "upstream.toml"))
    upstream.start()
    cutter = Cutter(upstream.port, seed)
    cutter.start()
    (folder / "edge.toml").write_text(
        f"[storage.targets.upstream]\nuse = 'relay'\nurl = 'http://127.0.0.1:{cutter.port}'\ndevice = 'edge'\n"
        f"key_file = '{folder / 'relay.key'}'\nevery_s = 0.0\nlongest_wait_s = 0.5\ntimeout_s = 5.0\n"
    )
    edge = Product(places["edge"] / "data", "--config", str(folder / "edge.toml"))
    edge.start()
    ending, report = threading.Event(), Report(rounds)
    senders = [Sender(edge, ending) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for _ in range(rounds):
        time.sleep(chance.uniform(0.05, pause_s))
        name = chance.choice(("upstream", "edge"))
        what = chance.choice(("gateway", "loader", "both"))
        key = f"{name} {what}"
        report.killed[key] = report.killed.get(key, 0) + 1
        {"upstream": upstream, "edge": edge}[name].kill(what)
    ending.set()
    for sender in senders:
        sender.join(30)
    acknowledged = {i for sender in senders for i in sender.acknowledged}
    report.acknowledged = len(acknowledged)
    drained(upstream, acknowledged, report)
    assert (edge.stop(), upstream.stop()) == (0, 0)
    cutter.listening.close()
    return report, cutter.cuts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report, cuts = storm(Path(folder), args.rounds, args.seed)
    print(
        f"seed {args.seed}: {report.rounds} kills {report.killed}, {cuts} connections cut, {report.acknowledged:,} events "
        f"acknowledged at the edge, {report.stored:,} stored upstream, {report.duplicates:,} copies dropped there, "
        f"{len(report.lost)} lost, {report.repeated} twice"
    )
    return 1 if report.lost or report.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
