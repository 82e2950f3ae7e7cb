"""What docs/opensearch.md says of options and fields is so."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from protocol.tables import COLUMN_NAMES, COLUMNS
from spoorway.config import load, sample
from spoorway.options import build
from storage.opensearch.documents import document, failed_mappings, template_of
from storage.targets.opensearch import Config

TEXT = (Path(__file__).parents[2] / "docs" / "opensearch.md").read_text("utf-8")


def test_every_option_has_its_default() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| `(.+?)` \|", TEXT, re.MULTILINE)
    told = {name: json.loads(value) for names, value in rows for name in re.findall(r"[a-z_]+", names)}
    assert told == {field.name: field.default for field in dataclasses.fields(Config)}


def test_sample_configures_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "spoorway.toml").write_text(re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)[0])
    targets = load(tmp_path / "spoorway.toml", {}, {}).targets()
    assert [target.use for target in targets] == ["sqlite", "opensearch"]
    assert targets[1].config.username == "spoorway"


def test_sample_of_the_configuration_has_the_defaults() -> None:
    block = sample().split("#   [storage.targets.opensearch]\n", 1)[1].split("\n\n", 1)[0]
    rows = [re.sub(r"  +[^ ].*$", "", line.removeprefix("#   ")) for line in block.splitlines()]  # without what is told beside it
    table = tomllib.loads("\n".join(rows))
    assert build(Config, table, "opensearch") == Config()
    assert table.keys() == {field.name for field in dataclasses.fields(Config)}


def test_fields_are_named_as_it_says() -> None:
    data: Any = {"schema": "iglu:com.acme/room/jsonschema/1-0-0", "data": {}}
    reading: Any = {"schema": "iglu:com.acme/reading/jsonschema/1-0-0", "data": {}}
    made = document({"event_id": "e", "unstruct_event": reading, "contexts": [data]})
    told = set(re.findall(r"^\| `([\w@]+)` \|", TEXT.partition("In an event:")[2].partition("```")[0], re.MULTILINE))
    assert told == (made.keys() - {"event_id"}) | {"spoorway_commit"}
    (query,) = re.findall(r"```json\n(.+?)```", TEXT, re.DOTALL)
    names = [next(iter(next(iter(one.values())))) for one in json.loads(query)["query"]["bool"]["filter"]]
    assert {name.partition(".")[0] for name in names} <= made.keys() | set(COLUMN_NAMES)


def test_every_column_has_a_field() -> None:
    fields = template_of("x", "flat_object", {})["template"]["mappings"]["properties"]
    assert fields.keys() >= {column.name for column in COLUMNS if column.type != "json"}
    assert {"failed_id", "reasons", "payload"} <= failed_mappings()["properties"].keys()
