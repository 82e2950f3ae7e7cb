"""PostgreSQL's own trouble and types: a server that goes away at any moment, values it cannot hold, readers in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
import uuid
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from protocol.devices import DEVICE_TIME, QUEUE_HEALTH
from protocol.persons import Person
from protocol.schemas import bundled, uris
from protocol.seams import ConfigurationError, FailedEvent, PermanentError, Position, RawPayload, Reason, TransientError
from protocol.tables import COLUMNS
from spoorway.asking import ask, named
from spoorway.config import sample
from spoorway.stores import opened
from storage.postgres import ddl, removal
from storage.postgres.connection import take_turns
from storage.postgres.ledger import Run, joined
from storage.sql import questions
from storage.targets import Batch, Counts, Erasure, Removed, Rule, postgres, sqlite
from tests.contracts.asked_events import ANSWERS, EVENTS, FAILED, NOON, SOLVED
from tests.contracts.postgres_bench import PostgresBench
from tests.peers.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]
READING = "iglu:com.acme/sensorReading/jsonschema/1-0-{}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as made:
        yield made


@pytest.fixture
def bench(server: PostgresServer) -> Iterator[PostgresBench]:
    made = PostgresBench(server.dsn)
    yield made
    if made.target:
        made.target.close()


@pytest.fixture
def months(server: PostgresServer) -> Iterator[PostgresBench]:
    made = PostgresBench(server.dsn, "month")
    yield made
    if made.target:
        made.target.close()


def event_of(number: int, **columns: Any) -> Any:
    common = {"event_id": str(uuid.UUID(int=number)), "event_fingerprint": "f", "collector_tstamp": NOON + number}
    return {**common, "event": "page_view", **columns}


def batch_of(*events: Any, failed: tuple[FailedEvent, ...] = (), end: int = 1) -> Batch:
    return Batch(events, failed, {"lane": Position(1, end, end)}, len(events) + len(failed))


def sent(number: int, version: int, **data: Any) -> Any:
    uri = READING.format(version)
    named = {"event_vendor": "com.acme", "event_name": "sensorReading", "event_format": "jsonschema"}
    told = {"event": "unstruct", "event_version": f"1-0-{version}", "unstruct_event": {"schema": uri, "data": data}}
    return event_of(number, **named, **told)


# Beside SQLite --------------------------------------------------------------------------------------------------------


def lives_of_devices(seed: int) -> list[Any]:
    """Events of devices that lose, repeat and reorder some, and tell of their queues."""
    chance = random.Random(seed)
    events: list[Any] = []
    for device in ("cellar", "roof", 'so-"called"'):
        for boot in (1, 2):
            numbers = [n for n in range(1, 120) if chance.random() < 0.8]
            chance.shuffle(numbers)
            for sequence in numbers + chance.sample(numbers, 10):
                data = {"device": device, "proven": True, "boot_id": boot, "sequence": sequence, "method": "difference"}
                identity = f"{device} {boot} {sequence}"
                event = event_of(0, event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, identity)), event_fingerprint=identity)
                event |= {"derived_tstamp": NOON + sequence * 1000, "collector_tstamp": NOON + chance.randrange(200_000)}
                event["derived_contexts"] = [{"schema": DEVICE_TIME, "data": data | {"uncertainty_ms": chance.randrange(900)}}]
                if sequence % 7 == 0:
                    health = {"boot_id": boot, "last_sequence": 121, "sent": sequence, "queued": chance.randrange(9)}
                    event["contexts"] = [{"schema": QUEUE_HEALTH, "data": health}]
                events.append(event)
    return events


def plain(value: Any) -> Any:
    """What is the same in both databases, written the same way."""
    if isinstance(value, bool | int | float | Decimal):
        return float(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}"
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = json.loads(value)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return value


def content(rows: Any) -> list[list[tuple[str, Any]]]:
    return sorted(([(name, plain(row[name])) for name in row.keys()] for row in rows), key=repr)  # noqa: SIM118


def test_every_table_and_view_holds_what_sqlite_holds(bench: PostgresBench, months: PostgresBench, tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    stores = [sqlite.Plugin(sqlite.Config(str(file)), bundled), bench.open(), months.open()]
    lives = lives_of_devices(4)
    parts = [EVENTS, *(lives[begin : begin + 90] for begin in range(0, len(lives), 90))]
    for number, part in enumerate(parts, 1):
        for store in stores:
            store.commit(Batch(part, FAILED if number == 2 else [], {"lane": Position(1, number, number)}, len(part)))
    for store in stores:
        store.resolve(SOLVED, EVENTS[:1], [], NOON)
    assert stores[0].totals() == stores[1].totals() == stores[2].totals()
    assert stores[0].list_failed(replayed=True) == stores[1].list_failed(replayed=True)
    stores[0].close()
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.row_factory = sqlite3.Row
        views = [row[0] for row in db.execute("SELECT DISTINCT view_name FROM schemas")]
        assert len(views) > 15
        tables = ["events", "failed_events", "failed_payloads", "device_runs", "device_boots", "device_gaps", "device_health"]
        for name in [*tables, "email_opens", "email_clicks", "email_campaigns", *views]:
            theirs = content(db.execute(f'SELECT * FROM "{name}"'))
            assert content(bench.rows(f'SELECT * FROM "{name}"')) == theirs, name
            assert content(months.rows(f'SELECT * FROM "{name}"')) == theirs, name
            assert theirs or name == "failed_payloads", name


@pytest.mark.parametrize(
    ("stored", "arrived", "now"),
    [
        ([], [(1, 3), (5, 5)], [(1, 3), (5, 5)]),
        ([(1, 3)], [(4, 6)], [(1, 6)]),
        ([(4, 6)], [(1, 3)], [(1, 6)]),
        ([(1, 3), (6, 9)], [(4, 5)], [(1, 9)]),
        ([(1, 9)], [(3, 4)], [(1, 9)]),
        ([(3, 4)], [(1, 9)], [(1, 9)]),
        ([(6, 7)], [(1, 5), (8, 10)], [(1, 10)]),
    ],
)
def test_runs_that_touch_become_one(stored: Any, arrived: Any, now: Any) -> None:
    found = joined([Run(*one, "", "") for one in stored], [Run(*one, "", "") for one in arrived])
    assert [(run.first, run.last) for run in found] == now


def test_every_question_of_the_sql_pack_is_answered(server: PostgresServer) -> None:
    target = postgres.Plugin(postgres.Config(server.dsn), bundled)
    target.commit(Batch(EVENTS, FAILED, {"lane": Position(1, 9, 1)}, 1))
    target.resolve(SOLVED, [], [], NOON)
    target.close()
    store = opened(f"postgresql://postgres@127.0.0.1:{server.port}/postgres", lambda: Path())
    try:
        for name in questions():
            for given, rows in ANSWERS[name]:
                assert ask(store, named(name), {"since": "2026-03-01", **given}, NOON).rows == rows, name
    finally:
        store.close()


# The page -------------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "postgres.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def test_every_query_of_the_page_finds_something(server: PostgresServer) -> None:
    assert len(QUERIES) >= 6
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE DATABASE page")
    config = postgres.Config(server.dsn, database="page")
    target = postgres.Plugin(config, bundled)
    target.commit(Batch([*EVENTS, *lives_of_devices(1)], FAILED, {"lane": Position(1, 9, 1)}, 1))
    target.close()
    with psycopg.connect(server.dsn, dbname="page") as db:
        for query in QUERIES:
            rows = db.execute(query.encode()).fetchall()
            assert rows and any(value is not None for value in rows[0]), query


def test_the_page_and_the_sample_name_every_option_with_its_default() -> None:
    defaults = dataclasses.asdict(postgres.Config())
    named: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (`[^|]*`) \|", PAGE, re.MULTILINE):
        named |= dict(zip(re.findall(r"\w+", names), re.findall(r"`([^`]*)`", values), strict=True))
    assert {name: tomllib.loads(f"x = {value}")["x"] for name, value in named.items()} == defaults
    (sampled,) = re.findall(r"use = \"postgres\"\n(.*?)\n\n", sample(), re.DOTALL)
    assert set(re.findall(r"(\w+) = ", sampled)) == set(defaults)


# Types and values -----------------------------------------------------------------------------------------------------


def test_the_columns_are_the_canonical_ones_in_their_types(bench: PostgresBench) -> None:
    bench.open().totals()
    found = bench.rows(
        "SELECT attname AS name, upper(format_type(atttypid, atttypmod)) AS type FROM pg_attribute"
        " WHERE attrelid = 'events'::regclass AND attnum > 0 ORDER BY attnum"
    )
    short = {"CHARACTER VARYING": "VARCHAR", "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP"}
    # A length is enrichment's to watch; here it would stop a batch.
    wanted = [(c.name, "VARCHAR" if c.postgres.startswith("VARCHAR") else c.postgres) for c in COLUMNS]
    assert [(row["name"], short.get(row["type"], row["type"])) for row in found] == wanted


BIG = Decimal("9999999999999999.99")


@pytest.mark.parametrize(
    ("column", "given", "stored"),
    [
        ("page_title", "\\N", "\\N"),
        ("page_title", "\\.", "\\."),
        ("page_title", "a\\tb\\", "a\\tb\\"),
        ("page_title", "", ""),
        ("page_title", "a\tb\nc\x00d\x7f", "a    bcd"),
        ("page_title", "\ud800x", "\ufffdx"),
        ("page_title", "x" * 5000, "x" * 5000),
        ("txn_id", 2**31 - 1, 2**31 - 1),
        ("txn_id", 2**31, None),
        ("txn_id", -(2**31) - 1, None),
        ("tr_total", Decimal("1.005"), Decimal("1.01")),
        ("tr_total", Decimal("-1.005"), Decimal("-1.01")),
        ("tr_total", BIG, BIG),
        ("tr_total", Decimal("9999999999999999.995"), None),
        ("tr_total", Decimal("1E+400000"), None),
        ("tr_total", Decimal("1E-400000"), Decimal("0.00")),
        ("tr_total", Decimal("NaN"), None),
        ("tr_total", Decimal("-Infinity"), None),
        ("se_value", Decimal("0.1"), 0.1),
        ("se_value", Decimal("1E+400"), None),
        ("se_value", Decimal("1E-400"), 0.0),
        ("se_value", Decimal("4.9E-324"), 5e-324),
        ("geo_latitude", math.inf, None),
        ("geo_latitude", -0.0, 0.0),
        ("br_cookies", True, True),
        ("br_cookies", False, False),
        ("domain_sessionid", "ABCDEF00-0000-4000-8000-00000000000A", uuid.UUID("abcdef00-0000-4000-8000-00000000000a")),
        ("domain_sessionid", "no uuid", None),
        ("derived_tstamp", -1, datetime.fromisoformat("1969-12-31 23:59:59.999")),
        ("derived_tstamp", 253_402_300_799_999, datetime.fromisoformat("9999-12-31 23:59:59.999")),
        ("derived_tstamp", 253_402_300_800_000, None),
        ("derived_tstamp", -(10**17), None),
        ("contexts", [], None),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_value_is_held_as_far_as_its_column_can(bench: PostgresBench, column: str, given: Any, stored: Any) -> None:
    assert bench.open().commit(batch_of(event_of(1, **{column: given}), event_of(2))).stored == 2
    row = bench.event(str(uuid.UUID(int=1)))
    assert row[column] == stored
    assert type(row[column]) is type(stored)


def test_year_zero_is_one_before_christ(bench: PostgresBench) -> None:
    bench.open().commit(batch_of(event_of(1, derived_tstamp=-62_150_000_000_000)))
    (row,) = bench.rows("SELECT derived_tstamp::text AS t FROM events")
    assert row["t"] == "0001-07-18 07:06:40 BC"


def test_json_is_held_as_jsonb_whatever_is_in_it(bench: PostgresBench) -> None:
    deep: Any = {"end": 1}
    for _ in range(50):
        deep = {"a": deep}
    data = {"nul": "a\0b", "half": "\udfff", "\\": "\\u0000", "big": 2**70, "small": 5e-324, "inf": math.inf, "deep": deep}
    parts = [{"schema": READING.format(0), "data": data}]
    assert bench.open().commit(batch_of(event_of(1, contexts=parts, derived_contexts=parts))).stored == 1
    (found,) = bench.event(str(uuid.UUID(int=1)))["contexts"]["data"]
    assert found["data"] == data | {"nul": "ab", "half": "\ufffd", "inf": None}


@pytest.mark.parametrize(
    "given", ["0815", "{ABCDEF00-0000-4000-8000-00000000000A}", "ABCDEF00-0000-4000-8000-00000000000A", "\0"]
)
def test_an_event_id_of_any_kind_is_stored_once(bench: PostgresBench, given: str) -> None:
    target = bench.open()
    assert target.commit(batch_of(event_of(1, event_id=given), event_of(1, event_id=given))) == Counts(2, 1, 0, 1)
    assert target.commit(batch_of(event_of(1, event_id=given), end=2)) == Counts(1, 0, 0, 1)


def test_a_failed_event_holds_whatever_was_sent(bench: PostgresBench) -> None:
    payload = RawPayload("0" * 32, NOON, "http", "/i", query="a=\ud800", body=b"\xff\0", headers=(("x", "\0"),))
    reasons = (Reason("atomic", "e\0id", "is \udc80 no UUID", "\0"),)
    failed = FailedEvent("f\0", "schema_violations", reasons, payload, -62_150_000_000_000, 2**31 - 1, {"aid": "\0x"})
    target = bench.open()
    assert target.commit(batch_of(failed=(failed, failed))) == Counts(2, 0, 1, 1)
    ((row, shown),) = [target.show_failed("f") or ({}, None)]
    assert row["first_reason"] == "eid: is \ufffd no UUID" and row["parameters"] == {"aid": "x"}
    assert shown is not None and (shown.body, shown.headers, shown.query) == (b"\xff\0", (("x", ""),), "a=\ufffd")


# Views ----------------------------------------------------------------------------------------------------------------


def open_with(bench: PostgresBench, documents: dict[str, Any]) -> postgres.Plugin:
    bench.target = postgres.Plugin(bench.config, documents.get)
    return bench.target


def typed(**kinds: Any) -> Any:
    return {"properties": {name: {"type": kind} for name, kind in kinds.items()}}


def test_a_value_of_another_type_is_null_in_the_view_and_breaks_nothing(bench: PostgresBench) -> None:
    document = typed(i="integer", n="number", b="boolean", s="string", a="array", u=["string", "integer"])
    target = open_with(bench, {READING.format(0): document})
    right = {"i": 7, "n": 1.5, "b": True, "s": "x", "a": [1], "u": 3}
    wrong = {"i": 10**30, "n": "1.5", "b": "true", "s": {"k": 1}, "a": None, "u": [None]}
    target.commit(batch_of(sent(1, 0, **right), sent(2, 0, **wrong), sent(3, 0)))
    rows = bench.rows("SELECT i, n, b, s, a, u FROM com_acme_sensor_reading_1 ORDER BY root_id")
    assert [tuple(row.values()) for row in rows] == [
        (7, 1.5, True, "x", [1], 3),
        (None, None, None, '{"k": 1}', None, [None]),
        (None,) * 6,
    ]


def test_names_longer_than_postgresql_keeps_are_told_apart(bench: PostgresBench) -> None:
    long = "p" * 80
    uris = [f"iglu:com.{'v' * 60}/{name}/jsonschema/1-0-0" for name in ("one", "two")]
    document = {"properties": {long + "a": {"type": "string"}, long + "b": {"type": "string"}, "ü" * 50: {"type": "string"}}}
    target = open_with(bench, dict.fromkeys(uris, document))
    data = {long + "a": "A", long + "b": "B", "ü" * 50: "Ü"}
    target.commit(batch_of(event_of(1, contexts=[{"schema": uri, "data": data} for uri in uris])))
    names = [row["view_name"] for row in bench.rows("SELECT view_name FROM schemas")]
    assert len(set(names)) == 2 and all(len(name) <= 63 for name in names)
    for name in names:
        (row,) = bench.rows(f'SELECT * FROM "{name}"')
        assert list(row.values())[6:] == ["A", "B", "Ü"]


def test_every_bundled_schema_has_a_view_that_can_be_asked(bench: PostgresBench) -> None:
    target = bench.open()
    target.commit(batch_of(*(event_of(n, contexts=[{"schema": uri, "data": {}}]) for n, uri in enumerate(uris()))))
    views = [row["view_name"] for row in bench.rows("SELECT DISTINCT view_name FROM schemas")]
    assert len(views) > 150
    with bench.connect() as db:
        for view in sorted(views)[::10]:  # to be made at all, every column of each must be right
            assert db.execute(psycopg.sql.SQL("SELECT * FROM {}").format(psycopg.sql.Identifier(view))).fetchone(), view


def test_hostile_names_never_become_sql(bench: PostgresBench) -> None:
    hostile = ["'; DROP TABLE events; --", '"; --', "\\'; --", "%s", "{value}", "a\nb", "é\\"]
    target = open_with(bench, {READING.format(0): {"properties": {name: {"type": "integer"} for name in hostile}}})
    target.commit(batch_of(sent(1, 0, **{name: place for place, name in enumerate(hostile)})))
    (row,) = bench.rows("SELECT * FROM com_acme_sensor_reading_1")
    assert sorted(list(row.values())[6:]) == list(range(len(hostile)))


def test_a_later_version_adds_columns_and_keeps_what_is_built_on_the_view(bench: PostgresBench) -> None:
    documents: dict[str, Any] = {READING.format(0): typed(sensor="string")}
    target = open_with(bench, documents)
    target.commit(batch_of(sent(1, 0, sensor="a"), end=1))
    with bench.connect() as db:
        db.execute("CREATE VIEW mine AS SELECT sensor FROM com_acme_sensor_reading_1")
    documents[READING.format(1)] = typed(sensor="string", value="number")
    target.commit(batch_of(sent(2, 1, sensor="b", value=2), end=2))
    assert len(bench.rows("SELECT sensor, value FROM com_acme_sensor_reading_1")) == len(bench.rows("SELECT * FROM mine")) == 2
    # One that changes a column's type cannot take the place of a view that somebody builds on. Events are stored all the same.
    documents[READING.format(2)] = typed(sensor="integer")
    assert target.commit(batch_of(sent(3, 2, sensor=3), end=3)).stored == 1
    assert [row["sensor"] for row in bench.rows("SELECT sensor FROM mine ORDER BY 1")] == ["3", "a", "b"]
    with bench.connect() as db:
        db.execute("DROP VIEW mine")
    documents[READING.format(2)] = typed(sensor="integer", place="string")
    target.see_schemas([READING.format(2)])
    assert {row["sensor"] for row in bench.rows("SELECT sensor FROM com_acme_sensor_reading_1")} == {"a", "b", 3}


def test_who_reads_a_view_does_not_hold_up_a_commit_that_would_change_it(bench: PostgresBench) -> None:
    documents: dict[str, Any] = {READING.format(0): typed(sensor="string")}
    target = open_with(bench, documents)
    target.commit(batch_of(sent(1, 0, sensor="a"), end=1))
    documents[READING.format(1)] = typed(sensor="string", value="number")
    with bench.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM com_acme_sensor_reading_1")
        assert target.commit(batch_of(sent(2, 1, sensor="b", value=2), end=2)).stored == 1
        reader.execute("COMMIT")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            reader.execute("SELECT value FROM com_acme_sensor_reading_1")
    target.commit(batch_of(event_of(3), end=3))
    assert [row["value"] for row in bench.rows("SELECT value FROM com_acme_sensor_reading_1 ORDER BY root_id")] == [None, 2]


def test_views_read_by_index(bench: PostgresBench) -> None:
    target = open_with(bench, {READING.format(0): typed(sensor="string")})
    target.commit(batch_of(*(sent(n, 0, sensor=f"s{n}") for n in range(1, 20)), *(event_of(n) for n in range(100, 3_000))))
    with bench.connect() as db:
        db.execute("ANALYZE events")
        plan = db.execute(
            "EXPLAIN SELECT sensor FROM com_acme_sensor_reading_1"
            " WHERE root_tstamp BETWEEN '2026-03-16' AND '2026-03-16 12:00:00.01'"
        ).fetchall()
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert "events_self_describing" in text and "events_collector_tstamp" in text and "Seq Scan" not in text


# Partitions -----------------------------------------------------------------------------------------------------------


def test_each_month_has_a_table_and_a_duplicate_is_found_in_any(months: PostgresBench) -> None:
    target = months.open()
    day = 86_400_000
    times = [NOON, NOON + 31 * day, NOON - 3_012 * day, 253_402_300_799_999]
    target.commit(batch_of(*(event_of(n, collector_tstamp=at) for n, at in enumerate(times)), end=1))
    rows = months.rows("SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'events'::regclass")
    names = {row["relname"] for row in rows}
    assert names == {"events_2017_12", "events_2026_03", "events_2026_04", "events_9999_12"}
    late = event_of(1, collector_tstamp=NOON + 90 * day)
    assert target.commit(batch_of(late, end=2)) == Counts(1, 0, 0, 1)
    other = event_of(1, collector_tstamp=NOON + 90 * day, event_fingerprint="g")
    assert target.commit(batch_of(other, end=3)) == Counts(1, 1, 0, 0)
    assert len(months.ids()) == 5
    assert months.open().commit(batch_of(event_of(8, collector_tstamp=NOON + 1), end=4)).stored == 1  # its month is there
    lost = event_of(9, collector_tstamp=-(10**17))
    assert months.open().commit(batch_of(lost, end=5)).stored == 1


def test_a_month_that_was_detached_begins_anew(months: PostgresBench) -> None:
    target = months.open()
    target.commit(batch_of(event_of(1), end=1))
    with months.connect() as db:
        db.execute("ALTER TABLE events DETACH PARTITION events_2026_03")
    assert months.open().commit(batch_of(event_of(2), end=2)).stored == 1
    assert months.open().commit(batch_of(event_of(3), end=3)).stored == 1
    rows = [row["n"] for row in months.rows("SELECT tableoid::regclass::name AS n FROM events")]
    assert len(rows) == 2 and all("events_2026_03_2" in name for name in rows)


def test_a_reader_of_events_does_not_hold_up_a_new_month(months: PostgresBench) -> None:
    target = months.open()
    target.commit(batch_of(event_of(1), end=1))
    with months.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events")
        assert target.commit(batch_of(event_of(2, collector_tstamp=NOON + 10**10), end=2)).stored == 1
        assert len(reader.execute("SELECT * FROM events").fetchall()) == 2


def test_tables_made_the_other_way_are_refused(bench: PostgresBench) -> None:
    bench.open().totals()
    other = postgres.Plugin(postgres.Config(bench.config.dsn, schema=bench.config.schema, partition="month"), bundled)
    with pytest.raises(PermanentError, match='made without partitions; set partition = ""'):
        other.cursor()
    other.close()


# Erasing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["bench", "months"])
def test_work_is_done_in_pieces_and_each_counts_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    for name in ("_ROWS", "_OLD_ROWS", "_FAILED_ROWS", "_IDS"):
        monkeypatch.setattr(removal, name, 3)
    target = request.getfixturevalue(which).open()
    # Two months, times shared by some, ids in no order of time.
    times = {number: NOON + (number * 7 % 5) * 10**9 for number in range(20)}
    events = [event_of(number, collector_tstamp=times[number], user_id=f"u{number % 2}") for number in range(20)]
    failed = [
        FailedEvent(f"f{number}", "schema_violations", (), RawPayload(f"{number:032x}", NOON, "http", "/i"), NOON, 0, {}, event)
        for number, event in enumerate(events[:10])
    ]
    target.commit(batch_of(*events, failed=tuple(failed)))
    late = NOON + 10**10
    known = {(str(uuid.UUID(int=number)), times[number]) for number in (0, 2, 4, 6, 8)}
    erasure = Erasure("one", Person(user=frozenset({"u1"})), late, known)
    removed, after = target.erase(erasure, None)
    pieces = 1
    while after is not None:
        assert removed.events + removed.failed == target.totals().erased
        removed, after = target.erase(erasure, after)
        pieces += 1
    assert removed == Removed(15, 5) and pieces > 8
    gone, after = Removed(), None
    while True:
        piece, after = target.expire(Rule(1), late, after)
        gone = Removed(gone.events + piece.events, gone.failed + piece.failed)
        if after is None:
            break
    assert gone == Removed(5, 5)
    assert target.totals() == Counts(payloads=30, erased=20, expired=10)
    assert target.commit(batch_of(*events, end=2)).duplicate == 20


# Trouble --------------------------------------------------------------------------------------------------------------


def test_another_process_may_store_a_replay_between_two_commits(bench: PostgresBench) -> None:
    payload = RawPayload("0" * 32, NOON, "http", "/i")
    failed = FailedEvent("f", "schema_violations", (Reason("atomic", "", "no"),), payload, NOON, 0)
    loader = bench.open()
    loader.commit(batch_of(event_of(1), failed=(failed,), end=1))
    other = postgres.Plugin(bench.config, bundled)
    assert other.resolve("f", [event_of(5)], [], NOON) == Counts(0, 1, 0, 0)
    other.close()
    loader.commit(batch_of(event_of(2), event_of(5), end=2))
    assert loader.totals() == Counts(4, 3, 0, 1)


def test_the_cursor_is_not_told_while_a_commit_is_under_way(bench: PostgresBench) -> None:
    """Its answer may have been lost on the way to us, while the server still writes."""
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    with bench.connect() as lost:
        with lost.transaction():
            take_turns(lost, bench.config.schema)  # type: ignore[arg-type]
            lost.execute('UPDATE cursors SET segment = 1, "offset" = 2, sequence = 2')
            with pytest.raises(TransientError, match="another writer"):
                target.cursor()
        assert target.cursor() == {"lane": Position(1, 2, 2)}


def test_readers_see_whole_commits_only(bench: PostgresBench) -> None:
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    with bench.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        counted = "SELECT count(*) AS n, (SELECT stored FROM totals) AS stored FROM events"
        assert reader.execute(counted).fetchone() == {"n": 1, "stored": 1}
        target.commit(batch_of(event_of(2), end=2))
        assert reader.execute(counted).fetchone() == {"n": 1, "stored": 1}
        reader.execute("COMMIT")
        assert reader.execute(counted).fetchone() == {"n": 2, "stored": 2}


@pytest.mark.parametrize("which", ["bench", "months"])
def test_what_a_lost_transaction_had_made_is_made_again(request: pytest.FixtureRequest, which: str) -> None:
    """The view of a schema and the table of a month, of a commit that was cut after both."""
    bench: PostgresBench = request.getfixturevalue(which)
    target = open_with(bench, {READING.format(0): typed(sensor="string")})
    target.commit(batch_of(event_of(9, collector_tstamp=NOON - 10**10), end=1))
    batch = batch_of(sent(1, 0, sensor="a"), end=2)
    with pytest.raises(TransientError), bench.cut_at("UPDATE totals SET mark"):
        target.commit(batch)
    assert bench.rows("SELECT to_regclass('com_acme_sensor_reading_1') AS there") == [{"there": None}]
    assert target.commit(batch).stored == 1
    assert bench.rows("SELECT sensor FROM com_acme_sensor_reading_1") == [{"sensor": "a"}]


def test_a_foreign_event_under_an_id_of_the_batch_is_met_by_trying_again(bench: PostgresBench) -> None:
    """Somebody else inserts between our look and our COPY: the index refuses, the next attempt sees it."""
    target = bench.open()
    target.commit(batch_of(event_of(9), end=1))
    meet = threading.Event()
    with bench.connect() as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO events (event_id, event_fingerprint) VALUES (%s, 'f')", (str(uuid.UUID(int=1)),))
        committing = threading.Thread(target=lambda: (meet.wait(), time.sleep(0.3), other.execute("COMMIT")))
        committing.start()
        meet.set()
        patient = postgres.Plugin(postgres.Config(bench.config.dsn, schema=bench.config.schema, busy_ms=60_000), bundled)
        with pytest.raises(TransientError, match="duplicate key"):
            patient.commit(batch_of(event_of(1), event_of(2), end=2))
        committing.join()
        assert patient.commit(batch_of(event_of(1), event_of(2), end=2)) == Counts(2, 1, 0, 1)
        patient.close()


def test_a_server_that_is_down_at_the_start_holds_nobody_up(server: PostgresServer, bench: PostgresBench) -> None:
    server.stop()
    try:
        target = bench.open()
        with pytest.raises(TransientError, match="Connection refused"):
            target.cursor()
    finally:
        server.start()
    assert target.cursor() == {}


@pytest.mark.slow
def test_a_server_that_stops_or_dies_inside_commits_loses_and_doubles_nothing(
    server: PostgresServer, bench: PostgresBench
) -> None:
    """From another thread at any moment, COMMIT included: what the last answer was is not known to the loader either."""
    chance = random.Random(5)
    target, done = bench.open(), 0
    for round_ in range(6):
        trouble = threading.Timer(chance.uniform(0.01, 0.15), server.kill if round_ % 2 else server.stop)
        trouble.start()
        end = time.monotonic() + 60
        while True:
            assert time.monotonic() < end, "no trouble came"
            events = [event_of(n) for n in range(done, done + 20)]
            try:
                target.commit(batch_of(*events, end=done + 20))
                done += 20
            except TransientError:
                break
        trouble.join()
        server.start()
        if chance.random() < 0.5:  # the same batch again, or the cursor anew
            target.commit(batch_of(*events, end=done + 20))
        done = target.cursor().get("lane", Position(0, 0, 0)).sequence
        assert target.totals() == Counts(done, done, 0, 0)
    assert done > 0
    assert len(bench.ids()) == len(set(bench.ids())) == done


CHILD = """
    import sys, uuid
    from protocol.schemas import bundled
    from protocol.seams import START, Position
    from storage.targets import Batch
    from storage.targets.postgres import Config, Plugin

    target = Plugin(Config(sys.argv[1], schema=sys.argv[2], partition="month"), bundled)
    done = target.cursor().get("lane", START).sequence
    print("open", flush=True)
    while True:
        numbers = range(done, done + 37)
        events = [{"event_id": str(uuid.UUID(int=n)), "event": "unstruct", "collector_tstamp": 1700000000000 + n * 10_000_000,
                   "page_title": "x" * (n % 3000), "event_fingerprint": "f",
                   "contexts": [{"schema": f"iglu:com.acme/thing/jsonschema/{n // 300 + 1}-0-0", "data": {"n": n}}]}
                  for n in numbers]
        done += 37
        target.commit(Batch(events, [], {"lane": Position(1, done, done)}, 37))
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_commits_nothing_is_lost_or_doubled(months: PostgresBench) -> None:
    chance = random.Random(11)
    reached = 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), months.config.dsn, months.config.schema],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert child.stdout and child.stdout.readline() == b"open\n"
        time.sleep(chance.uniform(0.05, 0.4))  # where the knife falls; the child would run for ever
        assert child.poll() is None, "the child ended by itself"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        target = postgres.Plugin(
            postgres.Config(months.config.dsn, schema=months.config.schema, partition="month", busy_ms=60_000), bundled
        )
        done = target.cursor().get("lane", Position(0, 0, 0)).sequence  # waits for what the dead loader had under way
        assert target.totals() == Counts(done, done, 0, 0)
        target.close()
        ids = months.ids()
        assert len(ids) == len(set(ids)) == done >= reached
        views = months.rows(
            "SELECT count(*) AS n FROM pg_views WHERE schemaname = %s AND viewname LIKE 'com_acme_%%'", months.config.schema
        )
        assert views[0]["n"] == (done + 299) // 300
        reached = done
    assert reached > 0


def test_tables_of_another_program_are_refused_untouched(bench: PostgresBench) -> None:
    with psycopg.connect(bench.config.dsn, autocommit=True) as db:
        db.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(bench.config.schema)))
    with bench.connect() as db:
        db.execute("CREATE TABLE events (mine INTEGER)")
    with pytest.raises(PermanentError, match="holds tables of another program; name a new one"):
        bench.open().cursor()
    assert [row["n"] for row in bench.rows("SELECT count(*) AS n FROM pg_tables WHERE schemaname = %s", bench.config.schema)] == [
        1
    ]


def test_tables_of_the_first_version_are_brought_up(bench: PostgresBench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ddl, "STEPS", ddl.STEPS[:1])
        bench.open().cursor()
    assert bench.rows("SELECT to_regclass('gone_events') AS there") == [{"there": None}]
    with bench.connect() as db:
        db.execute("UPDATE totals SET payloads = 3, stored = 1, failed = 2")
    assert bench.open().totals() == Counts(3, 1, 2)
    assert [row["version"] for row in bench.rows("SELECT version FROM migrations ORDER BY 1")] == [1, 2]
    assert bench.open().commit(batch_of(event_of(1))).stored == 1


def test_tables_of_a_newer_version_are_refused(bench: PostgresBench) -> None:
    bench.open().cursor()
    with bench.connect() as db:
        db.execute("INSERT INTO migrations VALUES (99, now())")
    with pytest.raises(PermanentError, match="written by a newer Spoorway: version 99"):
        bench.open().cursor()


def test_a_database_that_cannot_hold_every_text_is_refused(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE DATABASE old ENCODING 'LATIN1' TEMPLATE template0")
    target = postgres.Plugin(postgres.Config(server.dsn, database="old"), bundled)
    with pytest.raises(PermanentError, match="encoded as LATIN1; make one with ENCODING 'UTF8'"):
        target.cursor()


def test_a_user_without_rights_is_told_so(server: PostgresServer, tmp_path: Path) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE ROLE guest LOGIN PASSWORD 'unused: trust'")
    secret = tmp_path / "password"
    secret.write_text("anything\n")
    target = postgres.Plugin(postgres.Config(server.dsn, user="guest", schema="guests", password_file=str(secret)), bundled)
    with pytest.raises(PermanentError, match=r"permission denied.*; grant it, or name another schema or user"):
        target.cursor()
    secret.unlink()
    with pytest.raises(TransientError, match=r"password_file: .*No such file"):
        target.cursor()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE SCHEMA guests AUTHORIZATION guest")
    secret.write_text("anything\n")
    assert target.cursor() == {}  # a schema that is there is enough
    target.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dsn": "host=x nonsense=1"}, 'dsn: invalid connection option "nonsense"'),
        ({"schema": ""}, "schema needs a name of 1 to 50 bytes"),
        ({"schema": "pg_mine"}, "PostgreSQL's own"),
        ({"password_file": "/nowhere"}, "password_file: /nowhere: No such file"),
    ],
    ids=["dsn", "no schema", "system schema", "password file"],
)
def test_a_mistake_in_the_options_is_told_at_the_start(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        postgres.Plugin(postgres.Config(**options), bundled)


def test_a_commit_is_on_disk_whatever_the_server_prefers(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE DATABASE lazy")
        db.execute("ALTER DATABASE lazy SET synchronous_commit = off")
        db.execute("ALTER DATABASE lazy SET default_transaction_isolation = 'serializable'")
    target = postgres.Plugin(postgres.Config(server.dsn, database="lazy"), bundled)
    with target._link.transaction(writes=True) as db:
        assert db.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert db.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    target.close()
