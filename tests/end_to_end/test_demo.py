"""`make demo`'s program, as a newcomer runs it: five answers, every event accounted for, and its reasons shown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_demo_answers_its_questions_and_misses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/demo/run.py"), str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    identity = re.search(
        r"accepted ([\d,]+) = stored ([\d,]+) \+ failed ([\d,]+) \+ duplicate ([\d,]+) \+ pending 0", done.stdout
    )
    assert identity is not None, done.stdout
    accepted, stored, failed, duplicate = (int(n.replace(",", "")) for n in identity.groups())
    assert accepted == stored + failed + duplicate
    assert stored > 600
    assert failed == 20
    assert duplicate > 13, "the devices sent nothing twice"
    for answer in ("letter", "2012-01", "greenhouse-1 ", "missing", "tracker_protocol_violations"):
        assert answer in done.stdout
    assert "✗" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_demo_never_empties_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    command = [sys.executable, str(ROOT / "examples/demo/run.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1
    assert (tmp_path / "precious.txt").read_text() == "mine"
