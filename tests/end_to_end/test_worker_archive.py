"""The archive of a journal in Kafka: workers as processes, killed; what is built from the archive is what they stored."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from spoorway.cli import main
from spoorway.database import open_read_only
from storage.archive import Archive
from storage.objects import open_objects
from tests.end_to_end.worker_site import WAIT_S, Site, metrics
from tests.peers.kafka_server import KafkaServer
from tests.peers.s3_server import S3Server

pytestmark = pytest.mark.slow

JOURNAL = "[journal]\nsegment_bytes = 20000\nsegment_age_ms = 1000\nmin_free_bytes = 0\n"


class Archived:
    """A topic whose workers archive it at `url`."""

    def __init__(self, site: Site, url: str) -> None:
        self.site, self.url = site, url
        self.archive = Archive(open_objects(url))

    def payloads(self) -> int:
        return sum(entry.contents.payloads for entry in self.archive.entries())

    def damaged(self) -> int:
        return sum(entry.contents.damaged for entry in self.archive.entries())

    def until(self, payloads: int) -> None:
        self.site.until(lambda: self.payloads() == payloads, self.payloads)

    def spoorway(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "spoorway", *arguments, "--config", str(self.site.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def rebuild(self, *more: str) -> Path:
        """Into a store of its own, from the archive alone; the store."""
        data = self.site.folder / "rebuilt"
        config = self.site.folder / "rebuilt.toml"
        config.write_text("", "utf-8")
        command = [sys.executable, "-m", "spoorway", "replay", "--from", "archive", "--archive", self.url, "--data", str(data)]
        done = subprocess.run([*command, "--config", str(config), *more], capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 0, done.stderr + done.stdout
        return data / "events.db"


def rows(store: Path) -> dict[str, list[str]]:
    """Everything a store holds, without the times of loading; those of damaged places are such, too."""
    without = {"events": {"etl_tstamp"}, "failed_events": {"failed_tstamp", "collector_tstamp"}}
    found: dict[str, list[str]] = {}
    with closing(open_read_only(store)) as db:
        for table, left_out in without.items():
            cursor = db.execute(f"SELECT * FROM atomic.{table}")
            keep = [place for place, (name, *_) in enumerate(cursor.description) if name not in left_out]
            told = (repr([row[place] for place in keep]) for row in cursor)
            found[table] = sorted(re.sub(r'"etl_tstamp": ?"?[^",}]+', "", row) for row in told)
        totals = db.execute("SELECT payloads, stored, failed, duplicate FROM atomic.totals").fetchall()
        found["totals"] = [repr(tuple(row)) for row in totals]
    return found


def foreign(site: Site, *values: bytes | None) -> None:
    """Records that are no payloads, and one without any value."""
    producer = Producer({"bootstrap.servers": site.bootstrap})
    for value in values:
        producer.produce(site.topic, value, b"key")
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def archived(tmp_path: Path, kafka: KafkaServer, request: pytest.FixtureRequest) -> Iterator[Callable[..., Archived]]:
    made: list[Site] = []

    def make(url: str, more: str = "") -> Archived:
        topic = re.sub(r"\W", "-", f"raw-{request.node.name}")
        made.append(Site(tmp_path, kafka.bootstrap, topic, f'{JOURNAL}[archive]\nurl = "{url}"\n{more}'))
        return Archived(made[-1], url)

    yield make
    for site in made:
        site.close()


def test_workers_that_are_killed_archive_each_payload_once_and_a_rebuild_is_what_they_stored(
    archived: Callable[..., Archived], tmp_path: Path
) -> None:
    made = archived(str(tmp_path / "archive"))
    site = made.site
    first, _ = site.worker()
    site.worker()
    site.send(0, 600)
    foreign(site, b"no payload", None, b'{"crc":"no","n":1}\n\xff')
    site.until(lambda: made.payloads() > 0, made.payloads)
    first.send_signal(signal.SIGKILL)  # in the midst of it
    site.send(600, 1200)
    second, _ = site.worker()
    site.until(lambda: made.payloads() > 700, made.payloads)
    second.send_signal(signal.SIGKILL)
    site.send(1200, 1210)  # too few to fill a segment: these are archived because they are old
    made.until(1210)
    site.until(lambda: (site.stored(), made.damaged()) == (1210, 3), lambda: (site.stored(), made.damaged()))
    verified = made.spoorway("archive", "verify", "--data", str(tmp_path / "anywhere"))
    assert "1,210 payloads: all as they were archived" in verified and "not listed" not in verified
    assert rows(made.rebuild()) == rows(site.store)
    left = [path.name for path in tmp_path.glob("data*/gather-*")]
    assert len(left) <= 3  # of those killed, until a worker starts in their folder; and of the living one


def test_in_s3_by_a_worker_of_its_own_and_all_goes_on_where_a_rebuild_ended(
    archived: Callable[..., Archived], s3: S3Server, start: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = archived(s3.bucket("events") + "/site-7", f'endpoint = "{s3.endpoint}"\n')
    site = made.site
    site.send(0, 200)
    archiver, admin = site.worker("--targets", "archive")
    made.until(200)
    assert site.stored() == 0
    loader, _ = site.worker("--targets", "sqlite")
    site.until(lambda: site.stored() == 200, site.stored)
    told = metrics(admin)
    assert (told["archive_payloads_total"], told["archive_up"], told["archive_pending_segments"]) == (200, 1, 0)
    for worker in (archiver, loader):
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WAIT_S) == 0
    before = rows(site.store)
    assert "200 payloads: 200 events stored" in made.spoorway("replay", "--data", str(tmp_path / "data"))
    assert rows(site.store) == before  # from the topic, which has everything still
    assert "200 payloads: 200 events stored" in made.spoorway("replay", "--from", "archive", "--data", str(tmp_path / "data"))
    assert rows(site.store) == before
    # The gateway and its worker in one process tree: what was gathered is archived when they are stopped.
    site.config.write_text(site.config.read_text("utf-8").replace("segment_age_ms = 1000", "segment_age_ms = 3600000"), "utf-8")
    run = start("--config", str(site.config))
    for number in range(5):
        assert run.get(f"{run.url}/i?e=pv&p=web&tv=t-1&aid=shop&url=http://x/{number}")[0] == 200
    site.until(lambda: site.stored() == 205, site.stored)
    assert made.payloads() == 200
    assert run.stop() == 0
    assert made.payloads() == 205
    assert site.rows("SELECT payloads, stored, failed, duplicate FROM atomic.totals") == [(205, 205, 0, 0)]
    assert {len(entry.lane) for entry in made.archive.entries()} == {16}
    # The topic alone would not do any more.
    admin_client = AdminClient({"bootstrap.servers": site.bootstrap})
    origin = max(made.archive.entries(), key=lambda entry: entry.contents.last_number).origin
    assert origin is not None
    (gone,) = admin_client.delete_records([TopicPartition(site.topic, int(origin.lane.rpartition(".")[2]), 3)]).values()
    gone.result(WAIT_S)
    assert main(["replay", "--config", str(site.config), "--data", str(tmp_path / "data")]) == 1
    assert "3 records of the topic were deleted" in capsys.readouterr().err
    assert site.stored() == 205
