"""docs/journal.md is true: its shell line reads the journal of a running product, and its table names every field."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from protocol.payloads import to_json
from protocol.seams import RawPayload

DOCUMENT = Path(__file__).parents[2] / "docs/journal.md"


@pytest.mark.slow
def test_the_journal_is_read_without_us(spoorway_run: Any) -> None:
    for page in range(3):
        assert spoorway_run.get(f"{spoorway_run.url}/i?e=pv&p=web&page={page}")[0] == 200
    (line,) = re.findall(r"^    (zcat .*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    command = line.replace("spoorway-data", str(spoorway_run.data))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1\t/i\t127.0.0.1", "2\t/i\t127.0.0.1", "3\t/i\t127.0.0.1"]


def test_every_field_of_a_line_is_named() -> None:
    full = RawPayload("a" * 32, 1, "http", "/i", "q", b"x", "t", (("A", "b"),), "ip", "host", "nuid", "device", (0,))
    assert all(getattr(full, field.name) for field in fields(RawPayload))
    named = set(re.findall(r"`([a-z0-9]+)`", DOCUMENT.read_text("utf-8")))
    assert set(re.findall(r'"([a-z]+)":', to_json(full, 1).decode())) <= named
