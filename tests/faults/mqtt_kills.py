"""kill -9 of the running product under MQTT: every acknowledged publish is in SQL exactly once, of QoS 1 and of QoS 2.

QoS 1 senders have a window of publishes with event ids; what is not acknowledged is sent again. QoS 2 senders keep a session and
send events without ids, so that nothing but the protocol and the ids that follow from a payload keep them apart.

    python -m tests.faults.mqtt_kills --rounds 100 --seed 1
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
import uuid
from collections import Counter
from pathlib import Path

from gateway.mqtt.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Connack, Connect, Packet, Publish, Reader, encode
from protocol.seams import ConfigurationError
from spoorway.database import open_read_only
from tests.faults.kills import DRAIN_S, Product, Report, drained
from tests.peers.ports import free_port

_WINDOW = 20
_SENDERS = 3  # of each quality


class Broken(Exception):
    """The connection is gone."""


class Sender(threading.Thread):
    """A client of one quality of service that never gives up. acknowledged: event ids; of QoS 2 what stands in their place."""

    def __init__(self, port: int, name: str, qos: int, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.client, self.qos, self.ending = port, name, qos, ending
        self.acknowledged: list[str] = []
        self.resent = 0
        self._open: dict[int, tuple[str, bytes]] = {}  # packet identifier -> name and body of what is not acknowledged
        self._received: set[int] = set()  # QoS 2: acknowledged by PUBREC, to be released
        self._number = 0

    def run(self) -> None:
        while not self.ending.is_set() or self._open:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
                    connection.settimeout(10)
                    self._talk(connection)
            except (OSError, Broken):
                time.sleep(0.02)

    def _talk(self, connection: socket.socket) -> None:
        reader = Reader(65_536, server=False, version=4)

        def receive() -> list[Packet]:
            if not (data := connection.recv(65_536)):
                raise Broken
            return reader.feed(data)

        connection.sendall(encode(Connect(self.client, clean=self.qos == 1)))
        first, *packets = receive()
        if first != Connack(0, first.session_present if isinstance(first, Connack) else False):
            raise Broken
        again = [self._again(number) for number in self._open]
        self.resent += len(again)
        connection.sendall(b"".join(again))
        while True:
            answers = [self._answered(packet) for packet in packets if isinstance(packet, Ack)]
            while not self.ending.is_set() and len(self._open) < _WINDOW:
                answers.append(self._next())
            if not self._open:
                return
            connection.sendall(b"".join(answers))
            packets = receive()

    def _publish(self, number: int, body: bytes, dup: bool = False) -> bytes:
        return encode(Publish(f"spoorway/{self.client}/tp1", body, self.qos, number, dup=dup))

    def _next(self) -> bytes:
        self._number = self._number % 65_535 + 1
        name = str(uuid.uuid4())
        body = f"e=se&se_ca=kill&se_ac={name}&p=iot&tv=kills&aid=qos{self.qos}" + (f"&eid={name}" if self.qos == 1 else "")
        self._open[self._number] = name, body.encode()
        return self._publish(self._number, body.encode())

    def _again(self, number: int) -> bytes:
        if number in self._received:
            return encode(Ack(PUBREL, number))
        return self._publish(number, self._open[number][1], dup=True)

    def _answered(self, packet: Ack) -> bytes:
        number = packet.packet_id
        if packet.kind == PUBREC:
            self._received.add(number)
            return encode(Ack(PUBREL, number))
        assert packet.kind == (PUBACK if self.qos == 1 else PUBCOMP)
        self._received.discard(number)
        self.acknowledged.append(self._open.pop(number)[0])
        return b""


def storm(folder: Path, rounds: int, seed: int, pause_s: float = 0.6) -> tuple[Report, Counter[str]]:
    """(what became of QoS 1, problems of QoS 2 by kind). Raises AssertionError when the product does not come back."""
    chance = random.Random(seed)
    port = free_port()
    product, ending, report = Product(folder / "data", "--mqtt", f"127.0.0.1:{port}"), threading.Event(), Report(rounds)
    product.start()
    senders = [Sender(port, f"q{qos}-{n}", qos, ending) for qos in (1, 2) for n in range(_SENDERS)]
    for sender in senders:
        sender.start()
    for number in range(rounds):
        time.sleep(chance.uniform(0.05, pause_s))
        what = chance.choice(("gateway", "gateway", "loader", "both"))
        report.killed[what] = report.killed.get(what, 0) + 1
        product.kill(what)
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    ending.set()
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive(), f"{sender.client} still waits for {len(sender._open)} acknowledgements"
    once = {i for sender in senders if sender.qos == 1 for i in sender.acknowledged}
    report.acknowledged = len(once)
    drained(product, once, report)
    exactly = _exactly_once(product, {i for sender in senders if sender.qos == 2 for i in sender.acknowledged})
    exactly["resent"] = sum(sender.resent for sender in senders if sender.qos == 2)
    assert product.stop() == 0
    return report, exactly


def _exactly_once(product: Product, acknowledged: set[str]) -> Counter[str]:
    end = time.monotonic() + DRAIN_S
    while True:
        with contextlib.suppress(ConfigurationError), contextlib.closing(open_read_only(product.data / "events.db")) as db:
            rows = Counter([row[0] for row in db.execute("SELECT se_action FROM atomic.events WHERE app_id = 'qos2'")])
            lost, twice = len(acknowledged - rows.keys()), sum(count > 1 for count in rows.values())
            if not lost or time.monotonic() > end:
                return Counter(acknowledged=len(acknowledged), lost=lost, twice=twice)
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report, exactly = storm(Path(folder), args.rounds, args.seed)
    print(
        f"seed {args.seed}: {report.rounds} kills {report.killed}; QoS 1: {report.acknowledged:,} acknowledged, "
        f"{report.duplicates:,} resent ones dropped, {len(report.lost)} lost, {report.repeated} twice; QoS 2: "
        f"{exactly['acknowledged']:,} acknowledged, {exactly['resent']:,} resent, {exactly['lost']} lost, "
        f"{exactly['twice']} twice"
    )
    return 1 if report.lost or report.repeated or exactly["lost"] or exactly["twice"] else 0


if __name__ == "__main__":
    sys.exit(main())
