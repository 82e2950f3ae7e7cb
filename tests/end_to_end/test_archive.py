"""The archive of a running product: in a folder and in S3, through outages; a target that is built from it again is the same."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.journal.keeping import Keeper
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import RawPayload, TransientError
from spoorway.archiving import Archiving
from spoorway.database import open_read_only
from spoorway.rebuilding import Rebuilding
from storage.archive import Archive
from storage.objects import open_objects
from tests.peers.s3_server import S3Server

pytestmark = pytest.mark.slow

POST = "/com.snowplowanalytics.snowplow/tp2"
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
JOURNAL = "[journal]\nsegment_bytes = 4096\nmin_free_bytes = 0\n"


def spoorway(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spoorway", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | (environment or {}))


def out(*arguments: str) -> str:
    done = spoorway(*arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def send(url: str, events: int, failing: int = 0, twice: int = 0) -> None:
    """One payload each. twice: of the good ones, so many are sent again."""
    good = [[{"e": "pv", "p": "web", "tv": "t", "eid": str(uuid.uuid4()), "url": f"http://x/{n}"}] for n in range(events)]
    bad = [[{"e": "pv", "p": "web", "tv": "t", "vid": f"x{n}"}] for n in range(failing)]
    for data in [*good, *bad, *good[:twice]]:
        body = json.dumps({"schema": PAYLOAD_DATA, "data": data}).encode()
        request = urllib.request.Request(url + POST, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


def rows(data: Path) -> dict[str, list[Any]]:
    """Everything a target holds, without the times of loading."""
    without = {"events": {"etl_tstamp"}, "failed_events": {"failed_tstamp"}}
    with closing(open_read_only(data / "events.db")) as db:
        tables: dict[str, list[Any]] = {}
        for table in without:
            found = db.execute(f"SELECT * FROM atomic.{table}")
            keep = [place for place, (name, *_) in enumerate(found.description) if name not in without[table]]
            told = (repr([row[place] for place in keep]) for row in found)
            tables[table] = sorted(re.sub(r'"etl_tstamp":"?[^",}]+', "", row) for row in told)
        tables["totals"] = db.execute("SELECT payloads, stored, failed, duplicate FROM atomic.totals").fetchall()
        return tables


def configured(folder: Path, archive: str, *more: str) -> Path:
    file = folder / "spoorway.toml"
    file.write_text("\n".join([JOURNAL, f'[archive]\nurl = "{archive}"', *more]))
    return file


def metrics(run: Any) -> dict[str, float]:
    lines = [line for line in run.get(f"{run.admin}/metrics")[1].splitlines() if line.startswith("spoorway_archive_")]
    return {name.removeprefix("spoorway_archive_"): float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def sealed(data: Path) -> list[Path]:
    return sorted((data / "journal").rglob("*.gz"))


class Front(threading.Thread):
    """A port that leads to a server while it is open; closed, it answers nobody and cuts what is under way."""

    def __init__(self, to: str) -> None:
        super().__init__(daemon=True)
        self.to, self.open = urlsplit(to).port, True
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.under_way: list[socket.socket] = []

    def run(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self.listening.accept()
                if not self.open:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self.to or 0))
                self.under_way += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def shut(self) -> None:
        self.open = False
        for each in self.under_way:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.shut()
        self.listening.close()
        for each in self.under_way:
            each.close()


def test_after_an_outage_a_target_built_from_s3_is_the_same_row_for_row(
    start: Callable[..., Any], tmp_path: Path, s3: S3Server
) -> None:
    store = s3.bucket("events") + "/site-7"
    front = Front(s3.endpoint)
    front.open = False
    front.start()
    config = ("--config", str(configured(tmp_path, store, f'endpoint = "{front.url}"', "[retention]\njournal_bytes = 1")))
    run = start(*config)
    send(run.url, 60, failing=6, twice=4)
    run.wait(70)
    data = ("--data", str(run.data))
    # While it is down all else goes on, it is told, and the journal keeps everything.
    run.until(lambda: metrics(run).get("pending_segments", 0) > 2 and metrics(run)["up"] == 0, lambda: str(metrics(run)))
    assert metrics(run)['errors_total{error="transient"}'] > 0
    assert run.get(f"{run.admin}/health/ready")[0] == 200
    diagnosis = spoorway("doctor", *data, *config)
    assert diagnosis.returncode == 1 and "✗ archive:" in diagnosis.stdout
    assert min(path.name for path in sealed(run.data)) == "00000001.ndjson.gz"
    front.open = True
    # What is still open is sealed on request; then it is archived, and retention lets the journal go.
    assert " 0 wait" in out("archive", "now", *data, *config)
    run.until(lambda: len(sealed(run.data)) <= 1, lambda: f"{len(sealed(run.data))} segments are kept in the journal")
    run.until(lambda: metrics(run)["pending_segments"] == 0, lambda: str(metrics(run)))
    listed = [json.loads(line) for line in out("archive", "list", *data, *config, "--json").splitlines()]
    assert sum(entry["payloads"] for entry in listed) == 70
    assert len(listed) > 3
    send(run.url, 5)  # not sealed: it is in the journal alone
    run.wait(75)
    assert "archive: " in out("doctor", *data, *config)
    assert run.stop() == 0
    before = rows(run.data)
    assert (len(before["events"]), len(before["failed_events"])) == (65, 6)
    refused = spoorway("replay", *data, *config)
    assert refused.returncode == 1 and "use --from archive" in refused.stderr
    assert "75 payloads: 65 events stored, 6 failed, 4 duplicates" in out("replay", *data, *config, "--from", "archive")
    assert rows(run.data) == before
    # On another machine, from the archive alone: all that was sealed.
    elsewhere = ("--data", str(tmp_path / "elsewhere"), "--from", "archive", "--archive", store)
    assert "6 failed, 4 duplicates" in out("replay", *elsewhere)
    alone = rows(tmp_path / "elsewhere")
    assert alone["failed_events"] == before["failed_events"]
    assert set(alone["events"]) <= set(before["events"]) and len(alone["events"]) >= 60
    # It goes on where the rebuild ended.
    again = start(*config)
    send(again.url, 1)
    again.wait(76)
    assert again.stop() == 0
    front.end()


def test_a_damaged_archive_is_refused_by_name_and_empties_nothing(start: Callable[..., Any], tmp_path: Path) -> None:
    config = ("--config", str(configured(tmp_path, str(tmp_path / "store"))))
    run = start(*config)
    send(run.url, 40)
    run.wait(40)
    run.stop()
    data = ("--data", str(run.data))
    out("archive", "now", *data, *config)
    assert "all as they were archived" in out("archive", "verify", *data, *config)
    victim = sorted((tmp_path / "store" / "raw").rglob("*.gz"))[1]
    body = bytearray(victim.read_bytes())
    body[len(body) // 2] ^= 1
    victim.write_bytes(body)
    checked = spoorway("archive", "verify", *data, *config)
    assert checked.returncode == 1 and victim.name in checked.stdout and "1 wrong" in checked.stdout
    before = rows(run.data)
    shutil.rmtree(run.data / "journal")
    refused = spoorway("replay", *data, *config, "--from", "archive")
    assert refused.returncode == 1 and victim.name in refused.stderr and "--partial" in refused.stderr
    assert rows(run.data) == before
    accepted = spoorway("replay", *data, *config, "--from", "archive", "--partial")
    assert accepted.returncode == 0 and victim.name in accepted.stderr
    after = rows(run.data)
    assert set(after["events"]) < set(before["events"])
    assert ["journal_damage" in row for row in after["failed_events"]] == [True]


def test_s3_through_an_outage(tmp_path: Path, s3: S3Server) -> None:
    front = Front(s3.endpoint)
    front.start()
    data, room, url = tmp_path / "data", tmp_path / "room", s3.bucket("outage")
    room.mkdir()
    archiving = Archiving(data, Archive(open_objects(url, endpoint=front.url)), url, lambda: 1)
    fill(data, 0, 40)
    assert archiving.step(threading.Event()) > 2
    front.shut()
    fill(data, 40, 40)
    for _ in range(2):
        with pytest.raises(TransientError):
            archiving.step(threading.Event())
    assert archiving.status.pending > 2
    front.open = True
    fill(data, 80, 1)  # another segment, so that those before are sealed
    held = len(sealed(data))
    archiving.step(threading.Event())
    front.end()
    archive = Archive(open_objects(url))
    entries = list(archive.entries())
    assert [entry.segment for entry in entries] == list(range(1, held + 1))
    assert [archive.wrong(entry) for entry in entries] == [""] * held
    assert archive.unlisted({entry.object for entry in entries}) == []
    shutil.rmtree(data)
    chunk = FileReader(data / "journal").read({})
    reader = Rebuilding(archive, data / "journal", room, pytest.fail, partial=False)
    ids: list[str] = []
    while (chunk := reader.read(chunk.cursor)).items:
        ids += [item.id for item in chunk.items if isinstance(item, RawPayload)]
    assert ids == [f"{number:032x}" for number in range(80)]
    # And without us.
    fs = import_module("pyarrow.fs").S3FileSystem(
        access_key="test", secret_key="test", region="us-east-1", scheme="http", endpoint_override=urlsplit(s3.endpoint).netloc
    )
    raw = import_module("pyarrow.dataset").dataset("outage/raw", filesystem=fs, format="json", partitioning="hive")
    with import_module("duckdb").connect() as connection:
        connection.register("raw", raw)
        assert connection.execute("SELECT dt, count(DISTINCT id) FROM raw GROUP BY dt").fetchall() == [("2026-01-15", 80)]


def fill(data: Path, first: int, payloads: int) -> None:
    """One start of a gateway; all but its newest segment is sealed."""

    async def run() -> None:
        writer = FileWriter.open(data / "journal", Options(min_free_bytes=0, segment_bytes=2_000))
        for start in range(first, first + payloads, 8):
            numbers = range(start, min(start + 8, first + payloads))
            await writer.append_all(
                [RawPayload(f"{n:032x}", 1_768_478_400_000 + n, "http", "/i", query="e=pv&" + "x" * 200) for n in numbers]
            )
        Keeper(writer).housekeep(now_ms=0, stored=[{}], pause=lambda _: False)
        await writer.close()

    asyncio.run(run())


def test_duckdb_and_zcat_read_the_folder(start: Callable[..., Any], tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = ("--config", str(configured(tmp_path, str(store))))
    run = start(*config)
    send(run.url, 40)
    run.stop()
    out("archive", "now", "--data", str(run.data), *config)
    page = (Path(__file__).parents[2] / "docs/archive.md").read_text("utf-8")
    duckdb = import_module("duckdb")
    queries = [part.partition("```")[0].replace("/mnt/archive", str(store)) for part in page.split("```sql\n")[1:]]
    assert len(queries) >= 2
    with duckdb.connect() as connection:
        answers = [connection.execute(query).fetchall() for query in queries]
    assert [sum(row[1] for row in answer) for answer in answers[:2]] == [40, 40]
    (line,) = [line.strip() for line in page.splitlines() if line.startswith("    zcat ")]
    done = subprocess.run(["bash", "-c", line.replace("/mnt/archive", str(store))], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 40


def test_a_replay_that_was_cut_short_is_not_gone_on_from(start: Callable[..., Any], tmp_path: Path) -> None:
    config = ("--config", str(configured(tmp_path, str(tmp_path / "store"))))
    run = start(*config)
    send(run.url, 20)
    run.wait(20)
    run.stop()
    data = ("--data", str(run.data))
    out("archive", "now", *data, *config)
    (run.data / "cursors" / "sqlite.replaying").write_text("{}")  # as a kill leaves it
    loaded = spoorway("load", "--once", *data, *config)
    assert loaded.returncode == 1 and "was cut short" in loaded.stderr
    out("replay", *data, *config, "--from", "archive")
    assert spoorway("load", "--once", *data, *config).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("archive", "list"), "none is configured"),
        (("archive", "now", "--archive", "elsewhere"), "set [archive] url"),
        (("replay", "--from", "archive"), "no archive is configured"),
        (("replay", "--archive", "x"), "belongs to --from archive"),
        (("replay", "--from", "archive", "--archive", "nothing-here"), "there is no archive in nothing-here"),
        (("archive", "list", "--archive", "gs://bucket"), "expected s3://BUCKET/PREFIX or a folder"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = spoorway(*arguments, "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
