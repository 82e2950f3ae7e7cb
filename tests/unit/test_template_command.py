"""`spoorway template`: what it takes, what it refuses and why, what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spoorway.cli import main

SCHEMA = {
    "$schema": "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#",
    "description": "How full a tank is",
    "self": {"vendor": "com.acme", "name": "tank", "format": "jsonschema", "version": "1-0-0"},
    "type": "object",
    "properties": {
        "level_cm": {"description": "Height of the water", "type": ["number", "null"], "minimum": 0, "maximum": 500},
        "valve": {"description": "As it is now", "type": ["string", "null"], "enum": ["open", "shut", None], "maxLength": 8},
    },
    "additionalProperties": False,
}
TANK = """
id = 8
version = 1
schema = "iglu:com.acme/tank/jsonschema/1-0-0"
app_id = "tanks"

[[fields]]
name = "level_cm"
type = "decimal"
scale = 1

[[fields]]
name = "valve"
type = "enum"
values = ["open", "shut"]
"""


class Ran(NamedTuple):
    code: Any
    out: str
    err: str


def test_template_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoorway(data: Path, *arguments: str) -> Ran:
        try:
            code = main([*arguments, "--data", str(data)])
        except SystemExit as error:  # wrong usage
            code = error.code
        return Ran(code, *capsys.readouterr())

    data, file = tmp_path / "data", tmp_path / "tank.toml"
    (tmp_path / "tank.json").write_text(json.dumps(SCHEMA))
    file.write_text(TANK)
    assert spoorway(data, "schema", "add", str(tmp_path / "tank.json")).code == 0
    assert spoorway(data, "template", "add", str(file)).out.startswith("template 8/1 is in ")
    assert spoorway(data, "template", "add", str(file)).out == "template 8/1 was known already\n"
    for change, message in (
        (("scale = 1", "scale = 2"), "take a new version"),
        (("id = 8", "id = 7"), "ids below 8"),
        (("version = 1\n", "version = 2\n", '"level_cm"', '"level"'), "would not be what"),
        (("id = 8", "id ="), "not TOML"),
    ):
        text = TANK
        for old, new in zip(change[::2], change[1::2], strict=True):
            text = text.replace(old, new)
        file.write_text(text)
        refused = spoorway(data, "template", "add", str(file))
        assert (refused.code, message in refused.err) == (1, True), refused.err
    listed = [json.loads(line) for line in spoorway(data, "template", "list", "--json").out.splitlines()]
    assert [(row["id"], row["version"], row["source"] == "bundled") for row in listed] == [
        (1, 1, True), (2, 1, True), (3, 1, True), (8, 1, False),
    ]  # fmt: skip
    shown = json.loads(spoorway(data, "template", "show", "8", "--json").out)
    assert shown["fields"][1] == {"name": "valve", "type": "enum", "values": ["open", "shut"]}
    assert "level_cm" in spoorway(data, "template", "show", "8/1").out
    assert spoorway(data, "template", "show", "9").code == 1
    assert spoorway(data, "template", "codegen", "8", "--lang", "cobol").code == 2
    assert "TANK_VALVE_SHUT = 1" in spoorway(data, "template", "codegen", "8", "--lang", "c").out
