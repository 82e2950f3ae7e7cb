"""What docs/micro.md and the Node package's README show is run as it stands there, and every option is in them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from spoorway.cli import parser
from spoorway.micro.client import Micro
from spoorway.micro.server import Micro as Server
from tests.peers import programs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "micro.md").read_text("utf-8")
NODE = ROOT / "examples" / "micro-node"


def block(text: str, language: str) -> str:
    """The document's first sample in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_python_sample_passes(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(block(DOCUMENT, "python"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout


def test_the_node_sample_passes(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        programs.missing("node")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "spoorway-micro").symlink_to(NODE)
    (tmp_path / "sample.test.mjs").write_text(block((NODE / "README.md").read_text("utf-8"), "js"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["node", "--test", "--test-reporter=tap", "sample.test.mjs"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60)
    assert "# pass 1" in done.stdout and "# fail 0" in done.stdout, done.stdout + done.stderr


def test_the_curl_samples_are_answered(spoorway_micro: Micro) -> None:
    for app in ("shop", "shop", "other"):
        urllib.request.urlopen(f"{spoorway_micro.url}/i?e=pv&p=web&aid={app}").close()
    samples = re.findall(r"^    (curl .*)$", DOCUMENT, re.MULTILINE)
    answers = []
    for sample in samples:
        words = [word.replace("http://127.0.0.1:9090", spoorway_micro.url) for word in shlex.split(sample)]
        answers.append(subprocess.run([*words, "-sS", "--fail"], capture_output=True, timeout=20, check=True).stdout)
    assert [answer.count(b'"rawEvent"') for answer in answers] == [2, 1]


def test_every_route_is_documented() -> None:
    routes = re.findall(
        r'^            "(\w[\w-]*)": \(', Path(str(sys.modules[Server.__module__].__file__)).read_text(), re.MULTILINE
    )
    assert len(routes) == 10
    for route in routes:
        assert f"/micro/{route}`" in DOCUMENT, route


def test_every_option_is_documented() -> None:
    commands = next(action for action in parser("micro")._actions if action.dest == "command").choices
    assert commands is not None
    options = {text for action in commands["micro"]._actions for text in action.option_strings if text.startswith("--")}
    for option in options - {"--help", "--data", "--quiet"}:
        assert f"`{option}" in DOCUMENT or f" {option}" in DOCUMENT, option
