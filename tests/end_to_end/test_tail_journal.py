"""`spoorway tail --from journal`: what comes into a journal is shown as the store would have it, and moves nobody's place."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO, Any

import pytest

from gateway.journal.files import FileWriter, Options
from gateway.journal.kinesis.positions import key_of
from protocol.payloads import to_json
from protocol.seams import RawPayload
from spoorway.cli import main
from tests.end_to_end.worker_site import WAIT_S, Site
from tests.peers.kafka_server import KafkaServer
from tests.peers.kinesis_server import KEYS, Kinesalite

pytestmark = pytest.mark.slow

NOWHERE = '\n[storage.targets.warehouse]\nuse = "postgres"\nhost = "127.0.0.1"\n'


def payload(number: int) -> RawPayload:
    """An event, or, every tenth of them, one that fails."""
    eid = f"00000000-0000-4000-8000-{number:012d}"
    more = "&vid=x" if number % 10 == 9 else ""
    query = f"e=se&se_ca=c&se_ac=a&se_pr={number}&p=web&tv=t-1&aid=shop&eid={eid}{more}"
    browser = f"{number:08d}-0000-4000-8000-000000000000"
    return RawPayload(f"{number:032x}", 1_700_000_000_000 + number, "http", "/i", query=query, network_userid=browser)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


def _each(stream: IO[str], told: Callable[[str], None]) -> None:
    for line in stream:
        told(line)


@contextmanager
def following(*arguments: str, env: dict[str, str] | None = None) -> Generator[Callable[[], str]]:
    """The next line that it shows; entered when it has begun to look."""
    command = [sys.executable, "-m", "spoorway", "tail", "--from", "journal", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            said = process.stderr.readline()
            assert "is shown" in said, said + process.stderr.read()
            lines: Queue[str] = Queue()
            Thread(target=_each, args=(process.stdout, lines.put), daemon=True).start()
            yield lambda: lines.get(timeout=WAIT_S)
        finally:
            process.kill()


def shown(line: str) -> int:
    return int(json.loads(line)["se_property"])


def in_files(folder: Path, payloads: Sequence[RawPayload]) -> None:
    async def run() -> None:
        writer = FileWriter.open(folder / "data" / "journal", Options(min_free_bytes=0))
        await asyncio.gather(*map(writer.append, payloads))
        await writer.close()

    asyncio.run(run())


def test_a_journal_in_files_is_shown_from_now_on_where_there_is_no_sqlite_target(tmp_path: Path) -> None:
    config = tmp_path / "spoorway.toml"
    config.write_text(NOWHERE, "utf-8")
    in_files(tmp_path, [payload(1)])
    with following("--data", str(tmp_path / "data"), "--config", str(config), "--json") as line:
        in_files(tmp_path, [payload(2), payload(3)])
        assert [shown(line()), shown(line())] == [2, 3]


def test_the_newest_of_a_topic_and_then_what_comes_as_the_store_has_it(
    tmp_path: Path, kafka: KafkaServer, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    site = Site(tmp_path, kafka.bootstrap, "tailed", NOWHERE)
    request.addfinalizer(site.close)
    options = ("--config", str(site.config), "--data", str(tmp_path / "data"))
    site.send(0, 40)
    with following(*options, "--json", "--last", "3") as line:
        before = [shown(line()) for _ in range(9)]  # three of each partition; of four, these keys leave one empty
        assert len(set(before)) == 9
        assert max(before) == 39
        site.send(40, 43)
        assert sorted(shown(line()) for _ in range(3)) == [40, 41, 42]
    assert main(["tail", "--from", "journal", *options, "--no-follow", "--last", "100", "--json"]) == 0
    told = {shown(line): line for line in capsys.readouterr().out.splitlines()}
    assert sorted(told) == list(range(43))
    site.worker("--targets", "sqlite")
    site.until(lambda: site.stored() == 43, site.stored)  # nothing was taken from a worker
    sqlite = tmp_path / "sqlite.toml"
    sqlite.write_text(f'[storage.targets.sqlite]\npath = "{site.store}"\n', "utf-8")
    assert main(["tail", "--config", str(sqlite), "--no-follow", "--last", "100", "--json"]) == 0
    stored = {shown(line): line for line in capsys.readouterr().out.splitlines()}
    without_loading = re.compile(r'"etl_tstamp": "[^"]*", ')
    assert {n: without_loading.sub("", line) for n, line in told.items()} == {
        n: without_loading.sub("", line) for n, line in stored.items()
    }


def test_a_stream_is_shown_from_now_on_failed_events_too(tmp_path: Path) -> None:
    with Kinesalite() as server:
        client: Any = server.stream("tailed", 2)

        def send(first: int, last: int) -> None:
            records = [{"Data": to_json(each), "PartitionKey": key_of(each)} for each in map(payload, range(first, last))]
            assert not client.put_records(StreamName="tailed", Records=records)["FailedRecordCount"]

        send(0, 20)
        config = tmp_path / "spoorway.toml"
        config.write_text(
            f'[journal.kinesis]\nstream = "tailed"\nendpoint = "{server.endpoint}"\npoll_ms = 100\n{NOWHERE}', "utf-8"
        )
        options = ("--config", str(config), "--data", str(tmp_path / "data"))
        with following(*options, "--json", env=KEYS) as line:
            send(20, 29)
            assert sorted(shown(line()) for _ in range(9)) == list(range(20, 29))
            send(29, 30)
            assert json.loads(line())["kind"] == "schema_violations"


def test_a_topic_that_is_not_there_is_said_in_one_line(
    tmp_path: Path, kafka: KafkaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "spoorway.toml"
    config.write_text(f'[journal.kafka]\nbrokers = ["{kafka.bootstrap}"]\ntopic = "none"\n{NOWHERE}', "utf-8")
    assert main(["tail", "--from", "journal", "--config", str(config)]) == 1
    assert "there is no topic 'none'; make it" in capsys.readouterr().err
