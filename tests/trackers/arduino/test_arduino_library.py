"""The Arduino library on the desk: its lines and frames byte for byte, noise in its ears, its sizes, and the official builder."""

from __future__ import annotations

import hmac
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import vectors
from tests.conformance.adapters.arduino import LIBRARY as SOURCES
from tests.conformance.adapters.arduino import STRICT, STUBS, compiled
from tests.trackers.arduino import sizes
from tests.trackers.arduino.avr_board import BUILT, LIBRARY

ARDUINO = Path("/usr/share/arduino/hardware/arduino/avr")
EXAMPLES = sorted((LIBRARY / "examples").glob("*/*.ino"))


def need(program: str) -> None:
    if shutil.which(program) is None or (program.startswith("a") and not ARDUINO.is_dir()):
        (pytest.fail if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1" else pytest.skip)(f"{program} is not installed")


@cache
def written(*cases: str) -> list[str]:
    program = compiled(Path(__file__).parent / "host/frames.cpp")
    run = subprocess.run(
        [program], input="".join(f"{case}\n" for case in cases), capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


LINES = [
    case
    for case in vectors.cases("serial")
    if case.file == "lines"
    and case.fields["line"]["kind"] == "q"
    and len(case.fields["line"].get("signature", "")) in (0, 32)
    and "device" not in case.fields
]
"""Other kinds have bodies that a tracker makes itself; other lengths of a signature it does not send."""


@pytest.mark.parametrize("case", LINES, ids=[case.id for case in LINES])
def test_a_line_is_the_vector_byte_for_byte(case: vectors.Case) -> None:
    line = case.fields["line"]
    words = f"q {line['boot']} {line['sequence']} {line['device'] or '-'} {case.fields.get('key', '-')} {line['body']}"
    assert written(words) == [case.fields["text"]], case.fields["why"]


def test_lines_of_every_length_are_signed_right() -> None:
    key = bytes(range(32))
    bodies = ["x" * length for length in range(1, 131)]  # all ways to end a block of 64
    lines = written(*(f"q 7 9 uno {key.hex()} {body}" for body in bodies))
    signatures = [hmac.digest(key, f"uno\n7\n9\nq\n{body}".encode(), "sha256")[:16].hex() for body in bodies]
    assert [line.partition(":")[0].rpartition(",")[2] for line in lines] == signatures


def frame_case(case: vectors.Case) -> str | None:
    """As the program reads it; None where the library has no such frame: batches and seals are the encoders' of `codegen`."""
    frame: dict[str, Any] = case.fields.get("written", {})
    if frame.get("template") != "1/1" or len(frame["readings"]) != 1 or "device" in frame or "sealed_by" in frame:
        return None
    (reading,) = frame["readings"]
    names = (("temperature_celsius", 100), ("humidity_percent", 10), ("pressure_hpa", 10))
    data = reading["data"]
    values = [str(round(data[name] * scale)) if name in data else "-" for name, scale in names]
    numbers = (frame["mark_ms"], frame["boot"], frame["sequence"], reading["uptime_ms"], int(frame.get("earlier", False)))
    return " ".join(["c", *map(str, numbers), *values])


FRAMES = [case for case in vectors.cases("compact") if frame_case(case)]


@pytest.mark.parametrize("case", FRAMES, ids=[case.id for case in FRAMES])
def test_a_frame_is_the_vector_byte_for_byte(case: vectors.Case) -> None:
    words = frame_case(case)
    assert words and written(words) == [case.fields["frames"]], case.fields["why"]


def test_vectors_are_there() -> None:
    assert len(LINES) >= 8 and len(FRAMES) >= 8


def test_noise_breaks_nothing_and_drops_nothing_unacknowledged() -> None:
    need("clang++")
    source = Path(__file__).parent / "host/fuzz.cpp"
    sanitized = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
    program = compiled(source, *sanitized, compiler="clang++")
    runs = os.environ.get("SPOORWAY_ARDUINO_FUZZ", "6000")
    run = subprocess.run(
        [program, f"-runs={runs}", "-max_len=300", "-seed=1"], cwd=BUILT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert f"Done {runs} runs" in run.stderr


def test_a_journal_loses_nothing_to_torn_and_worn_cells_and_wears_its_slots_alike() -> None:
    program = compiled(Path(__file__).parent / "host/journal.cpp")
    run = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    lives, stored, lost, foreign, hottest_percent, waited, noticed = map(int, run.stdout.split())
    assert (lives, lost, foreign, noticed) == (3000, 0, 0, 1)
    assert stored > 10_000 and hottest_percent <= 110 and waited >= 20


def test_opting_out_sends_nothing_more_whatever_a_link_was_at() -> None:
    program = compiled(Path(__file__).parent / "host/consent.cpp")
    run = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    said = {
        tuple(line.split()) for line in run.stdout.splitlines()
    }  # link, bytes of farewell, nothing of before, what came after
    assert said == {
        ("serial", "0", "1", "three"),
        ("serial", "1", "1", "three"),  # the end of a line that was half written
        ("http", "0", "1", "three"),
        ("mqtt", "0", "1", "three"),
        ("mqtt", "2", "1", "three"),  # DISCONNECT
    }


def test_sizes_keep_to_their_limits() -> None:
    need("avr-g++")
    found = sizes.measured()
    assert [(b.name, flash, ram) for b, flash, ram in found if flash > b.flash or ram > b.ram] == []


def test_nothing_links_a_heap_or_printf() -> None:
    need("avr-g++")
    assert sizes.forbidden() == set()


@pytest.mark.parametrize("board", ["uno", "mega:cpu=atmega2560"])
@pytest.mark.parametrize("sketch", EXAMPLES, ids=[sketch.stem for sketch in EXAMPLES])
def test_examples_compile_with_the_official_builder(sketch: Path, board: str, tmp_path: Path) -> None:
    need("arduino-builder")
    needs = re.search(r"^// needs: (.*)$", sketch.read_text("utf-8"), re.MULTILINE)
    if needs and needs[1] != "avr":
        pytest.skip(f"needs {needs[1]}, which Debian has not")
    (tmp_path / "tools/avr").mkdir(parents=True)
    (tmp_path / "tools/avr/bin").symlink_to("/usr/bin")
    (tmp_path / "hardware/arduino").mkdir(parents=True)
    (tmp_path / "hardware/arduino/avr").symlink_to(ARDUINO)
    for file in Path("/usr/share/arduino-builder").glob("platform*.txt"):
        shutil.copy(file, tmp_path / "hardware")
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries/Spoorway").symlink_to(LIBRARY)
    (tmp_path / "build").mkdir()
    places = ("hardware", "tools", "libraries", "build-path")
    options = [word for p in places for word in (f"-{p}", str(tmp_path / p.removesuffix("-path")))]
    prefs = ("-prefs=compiler.cpp.extra_flags=-DDECIMAL_DIG=__DECIMAL_DIG__", "-prefs=runtime.tools.avr-gcc.path=/usr")
    command = ["arduino-builder", "-compile", *options, *prefs, "-warnings", "all", "-fqbn", f"arduino:avr:{board}", str(sketch)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    assert (tmp_path / f"build/{sketch.name}.hex").exists()


@pytest.mark.parametrize("sketch", EXAMPLES, ids=[sketch.stem for sketch in EXAMPLES])
def test_examples_that_need_other_boards_are_c_plus_plus_all_the_same(sketch: Path) -> None:
    """With the stand-ins of host/: it says that our part of such a sketch compiles, nothing about the board's libraries."""
    if "EepromCells" in sketch.read_text("utf-8"):
        pytest.skip("only AVRs have it; the builder has compiled this one")
    command = [
        "g++",
        *STRICT,
        "-Wno-unused-variable",
        "-fsyntax-only",
        f"-I{STUBS}",
        f"-I{SOURCES}",
        "-include",
        "Arduino.h",
        "-x",
        "c++",
    ]
    run = subprocess.run([*command, str(sketch)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def test_one_version_everywhere() -> None:
    header = re.search(r'SPOORWAY_VERSION "([^"]+)"', (LIBRARY / "src/Spoorway.h").read_text("utf-8"))
    assert header is not None
    properties = dict(line.split("=", 1) for line in (LIBRARY / "library.properties").read_text("utf-8").splitlines())
    assert properties["version"] == json.loads((LIBRARY / "library.json").read_text("utf-8"))["version"] == header[1]
    assert f'version: "{header[1]}"' in (LIBRARY / "idf_component.yml").read_text("utf-8")
    assert f"## {header[1]}" in (LIBRARY / "CHANGELOG.md").read_text("utf-8")


SAMPLES = re.findall(r"```cpp\n(#include.*?)```", (LIBRARY / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("sample", SAMPLES, ids=[str(n) for n in range(len(SAMPLES))])
def test_samples_of_the_readme_compile(sample: str, tmp_path: Path) -> None:
    (tmp_path / "sample.cpp").write_text(sample)
    command = [
        "g++",
        *STRICT,
        "-Wno-unused-variable",
        "-fsyntax-only",
        f"-I{STUBS}",
        f"-I{SOURCES}",
        str(tmp_path / "sample.cpp"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def test_samples_are_there() -> None:
    assert len(SAMPLES) == 2
