"""What docs/serial.md says of options, lines and metrics is so."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

from gateway.serial.config import Config, Port, settled
from gateway.serial.counters import Counters
from protocol.lines import Answer, Line, decode, decode_answer
from spoorway.config import load, sample
from spoorway.options import build

TEXT = (Path(__file__).parents[2] / "docs" / "serial.md").read_text("utf-8")


def test_every_line_is_whole() -> None:
    said = re.findall(r"@[jqch],[^\\\n`']*\*[0-9a-f]{4}", TEXT)
    heard = re.findall(r"![antr],[^\n`]*\*[0-9a-f]{4}", TEXT)
    assert said and all(isinstance(decode(line.encode()), Line) for line in said), said
    assert len(heard) >= 7 and all(isinstance(decode_answer(line.encode()), Answer) for line in heard), heard


def test_every_option_has_its_default() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| `(.+?)` \|", TEXT, re.MULTILINE)
    told = {name: json.loads(value) for names, value in rows for name in re.findall(r"[a-z_]+", names)}
    defaults = {f.name: json.loads(json.dumps(getattr(Config(), f.name))) for f in dataclasses.fields(Config) if f.name != "port"}
    assert told == defaults


def test_sample_configures_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(re.findall(r"```toml\n(.+?)```", TEXT, re.DOTALL)[0])
    (config,) = (instance.config for instance in load(file, {}, {}).transports() if instance.name == "serial")
    (_, own), (pattern, others) = settled(config)
    assert (own.device, own.baud, own.hang_up) == ("greenhouse", 9600, False)
    assert (pattern, others.baud, others.hang_up) == ("/dev/ttyACM*", 115_200, True)


def test_sample_of_the_configuration_has_the_defaults() -> None:
    block = sample().split("#   [gateway.transports.serial]\n", 1)[1].split("\n\n", 1)[0]
    rows = [re.sub(r"  +[^ ].*$", "", line.removeprefix("#   ")) for line in block.splitlines()]  # without what is told beside it
    table = tomllib.loads("\n".join(rows))
    own = table.pop("gateway")["transports"]["serial"]["port"]
    assert build(Config, table, "serial") == Config()
    assert table.keys() == {f.name for f in dataclasses.fields(Config)} - {"port"}
    assert own["/dev/ttyUSB0"].keys() <= {f.name for f in dataclasses.fields(Port)}


def test_every_metric_is_told() -> None:
    names = {f"spoorway_{name}" + ("_total" if kind == "counter" else "") for name, kind, _, _ in Counters().measures()}
    assert set(re.findall(r"`(spoorway_\w+)`", TEXT)) == names
