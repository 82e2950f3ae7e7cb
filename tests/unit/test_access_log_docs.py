"""What docs/cdn.md says of options, formats and metrics is so."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

from gateway.access_log.counters import Counters
from gateway.access_log.requests import PATHS
from gateway.transports.access_log import Config
from spoorway.config import load, sample
from spoorway.options import build

TEXT = (Path(__file__).parents[2] / "docs" / "cdn.md").read_text("utf-8")
DEFAULTS = {f.name: json.loads(json.dumps(getattr(Config(path=""), f.name))) for f in dataclasses.fields(Config)}


def test_every_option_has_its_default() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| `(.+?)` \|", TEXT, re.MULTILINE)
    told = {name: json.loads(value) for names, value in rows for name in re.findall(r"[a-z_]+", names)}
    assert told | {"path": "", "stored_headers": DEFAULTS["stored_headers"]} == DEFAULTS
    assert "| `path` |  |" in TEXT.replace("| |", "|  |") and "| `stored_headers` | as of" in TEXT


def test_samples_configure_what_they_say(tmp_path: Path) -> None:
    samples = re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)
    assert len(samples) == 3
    for text in samples:
        (tmp_path / "spoorway.toml").write_text(text)
        (config,) = (i.config for i in load(tmp_path / "spoorway.toml", {}, {}).transports() if i.name == "access_log")
        assert config.path


def test_sample_of_the_configuration_has_the_defaults() -> None:
    block = sample().split("#   [gateway.transports.access_log]\n", 1)[1].split("\n\n", 1)[0]
    rows = [re.sub(r"  +[^ ].*$", "", line.removeprefix("#   ")) for line in block.splitlines()]  # without what is told beside it
    table = tomllib.loads("\n".join(rows))
    own = table.pop("gateway")["transports"]["access_log"]["paths"]
    assert build(Config, table, "access_log") == Config(path=table["path"])
    assert table.keys() == DEFAULTS.keys() - {"paths"}
    assert set(own.values()) <= set(PATHS)


def test_every_metric_is_told() -> None:
    names = {f"spoorway_{name}" + ("_total" if kind == "counter" else "") for name, kind, _, _ in Counters().measures()}
    assert set(re.findall(r"`(spoorway_\w+)`", TEXT)) == names
    assert set(re.findall(r"`(\w+)`", TEXT.partition("by `outcome`")[2].partition(")")[0])) == Counters().lines.keys()


def test_every_path_is_told() -> None:
    assert all(f"`{path}`" in TEXT for path in PATHS)
