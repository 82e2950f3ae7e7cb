"""What the MicroPython tracker takes of a board: bytes, heap, erases of flash; and that it uses only what boards have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.trackers.micropython import boards, sizes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> sizes.Figures:
    boards.require_interpreter()
    return sizes.measure(tmp_path_factory.mktemp("sizes"), 2_000)


@pytest.mark.parametrize("part", sizes.PARTS, ids=[part.name for part in sizes.PARTS])
def test_part_is_as_small_as_was_promised(figures: sizes.Figures, part: sizes.Part) -> None:
    assert figures.bytes_of(part) <= part.most_bytes
    copied, in_place = figures.heaps[part.name]
    assert copied <= part.most_heap or figures.bits == 64
    assert in_place < copied


def test_heap_does_not_grow(figures: sizes.Figures) -> None:
    assert figures.use["growth"] <= 0
    assert figures.use["transient"] < 4_700


def test_erases_keep_to_their_cap() -> None:
    boards.require_interpreter()
    done = boards.run("micropython", "erases.py", boards.PACKAGE, heap="8m")
    assert done.returncode == 0, done.stdout + done.stderr
    days = json.loads(done.stdout)
    assert 240 <= days["online"]["erases"] <= 1.2 * 240  # as the README tells
    assert 240 <= days["offline"]["erases"] <= 1.2 * 240
    assert days["capped"]["erases"] <= 100
    assert max(day["most"] for day in days.values()) <= 8  # of 128 blocks none is worn more than the others


def test_types_are_those_of_a_board(tmp_path: Path) -> None:
    boards.require_interpreter()
    typings = boards.INTERPRETER.parent / "typings"
    config = tmp_path / "mypy.ini"
    config.write_text(
        f"[mypy]\nmypy_path = {boards.PACKAGE}:{typings}\ncustom_typeshed_dir = {typings}\npython_version = 3.11\n"
        "follow_imports_for_stubs = True\nfollow_imports = silent\ncheck_untyped_defs = True\n"
    )
    sources = [str(file) for file in sorted((boards.PACKAGE / "spoor").glob("*.py")) if file.name != "platform.py"]

    def mypy(*files: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), *files]
        return subprocess.run(command, capture_output=True, text=True, timeout=boards.LONGEST_S, check=False)

    clean = mypy(*sources)
    assert clean.returncode == 0, clean.stdout
    planted = tmp_path / "planted.py"
    planted.write_text("import threading\nimport time\n\ntime.monotonic()\n")
    found = mypy(str(planted)).stdout
    assert '"threading"' in found and '"monotonic"' in found  # boards have neither
