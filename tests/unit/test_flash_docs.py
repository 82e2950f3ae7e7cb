"""What docs/flash.md says of options, sizes and messages is so."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from spoorway.cli import parser
from spoorway.flashing import writing
from spoorway.flashing.boards import BOARDS
from spoorway.flashing.identity import RESERVED

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "flash.md").read_text("utf-8")


def _options(command: str) -> dict[str, argparse.Action]:
    (commands,) = (each for each in parser(command)._actions if isinstance(each, argparse._SubParsersAction))
    return {option: action for action in commands.choices[command]._actions for option in action.option_strings}


def test_every_option_is_told_and_every_option_told_exists() -> None:
    (table,) = re.findall(r"## Options\n(.+?)\n## ", TEXT, re.DOTALL)
    told = {
        option for pair in re.findall(r"^\\| `(--[a-z-]+)`(?:, `(--[a-z-]+)`)?", table, re.MULTILINE) for option in pair if option
    }
    assert told - {"--ports"} == set(_options("flash")) - {"-h", "--help", "--config", "--data", "--ports"}
    assert f"{_options('flash')['--wait'].default:g}" == "60"


def test_every_command_line_is_one() -> None:
    lines = re.findall(r"^    spoorway ((?:flash|monitor) .+)$", TEXT, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line)
        assert parser(words[0]).parse_args(words).command == words[0]


def test_numbers() -> None:
    sizes = [f"{BOARDS[name].flash_bytes:,}" for name in ("uno", "nano", "mega")]
    assert f"{sizes[0]}, {sizes[1]} and {sizes[2]} bytes" in TEXT
    assert f"| {writing.AVR_S:g} s; {writing.ESP_S:g} s (`--limit`). {writing._SILENT_S:g} s without" in TEXT
    assert f"the first {RESERVED} of the EEPROM" in TEXT


def test_messages_are_those_of_the_code() -> None:
    (table,) = re.findall(r"## When it does not work\n(.+)", TEXT, re.DOTALL)
    code = "".join(path.read_text() for path in sorted((ROOT / "spoorway").glob("flashing/*.py")))
    code += (ROOT / "spoorway" / "commands" / "flash.py").read_text()
    told = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(told) == 9
    for message in told:
        # What varies stands as … or is an example; the longest part that does not is in the code.
        part = max(re.split(r"…|Arduino Uno|20", message), key=len).strip()
        assert part in code, message
