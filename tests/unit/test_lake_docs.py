"""docs/s3.md and the sample: every option, every query, the configuration as it is printed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from spoorway.config import load, sample
from storage.targets import s3
from tests.contracts.s3_bench import LakeBench
from tests.unit.test_lake import filled

PAGE = Path(__file__).parents[2].joinpath("docs", "s3.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
DEFAULTS = {field.name: field.default for field in dataclasses.fields(s3.Config)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    bench = LakeBench(tmp_path_factory.mktemp("docs"))
    filled(bench, 2)
    assert bench.target
    bench.target.close()
    yield Path(bench.config.url).parent


def text_of(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_the_page_names_every_option_with_its_default() -> None:
    table = PAGE.partition("\n## Options\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", table, re.MULTILINE))
    assert told == {name: text_of(value) for name, value in DEFAULTS.items()}


def test_the_sample_names_every_option_with_its_default() -> None:
    block = sample().partition("#   [storage.targets.lake]")[2].partition("\n\n")[0]
    for name, value in DEFAULTS.items():
        assert name == "url" or f"{name} = {text_of(value)}" in block, name


def test_the_configuration_on_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "spoorway.toml").write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    (instance,) = load(tmp_path / "spoorway.toml", {}, {}).targets()
    assert (instance.use, instance.config.region) == ("s3", "eu-central-1")


@pytest.mark.parametrize("place", range(len(QUERIES)))
def test_every_query_on_the_page_finds_something(folder: Path, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert duckdb.connect().execute(QUERIES[place]).fetchall()


def test_the_page_has_its_queries() -> None:
    assert len(QUERIES) == 2
