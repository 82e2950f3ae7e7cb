"""What docs/kafka-target.md and the sample say of the options of the Kafka target is so."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

from spoorway.config import load, sample
from spoorway.options import build
from storage.targets.kafka import Config

TEXT = (Path(__file__).parents[2] / "docs" / "kafka-target.md").read_text("utf-8")


def test_every_option_has_its_default() -> None:
    told: dict[str, str] = {}
    for names, value in re.findall(r"^\| (`[a-z_`, ]+`) \|([^|]*)\|", TEXT, re.MULTILINE):
        told |= dict.fromkeys(re.findall(r"[a-z_]+", names), value.strip(" `"))
    assert told == {field.name: written(getattr(Config(), field.name)) for field in dataclasses.fields(Config)}


def written(value: object) -> str:
    """As the page has it; nothing where there is nothing."""
    return "" if value in ("", {}) else json.dumps(list(value) if isinstance(value, tuple) else value).strip('"')


def test_the_sample_of_the_page_configures_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "spoorway.toml").write_text(re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)[0])
    (target,) = load(tmp_path / "spoorway.toml", {}, {}).targets()
    assert (target.name, target.use, target.config.state) == ("stream", "kafka", "enriched-state")
    assert target.config.brokers == ("kafka-1:9092", "kafka-2:9092")


def test_the_sample_of_the_configuration_has_the_defaults() -> None:
    block = sample().split("#   [storage.targets.kafka]\n", 1)[1].split("\n\n", 1)[0]
    lines = [
        re.sub(r"  +[^ ].*$", "", line.removeprefix("#   ")) for line in block.splitlines()
    ]  # without what is told beside it
    table = tomllib.loads("\n".join(lines).replace("storage.targets.kafka.options", "options"))
    assert build(Config, table, "kafka") == Config()
    assert table.keys() == {field.name for field in dataclasses.fields(Config)}
