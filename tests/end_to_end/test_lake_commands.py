"""From the journal to files to answers, by the commands: `load`, `sql --on s3`, `compact`, `ddl`, `sql --on archive`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.options import Options
from gateway.journal.writer import FileWriter
from protocol.seams import RawPayload
from protocol.tables import COLUMN_NAMES
from spoorway.cli import main
from spoorway.files import journal_folder, prepare
from tests.peers.s3_server import S3Server

pytestmark = pytest.mark.slow

NOON = 1_768_478_400_000  # 2026-01-15 12:00
DAY_MS = 86_400_000
SQL = "select name, cast(day as varchar) as day, count(*) as n, min(collector_tstamp) as first from atomic.events group by all"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server, server.in_environment():
        yield server


def payload(number: int, day: int = 0) -> RawPayload:
    if number % 10 == 9:
        return RawPayload(f"{number:032x}", NOON + day * DAY_MS + number, "http", "/nobody/knows", body=b"\xff")
    query = f"e=pv&p=web&tv=t&aid=shop&eid=00000000-0000-4000-8000-{number:012d}&page=caf%C3%A9"
    return RawPayload(f"{number:032x}", NOON + day * DAY_MS + number, "http", "/i", query=query)


def append(data: Path, payloads: list[RawPayload]) -> None:
    async def run() -> None:
        writer = FileWriter.open(journal_folder(data), Options(min_free_bytes=0))
        await asyncio.gather(*(writer.append(one) for one in payloads))
        await writer.close()

    prepare(data)
    asyncio.run(run())


def configured(folder: Path, url: str, form: str = "parquet") -> list[str]:
    file = folder / "spoorway.toml"
    file.write_text(
        f'data = "{folder / "data"}"\n[archive]\nurl = "{folder / "archive"}"\n'
        f'[storage.targets.lake]\nuse = "s3"\nurl = "{url}"\nformat = "{form}"\nevery_s = 3600\nbatch_payloads = 7\n'
    )
    return ["--config", str(file)]


def load(config: list[str]) -> None:
    """Until the journal's end: what is wanted of a pause between two batches counts no more."""
    command = [sys.executable, "-m", "spoorway", "load", "--once", *config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(arguments) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_what_was_received_is_asked_in_the_files(
    tmp_path: Path, where: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "lake")
    if where == "bucket":
        server: S3Server = request.getfixturevalue("s3")
        url = f"{server.bucket('asked-here')}/site"
    config = configured(tmp_path, url)
    append(tmp_path / "data", [payload(number) for number in range(20)] + [payload(number, 1) for number in range(20, 30)])
    load(config)
    append(tmp_path / "data", [payload(number) for number in range(5)])  # duplicates
    load(config)
    expected = [
        {"name": "page_view", "day": "2026-01-15", "n": 18, "first": "2026-01-15 12:00:00.000"},
        {"name": "page_view", "day": "2026-01-16", "n": 9, "first": "2026-01-16 12:00:00.020"},
    ]
    question = f"{SQL} order by day"
    assert asked(capsys, "sql", *config, "--on", "s3", "--json", question) == expected
    failed = "select kind, count(*) as n from failed_events group by 1"
    assert asked(capsys, "sql", *config, "--on", "s3", "--json", failed) == [{"kind": "adapter_failures", "n": 3}]
    # One batch a file; then one file a day, and the same answers.
    dry = asked(capsys, "compact", *config, "--dry-run", "--json")
    (told,) = asked(capsys, "compact", *config, "--json")
    assert dry == [told | {"deleted": 0}]
    assert (told["into"], told["merged"]) == (3, told["deleted"])
    assert asked(capsys, "compact", *config, "--json") == [{"files": told["files"] - told["merged"] + 3} | dict.fromkeys(
        ("merged", "into", "deleted"), 0)]  # fmt: skip
    assert asked(capsys, "sql", *config, "--on", "s3", "--json", question) == expected
    append(tmp_path / "data", [payload(0), payload(100)])
    load(config)
    assert asked(capsys, "sql", *config, "--on", "s3", "--json", "select count(*) as n from events") == [{"n": 28}]


def test_a_question_may_not_write_or_read_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, str(tmp_path / "lake"))
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for question in (
        f"select * from '{secret}'",
        f"copy (select 1) to '{tmp_path / 'out.csv'}'",
        "create table x as select 1",
        "select 1; select 2",
        "install httpfs",
        "set enable_external_access = true",
        "select nonsense(",
    ):
        assert main(["sql", *config, "--on", "s3", question]) == 1, question
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()
    assert asked(capsys, "sql", *config, "--on", "s3", "--json", "select count(*) as n from atomic.events") == [{"n": 0}]


def test_tsv_alone_is_not_asked_and_says_what_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, str(tmp_path / "lake"), "tsv")
    append(tmp_path / "data", [payload(1)])
    load(config)
    assert main(["sql", *config, "--on", "s3", "select 1"]) == 1
    assert 'format = "parquet" or "both"' in capsys.readouterr().err


def test_archived_payloads_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, str(tmp_path / "lake"))
    append(tmp_path / "data", [payload(number) for number in range(20)])
    assert main(["archive", *config, "now"]) == 0
    capsys.readouterr()
    question = (
        "select path, count(*) as n, min(received_tstamp) as first, max(body) as body, max(octet_length(body_bytes)) as bytes"
        " from archive.payloads group by 1 order by 1"
    )
    assert asked(capsys, "sql", *config, "--on", "archive", "--json", question) == [
        {"path": "/i", "n": 18, "first": "2026-01-15 12:00:00.000", "body": None, "bytes": None},
        {"path": "/nobody/knows", "n": 2, "first": "2026-01-15 12:00:00.009", "body": None, "bytes": 1},
    ]


@pytest.mark.parametrize("dialect", ["athena", "hive", "spark", "spectrum"])
@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_the_statements_name_every_column_and_the_place(
    tmp_path: Path, dialect: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path, str(tmp_path / "lake"))
    append(tmp_path / "data", [payload(1)])
    load(config)
    assert main(["ddl", *config, "--dialect", dialect, "--format", form]) == 0
    told = capsys.readouterr().out
    (table,) = [statement for statement in told.split(";\n") if "atomic.events (" in statement]
    lines = [line.strip().split()[0].strip("`,") for line in table.splitlines() if line.startswith("  ")]
    assert [line for line in lines if line not in ("day", "name")] == list(COLUMN_NAMES)
    assert f"'{tmp_path / 'lake'}/{'events' if form == 'parquet' else 'tsv'}/'" in table
    has_partition = "PARTITION (day='2026-01-15', name='page_view')" in told
    assert has_partition == (dialect == "spectrum" and form == "parquet")


def test_without_such_a_target_the_next_step_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["compact"], ["ddl", "--dialect", "hive"], ["sql", "--on", "s3", "select 1"]):
        assert main([*command, "--data", str(tmp_path)]) == 1
        assert "no s3 target is configured" in capsys.readouterr().err


def test_failed_events_are_listed_solved_exported_and_dropped_in_a_bucket(
    s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path, f"{s3.bucket('failed')}/site")
    with (tmp_path / "spoorway.toml").open("a") as file:
        file.write(f'endpoint = "{s3.endpoint}"\n')
    broken = "e=pv&p=web&tv=t&eid=00000000-0000-4000-8000-00000000000{}&vid=three"
    append(tmp_path / "data", [RawPayload(f"{n:032x}", NOON, "http", "/i", query=broken.format(n)) for n in range(4)])
    load(config)
    rows = asked(capsys, "failed", "list", "--json", *config)
    assert [row["kind"] for row in rows] == ["schema_violations"] * 4
    first = rows[0]["failed_id"]
    assert asked(capsys, "failed", "show", first, "--json", *config)[0]["parameters"]["vid"] == "three"
    told = asked(capsys, "failed", "replay", "--id", first, "--id", rows[1]["failed_id"], "--set", "vid=3", "--json", *config)
    assert told == [{"tried": 2, "solved": 2, "still_failed": 0}]
    assert asked(capsys, "failed", "drop", "--id", rows[2]["failed_id"], "--yes", "--json", *config) == [{"dropped": 1}]
    (left,) = asked(capsys, "failed", "export", *config)
    assert rows[3]["failed_id"] == asked(capsys, "failed", "list", "--json", *config)[0]["failed_id"]
    assert left["data"]["failure"]
    assert asked(capsys, "sql", "--on", "s3", "--format", "json", "select count(*) as n from atomic.events", *config) == [
        {"n": 2}
    ]
    question = "select count(*) as n from atomic.failed_events where replayed_tstamp is not null"
    assert asked(capsys, "sql", "--on", "s3", "--format", "json", question, *config) == [{"n": 2}]
    load(config)  # nothing is taken twice
    (lake,) = [one for one in asked(capsys, "doctor", "--json", *config) if one["check"] == "target lake"]
    assert lake["state"] == "ok"
    assert s3.endpoint in lake["message"]
    assert s3.environment["AWS_ACCESS_KEY_ID"] in lake["message"]
    assert lake["message"].startswith("s3://failed/site/ at ")


def test_doctor_says_when_a_bucket_cannot_be_listed(s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, "s3://nowhere-at-all/site")
    with (tmp_path / "spoorway.toml").open("a") as file:
        file.write(f'endpoint = "{s3.endpoint}"\n')
    assert main(["doctor", "--quick", "--json", *config]) == 1
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["NoSuchBucket" in one["message"] for one in findings if one["check"] == "target lake"] == [True]
