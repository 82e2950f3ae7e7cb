"""Every question of the SQL pack answers what was worked out by hand, and the same on every dialect."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Event, Position
from spoorway.asking import Store, ask, bound, named
from spoorway.config import load
from spoorway.exporting import WRITERS
from spoorway.stores import Parquet, Sqlite, opened
from storage.sql import questions
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from tests.contracts.asked_events import ANSWERS, EVENTS, FAILED, NOON, SOLVED
from tests.contracts.redshift_bench import BUCKET, config_of
from tests.peers.postgres_server import PostgresServer
from tests.peers.redshift_double import RedshiftDouble

SINCE = "2026-03-01"
LINKS = [event for event in EVENTS if event.get("event_name") == "link_click"]
# Those about failed events are not for every store; they have a test of their own.
CASES = [(name, place) for name, one in questions().items() if not one.reads for place in range(len(ANSWERS.get(name, [])))]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The events in a SQLite store."""
    path = tmp_path_factory.mktemp("asked") / "events.db"
    target = Plugin(Config(str(path)), bundled)
    target.commit(Batch(EVENTS, FAILED, {"lane": Position(1, 9, 1)}, 1))
    target.resolve(SOLVED, [], [], NOON)
    target.close()
    return path


@pytest.fixture(scope="module")
def parquet(file: Path) -> Path:
    """The same as `spoorway export` writes it."""
    path = file.with_name("events.parquet")
    with sqlite3.connect(file) as db, path.open("wb") as out:
        writer = WRITERS["parquet"](out)
        writer.write(db.execute("SELECT * FROM events").fetchall())
        writer.close()
    db.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the S3 target keeps it in a folder, in two commits."""
    from storage.targets.s3 import Config, Plugin

    path = tmp_path_factory.mktemp("kept")
    target = Plugin(Config(url=str(path / "lake"), state=str(path / "state.db")), bundled)
    for number, place in enumerate((slice(0, 20), slice(20, None)), 1):
        target.commit(Batch(EVENTS[place], FAILED if number == 1 else [], {"lane": Position(1, number, number)}, 1))
    target.close()
    return path / "lake"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same in a database, as the PostgreSQL target keeps it."""
    from storage.targets.postgres import Config, Plugin

    with PostgresServer(tmp_path_factory.mktemp("pg")) as server:
        target = Plugin(Config(dsn=server.dsn), bundled)
        target.cursor()
        target.commit(Batch(EVENTS, FAILED, {"lane": Position(1, 9, 1)}, 1))
        target.resolve(SOLVED, [], [], NOON)
        target.close()
        yield server.dsn


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path_factory.mktemp("redshift") / "pg") as double, double.s3.in_environment():
        double.s3.bucket(BUCKET)
        yield double


def kept_in_redshift(double: RedshiftDouble, folder: Path, events: list[Event], **options: Any) -> Path:
    """In a double of Redshift, as its target keeps it: the configuration file that names it `redshift`."""
    from storage.targets.redshift import Plugin

    config = config_of(double, **options)
    target = Plugin(config, bundled)
    known = [cast(Event, {**event, "v_collector": "c", "v_etl": "e"}) for event in events]  # which it insists on
    target.commit(Batch(known, FAILED, {"lane": Position(1, 9, 1)}, 1))
    target.resolve(SOLVED, [], [], NOON)
    target.close()
    path = folder / "spoorway.toml"
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in asdict(config).items())
    path.write_text(f"[storage.targets.redshift]\n{lines}\n")
    return path


@pytest.fixture(scope="module")
def redshift(double: RedshiftDouble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept_in_redshift(double, tmp_path_factory.mktemp("asked"), EVENTS, schema='100 % "of" it')


@pytest.fixture(scope="module")
def redshift_super(double: RedshiftDouble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept_in_redshift(double, tmp_path_factory.mktemp("asked"), EVENTS, schema='its "100 %"', entities="super")


@pytest.fixture(scope="module")
def bucket(double: RedshiftDouble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the S3 target keeps it in a bucket: the configuration file that names it `lake`."""
    from storage.targets.s3 import Config, Plugin

    double.s3.bucket("lake")
    path = tmp_path_factory.mktemp("away")
    config = Config(url="s3://lake/a/b", state=str(path / "state.db"), endpoint=double.s3.endpoint)
    target = Plugin(config, bundled)
    target.commit(Batch(EVENTS, FAILED, {"lane": Position(1, 1, 1)}, 1))
    target.close()
    file = path / "spoorway.toml"
    file.write_text(f'[storage.targets.lake]\nuse = "s3"\nurl = "{config.url}"\nendpoint = "{config.endpoint}"\n')
    return file


STORES = ("sqlite", "parquet", "folder", "lake", "postgres", "redshift", "redshift_super")


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, file: Path) -> Iterator[Store]:
    kind, _, _ = request.param.partition("_")
    where = kind if kind in ("sqlite", "redshift", "lake") else str(request.getfixturevalue(request.param))
    settings: Path | None = None
    if kind in ("redshift", "lake"):
        settings = request.getfixturevalue("bucket" if kind == "lake" else request.param)
    store = opened(where, lambda: load(settings, {"data": str(file.parent)}))
    yield store
    store.close()


def test_every_question_has_answers_worked_out_by_hand() -> None:
    assert set(ANSWERS) == set(questions())
    assert len(questions()) >= 25


@pytest.mark.parametrize(("name", "place"), CASES)
def test_answer_is_the_one_worked_out_by_hand(store: Store, name: str, place: int) -> None:
    given, rows = ANSWERS[name][place]
    answer = ask(store, named(name), {"since": SINCE, **given}, NOON)
    assert answer.names == tuple(column.name for column in named(name).columns)
    assert answer.rows == rows


@pytest.mark.parametrize("store", ["sqlite", "postgres", "redshift", "redshift_super"], indirect=True)
def test_failed_events_are_told_by_reason(store: Store) -> None:
    ((given, rows),) = ANSWERS["failed"]
    assert ask(store, named("failed"), {"since": SINCE, **given}, NOON).rows == rows


def test_nothing_is_found_before_anything_was_received(store: Store) -> None:
    for question in questions().values():
        if question.reads and isinstance(store, Parquet):
            continue
        rows = ask(store, question, {"since": "2020-01-01", "until": "2020-01-02"}, NOON).rows
        assert not rows or (question.name == "funnel" and {row[2] for row in rows} == {0}), question.name


# Questions that look into no self-describing event and no entity.
PLAIN = {
    *("sessions", "pages", "landing_pages", "retention", "scroll_depth", "technology", "visits_by_pause", "sources", "places"),
    *("player_retention", "volume", "failed", "freshness", "schemas", "trackers"),
}


def test_redshift_without_a_table_of_entities_has_no_answer_and_no_error(double: RedshiftDouble, tmp_path: Path) -> None:
    plain = [event for event in EVENTS if event.get("event") == "page_ping"]
    store = opened("redshift", lambda: load(kept_in_redshift(double, tmp_path, plain, schema="plain")))
    found = {name for name, one in questions().items() if ask(store, one, {"since": SINCE}, NOON).rows}
    store.close()
    assert found == PLAIN - {"landing_pages", "technology", "sources", "places", "player_retention"} | {"funnel"}


def test_redshift_with_super_columns_that_are_empty_has_no_answer_and_no_error(double: RedshiftDouble, tmp_path: Path) -> None:
    plain = [event for event in EVENTS if event.get("event") == "page_ping"]
    store = opened("redshift", lambda: load(kept_in_redshift(double, tmp_path, plain, schema="plain_in", entities="super")))
    found = {name for name, one in questions().items() if ask(store, one, {"since": SINCE}, NOON).rows}
    store.close()
    assert found == PLAIN - {"landing_pages", "technology", "sources", "places", "player_retention"} | {"funnel"}


@pytest.mark.parametrize("field", ["temperature_celsius", "x" * 200, 'a"b', "nobody') --", "a.b.c", "100 %(top)s", "A\\"])
def test_a_field_that_no_reading_has_is_not_found(store: Store, field: str) -> None:
    given: dict[str, Any] = {"since": SINCE, "field": field}
    assert bool(ask(store, named("sensor_series"), given, NOON).rows) == (field == "temperature_celsius")


def test_an_event_counts_once_in_redshift_however_many_of_its_kind_it_carries(double: RedshiftDouble, tmp_path: Path) -> None:
    """The tables tell neither which row was the event, nor which entity came first."""
    level = "iglu:io.spoorway.game/level_end/jsonschema/1-0-0"
    agents = [
        {"schema": "iglu:io.spoorway/email_agent/jsonschema/1-0-0", "data": {"label": label, "rule": "r"}} for label in "ba"
    ]
    began = next(event for event in EVENTS if event.get("event_name") == "level_start")
    opened_mail = next(event for event in EVENTS if event.get("event_name") == "email_open")
    carries = [{"schema": level, "data": {"level": "L9", "outcome": "quit"}}] * 2
    events: list[Any] = [{**began, "contexts": carries}, {**opened_mail, "derived_contexts": agents}]
    store = opened("redshift", lambda: load(kept_in_redshift(double, tmp_path, events, schema="carried")))
    levels = ask(store, named("levels"), {"since": SINCE}, NOON).rows
    agent = ask(store, named("email_agents"), {"since": SINCE}, NOON).rows
    store.close()
    assert levels == [("L1", 1, 1, 0, 0, 0, 0, None)]
    assert agent == [("email_open", "a", "", "r", 1)]
    path = kept_in_redshift(double, tmp_path, events, schema="carried_in", entities="super")
    store = opened("redshift", lambda: load(path))
    assert ask(store, named("levels"), {"since": SINCE}, NOON).rows == levels
    assert ask(store, named("email_agents"), {"since": SINCE}, NOON).rows == [("email_open", "b", "", "r", 1)]
    store.close()


def test_emails_are_counted_as_the_views_count_them(file: Path) -> None:
    with sqlite3.connect(file) as db:
        seen = db.execute(
            "SELECT coalesce(campaign, ''), opens, opens_without_machines, messages_opened_without_machines, clicks,"
            " clicks_without_machines, messages_clicked_without_machines FROM email_campaigns ORDER BY opens DESC"
        ).fetchall()
    db.close()
    store = Sqlite(file)
    answer = ask(store, named("email_campaigns"), {"since": SINCE}, NOON)
    store.close()
    assert [row[:7] for row in answer.rows] == seen


def test_failed_events_of_files_are_those_that_were_kept(folder: Path, parquet: Path) -> None:
    store = opened(str(folder), load)
    answer = ask(store, named("failed"), {"since": SINCE}, NOON)
    store.close()
    assert [row[:5] for row in answer.rows] == [
        ("schema_violations", "eid: is not a UUID", "shop", 3, 0),
        ("adapter_failures", "eid: is no adapter", "shop", 1, 0),
    ]
    store = opened(str(parquet), load)
    with pytest.raises(ConfigurationError, match="failed_events"):
        ask(store, named("failed"), {"since": SINCE}, NOON)
    store.close()


def test_of_a_folder_only_the_files_of_the_period_are_opened(tmp_path: Path) -> None:
    from storage.targets.s3 import Config, Plugin

    day_ms, lake = NOON // 86_400_000 * 86_400_000, tmp_path / "lake"
    moments = [day_ms - 1, day_ms, day_ms + 86_399_999, day_ms + 86_400_000]
    events = [cast(Event, {**EVENTS[0], "event_id": str(UUID(int=n)), "collector_tstamp": ms}) for n, ms in enumerate(moments)]
    target = Plugin(Config(url=str(lake), state=str(tmp_path / "state.db")), bundled)
    target.commit(Batch(events, [], {"lane": Position(1, 1, 1)}, 1))
    target.close()
    for day in ("2026-03-15", "2026-03-17"):
        (other,) = lake.glob(f"events/day={day}/*/*.parquet")
        other.write_bytes(b"no Parquet")
    store = opened(str(lake), load)

    def counted(since: str, until: str) -> list[Any]:
        return [(row[0], row[-1]) for row in ask(store, named("volume"), {"since": since, "until": until}, NOON).rows]

    assert counted("2026-03-16", "2026-03-16 23:59:59.999") == [("2026-03-16", 1)]
    assert counted("2026-03-16", "2026-03-16 12:00") == [("2026-03-16", 1)]
    for period in (("2026-03-15 23:59:59.999", "2026-03-16 12:00"), ("2026-03-16 12:00", "2026-03-17 00:00:00.001")):
        with pytest.raises(ConfigurationError, match="cannot answer"):
            counted(*period)
    store.close()


@pytest.mark.parametrize("name", [name for name, one in questions().items() if one.events])
def test_of_a_folder_only_the_files_of_the_events_asked_about_are_opened(folder: Path, tmp_path: Path, name: str) -> None:
    given, rows = ANSWERS[name][0]
    about = named(name).about_events(bound(named(name), given, NOON))
    lake = Path(shutil.copytree(folder, tmp_path / "lake"))
    others = [file for file in lake.glob("events/*/*/*") if file.parent.name.removeprefix("name=") not in about]
    assert others
    for file in others:
        file.write_bytes(b"no Parquet")
    store = opened(str(lake), load)
    assert ask(store, named(name), {"since": SINCE, **given}, NOON).rows == rows
    store.close()


def test_of_a_bucket_only_the_files_of_the_events_asked_about_are_fetched(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = opened("lake", lambda: load(bucket))
    assert ask(store, named("links"), {"since": SINCE}, NOON).rows == ANSWERS["links"][0][1]
    assert len(list(tmp_path.rglob("*.parquet"))) == len({event.get("collector_tstamp", 0) // 86_400_000 for event in LINKS})
    store.close()
    assert not list(tmp_path.iterdir())


def test_a_bucket_without_events_is_told(double: RedshiftDouble, tmp_path: Path) -> None:
    double.s3.bucket("hollow")
    file = tmp_path / "spoorway.toml"
    file.write_text(f'[storage.targets.lake]\nuse = "s3"\nurl = "s3://hollow/x"\nendpoint = "{double.s3.endpoint}"\n')
    with pytest.raises(ConfigurationError, match="s3://hollow/x: there are no Parquet files of events"):
        opened("lake", lambda: load(file))


def test_a_target_is_asked_by_its_name(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "spoorway.toml"
    file.write_text(f'[storage.targets.lake]\nuse = "s3"\nurl = "{folder}"\n[storage.targets.away]\nuse = "opensearch"\n')
    store = opened("lake", lambda: load(file))
    assert ask(store, named("robots"), {"since": SINCE}, NOON).rows == ANSWERS["robots"][0][1]
    store.close()
    with pytest.raises(ConfigurationError, match="of the kind opensearch is not asked"):
        opened("away", lambda: load(file))
    with pytest.raises(ConfigurationError, match="expected sqlite, lake, away, a folder"):
        opened("nowhere", lambda: load(file))
