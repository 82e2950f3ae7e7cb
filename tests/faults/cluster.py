"""A cluster in bad weather: three gateways, two workers and a real Kafka broker, each killed, stopped or stalled at random.

Every acknowledged event is in SQLite, PostgreSQL and S3 exactly once, a browser's events are there in the order in which it sent
them, and accepted = stored + failed + duplicate in each, counted over all processes. The archive has every record of the topic
once, in order. Senders stay with one gateway and send what
was not acknowledged again with the same ids, as trackers do.

    python -m tests.faults.cluster --minutes 10 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
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
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import psycopg

from gateway.journal.kafka import Config
from gateway.journal.kafka.reader import KafkaReader
from protocol.seams import Cursor, Position, RawPayload
from spoorway.database import open_read_only
from spoorway.rebuilding import Rebuilding
from storage import lake
from storage.archive import Archive
from storage.lake import commits
from storage.lake.parquet import pa, pq
from storage.objects import Objects, open_objects
from storage.targets import Counts
from tests.peers.kafka_server import KafkaServer
from tests.peers.ports import free_port
from tests.peers.postgres_server import PostgresServer
from tests.peers.s3_server import S3Server

ROOT = Path(__file__).parents[2]
TOPIC, PARTITIONS, SESSION_MS = "raw", 6, 3_000
GATEWAYS, WORKERS, SENDERS = 3, 2, 6
EVENTS_PER_POST, POSTS_PAUSE_S = 5, 0.1
START_S, DRAIN_S = 240, 300
SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"

Row = tuple[str, str, int]
"""event_id, browser, number of the post."""


@dataclass
class Found:
    """What one store holds. rows: in the order in which they were stored, as far as the store tells."""

    totals: Counts
    cursor: Cursor
    rows: list[Row]
    failed: int


@dataclass
class Report:
    acknowledged: int = 0
    accepted: int = 0
    """Events in the payloads of the topic, copies included."""
    payloads: int = 0
    copies: int = 0
    refused: int = 0
    overflowed: int = 0
    weather: dict[str, int] = field(default_factory=dict[str, int])
    stores: dict[str, Counts] = field(default_factory=dict[str, Counts])
    wrong: list[str] = field(default_factory=list[str])
    """What does not hold."""


class Process:
    """One command of the product, started again and again on one data folder."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.name, self._folder, self._arguments = name, folder, arguments
        self.admin = ""
        self._process: subprocess.Popen[str] | None = None
        self._reading: threading.Thread | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "spoorway", *self._arguments, "--config", str(self._folder / "spoorway.toml")]
        with (self._folder / f"{self.name}.log").open("ab") as errors:
            self._process = process = subprocess.Popen(
                [*command, "--data", str(self._folder / self.name)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        ready = threading.Event()
        self._reading = threading.Thread(target=self._read, args=(process.stdout, ready), daemon=True)
        self._reading.start()
        assert ready.wait(START_S) and process.poll() is None, self.said()

    def _read(self, said: IO[str], ready: threading.Event) -> None:
        for line in said:
            if line.strip().startswith("admin"):
                self.admin = line.split()[1]
            if line == "ready\n":
                break
        ready.set()

    def kill(self) -> None:
        """Also of one that has ended."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(START_S)
        return self._ended()

    def stall(self, seconds: float) -> None:
        """It stands still, as a machine does that swaps, or a virtual one that is moved."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=20) as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0].removeprefix("spoorway_"): float(line.rpartition(" ")[2]) for line in lines}

    def said(self) -> str:
        return (self._folder / f"{self.name}.log").read_text("utf-8", "replace")[-2000:]

    def _ended(self) -> int:
        assert self._process is not None and self._process.stdout is not None and self._reading is not None
        code = self._process.wait()
        self._reading.join()
        self._process.stdout.close()
        self._process = None
        return code


class Sender(threading.Thread):
    """A browser: posts, in order; what is not acknowledged is posted again until it is. One event in forty is no good."""

    def __init__(self, port: int, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.browser, self._port, self._ending = str(uuid.uuid4()), port, ending
        self.acknowledged: list[str] = []

    def run(self) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            ids = [str(uuid.uuid4()) for _ in range(EVENTS_PER_POST)]
            if self._delivered(self._body(number, ids)):
                self.acknowledged += ids[1:] if number % 8 == 0 else ids
            self._ending.wait(POSTS_PAUSE_S)

    def _body(self, number: int, ids: Sequence[str]) -> str:
        events = [{"e": "se", "se_ca": "c", "se_ac": "a", "se_pr": str(number), "p": "web", "tv": "t-1", "eid": i} for i in ids]
        if number % 8 == 0:
            events[0]["se_va"] = "not a number"
        return json.dumps({"schema": SCHEMA, "data": events})

    def _delivered(self, body: str) -> bool:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
                with contextlib.closing(connection):
                    connection.request("POST", f"/com.snowplowanalytics.snowplow/tp2?nuid={self.browser}", body, headers)
                    if connection.getresponse().status == 200:
                        return True
            if self._ending.wait(0.05):
                return False


class Cluster:
    """`with Cluster(folder) as cluster`: everything runs. Everything of ours is started again at the place where it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        folder = self.folder
        with contextlib.ExitStack() as stack:
            self.kafka = stack.enter_context(KafkaServer(folder / "kafka"))
            self.postgres = stack.enter_context(PostgresServer(folder))
            self.s3 = stack.enter_context(S3Server())
            stack.enter_context(patch.dict(os.environ, self.s3.environment))
            self._url = f"{self.s3.bucket('cluster')}/site"
            self.archive = Archive(open_objects(str(folder / "archive")))
            self._configure()
            self.ports = [free_port() for _ in range(GATEWAYS)]
            self.gateways = [
                Process(f"gateway{i}", folder, "gateway", "--http", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0")
                for i, port in enumerate(self.ports)
            ]
            self.workers = [Process(f"worker{i}", folder, "worker", "--admin", "127.0.0.1:0") for i in range(WORKERS)]
            for process in (*self.gateways, *self.workers):
                stack.callback(process.kill)
            together([process.start for process in (*self.gateways, *self.workers)])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()

    def _configure(self) -> None:
        (self.folder / "spoorway.toml").write_text(
            f'[journal.kafka]\nbrokers = ["{self.kafka.bootstrap}"]\ntopic = "{TOPIC}"\ncreate = true\n'
            f"partitions = {PARTITIONS}\nreplication = 1\nsession_ms = {SESSION_MS}\ndelivery_ms = 1500\n"
            f'[journal]\nsegment_bytes = 50000\nsegment_age_ms = 3000\n[archive]\nurl = "{self.folder / "archive"}"\n'
            f'[storage.targets.sqlite]\npath = "{self.folder / "events.db"}"\n'
            f'[storage.targets.postgres]\ndsn = "{self.postgres.dsn}"\n'
            f'[storage.targets.s3]\nurl = "{self._url}"\nendpoint = "{self.s3.endpoint}"\nevery_s = 1\n',
            "utf-8",
        )

    # What there is ---------------------------------------------------------------------------------------------------

    def topic(self) -> list[RawPayload]:
        """Every payload, each browser's in their order."""
        reader = KafkaReader(Config((self.kafka.bootstrap,), TOPIC))
        found: dict[str, list[RawPayload]] = {}
        cursor: Cursor = {}
        while True:
            chunk = reader.read(cursor)
            for item in chunk.items:
                assert isinstance(item, RawPayload), item
                found.setdefault(str(item.network_userid), []).append(item)
            if not chunk.items and not chunk.more:
                reader.close()
                return [payload for browser in sorted(found) for payload in found[browser]]
            cursor = chunk.cursor

    def archived(self) -> list[RawPayload]:
        """Every payload, as who replays reads it. Raises AssertionError when something is missing, or is too much."""
        entries = list(self.archive.entries())
        assert not self.archive.unlisted({entry.object for entry in entries})
        room = self.folder / "room"
        room.mkdir()
        reader = Rebuilding(self.archive, room / "no-journal", room, print, partial=False)
        assert reader.missing() == [] and not any(reader.damaged())
        found: dict[str, list[RawPayload]] = {}
        chunk = reader.read({})
        while chunk.items:
            for item in chunk.items:
                assert isinstance(item, RawPayload), item
                found.setdefault(str(item.network_userid), []).append(item)
            chunk = reader.read(chunk.cursor)
        reader.close()
        return [payload for browser in sorted(found) for payload in found[browser]]

    def stores(self) -> dict[str, Found]:
        return {"sqlite": self._sqlite(), "postgres": self._postgres(), "s3": self._s3()}

    def pending(self) -> list[int]:
        """Of each store, and of the archive."""
        reader = KafkaReader(Config((self.kafka.bootstrap,), TOPIC))
        try:
            lasts = (self.archive.last(lane) for lane in {entry.lane for entry in self.archive.entries()})
            archived = {lane: at for last in lasts if last is not None for lane, at in last.reached.items()}
            return [reader.pending(cursor) for cursor in (*self.cursors(), archived)]
        finally:
            reader.close()

    def cursors(self) -> Iterator[Cursor]:
        """Of each store; what is counted as covered is what its cursor covers, at any moment."""
        asked = 'SELECT lane, segment, "offset", sequence, (SELECT payloads FROM atomic.totals) FROM atomic.cursors'
        with contextlib.closing(open_read_only(self.folder / "events.db")) as db:
            yield covered(db.execute(asked).fetchall())
        with psycopg.connect(self.postgres.dsn) as db:
            yield covered(db.execute(asked).fetchall())
        last = commits.newest(self._objects())[0]
        yield covered([(lane, *at, last.totals.payloads) for lane, at in last.cursor.items()])

    def _objects(self) -> Objects:
        return open_objects(self._url, endpoint=self.s3.endpoint, region="us-east-1")

    def _sqlite(self) -> Found:
        with contextlib.closing(open_read_only(self.folder / "events.db")) as db:
            totals = Counts(*db.execute("SELECT payloads, stored, failed, duplicate FROM atomic.totals").fetchone())
            rows = db.execute("SELECT event_id, network_userid, se_property FROM atomic.events ORDER BY rowid").fetchall()
            ((failed,),) = db.execute("SELECT count(*) FROM atomic.failed_events").fetchall()
        return Found(totals, {}, [(row[0], row[1], int(row[2])) for row in rows], failed)

    def _postgres(self) -> Found:
        with psycopg.connect(self.postgres.dsn) as db:
            ((payloads, stored, failed, duplicate),) = db.execute(
                "SELECT payloads, stored, failed, duplicate FROM atomic.totals"
            ).fetchall()
            rows = db.execute(
                "SELECT event_id::text, network_userid, se_property::int FROM atomic.events ORDER BY etl_tstamp, se_property::int"
            ).fetchall()
            ((kept,),) = db.execute("SELECT count(*) FROM atomic.failed_events").fetchall()
        return Found(
            Counts(payloads, stored, failed, duplicate), {}, [(str(r[0]), str(r[1]), int(r[2])) for r in rows], int(kept)
        )

    def _s3(self) -> Found:
        objects = self._objects()
        rows: list[tuple[int, Row]] = []
        for piece in lake.sorted_out(objects.list("events/"))[0]:
            table = pq.read_table(pa.BufferReader(objects.get(piece.name)), columns=["event_id", "network_userid", "se_property"])
            rows += [(piece.first, (r["event_id"], r["network_userid"], int(r["se_property"]))) for r in table.to_pylist()]
        last = commits.newest(objects)[0]
        rows.sort(key=lambda row: (row[0], row[1][2]))
        failures = [gzip.decompress(objects.get(piece.name)) for piece in lake.sorted_out(objects.list("failed/"))[0]]
        failed = sum(len(lines.splitlines()) for lines in failures)
        return Found(last.totals, last.cursor, [row for _, row in rows], failed)


# The weather ------------------------------------------------------------------------------------------------------------


def weather(cluster: Cluster, chance: random.Random) -> dict[str, Callable[[], None]]:
    def gateway() -> None:
        process = chance.choice(cluster.gateways)
        process.kill()
        process.start()

    def worker() -> None:
        process = chance.choice(cluster.workers)
        process.kill()
        process.start()

    def stall() -> None:
        chance.choice(cluster.workers).stall(SESSION_MS / 1000 + chance.uniform(0.5, 2))

    def leave() -> None:
        process = chance.choice(cluster.workers)
        assert process.stop() == 0, process.said()
        process.start()

    def broker() -> None:
        cluster.kafka.kill()
        time.sleep(chance.uniform(0.2, 2.5))
        cluster.kafka.start()

    return {"broker": broker, "worker": worker, "gateway": gateway, "stall": stall, "leave": leave}


def storm(folder: Path, seed: int, *, seconds: float = 0, rounds: int = 0) -> Report:
    """So many rounds of each kind of weather, in any order; without rounds, until so many seconds are over."""
    chance, report = random.Random(seed), Report()
    with Cluster(folder) as cluster:
        kinds = weather(cluster, chance)
        ending = threading.Event()
        senders = [Sender(cluster.ports[i % GATEWAYS], ending) for i in range(SENDERS)]
        for sender in senders:
            sender.start()
        end = time.monotonic() + seconds
        for kind in forecast(chance, list(kinds), end, rounds):
            kinds[kind]()
            report.weather[kind] = report.weather.get(kind, 0) + 1
            list(cluster.cursors())
            if sys.stderr.isatty():
                print(f"\r{sum(report.weather.values())} {report.weather}, {max(0, end - time.monotonic()):.0f} s left ",
                      end="", file=sys.stderr)  # fmt: skip
            time.sleep(chance.uniform(0.2, 2))
        ending.set()
        for sender in senders:
            sender.join(60)
        drained(cluster)
        report.refused = int(sum(measured(process, "worker_commits_refused_total") for process in cluster.workers))
        report.overflowed = int(sum(measured(process, "journal_overflow_payloads_total") for process in cluster.gateways))
        for process in (*cluster.gateways, *cluster.workers):
            if process.stop() != 0:
                report.wrong.append(f"{process.name} ended badly: {process.said()}")
        judge(cluster, senders, report)
    return report


def forecast(chance: random.Random, kinds: list[str], end: float, rounds: int) -> Iterator[str]:
    done = 0
    while done < rounds or (not rounds and time.monotonic() < end):
        chance.shuffle(kinds)
        for kind in kinds:
            if rounds or time.monotonic() < end:
                yield kind
        done += 1


def drained(cluster: Cluster) -> None:
    """Nothing waits on a gateway's disk, and every store has all of the topic."""
    end = time.monotonic() + DRAIN_S
    while True:
        waiting = sum(measured(process, "journal_overflow_waiting") for process in cluster.gateways)
        pending = cluster.pending()
        if not waiting and pending == [0, 0, 0, 0]:
            return
        logs = "\n".join(process.said() for process in cluster.workers)
        assert time.monotonic() < end, f"{waiting} payloads wait on disk, {pending} for the stores and the archive; {logs}"
        time.sleep(0.5)


def covered(rows: Sequence[Sequence[Any]]) -> Cursor:
    """rows: lane, position, and how many payloads are counted."""
    found = {str(lane): Position(*map(int, position)) for lane, *position, _ in rows}
    counted = int(rows[0][-1]) if rows else 0
    assert sum(at.sequence for at in found.values()) == counted, f"the cursor is at {found}, but {counted} payloads are counted"
    return found


def measured(process: Process, name: str) -> float:
    return sum(value for key, value in process.metrics().items() if key.partition("{")[0] == name)


def judge(cluster: Cluster, senders: Sequence[Sender], report: Report) -> None:
    acknowledged = {event for sender in senders for event in sender.acknowledged}
    payloads = cluster.topic()
    bodies = [json.loads(payload.body or b"")["data"] for payload in payloads]
    report.acknowledged, report.payloads = len(acknowledged), len(payloads)
    report.accepted = sum(map(len, bodies))
    report.copies = len(payloads) - len({payload.id for payload in payloads})
    sent = [("", str(payload.network_userid), int(body[0]["se_pr"])) for payload, body in zip(payloads, bodies, strict=True)]
    say = report.wrong.append
    if unordered := disorder(sent):
        say(f"the topic: {unordered}")
    if (archived := cluster.archived()) != payloads:
        say(f"the archive: {len(archived)} payloads, which are not those of the topic in their order")
    for name, found in cluster.stores().items():
        totals, ids = found.totals, [row[0] for row in found.rows]
        report.stores[name] = totals
        if lost := acknowledged - set(ids):
            say(f"{name}: {len(lost)} acknowledged events are lost, such as {sorted(lost)[:3]}")
        if len(ids) != len(set(ids)):
            say(f"{name}: {len(ids) - len(set(ids))} events are stored twice")
        if (totals.stored, totals.failed) != (len(ids), found.failed):
            say(f"{name}: {totals} are counted, but {len(ids)} events and {found.failed} failed ones are there")
        if totals.payloads != len(payloads) or totals.stored + totals.failed + totals.duplicate != report.accepted:
            say(f"{name}: {totals}, but {len(payloads)} payloads of {report.accepted} events were accepted")
        if unordered := disorder(found.rows):
            say(f"{name}: {unordered}")


def disorder(rows: Sequence[Row]) -> str:
    """What is not in the order in which its browser sent it; of a post that is there twice the first counts. "" = all are."""
    last: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    for _, browser, number in rows:
        if (browser, number) not in seen and number < last.get(browser, 0):
            return f"of browser {browser}, {number} came after {last[browser]}"
        seen.add((browser, number))
        last[browser] = max(number, last.get(browser, 0))
    return ""


def together(calls: Sequence[Callable[[], None]]) -> None:
    failed: list[BaseException] = []

    def called(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=called, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory(prefix="spoorway-cluster-") as folder:
        report = storm(Path(folder), args.seed, seconds=args.minutes * 60)
    known: dict[str, Any] = {name: vars(report)[name] for name in ("weather", "refused", "overflowed", "copies")}
    print(f"{known}\n{report.acknowledged:,} events acknowledged, {report.accepted:,} accepted in {report.payloads:,} payloads")
    for name, counts in report.stores.items():
        print(f"{name}: {counts.stored:,} stored, {counts.failed:,} failed, {counts.duplicate:,} duplicates")
    print("\n".join(report.wrong) or "nothing lost, nothing twice, all in order")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
