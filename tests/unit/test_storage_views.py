"""Schemas -> typed views, and what SQLite answers through them."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from protocol.iglu import parse
from protocol.schemas import bundled, uris
from protocol.seams import Position, TransientError
from storage.rows import to_rows
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from storage.views import snake_case, view_name, view_sql

# Views that are not there from the beginning.
MADE = "name NOT LIKE 'device_%' AND name NOT LIKE 'email_%' AND name <> 'latest_events'"
READING = "iglu:com.acme/sensorReading/jsonschema/1-0-0"
META = ["schema_vendor", "schema_name", "schema_format", "schema_version", "root_id", "root_tstamp"]


class Shop:
    """A SQLite target with schemas of its own, and a reader beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents: dict[str, Any] = {}
        self.plugin = Plugin(Config(str(path)), self.documents.get)
        self.reader = sqlite3.connect(path)
        self.stored = 0

    def store(self, *events: dict[str, Any]) -> None:
        made: list[Any] = []
        for event in events:
            self.stored += 1
            made.append(
                {"event_id": str(uuid.UUID(int=self.stored)), "collector_tstamp": self.stored, "event": "page_view"} | event
            )
        self.plugin.commit(Batch(made, [], {"lane": Position(0, 0, self.stored)}, len(made)))

    def ask(self, sql: str) -> list[Any]:
        return self.reader.execute(sql).fetchall()

    def columns(self, view: str) -> list[str]:
        return [row[1] for row in self.ask(f'PRAGMA table_info("{view}")')]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "events.db")
    yield made
    made.reader.close()
    made.plugin.close()


def sent(uri: str, data: object) -> dict[str, Any]:
    key = parse(uri)
    return {
        "event": "unstruct",
        "event_vendor": key.vendor,
        "event_name": key.name,
        "event_format": key.format,
        "event_version": key.version,
        "unstruct_event": {"schema": uri, "data": data},
    }


def entity(uri: str, data: object) -> dict[str, Any]:
    return {"contexts": [{"schema": uri, "data": data}]}


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1", "com_snowplowanalytics_snowplow_link_click_1"),
        ("iglu:com.acme/PascalCase/jsonschema/13-0-0", "com_acme_pascal_case_13"),
        ("iglu:Com.ACME-Corp/HTTPRequest-v2x/jsonschema/2-0-0", "com_acme_corp_http_request_v2x_2"),
        ("iglu:sqlite/x/jsonschema/1-0-0", "_sqlite_x_1"),
    ],
)
def test_views_are_named_as_the_field_names_them(uri: str, name: str) -> None:
    assert view_name(parse(uri)) == name


def test_column_names_are_snake_cased() -> None:
    assert [snake_case(n) for n in ("targetUrl", "HTMLParser", "a2B", "kebab-Case", "é É")] == [
        "target_url",
        "html_parser",
        "a2_b",
        "kebab_case",
        "é é",
    ]


def test_events_and_entities_of_one_schema_are_rows_of_one_view(shop: Shop) -> None:
    shop.documents[READING] = {
        "properties": {
            "sensor": {"type": "string"},
            "value": {"type": ["number", "null"]},
            "isOk": {"type": "boolean"},
            "tags": {"type": "array"},
            "place": {"type": "object", "properties": {"roomNo": {"type": "integer"}, "gps": {"type": "object"}}},
        },
        "required": ["value"],
    }
    full = {"sensor": "t1", "value": 21, "isOk": True, "tags": ["a", "é"], "place": {"roomNo": 7, "gps": {"lat": 1.5}}}
    shop.store(
        sent(READING, full),
        entity(READING, {"value": 2.5}),
        {"derived_contexts": [{"schema": READING, "data": {"value": 3}}, {"schema": READING, "data": {"value": 4}}]},
        {"event": "page_view", "unstruct_event": {"schema": READING, "data": {"value": 5}}},  # on an event of another kind
        {"app_id": "no reading at all"},
    )
    view = "com_acme_sensor_reading_1"
    assert shop.columns(view) == [*META, "value", "is_ok", "place_gps", "place_room_no", "sensor", "tags"]
    rows = sorted(shop.ask(f"SELECT * FROM {view}"), key=lambda row: row[6])
    assert [(row[4], row[6]) for row in rows] == [
        (str(uuid.UUID(int=2)), 2.5),
        (str(uuid.UUID(int=3)), 3.0),
        (str(uuid.UUID(int=3)), 4.0),
        (str(uuid.UUID(int=4)), 5.0),
        (str(uuid.UUID(int=1)), 21.0),
    ]
    assert {row[:4] for row in rows} == {("com.acme", "sensorReading", "jsonschema", "1-0-0")}
    assert isinstance(rows[-1][6], float)  # the schema says number; the JSON said 21
    assert rows[-1][5:] == ("1970-01-01 00:00:00.001", 21.0, 1, '{"lat":1.5}', 7, "t1", '["a","é"]')


def test_later_versions_add_columns_and_other_models_get_their_own_view(shop: Shop) -> None:
    def uri(version: str) -> str:
        return f"iglu:com.acme/thing/jsonschema/{version}"

    shop.documents[uri("1-0-0")] = {"properties": {"b": {"type": "string"}, "changed": {"type": "integer"}}}
    shop.documents[uri("1-0-1")] = {
        "properties": {"b": {"type": "string"}, "a": {"type": "string"}, "changed": {"type": "string"}}
    }
    shop.documents[uri("2-0-0")] = {"properties": {"z": {}}}
    shop.documents[uri("10-0-0")] = {"properties": {"ten": {}}}
    shop.store(sent(uri("1-0-1"), {"a": "x", "changed": "7"}))
    assert shop.columns("com_acme_thing_1") == [*META, "a", "b", "changed"]
    shop.store(sent(uri("1-0-0"), {"b": "y", "changed": 7}), sent(uri("2-0-0"), {"z": 1}), entity(uri("10-0-0"), {"ten": 10}))
    assert shop.columns("com_acme_thing_1") == [*META, "b", "changed", "a"]
    found = shop.ask("SELECT schema_version, a, b, changed FROM com_acme_thing_1 ORDER BY root_tstamp")
    assert found == [("1-0-1", "x", None, "7"), ("1-0-0", None, "y", 7)]
    assert shop.ask("SELECT z FROM com_acme_thing_2") == [(1,)]
    assert shop.ask("SELECT ten FROM com_acme_thing_10") == [(10,)]


def test_a_schema_nobody_knows_gets_one_column_until_somebody_does(shop: Shop) -> None:
    shop.store(sent(READING, {"value": 1}), entity(READING, [1, 2]))
    assert shop.ask("SELECT data FROM com_acme_sensor_reading_1") == [('{"value":1}',), ("[1,2]",)]
    shop.documents[READING] = {"properties": {"value": {"type": "number"}}}
    shop.plugin.close()
    shop.plugin = Plugin(Config(str(shop.path)), shop.documents.get)
    shop.store(sent(READING, {"value": 2}))
    assert shop.ask("SELECT value FROM com_acme_sensor_reading_1 ORDER BY 1") == [(None,), (1.0,), (2.0,)]


def test_a_view_appears_with_the_commit_that_needs_it_or_not_at_all(shop: Shop) -> None:
    for steps in (
        int(20 * 1.05**n) for n in range(200)
    ):  # interrupts the commit a little later each time, until it comes through
        shop.plugin._db.set_progress_handler(lambda: 1, steps)
        try:
            shop.store(*(sent(READING, {"value": n}) for n in range(3)))
            break
        except TransientError:
            assert shop.ask(f"SELECT name FROM sqlite_master WHERE type = 'view' AND {MADE}") == []
        finally:
            shop.plugin._db.set_progress_handler(None, 0)
    assert 200 < steps < 100_000
    assert len(shop.ask("SELECT data FROM com_acme_sensor_reading_1")) == 3


def test_a_commit_that_fails_after_a_view_was_made_makes_it_again_next_time(shop: Shop) -> None:
    down = True

    def registry(uri: str) -> Any:
        if down and uri > READING:
            raise TransientError("registry down")

    shop.plugin.close()
    shop.plugin = Plugin(Config(str(shop.path)), registry)
    batch = (sent(READING, 1), sent("iglu:com.acme/zebra/jsonschema/1-0-0", 2))
    with pytest.raises(TransientError):
        shop.store(*batch)
    assert shop.ask(f"SELECT count(*) FROM sqlite_master WHERE type = 'view' AND {MADE}") == [(0,)]
    down = False
    shop.store(*batch)
    assert shop.ask("SELECT data FROM com_acme_sensor_reading_1") == [(1,)]
    assert shop.ask("SELECT data FROM com_acme_zebra_1") == [(2,)]


def test_schemas_whose_names_read_the_same_get_views_of_their_own(shop: Shop) -> None:
    names = ["iglu:com.acme/a-b/jsonschema/1-0-0", "iglu:com.acme/aB/jsonschema/1-0-0", "iglu:com_acme/a_b/jsonschema/1-0-0"]
    for number, uri in enumerate(names):
        shop.store(sent(uri, number))
    found = dict(shop.ask("SELECT uri, view_name FROM schemas"))
    assert found[names[0]] == "com_acme_a_b_1"
    assert len(set(found.values())) == 3
    for number, uri in enumerate(names):
        assert shop.ask(f"SELECT data FROM {found[uri]}") == [(number,)]


def test_columns_whose_names_are_taken_are_numbered(shop: Shop) -> None:
    names = ["root_id", "rootId", "userId", "user_id", "USER_ID", "select", "group by", "", "1st"]
    shop.documents[READING] = {"properties": {name: {} for name in names}}
    shop.store(sent(READING, {name: place for place, name in enumerate(names)}))
    columns = shop.columns("com_acme_sensor_reading_1")[6:]
    assert sorted(columns) == sorted(
        ["_", "1st", "group by", "root_id_2", "root_id_3", "select", "user_id", "user_id_2", "user_id_3"]
    )
    assert sorted(shop.ask("SELECT * FROM com_acme_sensor_reading_1")[0][6:]) == list(range(len(names)))


NASTY = [
    "x'); DROP TABLE events; --",
    'x"); DROP TABLE events; --',
    "$.a",
    "a.b",
    "a[0]",
    'quo"te',
    "back\\slash",
    "new\nline",
    "tab\t",
    "snow☃man",
    "semi;colon",
    "perc%ent",
    "?",
    "?1",
    ":name",
    "-- comment",
    "/* */",
    "`tick`",
    "[bracket]",
]


def test_no_property_name_becomes_sql_and_each_is_found(shop: Shop) -> None:
    shop.documents[READING] = {"properties": {name: {"type": "integer"} for name in NASTY}}
    data = {name: place for place, name in enumerate(NASTY)}
    shop.store(sent(READING, data), entity(READING, data))
    for row in shop.ask("SELECT * FROM com_acme_sensor_reading_1"):
        assert sorted(row[6:]) == list(range(len(NASTY)))
    assert shop.ask("SELECT count(*) FROM events") == [(2,)]


ODD_NAMES = strategies.text(strategies.characters(), max_size=6) | strategies.sampled_from(NASTY)
ODD_SCHEMA = strategies.recursive(
    strategies.fixed_dictionaries(
        {}, optional={"type": ODD_NAMES | strategies.sampled_from(["number", "string", "integer", ["null", "string"], [[]], 7])}
    ),
    lambda inner: strategies.fixed_dictionaries(
        {"properties": strategies.dictionaries(ODD_NAMES, inner, max_size=4) | strategies.just([])},
        optional={"required": strategies.lists(ODD_NAMES, max_size=2) | strategies.none()},
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    ODD_SCHEMA,
    ODD_SCHEMA,
    strategies.recursive(strategies.integers(), lambda inner: strategies.dictionaries(ODD_NAMES, inner), max_leaves=6),
)
def test_whatever_a_schema_document_says_its_view_can_be_asked(first: Any, second: Any, data: Any) -> None:
    db = sqlite3.connect(":memory:")
    db.execute(
        "CREATE TABLE events (event, event_id, collector_tstamp, unstruct_event, contexts, derived_contexts,"
        " event_vendor, event_name, event_format, event_version)"
    )
    event: Any = sent(READING, data) | entity(READING, data) | {"event_id": "e"}
    (row,) = to_rows([event], list(event))
    db.execute(f"INSERT INTO events ({', '.join(event)}) VALUES ({', '.join('?' * len(row))})", row)
    db.execute(view_sql("v", parse(READING), [first, second]))
    assert len(db.execute("SELECT * FROM v").fetchall()) == 2
    db.close()


def test_every_bundled_schema_has_a_view_that_can_be_asked(shop: Shop) -> None:
    shop.documents |= {uri: bundled(uri) for uri in uris()}
    described = [uri for uri in shop.documents if "/jsonschema/" in uri]
    shop.store(*(sent(uri, {}) for uri in described))
    views = shop.ask("SELECT view_name, count(*) FROM schemas GROUP BY 1")
    assert len(views) > 200
    for view, versions in views:
        assert shop.ask(f"SELECT count(*) FROM (SELECT * FROM {view})") == [(versions,)], view


def test_views_read_by_index(shop: Shop) -> None:
    shop.store(sent(READING, {"value": 1}))
    plan = "\n".join(
        row[3]
        for row in shop.ask("EXPLAIN QUERY PLAN SELECT data FROM com_acme_sensor_reading_1 WHERE root_tstamp >= '2026-01-01'")
    )
    assert "USING INDEX events_self_describing (event_vendor=? AND event_name=? AND collector_tstamp>?)" in plan
    assert "USING INDEX events_stray_unstruct (collector_tstamp>?)" in plan
    assert plan.count("USING INDEX events_collector_tstamp (collector_tstamp>?)") == 2
    assert "SCAN e" not in plan


def test_the_file_can_be_attached_as_atomic_and_its_views_read_its_own_tables(shop: Shop) -> None:
    shop.store(sent(READING, {"value": 1}))
    other = sqlite3.connect(":memory:")
    other.execute("CREATE TABLE events (somebody_elses)")
    other.execute("ATTACH ? AS atomic", (str(shop.path),))
    assert other.execute("SELECT count(*) FROM atomic.events").fetchone() == (1,)
    assert other.execute("SELECT data FROM atomic.com_acme_sensor_reading_1").fetchall() == [('{"value":1}',)]
    other.close()


def test_an_event_with_a_malformed_schema_uri_is_stored_without_a_view(shop: Shop) -> None:
    shop.store({"contexts": [{"schema": "iglu:no/uri", "data": 1}]})
    assert shop.ask("SELECT count(*) FROM events") == [(1,)]
    assert shop.ask("SELECT * FROM schemas") == []


def test_wiping_drops_the_views_and_they_come_back(shop: Shop) -> None:
    shop.store(sent(READING, 1))
    shop.plugin.wipe()
    assert shop.ask(f"SELECT name FROM sqlite_master WHERE type = 'view' AND {MADE}") == []
    shop.store(sent(READING, 2))
    assert shop.ask("SELECT data FROM com_acme_sensor_reading_1") == [(2,)]
