"""docs/asking.md: its commands run, its sample is what they say, its table is what there is; and the notebook runs."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import month
from protocol.schemas import bundled
from protocol.seams import Position
from spoorway.building import now_ms
from spoorway.cli import main
from spoorway.commands import ask as ask_command
from spoorway.commands import explore, report
from storage.sql import questions
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from tests.contracts.asked_events import EVENTS, FAILED

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs", "asking.md").read_text("utf-8")
COMMANDS = re.findall(r"^    (spoorway .*)$", PAGE, re.MULTILINE)
SAMPLES = re.findall(r"```\n\$ (spoorway .*)\n((?:.*\n)+?)```", PAGE)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a store in spoorway-data, and an export of it."""
    path = tmp_path_factory.mktemp("docs")
    target = Plugin(Config(str(path / "spoorway-data" / "events.db")), bundled)
    target.commit(Batch([*EVENTS, *month.events(3_000, now_ms())], FAILED, {"lane": Position(1, 1, 1)}, 1))
    target.close()
    with contextlib.chdir(path):
        assert "events" in said("spoorway export --format parquet --output exports.parquet")
        yield path


def said(command: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(shlex.split(command)[1:]) == 0, command
    return out.getvalue()


def test_the_page_has_its_commands() -> None:
    assert len(COMMANDS) >= 9
    assert len(SAMPLES) == 1


@pytest.mark.parametrize("command", [command for command in COMMANDS if " explore" not in command])
def test_every_command_runs(folder: Path, command: str) -> None:
    assert said(command).strip()


@pytest.mark.parametrize(("command", "answer"), SAMPLES, ids=["levels"])
def test_the_sample_is_what_the_command_says(folder: Path, command: str, answer: str) -> None:
    assert said(f"{command} --app duck") == answer


def test_the_table_of_questions_is_what_there_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", PAGE.partition("## The questions")[2], re.MULTILINE)
    assert [(name, about) for name, about, _ in rows] == [(one.name, one.about) for one in questions().values()]
    for name, _, parameters in rows:
        told = re.findall(r"`(\w+)`(?: \(([^)]*)\))?", parameters)
        own = [(p.name, p.default) for p in questions()[name].parameters if p.name not in ("since", "until", "app")]
        assert [one for one in told if one[0] != "since"] == own
        assert dict(told).get("since", "7d") == questions()[name].parameter("since").default


@pytest.mark.parametrize("module", [ask_command, report, explore], ids=["ask", "report", "explore"])
def test_every_option_is_documented(module: object) -> None:
    source = Path(str(module.__file__)).read_text("utf-8")  # type: ignore[attr-defined]
    for option in re.findall(r'add_argument\("(--\w+)"', source):
        assert option in PAGE, option


def test_the_notebook_runs(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/notebook/shop_and_greenhouse.py"), "spoorway-data"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"40 sensors; the warmest hour: 1[0-9]:00", done.stdout)
    assert "1 Pond" in done.stdout
