"""What protocol/compact.md shows is so: its frames, its template, its encoder."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import get_args

from protocol.compact import LARGEST_FRAME, MOST_READINGS, VERSION
from protocol.templates import LARGEST_CODE, Kind, bundled, template

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "protocol/compact.md").read_text("utf-8")
CASES = [case for file in (ROOT / "protocol/vectors/compact").glob("*.json") for case in json.loads(file.read_text())["cases"]]


def test_every_frame_it_shows_is_a_case() -> None:
    shown = re.findall(r"^    ([0-9a-f]{20,})$", TEXT, re.MULTILINE)
    assert len(shown) == 4
    assert set(shown) <= {case["frames"] for case in CASES if "written" in case}


def test_the_parts_of_the_first_frame_are_the_frame() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| `c0` |"))
    assert "".join(re.findall(r"`([0-9a-f]+)`", row)) in TEXT.replace(row, "")


def test_its_template_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert template(tomllib.loads(example)).key == "8/1"
    assert [f"{each.id} (" in TEXT for each in bundled().values()] == [True] * 3
    for kind in get_args(Kind):
        assert re.search(rf"\b{kind}\b", TEXT)


def test_the_encoder_is_the_one_that_is_printed() -> None:
    assert f"```c\n{(ROOT / 'spoorway/codegen/compact.h').read_text('utf-8')}```" in TEXT


def test_every_refusal_is_in_its_table() -> None:
    seen = {item["refused"] for case in CASES for item in case["expect"] if "refused" in item}
    assert seen == set(re.findall(r"^\| `([A-Z]\w+)` \|", TEXT, re.MULTILINE))


def test_numbers_are_the_codes() -> None:
    assert f"{LARGEST_FRAME} bytes" in TEXT
    assert f"1 to {MOST_READINGS} readings" in TEXT
    assert f"{LARGEST_CODE:,}" in TEXT
    assert f"{VERSION >> 4:04b} = version 1" in TEXT


def test_commands_that_are_named_exist() -> None:
    from spoorway.cli import COMMANDS

    assert set(re.findall(r"spoorway ([a-z]+) ", TEXT)) <= set(COMMANDS)
