"""Database look-ups on real SQLite files and a real PostgreSQL: what is asked, what is refused, that nothing is written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.enrichments.sql_lookup import Config, Plugin
from protocol.seams import ConfigurationError, Decimal, Event, Reason
from spoorway.world import World
from tests.unit.enrichment_world import Stopwatch, raw

DEVICE = "iglu:com.acme/device/jsonschema/1-0-0"
BY_USER = "SELECT room, floor, lat FROM device WHERE id = ?"
ROWS = [("d1", "attic", 3, 52.5), ("d1b", None, None, None), ("d2", "cellar", -1, 1.0), ("d2", "cellar", -2, 1.0)]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return registry(tmp_path / "devices.db")


def registry(file: Path, rows: list[Any] = ROWS) -> Path:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE device (id TEXT, room TEXT, floor INTEGER, lat REAL)")
        connection.executemany("INSERT INTO device VALUES (?, ?, ?, ?)", rows)
    connection.close()
    return file


def plugin(file: Path | str, world: World | None = None, **options: Any) -> Plugin:
    given = {"query": BY_USER, "inputs": ("user_id",), "schema": DEVICE, **options}
    return Plugin(Config(database=str(file), **given), world or World())


def failure(answer: Event | Reason) -> str:
    assert isinstance(answer, Reason), answer
    return answer.message


def rows(answer: Event | Reason) -> list[Any]:
    assert isinstance(answer, dict), answer
    found = answer.get("derived_contexts", [])
    assert {entity["schema"] for entity in found} <= {DEVICE}
    return [entity["data"] for entity in found]


def test_row_becomes_an_entity_and_columns(file: Path) -> None:
    made = plugin(file, columns={"geo_latitude": "lat", "mkt_source": "room"})
    answer = made({"user_id": "d1"}, raw())
    assert rows(answer) == [{"room": "attic", "floor": 3, "lat": 52.5}]
    assert isinstance(answer, dict)
    assert (answer["geo_latitude"], answer["mkt_source"]) == (52.5, "attic")


def test_null_is_no_value(file: Path) -> None:
    assert plugin(file, columns={"mkt_source": "room"})({"user_id": "d1b"}, raw()) == {
        "derived_contexts": [{"schema": DEVICE, "data": {}}]
    }


@pytest.mark.parametrize(
    ("kind", "user", "expected"),
    [
        ("at_most_one", "none", 0),
        ("at_most_one", "d1", 1),
        ("at_most_one", "d2", "more than 1 rows"),
        ("exactly_one", "none", "no row where there must be one"),
        ("exactly_one", "d1", 1),
        ("exactly_one", "d2", "more than 1 rows"),
        ("at_least_one", "none", "no row where there must be one"),
        ("at_least_one", "d2", 2),
        ("any", "none", 0),
        ("any", "d2", 2),
    ],
)
def test_number_of_rows_is_checked(file: Path, kind: str, user: str, expected: int | str) -> None:
    answer = plugin(file, rows=kind)({"user_id": user}, raw())
    if isinstance(expected, int):
        assert len(rows(answer)) == expected
    else:
        assert failure(answer) == expected


def test_more_rows_than_allowed_are_a_reason(file: Path) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    made = plugin(file, query=many, inputs=(), rows="any", max_rows=10)
    assert failure(made({}, raw())) == "more than 10 rows"


def test_values_come_from_anywhere_in_the_event(file: Path) -> None:
    query = "SELECT ? AS a, ? AS b, ? AS c"
    places = ("txn_id", "se_value", "unstruct_event iglu:com.acme/e/jsonschema/1-*-* $.list[1]['a b']")
    event: Event = {
        "txn_id": 7,
        "se_value": Decimal("1.50"),
        "unstruct_event": {"schema": "iglu:com.acme/e/jsonschema/1-3-0", "data": {"list": [0, {"a b": "deep"}]}},
    }
    assert rows(plugin(file, query=query, inputs=places)(event, raw())) == [{"a": 7, "b": "1.50", "c": "deep"}]


def test_nothing_is_asked_without_the_value(file: Path) -> None:
    assert plugin(file, rows="exactly_one")({"app_id": "x"}, raw()) == {}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(st.text(), st.sampled_from(["' OR 1=1 --", "d1'; DROP TABLE device; --", "\0", "\ud800"])))
def test_any_value_is_a_value_and_never_part_of_the_query(file: Path, value: str) -> None:
    made = plugin(file, query="SELECT ? AS echo, (SELECT count(*) FROM device) AS n")
    answer = made({"user_id": value}, raw())
    if isinstance(answer, dict):
        assert rows(answer) == [{"echo": value, "n": len(ROWS)}]
    else:
        assert any("\ud800" <= c <= "\udfff" for c in value)


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT x FROM nowhere WHERE ? = 1", "no such table"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("DELETE FROM device WHERE id = ?", "not authorized"),
        ("INSERT INTO device VALUES (?, 1, 1, 1) RETURNING id", "not authorized"),
        ("DROP TABLE device", "not authorized"),
        ("CREATE TABLE x (y)", "not authorized"),
        ("ATTACH ? AS other", "not authorized|syntax error|begins with|supplied"),
        ("PRAGMA journal_mode = DELETE", "not authorized|syntax error|begins with|supplied"),
        ("VACUUM INTO '/tmp/spoorway-copy.db'", "not authorized|syntax error|begins with|supplied"),
        ("BEGIN", "not authorized|syntax error|begins with|supplied"),
        ("", "set database and query"),
        ("SELECT 1", "uses 0, and there are 1"),
        ("SELECT ?, ?", "uses 2, and there are 1"),
    ],
)
def test_query_that_is_wrong_or_writes_is_found_at_the_start(file: Path, query: str, match: str) -> None:
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match=match):
        plugin(file, query=query)
    assert file.read_bytes() == before


def test_file_that_is_not_there_or_no_database_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough" * 100)
    for name in ("none.db", "text.db"):
        with pytest.raises(ConfigurationError, match=name):
            plugin(tmp_path / name)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "query",
    [
        ENDLESS,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM device a, device b, n",
        "SELECT hex(zeroblob(900000)) LIKE replace(hex(zeroblob(400)), '0', '%0') || 'x'",
    ],
)
def test_query_that_does_not_end_is_a_reason_in_time(file: Path, query: str) -> None:
    made = plugin(file, query=query, inputs=(), timeout_s=0.2)
    with Stopwatch() as watch:
        assert failure(made({}, raw()))
    assert watch.seconds < 20  # it has no end


@pytest.mark.parametrize(
    "query",
    [
        "SELECT zeroblob(2000000) AS x",
        "SELECT x'00ff' AS x",
        "SELECT 9e999 AS x",
        "SELECT load_extension('x') AS x",
    ],
)
def test_value_that_no_event_can_hold_is_a_reason(file: Path, query: str) -> None:
    assert failure(plugin(file, query=query, inputs=())({}, raw()))


def test_file_in_use_or_gone_is_a_reason(file: Path) -> None:
    made = plugin(file, cache_size=0)
    with sqlite3.connect(file, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with Stopwatch() as watch:
            assert failure(made({"user_id": "d1"}, raw())) == "devices.db: database is locked"
        assert watch.seconds < 4  # SQLite's own wait is five
        writer.execute("ROLLBACK")
    writer.close()
    assert len(rows(made({"user_id": "d1"}, raw()))) == 1


def test_file_that_takes_the_place_of_another_is_noticed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoorway.querying._LOOK_EVERY_S", -1)
    made = plugin(file, cache_size=0)
    registry(file.with_suffix(".new"), [("d1", "garden", 0, 0.0)]).replace(file)
    assert rows(made({"user_id": "d1"}, raw()))[0]["room"] == "garden"
    file.unlink()
    assert "No such file" in failure(made({"user_id": "d1"}, raw()))


def test_same_question_is_asked_once_until_it_is_old(file: Path) -> None:
    now = [0.0]
    made = plugin(file, World(lambda: now[0]), cache_ttl_s=60)
    assert rows(made({"user_id": "d1"}, raw()))[0]["room"] == "attic"
    with sqlite3.connect(file) as writer:
        writer.execute("UPDATE device SET room = 'roof'")
    writer.close()
    assert rows(made({"user_id": "d1"}, raw()))[0]["room"] == "attic"
    now[0] = 61
    assert rows(made({"user_id": "d1"}, raw()))[0]["room"] == "roof"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"schema": ""}, "say what becomes"),
        ({"schema": "x"}, "is no schema"),
        ({"inputs": ("nothing",)}, "neither a column nor"),
        ({"columns": {"contexts": "x"}}, "cannot be filled"),
        ({"columns": {"app_id": "x"}, "rows": "any"}, "take one row"),
    ],
)
def test_mistake_is_found_at_the_start(file: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        plugin(file, **options)


def test_column_that_the_result_has_not_is_a_reason(file: Path) -> None:
    assert failure(plugin(file, columns={"app_id": "wall"})({"user_id": "d1"}, raw())) == (
        "the result has no column wall; there are room, floor, lat"
    )


@pytest.fixture(name="postgres", scope="module")
def _postgres() -> Iterator[str]:
    """A PostgreSQL of our own, on a socket in a folder of our own. Its address."""
    control = shutil.which("pg_ctl")
    if control is None:
        pytest.fail("there is no pg_ctl: install PostgreSQL")
    # Not pytest's folder: its path is too long for a socket, and another session may tidy it away.
    with tempfile.TemporaryDirectory(prefix="spoorway-pg-", ignore_cleanup_errors=True) as name:
        # It refuses to run as root.
        switch: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        if switch:
            shutil.chown(name, "nobody")
        run = {"check": True, "capture_output": True, "cwd": name, "env": {**os.environ, "LC_ALL": "C"}, **switch}
        subprocess.run([control, "initdb", "-D", "data", "-o", "-A trust -U postgres --no-sync"], **run)
        options = f"-c listen_addresses= -c unix_socket_directories={name} -c fsync=off"
        subprocess.run([control, "start", "-w", "-D", "data", "-l", "log", "-o", options], **run)
        try:
            yield f"postgresql://postgres@/postgres?host={name}"
        finally:
            subprocess.run([control, "stop", "-w", "-m", "immediate", "-D", "data"], **run)


def in_postgres(address: str, query: str, **options: Any) -> Event | Reason:
    made = plugin(address, query=query, **options)
    return made({"user_id": "d1"}, raw())


def test_postgres_answers_with_typed_rows(postgres: str) -> None:
    query = "SELECT %s::text AS a, 7 AS b, 1.5::numeric AS c, true AS d, null AS e, timestamptz '2026-01-02 03:04:05Z' AS f"
    answer = in_postgres(postgres, query, columns={"se_value": "c", "true_tstamp": "f"})
    assert isinstance(answer, dict)
    (data,) = rows(answer)
    assert {key: data[key] for key in "abcd"} == {"a": "d1", "b": 7, "c": 1.5, "d": True} and "e" not in data
    assert (answer["se_value"], answer["true_tstamp"]) == (Decimal("1.5"), 1_767_323_045_000)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT pg_sleep(5), %s::text", "no answer within 0.3 s"),
        ("SELECT generate_series(1, 1000000000) AS i, %s::text", "more than 1 rows"),
        ("INSERT INTO x VALUES (%s)", "SyntaxError|UndefinedTable|ReadOnly"),
        ("WITH w AS (DELETE FROM pg_description RETURNING 1) SELECT %s::text FROM w", "SyntaxError|ReadOnly|FeatureNotSupported"),
        ("SELECT %s::text, nextval('s')", "ReadOnly|UndefinedTable"),
        ("SELECT %s::text FROM nowhere", "UndefinedTable"),
        ("SELEC %s", "SyntaxError"),
        ("SELECT %s, %s", "ProgrammingError"),
    ],
)
def test_postgres_that_cannot_answer_is_a_reason_in_time(postgres: str, query: str, expected: str) -> None:
    with Stopwatch() as watch:
        message = failure(in_postgres(postgres, query, timeout_s=0.3 if "sleep" in query else 30))
    assert any(part in message for part in expected.split("|")), message
    assert "sleep" not in query or watch.seconds < 4  # of the five that it would take


def test_postgres_that_is_not_there_is_a_reason_and_left_alone(tmp_path: Path) -> None:
    made = plugin(f"postgresql://u@/d?host={tmp_path}", query="SELECT %s", cache_size=0)
    messages = [failure(made({"user_id": "x"}, raw())) for _ in range(6)]
    assert "OperationalError" in messages[0]
    assert "failed 5 times in a row" in messages[5]
