"""Workers as processes: a real Kafka, the command as its user starts it, and what the stores hold afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from gateway.journal.kafka import key_of
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, RawPayload
from spoorway.cli import main
from spoorway.database import open_read_only
from tests.peers.kafka_server import KafkaServer

_WAIT_S = 60
PARTITIONS = 4
RECEIVED = 1_700_000_000_000


class Site:
    """A topic, a store in SQLite that all workers share, and the workers, each in a data folder of its own."""

    def __init__(self, folder: Path, bootstrap: str, topic: str) -> None:
        self.folder, self.store, self._bootstrap, self._topic = folder, folder / "events.db", bootstrap, topic
        self.config = folder / "spoorway.toml"
        self.config.write_text(
            f'[journal.kafka]\nbrokers = ["{bootstrap}"]\ntopic = "{topic}"\ngroup = "{topic}"\nsession_ms = 3000\n'
            f'[storage.targets.sqlite]\npath = "{self.store}"\n',
            "utf-8",
        )
        self._workers: list[subprocess.Popen[str]] = []
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
            made.result(30)

    def worker(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """The process and where it is asked; it is ready to read, its lanes come when the group gives them."""
        data = self.folder / f"data{len(self._workers)}"
        command = [sys.executable, "-m", "spoorway", "worker", "--config", str(self.config), "--data", str(data)]
        with (self.folder / "stderr.txt").open("a") as errors:
            process = subprocess.Popen(
                [*command, "--admin", "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._workers.append(process)
        assert process.stdout is not None
        said = "".join(iter(process.stdout.readline, "ready\n")) if process.poll() is None else ""
        return process, said.partition("admin   ")[2].split()[0]

    def send(self, first: int, last: int) -> None:
        """An event per payload, from one of forty browsers, numbered in the order in which it is sent."""
        producer = Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True})
        for number in range(first, last):
            eid = f"00000000-0000-4000-8000-{number:012d}"
            query = f"e=se&se_ca=c&se_ac=a&se_pr={number}&p=web&tv=t-1&aid=shop&eid={eid}"
            payload = RawPayload(
                f"{number:032x}",
                RECEIVED + number,
                "http",
                "/i",
                query=query,
                network_userid=f"{number % 40:08d}-0000-4000-8000-000000000000",
            )
            producer.produce(self._topic, to_json(payload), key_of(payload))
        assert producer.flush(30) == 0

    def rows(self, question: str) -> list[tuple[object, ...]]:
        with contextlib.suppress(ConfigurationError), contextlib.closing(open_read_only(self.store)) as db:
            return [tuple(row) for row in db.execute(question)]
        return []

    def stored(self) -> int:
        return int(str(rows[0][0])) if (rows := self.rows("SELECT stored FROM atomic.totals")) else 0

    def until(self, true: Callable[[], bool], otherwise: Callable[[], object]) -> None:
        end = time.monotonic() + _WAIT_S
        while not true():
            assert time.monotonic() < end, f"{otherwise()}\n{(self.folder / 'stderr.txt').read_text()[-3000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self._workers:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, kafka: KafkaServer, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path, kafka.bootstrap, f"raw-{request.node.name}")
    yield made
    made.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(admin: str) -> dict[str, float]:
    lines = [line for line in get(f"{admin}/metrics")[1].splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0].removeprefix("spoorway_"): float(line.rpartition(" ")[2]) for line in lines}


def lanes(admin: str) -> int:
    return sum(name.startswith("worker_lane_lag{") for name in metrics(admin))


@pytest.mark.slow
def test_workers_share_the_lanes_and_go_on_with_those_of_one_that_was_killed(site: Site) -> None:
    site.send(0, 400)
    first, one = site.worker()
    site.until(lambda: site.stored() == 400, site.stored)
    site.until(lambda: get(f"{one}/health/ready") == (200, "ok\n"), lambda: get(f"{one}/health/ready"))
    assert lanes(one) == PARTITIONS
    _, other = site.worker()
    site.until(lambda: (lanes(one), lanes(other)) == (2, 2), lambda: (lanes(one), lanes(other)))
    site.send(400, 800)
    site.until(lambda: site.stored() == 800, site.stored)
    own = 'worker_events_total{target="sqlite",outcome="stored"}'
    site.until(lambda: metrics(one)[own] + metrics(other)[own] == 800, lambda: (metrics(one)[own], metrics(other)[own]))
    assert min(metrics(one)[own], metrics(other)[own]) > 0
    os.kill(first.pid, signal.SIGKILL)
    site.send(800, 1000)
    site.until(lambda: site.stored() == 1000, site.stored)
    site.until(lambda: lanes(other) == PARTITIONS, lambda: lanes(other))
    site.until(lambda: metrics(other)['target_events_total{target="sqlite",outcome="stored"}'] == 1000, lambda: metrics(other))
    after = metrics(other)
    assert after['target_payloads_pending{target="sqlite"}'] == 0
    assert after['worker_reassigned_total{target="sqlite"}'] >= 2
    # Each browser's events lie in the order in which they were sent, whoever loaded them.
    rows = site.rows("SELECT network_userid, CAST(se_property AS INTEGER) FROM atomic.events ORDER BY rowid")
    for browser in {row[0] for row in rows}:
        sent = [row[1] for row in rows if row[0] == browser]
        assert sent == sorted(sent, key=lambda number: int(str(number)))
    assert len(rows) == len({row[1] for row in rows}) == 1000


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_leaves_the_group_at_once(site: Site) -> None:
    site.send(0, 50)
    first, one = site.worker()
    _, other = site.worker()
    site.until(lambda: site.stored() == 50 and lanes(one) == lanes(other) == 2, lambda: (site.stored(), lanes(one)))
    first.send_signal(signal.SIGTERM)
    assert first.wait(_WAIT_S) == 0
    site.until(lambda: lanes(other) == PARTITIONS, lambda: lanes(other))
    site.send(50, 100)
    site.until(lambda: site.stored() == 100, site.stored)


@pytest.mark.slow
def test_a_worker_that_stood_still_stores_nothing_that_another_has_stored_meanwhile(site: Site) -> None:
    site.send(0, 100)
    stalled, one = site.worker()
    site.until(lambda: site.stored() == 100, site.stored)
    stalled.send_signal(signal.SIGSTOP)
    site.send(100, 300)
    _, other = site.worker()
    site.until(lambda: site.stored() == 300, site.stored)
    stalled.send_signal(signal.SIGCONT)
    site.until(lambda: lanes(one) + lanes(other) == PARTITIONS, lambda: (lanes(one), lanes(other)))
    site.send(300, 400)
    site.until(lambda: site.stored() == 400, site.stored)
    totals = site.rows("SELECT payloads, stored, failed, duplicate FROM atomic.totals")
    assert totals == [(400, 400, 0, 0)]
    assert site.rows("SELECT sum(sequence) FROM cursors") == [(400,)]


@pytest.mark.slow
def test_run_loads_by_a_worker_of_its_own_where_the_journal_is_in_kafka(site: Site) -> None:
    data = site.folder / "data"
    command = [sys.executable, "-m", "spoorway", "run", "--config", str(site.config), "--data", str(data)]
    with (site.folder / "stderr.txt").open("a") as errors:
        product = subprocess.Popen(
            [*command, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"], stdout=subprocess.DEVNULL, stderr=errors
        )
    try:
        site.until(lambda: (data / "running.json").exists(), product.poll)
        running = json.loads((data / "running.json").read_text())
        for number in range(3):
            assert get(f"{running['urls']['http'][0]}/i?e=pv&p=web&tv=t-1&aid=shop&url=http://x/{number}")[0] == 200
        site.until(lambda: site.stored() == 3, site.stored)
        site.until(lambda: lanes(running["admin"]) == PARTITIONS, lambda: lanes(running["admin"]))
        own = 'worker_payloads_total{target="sqlite"}'
        site.until(lambda: metrics(running["admin"])[own] == 3, lambda: metrics(running["admin"]))
        product.send_signal(signal.SIGTERM)
        assert product.wait(_WAIT_S) == 0
    finally:
        product.kill()
        product.wait()


def test_a_mistake_is_told_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(command: str, text: str, *arguments: str) -> str:
        config = tmp_path / "spoorway.toml"
        config.write_text(text, "utf-8")
        assert main([command, "--config", str(config), "--data", str(tmp_path / "data"), *arguments]) == 1
        return capsys.readouterr().err

    assert "neither is configured" in told("worker", "")
    kafka = '[journal.kafka]\nbrokers = ["127.0.0.1:1"]\n'
    assert "both configured" in told("worker", kafka + '[journal.kinesis]\nstream = "s"\n')
    assert "postgres" in told("worker", kafka + "[storage.targets.sqlite]\n", "--targets", "postgres")
    relay = '[storage.targets.relay]\nurl = "https://collector.example"\n'
    assert "storage.targets.relay: relay keeps its place by itself and cannot be shared" in told("worker", kafka + relay)
    assert "no segments to archive" in told("worker", kafka + '[archive]\nurl = "/tmp/x"\n')
    assert "load them with `spoorway worker`" in told("load", kafka)
