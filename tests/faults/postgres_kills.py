"""Kills of the running product and of its PostgreSQL under load: every acknowledged event is in the table exactly once.

Senders keep posting; at random moments the gateway or the loader is killed, the loader's session is ended, or the server is
stopped at once or killed and started again. A SQLite target beside it must not notice the server's troubles.

    python -m tests.faults.postgres_kills --rounds 50 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg

from tests.faults.kills import DRAIN_S, SENDERS, Product, Report, Sender, drained
from tests.peers.postgres_server import PostgresServer

TROUBLES = ("gateway", "loader", "both", "session", "server stopped", "server killed", "server away")


def storm(folder: Path, rounds: int, seed: int, partition: str = "", pause_s: float = 0.6) -> tuple[Report, Report]:
    """What SQLite and what PostgreSQL have in the end. Raises AssertionError when the product does not come back."""
    chance = random.Random(seed)
    with PostgresServer(folder) as server:
        config = folder / "spoorway.toml"
        config.write_text(
            "[storage.targets.sqlite]\n[storage.targets.warehouse]\nuse = 'postgres'\n"
            f"dsn = '{server.dsn}'\npartition = '{partition}'\n"
        )
        product, ending = Product(folder / "data", "--config", str(config)), threading.Event()
        report, beside = Report(rounds), Report(rounds)
        product.start()
        senders = [Sender(product, ending) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        troubles = list(TROUBLES)
        for number in range(rounds):
            time.sleep(chance.uniform(0.05, pause_s))
            if number % len(TROUBLES) == 0:
                chance.shuffle(troubles)
            what = troubles[number % len(TROUBLES)]
            report.killed[what] = report.killed.get(what, 0) + 1
            cause(what, product, server, chance)
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
        ending.set()
        for sender in senders:
            sender.join(30)
        acknowledged = {i for sender in senders for i in sender.acknowledged}
        report.acknowledged = beside.acknowledged = len(acknowledged)
        drained(product, acknowledged, beside)
        in_postgres(server, acknowledged, report)
        assert product.stop() == 0
    return beside, report


def cause(what: str, product: Product, server: PostgresServer, chance: random.Random) -> None:
    """One trouble; the server runs again when this returns."""
    if what == "session":
        with psycopg.connect(server.dsn, autocommit=True) as db:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spoorway'")
    elif what.startswith("server"):
        (server.kill if what == "server killed" else server.stop)()
        if what == "server away":
            product.kill("loader")  # which finds nothing to connect to when it is started again
            time.sleep(chance.uniform(0.5, 1.5))
        server.start()
    else:
        product.kill(what)


def in_postgres(server: PostgresServer, acknowledged: set[str], report: Report) -> None:
    """Fills the report in once everything acknowledged is stored, or it took too long."""
    end = time.monotonic() + DRAIN_S
    while True:
        with contextlib.suppress(psycopg.errors.UndefinedTable), psycopg.connect(server.dsn) as db:
            found = [row[0] for row in db.execute("SELECT event_id::text FROM atomic.events")]
            report.lost = sorted(acknowledged - set(found))
            report.repeated = len(found) - len(set(found))
            row = db.execute("SELECT stored, failed, duplicate FROM atomic.totals").fetchone()
            assert row is not None
            report.stored, failed, report.duplicates = row
            assert failed == 0
            if not report.lost or time.monotonic() > end:
                return
        assert time.monotonic() < end, "there are no tables"
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--partition", choices=("", "month"), default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        beside, report = storm(Path(folder), args.rounds, args.seed, args.partition)
    print(
        f"seed {args.seed}: {report.rounds} troubles {report.killed}, {report.acknowledged:,} events acknowledged, "
        f"{report.stored:,} stored, {report.duplicates:,} resent ones dropped, {len(report.lost)} lost, {report.repeated} twice; "
        f"SQLite beside it: {beside.stored:,} stored, {len(beside.lost)} lost, {beside.repeated} twice"
    )
    return 1 if report.lost or report.repeated or beside.lost or beside.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
