"""`spoorway archive now` of a journal on servers: all of it, once, beside workers that gather the same."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.kinesis.positions import key_of
from protocol.payloads import to_json
from protocol.seams import RawPayload
from spoorway.cli import main
from storage.archive import Archive
from storage.objects import open_objects
from tests.contracts.kinesis_bench import credentials
from tests.end_to_end.worker_site import WAIT_S, Site
from tests.peers.kafka_server import KafkaServer
from tests.peers.kinesis_server import Kinesalite, active

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


def numbers(archive: Archive, folder: Path) -> list[int]:
    """Of the payloads that are archived, in order."""
    found: list[int] = []
    for entry in archive.entries():
        path = folder / "fetched"
        archive.fetch(entry, path)
        found += [int(json.loads(line)["id"], 16) for line in gzip.decompress(path.read_bytes()).splitlines() if line.strip()]
        path.unlink()
    return sorted(found)


def test_what_workers_have_gathered_is_archived_at_once_and_no_payload_twice(
    tmp_path: Path, kafka: KafkaServer, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "archive")
    site = Site(tmp_path, kafka.bootstrap, "archived", f'[journal]\nmin_free_bytes = 0\n[archive]\nurl = "{url}"\n')
    request.addfinalizer(site.close)
    archive = Archive(open_objects(url))
    worker, _ = site.worker()
    site.send(0, 300)
    site.until(lambda: site.stored() == 300 and any(tmp_path.glob("data0/gather-*")), site.stored)
    assert list(archive.entries()) == []  # it would keep them for an hour
    command = ["archive", "now", "--config", str(site.config), "--data", str(tmp_path / "mine")]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["payloads"] == 300
    assert main(command) == 0
    assert capsys.readouterr().out == "0 segments with 0 payloads archived\n"
    site.send(300, 400)
    site.until(lambda: site.stored() == 400, site.stored)
    worker.send_signal(signal.SIGTERM)  # it has all 400, finds 300 of them archived, and goes on behind them when it is back
    assert worker.wait(WAIT_S) == 0
    assert main([*command, "--json"]) == 0
    assert numbers(archive, tmp_path) == list(range(400))
    assert not list((tmp_path / "mine").glob("gather-*"))


def test_of_a_stream_whose_shards_were_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with credentials(), Kinesalite() as server:
        client: Any = server.stream("archived", 1)

        def send(first: int, last: int) -> None:
            given = [RawPayload(f"{number:032x}", number, "http", "/i") for number in range(first, last)]
            records = [{"Data": to_json(each), "PartitionKey": key_of(each)} for each in given]
            assert not client.put_records(StreamName="archived", Records=records)["FailedRecordCount"]

        send(0, 50)
        (shard,) = client.list_shards(StreamName="archived")["Shards"]
        client.split_shard(StreamName="archived", ShardToSplit=shard["ShardId"], NewStartingHashKey=str(1 << 127))
        active(client, "archived")
        send(50, 100)
        url, config = str(tmp_path / "archive"), tmp_path / "spoorway.toml"
        config.write_text(
            '[journal]\nmin_free_bytes = 0\n[journal.kinesis]\nstream = "archived"\npoll_ms = 10\n'
            f'endpoint = "{server.endpoint}"\n[archive]\nurl = "{url}"\n',
            "utf-8",
        )
        command = ["archive", "now", "--config", str(config), "--data", str(tmp_path / "mine")]
        assert main(command) == 0
        assert capsys.readouterr().out == "3 segments with 100 payloads archived\n"
        assert main(command) == 0
        assert capsys.readouterr().out == "0 segments with 0 payloads archived\n"
        assert numbers(Archive(open_objects(url)), tmp_path) == list(range(100))
