"""Workers as processes: a real Kafka, the command as its user starts it, and what the stores hold afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoorway.cli import main
from tests.end_to_end.worker_site import PARTITIONS, WAIT_S, Site, get, metrics
from tests.peers.kafka_server import KafkaServer


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, kafka: KafkaServer, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path, kafka.bootstrap, f"raw-{request.node.name}")
    yield made
    made.close()


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
    assert first.wait(WAIT_S) == 0
    site.until(lambda: lanes(other) == PARTITIONS, lambda: lanes(other))
    site.send(50, 100)
    site.until(lambda: site.stored() == 100, site.stored)
    told = (site.folder / "stderr.txt").read_text()
    assert "the group is left" in told
    assert not [line for line in told.splitlines() if "waiting for the group" in line and " ERROR " in line]


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
        assert product.wait(WAIT_S) == 0
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
    archive = f'[archive]\nurl = "{tmp_path / "store"}"\n'
    assert "there are archive, postgres" in told("worker", kafka + archive + "[storage.targets.postgres]\n", "--targets", "other")
    assert "workers call the archive so" in told("worker", kafka + archive + '[storage.targets.archive]\nuse = "sqlite"\n')
    assert "no broker can be reached" in told("archive", kafka + archive, "now")
    assert "load them with `spoorway worker`" in told("load", kafka)
