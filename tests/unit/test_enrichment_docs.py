"""Every configuration in the document on enrichments loads, and those of the looking-up ones name every option."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from spoorway.config import load

TEXT = (Path(__file__).parents[2] / "docs/enrichment.md").read_text("utf-8")
SAMPLES: list[str] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.split("\n")[0])
def test_sample_loads(tmp_path: Path, sample: str) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(sample)
    assert load(file, {}, {}).enrichments()


@pytest.mark.parametrize("name", ["referer", "geo_ip", "user_agent", "bots"])
def test_sample_names_every_option(name: str) -> None:
    (sample,) = [s for s in SAMPLES if s.startswith(f"[enrich.enrichments.{name}]")]
    options: dict[str, Any] = tomllib.loads(sample)["enrich"]["enrichments"][name]
    config = import_module(f"enrich.enrichments.{name}").Config
    assert options.keys() == set(config.__slots__)


@pytest.mark.parametrize("name", ["referer", "geo_ip", "user_agent", "client_hints", "bots", "cross_navigation"])
def test_enrichment_has_a_section(name: str) -> None:
    assert f"\n## {name}\n" in TEXT and f"\n| `{name}` |" in TEXT
