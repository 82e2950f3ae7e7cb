"""docs/kafka.md and the sample: every option with its default, and the configurations as they are printed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.journal.kafka import Config, connecting
from protocol.seams import ConfigurationError
from spoorway.config import load, sample

PAGE = Path(__file__).parents[2].joinpath("docs", "kafka.md").read_text("utf-8")
DEFAULTS: dict[str, Any] = {name: getattr(Config(), name) for name in Config.__dataclass_fields__}


def as_toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def plain(value: Any) -> Any:
    return list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value


def test_the_page_names_every_option_with_its_default() -> None:
    table = PAGE.partition("\n## Options\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", table, re.MULTILINE)
    assert as_toml("\n".join(f"{name} = {value}" for name, value in told)) == {n: plain(v) for n, v in DEFAULTS.items()}


def test_the_sample_names_every_option_with_its_default() -> None:
    block = sample().partition("#   [journal.kafka]\n")[2].partition("# Or a stream")[0]
    told = re.findall(r"^#   (\w+ = (?:\"[^\"]*\"|\[[^\]]*\]|\S+))", block, re.MULTILINE)
    assert as_toml("\n".join(told)) == {n: plain(v) for n, v in DEFAULTS.items()}


def test_the_configurations_on_the_page_are_some(tmp_path: Path) -> None:
    found: list[Config] = []
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        remote = load(file, {}, {}).remote()
        assert remote is not None
        found.append(remote.config)
    first, second = found
    assert first == Config(("kafka-1.example:9092", "kafka-2.example:9092"))
    told = connecting(second)
    assert (told["security.protocol"], told["sasl.mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert second.options == {"client.rack": "eu-central-1a"}


def test_the_metrics_on_the_page_are_those_there_are() -> None:
    code = Path(__file__).parents[2].joinpath("spoorway", "intake.py").read_text("utf-8")
    there = {f"spoorway_{name}" for name in re.findall(r'"(journal_(?:remote|overflow)_\w+)"', code)}
    told = {name.removesuffix("_total") for name in re.findall(r"^\| `(spoorway_journal_\w+)` \|", PAGE, re.MULTILINE)}
    assert told == there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brokers": ()}, "brokers and a topic must be named"),
        ({"topic": ""}, "brokers and a topic must be named"),
        ({"delivery_ms": 10}, "delivery_ms = 10: it must be at least 100"),
        ({"sasl": "PLAIN"}, "sasl and username go together"),
        ({"username": "me"}, "sasl and username go together"),
        ({"tls_key": "key.pem"}, "tls_certificate and tls_key go together"),
    ],
    ids=["no brokers", "no topic", "too small", "nobody", "no sasl", "no certificate"],
)
def test_a_configuration_that_cannot_be_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Config(**options).check()
