"""docs/redshift.md: its options are the target's, its samples build and run (on the double)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from protocol.seams import FailedEvent, Reason
from spoorway import building
from spoorway.config import load, sample
from storage.redshift.failures import unfit
from storage.targets import redshift
from tests.contracts.redshift_bench import BUCKET, config_of
from tests.contracts.test_redshift_target import DOCUMENT, READING, reading
from tests.contracts.test_target_contract import batch_of, event_of, failed_of
from tests.peers.redshift_double import RedshiftDouble

PAGE = Path(__file__).parents[2].joinpath("docs", "redshift.md").read_text("utf-8")
QUERIES = [one for one in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if one.startswith("SELECT")]


def test_every_option_is_in_the_table_with_its_default() -> None:
    told: dict[str, Any] = {}
    for names, defaults in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (`[^|]+`) \|", PAGE, re.MULTILINE):
        options, values = re.findall(r"`(\w+)`", names), re.findall(r"`([^`]+)`", defaults)
        values = values if len(values) == len(options) else values * len(options)
        told |= {name: json.loads(value) for name, value in zip(options, values, strict=True)}
    assert told == dataclasses.asdict(redshift.Config())


def test_the_sample_file_names_every_option_that_has_a_default() -> None:
    block = sample().partition("#   [storage.targets.redshift]")[2].partition("\n\n")[0]
    named = set(re.findall(r"\b(\w+) = ", block))
    assert named == {field.name for field in dataclasses.fields(redshift.Config)} - {"endpoint"}


def test_the_sample_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    password = tmp_path / "password"
    password.write_text("x\n")
    file = tmp_path / "spoorway.toml"
    file.write_text(text.replace("/etc/spoorway/redshift.password", str(password)))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    settings = load(file, {"data": str(tmp_path)}, {})
    (instance,) = settings.targets()
    assert isinstance(building.open_target(settings, instance), redshift.Plugin)


def test_the_policies_are_json() -> None:
    policies = [json.loads(one) for one in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    assert len(policies) == 3
    assert all(one["Version"] == "2012-10-17" for one in policies)


def test_an_event_that_did_not_fit_stays_failed_when_it_is_tried_again(tmp_path: Path) -> None:
    pipeline = building.pipeline(load(None, {"data": str(tmp_path)}, {}), remember=False)
    failed = unfit(event_of(1), (Reason("atomic", "page_url", "is too long"),))
    (again,) = pipeline.outcomes(failed.payload, 5)
    assert isinstance(again, FailedEvent) and again.id == failed.id


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path_factory.mktemp("redshift")) as made, made.s3.in_environment():
        made.s3.bucket(BUCKET)
        target = redshift.Plugin(config_of(made), lambda uri: DOCUMENT if uri == READING else bundled(uri))
        event = event_of(1, user_id="greenhouse", contexts=[reading(value=21.5, place={"roomNo": 7})])
        target.commit(batch_of(event, failed=(failed_of(2),)))
        target.close()
        yield made


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_finds_something(double: RedshiftDouble, query: str) -> None:
    connection = double.connect()
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        rows = cursor.fetchall()
    finally:
        connection.close()
    assert rows and None not in rows[0]


def test_the_tables_are_those_of_the_page(double: RedshiftDouble) -> None:
    with double.query() as db:
        found = {name for (name,) in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'atomic'").fetchall()}
    section = PAGE.partition("## Tables")[2].partition("\n## ")[0]
    named = {name for names in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", names)}
    assert found == named
