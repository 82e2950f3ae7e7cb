"""Kinesis between processes: gateways and workers as their users start them, and what the store holds afterwards.

The stream is in a server that numbers, splits and closes shards as Amazon does; the leases are in moto's DynamoDB.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.kinesis.positions import key_of
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, RawPayload
from spoorway.database import open_read_only
from storage.archive import Archive
from storage.objects import open_objects
from tests.peers.kinesis_server import KEYS, Kinesalite, Moto, active

_WAIT_S = 120
RECEIVED = 1_700_000_000_000


class Site:
    """A stream, a store in SQLite that all workers share, and processes, each with a data folder of its own."""

    def __init__(
        self, folder: Path, stream_server: Kinesalite | Moto, leases_server: Moto, shards: int, options: str = ""
    ) -> None:
        self.folder, self.store, self.stream = folder, folder / "events.db", folder.name
        self.client = stream_server.stream(self.stream, shards)
        self.config = folder / "spoorway.toml"
        self.config.write_text(
            f'[journal.kinesis]\nstream = "{self.stream}"\nleases = "leases-{self.stream}"\ncreate = 1\n'
            f"lease_ms = 3000\npoll_ms = 100\n{options}\n"
            f'[storage.targets.sqlite]\npath = "{self.store}"\n',
            "utf-8",
        )
        places = {"KINESIS": stream_server.endpoint, "DYNAMODB": leases_server.endpoint}
        self.environment = {**os.environ, **KEYS} | {f"AWS_ENDPOINT_URL_{name}": place for name, place in places.items()}
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> tuple[subprocess.Popen[str], str]:
        """The process and what it said before it was ready."""
        data = self.folder / f"data{len(self._processes)}"
        program = [sys.executable, "-m", "spoorway", *command, "--config", str(self.config), "--data", str(data)]
        with (self.folder / "stderr.txt").open("a") as errors:
            process = subprocess.Popen(
                program, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment, cwd=self.folder
            )
        self._processes.append(process)
        assert process.stdout is not None
        return process, "".join(iter(process.stdout.readline, "ready\n")) if process.poll() is None else ""

    def worker(self) -> tuple[subprocess.Popen[str], str]:
        process, said = self.start("worker", "--admin", "127.0.0.1:0")
        return process, said.partition("admin   ")[2].split()[0]

    def send(self, first: int, last: int) -> None:
        """An event per payload, from one of eight browsers, numbered in the order in which it is sent."""
        records = list[dict[str, Any]]()
        for number in range(first, last):
            eid = f"00000000-0000-4000-8000-{number:012d}"
            query = f"e=se&se_ca=c&se_ac=a&se_pr={number}&p=web&tv=t-1&aid=shop&eid={eid}"
            browser = f"00000000-0000-4000-9000-{number % 8:012d}"
            payload = RawPayload(f"{number:032x}", RECEIVED + number, "http", "/i", query=query, network_userid=browser)
            records.append({"Data": to_json(payload), "PartitionKey": key_of(payload)})
        assert not self.client.put_records(StreamName=self.stream, Records=records)["FailedRecordCount"]

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        with contextlib.suppress(ConfigurationError), contextlib.closing(open_read_only(self.store)) as db:
            return [tuple(row) for row in db.execute(question)]
        return []

    def stored(self) -> int:
        return int(rows[0][0]) if (rows := self.rows("SELECT stored FROM atomic.totals")) else 0

    def until(self, true: Callable[[], bool], otherwise: Callable[[], object]) -> None:
        end = time.monotonic() + _WAIT_S
        while not true():
            assert time.monotonic() < end, f"{otherwise()}\n{(self.folder / 'stderr.txt').read_text()[-3000:]}"
            time.sleep(0.05)

    def once(self, count: int) -> None:
        assert sorted(self.rows("SELECT CAST(se_property AS INTEGER) FROM atomic.events")) == [(n,) for n in range(count)]

    def in_order(self) -> None:
        """Those of a browser as they were sent, and nothing was even offered twice."""
        rows = self.rows("SELECT network_userid, CAST(se_property AS INTEGER) FROM atomic.events ORDER BY rowid")
        for browser in {row[0] for row in rows}:
            sent = [row[1] for row in rows if row[0] == browser]
            assert sent == sorted(sent)
        assert self.rows("SELECT duplicate FROM atomic.totals") == [(0,)]

    def end(self) -> None:
        """All workers that live, in order."""
        living = [process for process in self._processes if process.poll() is None]
        for process in living:
            process.terminate()
        assert [process.wait(_WAIT_S) for process in living] == [0] * len(living)

    def said(self, *command: str) -> str:
        program = [sys.executable, "-m", "spoorway", *command, "--config", str(self.config), "--data", str(self.folder / "data")]
        done = subprocess.run(program, capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=_WAIT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture(scope="module")
def kinesalite() -> Iterator[Kinesalite]:
    with Kinesalite() as server:
        yield server


@pytest.fixture
def sites() -> Iterator[Callable[..., Site]]:
    with contextlib.ExitStack() as stack:

        def made(*arguments: Any) -> Site:
            return stack.enter_context(contextlib.closing(Site(*arguments)))

        yield made


def metrics(admin: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name.removeprefix("spoorway_"): float(value) for name, _, value in lines}


def lanes(admin: str) -> int:
    return sum(name.startswith("worker_lane_lag{") for name in metrics(admin))


@pytest.mark.slow
def test_workers_go_on_with_the_shards_of_one_that_was_killed_through_a_split(
    tmp_path: Path, kinesalite: Kinesalite, moto: Moto, sites: Callable[..., Site]
) -> None:
    url = tmp_path / "archive"
    site = sites(tmp_path, kinesalite, moto, 3, f'[journal]\nsegment_age_ms = 1000\n[archive]\nurl = "{url}"')
    archive = Archive(open_objects(str(url)))
    site.send(0, 100)
    first, one = site.worker()
    site.until(lambda: site.stored() == 100, site.stored)
    _, other = site.worker()
    site.until(lambda: lanes(one) + lanes(other) == 3 and lanes(other) > 0, lambda: (lanes(one), lanes(other)))
    site.send(100, 200)
    site.client.split_shard(StreamName=site.stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 125))
    active(site.client, site.stream)
    site.send(200, 250)
    first.kill()
    site.send(250, 300)
    _, third = site.worker()
    site.until(lambda: site.stored() == 300, site.stored)
    site.until(lambda: lanes(other) + lanes(third) == 4 and lanes(third) > 0, lambda: (lanes(other), lanes(third)))
    site.once(300)
    site.in_order()
    archived = lambda: sum(entry.contents.payloads for entry in archive.entries())  # noqa: E731
    site.until(lambda: archived() == 300, archived)
    site.end()
    for source in (("--from", "archive"), ("--partial",)):  # of the stream nobody can tell whether all of it is there
        assert site.said("replay", *source) == "300 payloads: 300 events stored, 0 failed, 0 duplicates\n"
        site.once(300)
        site.in_order()


@pytest.mark.slow
def test_a_worker_that_stalled_beyond_its_lease_comes_back_and_stores_nothing_twice(
    tmp_path: Path, kinesalite: Kinesalite, moto: Moto, sites: Callable[..., Site]
) -> None:
    site = sites(tmp_path, kinesalite, moto, 2)
    stalled, _ = site.worker()
    site.send(0, 60)
    site.until(lambda: site.stored() == 60, site.stored)
    stalled.send_signal(signal.SIGSTOP)
    site.send(60, 120)
    _, other = site.worker()
    site.until(lambda: site.stored() == 120, site.stored)
    site.until(lambda: lanes(other) == 2, lambda: metrics(other))
    stalled.send_signal(signal.SIGCONT)
    site.send(120, 200)
    site.until(lambda: site.stored() == 200, site.stored)
    site.until(lambda: lanes(other) == 1, lambda: lanes(other))
    site.send(200, 240)
    site.until(lambda: site.stored() == 240, site.stored)
    site.once(240)
    site.in_order()


@pytest.mark.slow
def test_a_worker_that_ends_hands_over_at_once(
    tmp_path: Path, kinesalite: Kinesalite, moto: Moto, sites: Callable[..., Site]
) -> None:
    site = sites(tmp_path, kinesalite, moto, 2, "group = 'calm'")
    site.config.write_text(site.config.read_text().replace("lease_ms = 3000", "lease_ms = 600000"))
    first, _ = site.worker()
    site.send(0, 40)
    site.until(lambda: site.stored() == 40, site.stored)
    first.terminate()
    assert first.wait(_WAIT_S) == 0
    _, second = site.worker()
    site.send(40, 80)
    site.until(lambda: site.stored() == 80, site.stored)  # long before a lease of ten minutes is over
    site.until(lambda: lanes(second) == 2, lambda: metrics(second))
    site.once(80)
    site.in_order()


@pytest.mark.slow
def test_from_a_tracker_to_the_store_each_event_once_though_kinesis_is_away_for_a_while(
    tmp_path: Path, moto: Moto, sites: Callable[..., Site]
) -> None:
    """A server that is stopped answers nobody, and then also what it was asked meanwhile: so there are copies to be found."""
    site = sites(tmp_path, moto, moto, 2, "delivery_ms = 1000")
    _, said = site.start("gateway", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    url, admin = (said.partition(f"  {what}")[2].split()[0] for what in ("http ", "admin "))
    _, worker = site.worker()

    def track(first: int, last: int) -> None:
        """Returns when all are acknowledged. Eight browsers at once, each of them waiting for its answers."""
        with ThreadPoolExecutor(8) as browsers:
            done = [browsers.submit(one, range(first + number, last, 8)) for number in range(8)]
            assert all(call.result() for call in done)

    def one(numbers: range) -> bool:
        for number in numbers:
            eid = f"00000000-0000-4000-8000-{number:012d}"
            query = f"e=se&se_ca=c&se_ac=a&se_pr={number}&p=web&tv=t-1&aid=shop&eid={eid}"
            with urllib.request.urlopen(f"{url}/i?{query}", timeout=_WAIT_S) as answer:
                assert answer.status == 200
        return True

    track(0, 80)
    site.until(lambda: site.stored() == 80, site.stored)
    moto._process.send_signal(signal.SIGSTOP)
    try:
        track(80, 160)
        assert metrics(admin)["journal_remote_up"] == 0
        assert metrics(admin)["journal_overflow_payloads_total"] > 0
    finally:
        moto._process.send_signal(signal.SIGCONT)
    site.until(lambda: metrics(admin)["journal_remote_up"] == 1, lambda: metrics(admin))
    track(160, 240)
    site.until(lambda: site.stored() == 240, site.stored)
    site.until(lambda: metrics(admin)["journal_overflow_waiting"] == 0, lambda: metrics(admin))
    site.once(240)
    site.until(lambda: lanes(worker) == 2, lambda: metrics(worker))
