"""Every configuration in the document on enrichments loads, and those of the looking-up ones name every option."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from enrich.enrichments import RawEvent
from protocol.seams import RawPayload
from spoorway.config import load
from spoorway.world import World

TEXT = (Path(__file__).parents[2] / "docs/enrichment.md").read_text("utf-8")
SAMPLES: list[str] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.split("\n")[0])
def test_sample_loads(tmp_path: Path, sample: str) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(sample)
    assert load(file, {}, {}).enrichments()


OPTIONED = ["headers", "cookies", "currency", "sql_lookup", "http_lookup", "script_lua", "script_python", "pii"]


@pytest.mark.parametrize("name", ["referer", "geo_ip", "user_agent", "bots", *OPTIONED])
def test_sample_names_every_option(name: str) -> None:
    (sample,) = [s for s in SAMPLES if s.startswith(f"[enrich.enrichments.{name}]")]
    options: dict[str, Any] = tomllib.loads(sample)["enrich"]["enrichments"][name]
    config = import_module(f"enrich.enrichments.{name}").Config
    assert options.keys() == set(config.__slots__)


@pytest.mark.parametrize("name", ["referer", "geo_ip", "user_agent", "client_hints", "bots", "cross_navigation", *OPTIONED])
def test_enrichment_has_a_section(name: str) -> None:
    assert f"\n## {name}\n" in TEXT and f"\n| `{name}` |" in TEXT


@pytest.mark.parametrize("language", ["lua", "python"])
def test_script_of_the_document_runs(tmp_path: Path, language: str) -> None:
    (script,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    file = tmp_path / "script"
    file.write_text(script)
    module = import_module(f"enrich.enrichments.script_{language}")
    made = module.Plugin(module.Config(file=str(file)), World())
    raw = RawEvent(RawPayload("0" * 32, 1, "http", "/i"), 0, {"aid": "shop"})
    assert made({"app_id": "x"}, raw)["mkt_medium"] == "shop"
    assert "a test" in made({"app_id": "test"}, raw).message
