"""docs/kinesis.md and the sample: every option with its default, the configuration and the rights as they are printed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from gateway.journal.kinesis import Config
from spoorway.commands.config import effective
from spoorway.config import load, sample

PAGE = Path(__file__).parents[2].joinpath("docs", "kinesis.md").read_text("utf-8")
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Config)}


def text_of(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_the_page_names_every_option_with_its_default() -> None:
    table = PAGE.partition("\n## Options\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", table, re.MULTILINE))
    assert told == {name: text_of(value) for name, value in DEFAULTS.items()}


def test_the_sample_names_every_option_with_its_default() -> None:
    block = sample().partition("#   [journal.kinesis]")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^#   (\w+) = (\"[^\"]*\"|\S+)", block, re.MULTILINE))
    assert told == {name: text_of(value) for name, value in DEFAULTS.items()}


def test_the_configuration_on_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "spoorway.toml").write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    found = load(tmp_path / "spoorway.toml", {}, {})
    remote = found.remote()
    assert remote is not None
    assert remote.config == Config("spoorway", "eu-central-1")
    assert [instance.use for instance in found.targets()] == ["postgres"]
    told = {place: value for place, value, _ in effective(found) if place.startswith("journal.kinesis.")}
    assert told == {f"journal.kinesis.{name}": getattr(remote.config, name) for name in DEFAULTS}


def test_the_rights_on_the_page_are_those_of_the_calls_we_make() -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    granted = {action for statement in json.loads(policy)["Statement"] for action in statement["Action"]}
    granted |= set(re.findall(r"`((?:kinesis|dynamodb):\w+)`", PAGE))
    folder = Path(__file__).parents[2] / "gateway" / "journal" / "kinesis"
    code = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    calls = {(service, name) for service, name in re.findall(r"\b(kinesis|dynamodb)\.((?!close)[a-z_]+)\(", code)}
    assert granted == {f"{service}:{name.title().replace('_', '')}" for service, name in calls}
