"""What people mistype on the command line: one line that names the cause, an exit code, and nothing made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from protocol.seams import Position
from spoorway import stores
from spoorway.charting import drawn
from spoorway.cli import main
from spoorway.console import write_rows
from storage.sql import Chart
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from tests.contracts.asked_events import EVENTS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    target = Plugin(Config(str(tmp_path / "events.db")), bundled)
    target.commit(Batch(EVENTS, [], {"lane": Position(1, 9, 1)}, 1))
    target.close()
    return tmp_path


@pytest.mark.parametrize("url", ["foo", "http://127.0.0.1:abc", "http://[::1", "http://h/a b", "http://127.0.0.1:1"])
def test_a_url_that_is_none_did_not_take_the_event(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--app", "x", "--category", "a", "--action", "b", "--url", url]) == 1
    assert capsys.readouterr().err.startswith(f"spoorway: {url} did not take the event: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on", ""], "--on is empty"),
        (["--set", f"top={10**20}"], "the store cannot answer that"),
        (["--since", "200000w"], "since: expected a time"),
    ],
)
def test_a_question_that_is_wrong_is_refused(
    data: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "run", "pages", "--data", str(data), *options]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("what", ["list", "replay", "drop"])
def test_a_data_folder_that_is_mistyped_is_not_made_and_found_empty(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["failed", what, "--data", str(tmp_path / "typo")]) == 1
    assert f"there is no {tmp_path / 'typo'} yet" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-1"])
def test_a_limit_of_no_seconds_is_refused(data: Path, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--limit", limit, "--data", str(data)]) == 1
    assert "--limit: expected more than 0 seconds" in capsys.readouterr().err


def test_an_argument_that_is_no_text_is_wrong_usage() -> None:
    command = [sys.executable, "-m", "spoorway", "sql", b"select '\xff'"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, "spoorway: an argument is no UTF-8\n")


def test_a_full_disk_is_told_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "spoorway", "ask", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, "spoorway: No space left on device\n")


def test_the_store_of_the_notebook_may_be_named_as_text(data: Path) -> None:
    stores.Sqlite(str(data / "events.db")).close()


def test_a_folder_with_a_pattern_for_a_name_is_a_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    folder = data / "we[i]rd"
    folder.mkdir()
    assert main(["export", "--data", str(data), "--format", "parquet", "--output", str(folder / "a.parquet")]) == 0
    assert main(["ask", "run", "volume", "--on", str(folder), "--since", "2026-01-01", "--json"]) == 0
    assert capsys.readouterr().out.count("\n") > 1


@pytest.mark.parametrize("on", ["sqlite", "postgresql://me:secret@127.0.0.1:1/db"])
def test_the_report_says_the_command_that_was_meant_and_no_password(data: Path, on: str) -> None:
    from spoorway.commands.report import again

    told = again("pages", {"since": "30d", "app": "the shop"}, on)
    assert told.startswith("spoorway ask run pages --since 30d --app 'the shop'")
    assert "secret" not in told and ("postgresql" in told) == (on != "sqlite")


def test_rows_that_are_called_the_same_have_a_bar_each() -> None:
    chart = drawn(Chart("bar", "step", "visitors"), ("step", "visitors"), [("page_view", 30), ("page_view", 20)])
    assert [line.split()[-1] for line in chart.splitlines()[1:]] == ["30", "20"]


def test_what_json_has_no_word_for_is_null_and_no_column_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[list[Any]] = [[1, float("inf"), float("nan"), 2]]
    write_rows(["a", "b", "c", "a"], rows, "json")
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: 1 / 0) == {"a": 1, "b": None, "c": None, "a_2": 2}
