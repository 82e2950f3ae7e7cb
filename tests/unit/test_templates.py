"""Templates: documents that are none are told why, schemas that would refuse their readings are noticed, files come and stay."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled as bundled_schema
from protocol.templates import BadTemplate, bundled, faults, template
from spoorway.registry.templates import Templates, read

GOOD: dict[str, Any] = {
    "id": 9,
    "version": 2,
    "schema": "iglu:com.acme/reading/jsonschema/1-0-0",
    "fields": [{"name": "level", "type": "decimal", "scale": 1}],
}


def with_field(**field: Any) -> dict[str, Any]:
    return {**GOOD, "fields": [{"name": "level", **field}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected a table"),
        ({**GOOD, "colour": 1}, "no 'colour' here"),
        ({key: value for key, value in GOOD.items() if key != "id"}, "id is missing"),
        ({**GOOD, "id": 0}, "id: expected an integer from 1 to 65535"),
        ({**GOOD, "id": True}, "id: expected an integer"),
        ({**GOOD, "version": 9}, "version: expected an integer from 1 to 8"),
        ({**GOOD, "schema": "iglu:a/b/c"}, "schema: expected iglu:"),
        ({**GOOD, "fields": []}, "fields: expected a list of 1 to 32"),
        ({**GOOD, "fields": GOOD["fields"] * 33}, "fields: expected a list of 1 to 32"),
        ({**GOOD, "fields": GOOD["fields"] * 2}, "in each other's place"),
        ({**GOOD, "fields": [{"name": "a", "type": "integer"}, {"name": "a.b", "type": "integer"}]}, "in each other's place"),
        ({**GOOD, "about": "two\nlines"}, "one line"),
        (with_field(type="float"), r"fields\[0\].type: expected one of integer"),
        (with_field(type="decimal"), "scale: expected an integer from 1 to 9, not None"),
        (with_field(type="integer", scale=1), "no 'scale' here"),
        (with_field(type="integer", offset=0.5), "at most 0 decimal digits"),
        (with_field(type="decimal", scale=1, offset=float("nan")), "at most 1 decimal digits"),
        (with_field(type="integer", offset=2**31), "offset: expected a number"),
        (with_field(type="text"), "most: expected an integer from 1 to 200"),
        (with_field(type="enum", values=[]), "different texts"),
        (with_field(type="enum", values=["a", "a"]), "different texts"),
        ({**GOOD, "fields": [{"name": "a..b", "type": "integer"}]}, "a path such as"),
    ],
)
def test_what_is_no_template_is_told_where(document: Any, message: str) -> None:
    with pytest.raises(BadTemplate, match=message):
        template(document)


def test_meaning_is_all_but_the_words_for_people() -> None:
    same = template({**with_field(type="decimal", scale=1, unit="m"), "about": "How high"})
    assert same == template(GOOD)
    assert template(with_field(type="decimal", scale=2)) != template(GOOD)
    assert template({**GOOD, "app_id": "x"}) != template(GOOD)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "level": {"type": ["number", "null"]},
        "state": {"type": "string", "enum": ["on", "off"], "maxLength": 3},
        "note": {"type": "string", "maxLength": 8},
        "air": {"type": "object", "properties": {"wet": {"type": "boolean"}, "dry": {"type": "boolean"}}, "required": ["wet"]},
    },
    "required": ["count"],
}


COUNT = {"name": "count", "type": "integer"}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([COUNT, {"name": "level", "type": "decimal", "scale": 1}], ""),
        ([COUNT, {"name": "air.wet", "type": "boolean"}], ""),
        ([{"name": "level", "type": "integer"}], "count: the schema requires it, no field fills it"),
        ([COUNT, {"name": "air.dry", "type": "boolean"}], "air.wet: the schema requires it, no field fills it"),
        ([{"name": "count", "type": "decimal", "scale": 1}], "count: decimal does not fit the schema's type integer"),
        ([COUNT, {"name": "colour", "type": "text", "most": 1}], "colour: the schema has no such property"),
        ([{"name": "count.x", "type": "integer"}], "count.x: the schema has no such property"),
        ([COUNT, {"name": "state", "type": "enum", "values": ["on", "ajar"]}], "state: the schema does not allow ajar"),
        ([COUNT, {"name": "note", "type": "bytes", "most": 5}], "note: up to 5 bytes do not fit the schema's maxLength 8"),
    ],
)
def test_a_schema_that_would_refuse_the_readings_is_noticed(fields: list[Any], found: str) -> None:
    assert "".join(faults(template({**GOOD, "fields": fields}), SCHEMA)) == found


@pytest.mark.parametrize("of", bundled().values(), ids=lambda of: of.key)
def test_bundled_templates_fit_their_schemas(of: Any) -> None:
    schema = bundled_schema(of.schema)
    assert schema is not None
    assert faults(of, schema) == []
    assert of.id < 8


# In a folder --------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_that_arrives_is_told_once_and_keeps_its_meaning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    known = Templates(tmp_path / "templates", clock)
    assert known(9, 2) is None
    (tmp_path / "templates").mkdir()
    file = tmp_path / "templates" / "9-2.json"
    file.write_text(json.dumps(GOOD))
    assert known(9, 2) is None, "not looked at again yet"
    clock.now += 1
    assert known.changes(0) == (1, {"9/2"})
    assert known.changes(1) == (1, frozenset())
    first = known(9, 2)
    assert first == template(GOOD)
    assert known.key("9/2") is first
    assert known.key("9/3") is known.key("x") is None
    file.write_text(json.dumps(with_field(type="integer")))
    clock.now += 1
    with caplog.at_level(logging.WARNING):
        known.changes(1)
    assert "another meaning" in caplog.text
    assert known(9, 2) is first
    file.unlink()
    clock.now += 1
    assert known.changes(1) == (1, frozenset())
    assert known(9, 2) is first


def test_a_damaged_file_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.toml").write_text("id = ")
    (tmp_path / "b.json").write_text("[" * 100_000)
    (tmp_path / "c.json").write_text(json.dumps(GOOD))
    (tmp_path / "d.json").write_bytes(b"\xff")
    with caplog.at_level(logging.WARNING):
        known = Templates(tmp_path)
    assert known(9, 2) == template(GOOD)
    assert [each.key for each, _ in known.every()] == ["1/1", "2/1", "3/1", "9/2"]
    assert caplog.text.count("passed over") == 3


def test_a_bundled_template_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**GOOD, "id": 1, "version": 1}))
    assert Templates(tmp_path)(1, 1) is bundled()[1, 1]


def test_toml_and_json_are_the_same(tmp_path: Path) -> None:
    toml = tmp_path / "a.toml"
    toml.write_text(
        'id = 9\nversion = 2\nschema = "iglu:com.acme/reading/jsonschema/1-0-0"\n'
        '[[fields]]\nname = "level"\ntype = "decimal"\nscale = 1\n'
    )
    assert read(toml) == template(GOOD)
