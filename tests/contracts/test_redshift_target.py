"""What the Redshift target adds to the contract of targets: tables of entities, load errors, credentials, lost connections.

They run on the double (tests/peers/redshift_double.md). `--redshift-dsn` runs those that need no fault on a real cluster:

    pytest tests/contracts/test_redshift_target.py --redshift-dsn 'redshift://USER:PASSWORD@HOST:5439/DATABASE?url=s3://…&role=ARN'
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Event, Json, PermanentError, TransientError
from spoorway.options import build
from storage.objects import open_objects
from storage.redshift.connection import Link
from storage.targets import Counts, redshift
from tests.contracts.redshift_bench import BUCKET, config_of
from tests.contracts.test_target_contract import RECEIVED, batch_of, event_of, failed_of
from tests.peers.redshift_double import ROLE, Cut, RedshiftDouble

ROOT = Path(__file__).parents[2]
# The driver leaves the socket of a connection that came to nothing to the garbage collector.
LEAKS = "ignore::pytest.PytestUnraisableExceptionWarning"
READING = "iglu:com.acme/sensorReading/jsonschema/1-0-0"
DOCUMENT: dict[str, Json] = {
    "properties": {
        "value": {"type": "number"},
        "sensorId": {"type": "string", "maxLength": 10},
        "place": {
            "type": "object",
            "properties": {"roomNo": {"type": "integer", "maximum": 100}, "seen": {"type": "string", "format": "date-time"}},
        },
        "tags": {"type": "array"},
        "ok": {"type": "boolean"},
    },
    "required": ["sensorId"],
}


class Site:
    """A target with a schema of its own, and what its database says to the driver."""

    def __init__(self, config: redshift.Config, double: RedshiftDouble | None) -> None:
        self.config, self._double = config, double
        self.documents: dict[str, dict[str, Json]] = {READING: DOCUMENT}
        self.pauses: list[float] = []
        self._opened: list[redshift.Plugin] = []
        self._link = Link(config, lambda db: None)

    @property
    def double(self) -> RedshiftDouble:
        if self._double is None:
            pytest.skip("only the double can be broken")
        return self._double

    def open(self, **options: Any) -> redshift.Plugin:
        known = self.documents
        config = replace(self.config, **options)
        made = redshift.Plugin(config, lambda uri: known.get(uri) or bundled(uri), timer=lambda: 0.0, sleep=self.pauses.append)
        self._opened.append(made)
        return made

    def ask(self, question: str, *values: object) -> list[list[Any]]:
        """`S.` stands for the schema."""
        with self._link.transaction() as db:
            return db.ask(question.replace("S.", f'"{self.config.schema}".'), *values)

    def run(self, statement: str) -> None:
        with self._link.transaction() as db:
            db.run(statement.replace("S.", f'"{self.config.schema}".'))

    def columns(self, table: str) -> dict[str, str]:
        found = self.ask(
            "SELECT column_name, data_type, character_maximum_length FROM svv_columns WHERE table_schema = %s"
            " AND table_name = %s ORDER BY ordinal_position",
            self.config.schema,
            table,
        )
        return {name: f"{kind}({size})" if size else kind for name, kind, size in found}

    def close(self) -> None:
        for one in self._opened:
            one.close()
        if self._double is None:
            self.run(f'DROP SCHEMA IF EXISTS "{self.config.schema}" CASCADE')
        self._link.close()


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path_factory.mktemp("redshift")) as made, made.s3.in_environment():
        made.s3.bucket(BUCKET)
        yield made


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    schema = f"spoorway_{uuid.uuid4().hex[:12]}"
    dsn: str | None = request.config.getoption("--redshift-dsn")
    if dsn:
        parts = urllib.parse.urlsplit(dsn)
        given: dict[str, Any] = {"host": parts.hostname, "port": parts.port or 5439, "database": parts.path[1:], "schema": schema}
        given |= {"user": parts.username, "password": urllib.parse.unquote(parts.password or "")}
        made = Site(build(redshift.Config, given | dict(urllib.parse.parse_qsl(parts.query)), "--redshift-dsn"), None)
    else:
        server: RedshiftDouble = request.getfixturevalue("double")
        made = Site(config_of(server, schema=schema), server)
    yield made
    made.close()


def reading(**data: Json) -> Any:
    return {"schema": READING, "data": {"sensorId": "t1", **data}}


# Tables ------------------------------------------------------------------------------------------------------------------


def test_every_column_of_an_event_arrives(site: Site) -> None:
    event: Any = event_of(
        1,
        page_title="Café \\ menu, \"quoted\" | 'single'",
        tr_total=Decimal("12.345"),
        se_value=Decimal("1E-7"),
        geo_latitude=52.25,
        br_cookies=True,
        txn_id=7,
        domain_sessionid="s",
        derived_tstamp=RECEIVED + 1,
    )
    site.open().commit(batch_of(event))
    columns = (
        "page_title, tr_total, se_value, geo_latitude, br_cookies, txn_id, trim(domain_sessionid), derived_tstamp, load_tstamp"
    )
    ((*found, loaded),) = site.ask(f"SELECT {columns} FROM S.events")
    assert found[0] == event["page_title"]
    assert found[1:7] == [Decimal("12.35"), 1e-7, 52.25, True, 7, "s"]
    assert str(found[7]) == "2023-11-14 22:13:20.001000"
    assert loaded is not None


def test_entities_and_the_event_itself_have_tables_named_as_the_field_names_them(site: Site) -> None:
    place: Json = {"roomNo": 7, "seen": "2026-01-31T12:00:00+01:00"}
    first = event_of(1, unstruct_event=reading(value=21.5, place=place, ok=True))
    second = event_of(2, contexts=[reading(tags=["a", {"b": "\t"}]), reading(sensorId="t2")])
    site.open().commit(batch_of(first, second, end=2))
    assert list(site.columns("com_acme_sensor_reading_1")) == [
        *("schema_vendor", "schema_name", "schema_format", "schema_version", "root_id", "root_tstamp"),
        *("ref_root", "ref_tree", "ref_parent"),
        *("sensor_id", "ok", "place.room_no", "place.seen", "tags", "value"),
    ]
    rows = site.ask(
        'SELECT e.event_id = r.root_id, r.schema_version, r.ref_tree, sensor_id, ok, "place.room_no", "place.seen", tags, value'
        " FROM S.com_acme_sensor_reading_1 AS r"
        " JOIN S.events AS e ON e.event_id = r.root_id AND e.collector_tstamp = r.root_tstamp ORDER BY r.root_id, sensor_id"
    )
    tree = '["events","com_acme_sensor_reading_1"]'
    assert [[*row[:6], str(row[6]), *row[7:]] for row in rows] == [
        [True, "1-0-0", tree, "t1", True, 7, "2026-01-31 11:00:00", None, 21.5],
        [True, "1-0-0", tree, "t1", None, None, "None", '["a",{"b":"\\t"}]', None],
        [True, "1-0-0", tree, "t2", None, None, "None", None, None],
    ]


def test_a_later_version_adds_columns_and_makes_others_wider(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(event_of(1, contexts=[reading()]), end=1))
    later = READING.replace("1-0-0", "1-0-1")
    site.documents[later] = {"properties": {"sensorId": {"type": "string", "maxLength": 30}, "unit": {"enum": ["C", "°F"]}}}
    new = {"schema": later, "data": {"sensorId": "x" * 30, "unit": "°F"}}
    target.commit(batch_of(event_of(2, contexts=[new]), end=2))
    assert target.totals() == Counts(2, 2, 0, 0)
    columns = site.columns("com_acme_sensor_reading_1")
    assert columns["sensor_id"] == "character varying(30)"
    assert columns["unit"] == "character varying(3)"
    assert site.ask("SELECT sensor_id, unit FROM S.com_acme_sensor_reading_1 ORDER BY root_id") == [
        ["t1", None],
        ["x" * 30, "°F"],
    ]
    # Another process knows them as well.
    site.open().commit(batch_of(event_of(3, contexts=[new]), end=3))
    assert site.ask("SELECT count(*) FROM S.com_acme_sensor_reading_1") == [[3]]


def test_a_column_that_became_wider_before_a_crash_is_not_widened_twice(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(event_of(1, contexts=[reading()]), end=1))
    later = READING.replace("1-0-0", "1-0-1")
    site.documents[later] = {"properties": {"sensorId": {"type": "string", "maxLength": 30}}}
    site.double.cuts = [Cut("^UPDATE .*spoorway_columns")]
    batch = batch_of(event_of(2, contexts=[{"schema": later, "data": {"sensorId": "y" * 30}}]), end=2)
    with pytest.raises(TransientError):
        target.commit(batch)
    site.double.statements.clear()
    assert target.commit(batch).stored == 1
    assert not [one for one in site.double.statements if "ALTER COLUMN" in one]


def test_a_schema_that_nobody_knows_gets_a_column_of_json_until_it_is_known(site: Site) -> None:
    uri = "iglu:com.acme/Unknown-Thing/jsonschema/2-0-0"
    event = event_of(1, contexts=[{"schema": uri, "data": {"a": 1}}])
    target = site.open()
    target.commit(batch_of(event, end=1))
    site.documents[uri] = {"properties": {"a": {"type": "integer"}}}
    target.see_schemas([uri])
    target.commit(batch_of(event_of(2, contexts=[{"schema": uri, "data": {"a": 2}}]), end=2))
    assert site.ask("SELECT data, a FROM S.com_acme_unknown_thing_2 ORDER BY root_id") == [['{"a":1}', None], ['{"a":2}', 2]]


def test_two_schemas_whose_names_read_the_same_have_two_tables(site: Site) -> None:
    other = "iglu:com.acme/sensor_reading/jsonschema/1-0-0"
    site.documents[other] = {"properties": {"x": {"type": "integer"}}}
    site.open().commit(batch_of(event_of(1, contexts=[reading(), {"schema": other, "data": {"x": 1}}])))
    found = site.ask(
        "SELECT table_name FROM svv_tables WHERE table_schema = %s AND table_name LIKE 'com_acme_%%' ORDER BY 1",
        site.config.schema,
    )
    assert [name[: len("com_acme_sensor_reading_1")] for (name,) in found] == ["com_acme_sensor_reading_1"] * 2


def test_entities_may_be_super_columns(site: Site) -> None:
    event = event_of(1, contexts=[reading(value=1.5, sensorId='qu"ote\\')], unstruct_event=reading())
    target = site.open(entities="super")
    target.commit(batch_of(event))
    ((contexts, unstruct, derived),) = site.ask(
        "SELECT json_serialize(contexts), json_serialize(unstruct_event), derived_contexts FROM S.events"
    )
    assert json.loads(contexts)["data"] == [reading(value=1.5, sensorId='qu"ote\\')]
    assert json.loads(unstruct)["data"] == reading()
    assert derived is None
    assert not site.columns("com_acme_sensor_reading_1")


def test_a_table_of_another_loader_is_used_as_it_is(site: Site) -> None:
    """As Snowplow's own script makes it, but for one column that somebody widened and one that is missing."""
    site.run(f'CREATE SCHEMA "{site.config.schema}"')
    (create,) = [one for one in redshift_ddl(site.config.schema) if "EXISTS" in one and ".events" in one]
    create = create.replace("page_url VARCHAR(4096)", "page_url VARCHAR(10000)").replace("true_tstamp TIMESTAMP ENCODE ZSTD,", "")
    site.run(create.replace("load_tstamp TIMESTAMP DEFAULT GETDATE() ENCODE ZSTD,", ""))
    target = site.open()
    assert target.commit(batch_of(event_of(1, page_url="u" * 9_000, true_tstamp=RECEIVED))).stored == 1
    assert site.ask("SELECT len(page_url), true_tstamp IS NULL FROM S.events".replace("len(", "length(")) == [[9_000, False]]
    assert "load_tstamp" not in site.columns("events")


def test_a_table_of_entities_of_another_loader_is_used_as_well(site: Site) -> None:
    site.open().cursor()
    names = ("schema_vendor", "schema_name", "schema_format", "schema_version")
    meta = ", ".join(f"{name} VARCHAR(128) NOT NULL" for name in names)
    site.run(
        f"CREATE TABLE S.com_acme_sensor_reading_1 ({meta}, root_id CHAR(36) NOT NULL, root_tstamp TIMESTAMP NOT NULL,"
        " ref_root VARCHAR(255) NOT NULL, ref_tree VARCHAR(1500) NOT NULL, ref_parent VARCHAR(255) NOT NULL,"
        ' value DECIMAL(36,2), "place.room_no" SMALLINT, extra INT, sensor_id VARCHAR(5) NOT NULL)'
    )
    site.run("CREATE TABLE S.com_acme_other_1 (mine INT)")
    other = "iglu:com.acme/other/jsonschema/1-0-0"
    site.documents[other] = {"properties": {"x": {"type": "integer"}}}
    full = reading(value=21.5, place={"roomNo": 7}, ok=True, sensorId="x" * 10)
    event = event_of(1, contexts=[full, {"schema": other, "data": {"x": 1}}])
    assert site.open().commit(batch_of(event, end=1)).stored == 1
    assert site.open().commit(batch_of(event_of(2, contexts=[reading()]), end=2)).stored == 1
    found = site.ask('SELECT sensor_id, value, "place.room_no", ok, extra FROM S.com_acme_sensor_reading_1 ORDER BY root_id')
    assert found == [["x" * 10, Decimal("21.50"), 7, True, None], ["t1", None, None, None, None]]
    assert site.ask("SELECT count(*) FROM S.com_acme_other_1") == [[0]]
    tables = "SELECT count(*) FROM svv_tables WHERE table_schema = %s AND table_name LIKE 'com_acme_%%'"
    assert site.ask(tables, site.config.schema) == [[3]]


def redshift_ddl(schema: str) -> list[str]:
    from storage.redshift import ddl

    return ddl.create(schema, ddl.CANONICAL)


def test_every_load_that_brings_events_has_a_row_in_the_manifest(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(event_of(1, etl_tstamp=RECEIVED + 9, contexts=[reading()]), event_of(5), end=2))
    target.commit(batch_of(event_of(1), failed=(failed_of(3),), end=4))
    rows = site.ask(
        "SELECT base, types, shredding_completed, min_collector_tstamp, max_collector_tstamp, compression, processor_artifact,"
        " processor_version, count_good, ingestion_tstamp IS NOT NULL FROM S.manifest"
    )
    ((base, types, completed, low, high, *rest),) = rows
    assert base.startswith(site.config.url)
    assert json.loads(types) == ["iglu:com.acme/sensorReading/jsonschema/1"]
    moments = [str(one) for one in (completed, low, high)]
    assert moments == [f"2023-11-14 22:13:20.00{ms}000" for ms in (9, 1, 5)]
    assert rest == ["GZIP", "spoorway", "e", 2, True]


def test_nothing_is_left_in_the_bucket(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(event_of(1, contexts=[reading()]), failed=(failed_of(1),)))
    objects = open_objects(site.config.url, endpoint=site.config.endpoint)
    assert list(objects.list()) == []


def test_many_ids_are_looked_up_in_a_table_of_their_own(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(*(event_of(n) for n in range(700)), end=1))
    again = [event_of(n, "other" if n == 3 else "f") for n in range(2, 1_400)]
    assert target.commit(batch_of(*again, end=2)) == Counts(1_398, 701, 0, 697)
    assert site.ask("SELECT count(*), count(DISTINCT event_id) FROM S.events") == [[1_401, 1_401]]


def test_wiped_the_tables_of_entities_are_empty_and_are_filled_again(site: Site) -> None:
    target = site.open()
    batch = batch_of(event_of(1, contexts=[reading()]), end=1)
    target.commit(batch)
    target.wipe()
    assert site.ask("SELECT count(*) FROM S.com_acme_sensor_reading_1") == [[0]]
    assert site.ask("SELECT count(*) FROM S.manifest") == [[0]]
    assert target.commit(batch).stored == 1
    assert site.ask("SELECT count(*) FROM S.com_acme_sensor_reading_1") == [[1]]


# What does not fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "field", "value", "keyword"),
    [
        ({"page_url": "é" * 2_049}, "page_url", "é" * 999 + "…", "redshift_maxBytes"),
        ({"geo_country": "ÅL"}, "geo_country", "ÅL", "redshift_ascii"),
        ({"txn_id": 2**31}, "txn_id", str(2**31), "redshift_range"),
        ({"tr_total": Decimal("1e16")}, "tr_total", "1" + "0" * 16, "redshift_range"),
        ({"contexts": [reading(place={"roomNo": 40_000})]}, "place.roomNo", "40000", "redshift_range"),
        ({"contexts": [reading(sensorId="ä" * 6)]}, "sensorId", "ä" * 6, "redshift_maxBytes"),
        ({"contexts": [reading(place={"seen": "yesterday"})]}, "place.seen", "yesterday", "redshift_format"),
        ({"contexts": [reading(ok="maybe")]}, "ok", "maybe", "redshift_type"),
    ],
    ids=["bytes", "ascii", "integer", "money", "small", "entity", "time", "boolean"],
)
def test_what_redshift_cannot_hold_becomes_a_failed_event_with_the_value(
    site: Site, columns: dict[str, Any], field: str, value: str, keyword: str
) -> None:
    target = site.open()
    bad: Any = event_of(1, **columns)
    assert target.commit(batch_of(bad, event_of(2), bad, end=3)) == Counts(3, 1, 1, 1)
    (failed,) = target.list_failed()
    assert failed["kind"] == "schema_violations"
    reasons: Any = failed["reasons"]
    assert [(one["field"], one["value"], one["keyword"]) for one in reasons] == [(field, value, keyword)]
    event: Any = failed["event"]
    assert event["event_id"] == bad["event_id"]
    shown = target.show_failed(str(failed["failed_id"]))
    assert shown and shown[1] and bad["event_id"].encode() in (shown[1].body or b"")
    assert site.ask("SELECT count(*) FROM S.events") == [[1]]
    # Sent again it is the same failed event.
    assert target.commit(batch_of(bad, end=4)) == Counts(1, 0, 0, 1)


def test_a_text_that_is_too_long_may_be_cut_between_characters(site: Site) -> None:
    event = event_of(1, page_url="é" * 2_048 + "é!", contexts=[reading(sensorId="ab" + "ä" * 6)])
    assert site.open(too_long="cut").commit(batch_of(event)).stored == 1
    assert site.ask("SELECT page_url FROM S.events") == [["é" * 2_048]]
    assert site.ask("SELECT sensor_id FROM S.com_acme_sensor_reading_1") == [["ab" + "ä" * 4]]


@pytest.mark.parametrize("table", ["events", "com_acme_sensor_reading_1"])
def test_rows_that_redshift_refuses_become_failed_events_and_the_others_are_stored(site: Site, table: str) -> None:
    """A column that was made narrower behind our back; more rows than one look at the errors tells."""
    target = site.open()
    target.commit(batch_of(event_of(0, contexts=[reading()]), end=1))
    column = "app_id" if table == "events" else "sensor_id"
    site.run(f"ALTER TABLE S.{table} DROP COLUMN {column}")
    site.run(f"ALTER TABLE S.{table} ADD COLUMN {column} VARCHAR(4)")
    fine, bad = ("shop", "garden") if table == "events" else ("t1", "garden")
    events: list[Event] = []
    for n in range(1, 101):
        name = bad if n % 2 else fine
        events.append(
            event_of(
                n, app_id=name if table == "events" else "x", contexts=[reading(sensorId=name if table != "events" else "t")]
            )
        )
    assert target.commit(batch_of(*events, end=2)) == Counts(100, 50, 50, 0)
    assert site.ask("SELECT count(*) FROM S.events") == [[51]]
    assert site.ask("SELECT count(*) FROM S.com_acme_sensor_reading_1") == [[51]]
    failed: list[Any] = target.list_failed()
    assert len(failed) == 50
    told = [one["reasons"][0] for one in failed if one["reasons"][0]["step"] == "redshift"]
    # How wide `events` is, is looked up again with the next connection; what is too long then is found before it is sent.
    assert len(told) == (20 if table == "events" else 50)
    for reason in told:
        assert (reason["field"], reason["value"], reason["keyword"]) == (f"{table}.{column}", "garden", "error_1204")
        assert "exceeds DDL length" in reason["message"]


def test_rows_that_redshift_leaves_out_without_a_word_are_not_given_up(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(event_of(1), end=1))
    site.run("ALTER TABLE S.events DROP COLUMN app_id")
    site.run("ALTER TABLE S.events ADD COLUMN app_id VARCHAR(3)")
    with site.double.query() as db:
        db.execute("CREATE RULE silent AS ON INSERT TO redshift_catalog.load_errors DO INSTEAD NOTHING")
        try:
            with pytest.raises(TransientError, match="left out 1 lines of events and does not say which"):
                target.commit(batch_of(event_of(2), end=2))
        finally:
            db.execute("DROP RULE silent ON redshift_catalog.load_errors")
    assert site.pauses == [0.5, 1.0, 2.0, 4.0]
    assert target.totals() == Counts(1, 1, 0, 0)


def test_a_failed_event_is_cut_to_fit_and_its_payload_is_whole(site: Site) -> None:
    target = site.open()
    failed = failed_of(1)
    large = replace(
        failed,
        payload=replace(failed.payload, body=("ä" * 100_000 + "\t\\N").encode()),
        parameters={f"key{n}": "é" * 5_000 for n in range(40)},
        reasons=failed.reasons * 1_000,
        event={"app_id": "ö" * 300, "event_id": "e"},
    )
    assert target.commit(batch_of(failed=(large,))).failed == 1
    shown = target.show_failed("failed-1")
    assert shown is not None
    row, payload = shown
    assert payload == large.payload
    parameters: Any = row["parameters"]
    assert parameters["key0"] == "é" * 999 + "…"
    reasons: Any = row["reasons"]
    assert 100 < len(reasons) < 1_000
    assert row["app_id"] == "ö" * 127


# Trouble -----------------------------------------------------------------------------------------------------------------


def test_a_loader_sees_the_tables_and_columns_that_another_made(site: Site) -> None:
    first, second = site.open(), site.open()
    entity = {"schema": "iglu:com.acme/of_two/jsonschema/1-0-0", "data": {"n": 1}}
    first.cursor()
    second.cursor()
    first.commit(batch_of(event_of(1, contexts=[entity]), end=1))
    assert second.commit(batch_of(event_of(2, contexts=[entity]), end=2)).stored == 1


def test_a_cluster_that_is_restarted_is_passing_trouble(site: Site) -> None:
    target = site.open()
    target.commit(batch_of(event_of(1), end=1))
    site.double.cut_all()
    with pytest.raises(TransientError):
        target.commit(batch_of(event_of(2), end=2))
    assert target.commit(batch_of(event_of(2), end=2)).stored == 1


def test_what_the_driver_keeps_of_statements_does_not_grow_for_ever(site: Site) -> None:
    double = site.double
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.redshift.connection._MOST_TRANSACTIONS", 3)
        target = site.open()
        double.statements.clear()
        for _ in range(9):
            target.totals()
    connections = [one for one in double.statements if "FROM svv_tables" in one]
    assert len(connections) == 3


def test_a_new_target_connects_to_nothing(tmp_path: Path) -> None:
    config = redshift.Config("127.0.0.1", 1, user="u", tls=False, url="s3://bucket", role=ROLE, endpoint="http://127.0.0.1:1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        target = redshift.Plugin(config, bundled)
        with pytest.raises(TransientError, match=r"redshift 127\.0\.0\.1: "):
            target.cursor()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": ""}, "host is empty"),
        ({"user": ""}, "user is empty"),
        ({"url": "/tmp/x"}, "expected s3://BUCKET/PREFIX"),
        ({"url": "s3://bucket/" + "x" * 250}, "too long"),
        ({"iam": True, "tls": False}, "iam needs tls"),
        ({"password_file": "/nowhere"}, "password_file: /nowhere: No such file"),
        ({"batch_payloads": 0}, "at least 1"),
        ({"schema": ""}, "schema needs a name"),
    ],
    ids=["host", "user", "url", "long", "iam", "file", "batch", "schema"],
)
def test_a_mistake_in_the_configuration_is_told_in_one_line(options: dict[str, Any], message: str) -> None:
    config = replace(redshift.Config("h", user="u", url="s3://bucket", endpoint="http://127.0.0.1:1"), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with pytest.raises(ConfigurationError, match=message) as told:
            redshift.Plugin(config, bundled)
    assert "\n" not in str(told.value)


@pytest.mark.filterwarnings(LEAKS)
def test_a_wrong_password_stops_the_target(site: Site) -> None:
    _ = site.double
    with pytest.raises(PermanentError, match="password authentication failed"):
        site.open(password="Wrong-1").cursor()
    gc.collect()


def test_a_role_that_the_cluster_does_not_have_is_told_and_waited_for(site: Site) -> None:
    _ = site.double
    target = site.open(role="arn:aws:iam::123456789012:role/other")
    with pytest.raises(TransientError, match="not authorized to assume IAM Role arn:aws:iam::123456789012:role/other"):
        target.commit(batch_of(event_of(1)))
    assert target.totals() == Counts()


def test_without_a_role_the_keys_go_to_copy_and_into_no_message(site: Site) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a'b\\c")
        patch.setenv("AWS_SESSION_TOKEN", "token")
        target = site.open(role="")
        assert target.commit(batch_of(event_of(1), end=1)).stored == 1
        (copy,) = [one for one in site.double.statements if "COPY" in one and f'"{site.config.schema}"."events"' in one]
        assert "ACCESS_KEY_ID 'test' SECRET_ACCESS_KEY 'a''b\\\\c' SESSION_TOKEN 'token'" in copy
        site.double.cuts = [Cut("COPY")]
        with pytest.raises(TransientError) as told:
            target.commit(batch_of(event_of(2), end=2))
        assert "a'b" not in str(told.value) and "token" not in str(told.value)


@pytest.mark.filterwarnings(LEAKS, r"ignore:ssl\.:DeprecationWarning")
def test_temporary_credentials_of_iam_over_tls(tmp_path: Path, double: RedshiftDouble) -> None:
    """moto hands out the credentials; the double takes the user that they name, over TLS whose authority the machine trusts."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cluster"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    secure = RedshiftDouble(tmp_path, tls=(certificate, key), postgres=double.postgres, s3=double.s3)
    with secure as made, pytest.MonkeyPatch.context() as patch:
        boto3 = pytest.importorskip("boto3")
        cluster = {
            "ClusterIdentifier": "cluster-1",
            "NodeType": "ra3",
            "MasterUsername": "admin",
            "MasterUserPassword": "Secret12",
        }
        boto3.client("redshift", endpoint_url=made.s3.endpoint).create_cluster(**cluster)
        made.admits = lambda user, password: user == "IAM:loader" and bool(password)
        config = config_of(made, tls=True, iam=True, cluster="cluster-1", user="loader", region="us-east-1", password="")
        with pytest.raises(TransientError, match=r"(?i)certificate"):
            redshift.Plugin(config, bundled).cursor()
        gc.collect()
        patch.setenv("SSL_CERT_FILE", str(certificate))
        target = redshift.Plugin(config, bundled)
        try:
            assert target.commit(batch_of(event_of(1))).stored == 1
        finally:
            target.close()


CHILD = """
    import json, sys, uuid
    from protocol.schemas import bundled
    from protocol.seams import START, Position
    from storage.targets import Batch, redshift

    def event(n):
        entity = {"schema": f"iglu:com.acme/thing/jsonschema/{n // 60 + 1}-0-0", "data": {"n": n}}
        return {"event_id": str(uuid.UUID(int=n)), "event": "unstruct", "collector_tstamp": 1700000000000 + n,
                "v_collector": "c", "v_etl": "e", "event_fingerprint": "f", "contexts": [entity]}

    target = redshift.Plugin(redshift.Config(**json.loads(sys.argv[1])), bundled)
    done = target.cursor().get("lane", START).sequence
    print("open", flush=True)
    while True:
        events = [event(n) for n in range(done, done + 17)]
        done += 17
        target.commit(Batch(events, [], {"lane": Position(1, done, done)}, 17))
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_loads_nothing_is_lost_or_doubled(site: Site) -> None:
    statements = site.double.statements
    for kill in range(4):
        command = [sys.executable, "-c", textwrap.dedent(CHILD), json.dumps(asdict(site.config))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        try:
            assert child.stdout and child.stdout.readline() == b"open\n"
            enough = len(statements) + 12 + 7 * kill  # in another statement each time
            end = time.monotonic() + 60
            while len(statements) < enough:
                assert child.poll() is None, "the child ended by itself"
                assert time.monotonic() < end
                time.sleep(0.01)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdout:
                child.stdout.close()
    target = site.open()
    done = target.cursor()["lane"].sequence
    assert target.totals() == Counts(done, done, 0, 0)
    assert done > 0
    assert site.ask("SELECT count(*), count(DISTINCT event_id) FROM S.events") == [[done, done]]
    tables = "SELECT count(*) FROM svv_tables WHERE table_schema = %s AND table_name LIKE 'com_acme_%%'"
    assert site.ask(tables, site.config.schema) == [[(done + 59) // 60]]
