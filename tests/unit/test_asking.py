"""The form of the SQL pack's files, what people type for parameters, and the charts in the terminal."""

from __future__ import annotations

import json
import sqlite3
from importlib import import_module
from typing import Any

import pytest

from protocol.seams import ConfigurationError
from spoorway import asking, charting
from storage.rows import CONTEXTS, json_text
from storage.sql import Chart, parse, questions, render
from storage.sql.dialect import LEAD
from storage.sql.dialects import DIALECTS, PAGE

FORM = """-- What?
--
-- Beware.
--
-- group: web
-- parameter: top integer 5  how many
-- column: a  one
-- chart: bar x=a y=a
"""
NOW = 1_773_662_400_000  # 2026-03-16 12:00


def test_a_file_says_what_it_answers_and_how() -> None:
    one = parse("x", f"{FORM}SELECT 1 AS a;\n")
    assert (one.about, one.notes, one.group, one.sql) == ("What?", "Beware.", "web", "SELECT 1 AS a")
    assert [parameter.name for parameter in one.parameters] == ["since", "until", "app", "top"]
    assert one.chart == Chart("bar", "a", "a")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("group: web", "group: nowhere"),
        ("-- What?\n--\n-- Beware.", "--"),
        ("-- column: a  one\n", ""),
        ("column: a  one", "column: a"),
        ("top integer 5  how many", "top float 5  how many"),
        ("chart: bar x=a y=a", "chart: bar x=a y=b"),
        ("chart: bar x=a y=a", "chart: pie x=a y=a"),
        ("chart: bar x=a y=a", "chart: bar x=a"),
        ("-- chart", "-- cart"),
    ],
)
def test_a_file_that_breaks_the_form_is_named(before: str, after: str) -> None:
    assert before in FORM
    with pytest.raises(ValueError, match=r"x\.sql"):
        parse("x", f"{FORM.replace(before, after)}SELECT 1 AS a")


@pytest.mark.parametrize("sql", ["SELECT @nothing(1)", "SELECT @div(1)", "SELECT :nobody"])
def test_a_macro_or_parameter_that_does_not_exist_is_named(sql: str) -> None:
    with pytest.raises(ValueError, match=r"x\.sql: there is no"):
        render(parse("x", FORM + sql), DIALECTS["sqlite"])


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("name", sorted(questions()))
def test_no_question_has_what_a_driver_would_misread(name: str, dialect: str) -> None:
    assert "%" not in questions()[name].sql  # psycopg's placeholders
    sql = render(questions()[name], DIALECTS[dialect])
    assert "@" not in sql.replace("(@.schema", "")


def test_what_stands_in_quotes_or_comments_is_left_alone() -> None:
    sql = "SELECT '@ms(x) :top atomic.', @div(:top, 2) -- :nobody @nothing(\nFROM atomic.events"
    top = "CAST(coalesce(nullif(:top, ''), '5') AS INTEGER)"
    assert render(parse("x", FORM + sql), PAGE) == (
        f"SELECT '@ms(x) :top atomic.', (({top}) / (2)) -- :nobody @nothing(\nFROM events"
    )


# Whose properties are of every kind, and an entity that is not the first, is there twice, and is of another model.
TOLD = {"n": 5, "t": "5", "b": True, "z": None, "e": 1e3, "in": {"x": 7, "y": "why"}}
MODELS = [("b/other", 1, {"n": 1}), ("b/one", 2, {"n": 2}), ("b/one", 1, {"n": 3, "t": "3"}), ("b/one", 1, {"n": "4", "t": 4})]
ENTITIES = [{"schema": f"iglu:a/{name[2:]}/jsonschema/{model}-0-0", "data": data} for name, model, data in MODELS]


WRITTEN = [json_text({"schema": CONTEXTS, "data": ENTITIES}), json.dumps({"data": ENTITIES})]  # by our targets, and by others


def of_one_event(select: str, field: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """What SQLite and DuckDB answer of an event that says TOLD and carries ENTITIES, and of one that says and carries nothing."""
    question = parse("x", FORM.replace("-- group", "-- parameter: field text '' which\n-- group") + select)
    answers: dict[str, list[tuple[Any, ...]]] = {}
    duckdb: Any = import_module("duckdb")
    for written in WRITTEN:
        before = answers.copy()
        for name, db in (("sqlite", sqlite3.connect(":memory:")), ("duckdb", duckdb.connect())):
            db.execute("ATTACH ':memory:' AS atomic" if name == "sqlite" else "CREATE SCHEMA atomic")
            db.execute("CREATE TABLE atomic.events (unstruct_event VARCHAR, contexts VARCHAR)")
            rows = [[json.dumps({"data": {"data": TOLD}}), written], [None, None]]
            db.executemany("INSERT INTO atomic.events VALUES (?, ?)", rows)
            sql = render(question, DIALECTS[name], {"field": field})
            found = db.execute(sql, {"field": field} if "field" in sql else {}).fetchall()
            answers[name] = [tuple(row) for row in found]
            db.close()
        assert before in ({}, answers)
    return answers


@pytest.mark.parametrize(
    ("select", "rows"),
    [
        ("@data(e, 'n')", ["5"]),
        ("@data(e, 't'), @data_number(e, 't')", ["5", None]),
        ("@data(e, 'e'), @data_number(e, 'e')", ["1000.0", 1000]),
        ("@data_number(e, 'n'), @data_number(e, 'b'), @data_number(e, 'z')", [5, None, None]),
        ("@data(e, 'z'), @data(e, 'nobody')", [None, None]),
        ("@data(e, 'in.y'), @data_number(e, 'in.x')", ["why", 7]),
        ("@one(e.contexts, 'iglu:a/one/jsonschema/1-', 'n')", ["3"]),
        ("@one(e.contexts, 'iglu:a/other/jsonschema/1-', 'n')", ["1"]),  # the first of them
        ("@one(e.contexts, 'iglu:a/other/jsonschema/1-', 'nobody')", [None]),
        ("@one(e.contexts, 'iglu:a/one/jsonschema/1-', 'n'), @one(e.contexts, 'iglu:a/one/jsonschema/1-', 't')", ["3", "3"]),
        ("@one(e.contexts, 'iglu:a/none/jsonschema/1-', 'n')", [None]),
    ],
)
def test_a_property_is_the_same_text_or_number_wherever_it_is_asked_for(select: str, rows: list[Any]) -> None:
    for found in of_one_event(f"SELECT {select} FROM atomic.events AS e ORDER BY e.contexts IS NULL").values():
        assert [str(value) if isinstance(rows[at], str) else value for at, value in enumerate(found[0])] == rows
        assert found[1] == (None,) * len(rows)


@pytest.mark.parametrize(("field", "value"), [("n", 5), ("t", None), ("in.x", 7), ("in", None), ("nobody", None)])
def test_a_property_that_is_given_is_asked_for(field: str, value: Any) -> None:
    select = "SELECT @data_number(e, :field) FROM atomic.events AS e WHERE e.contexts IS NOT NULL"
    assert of_one_event(select, field) == {"sqlite": [(value,)], "duckdb": [(value,)]}


def test_every_entity_of_a_family_and_model_is_a_row() -> None:
    family = "'iglu:a/one/jsonschema/1-'"
    found = of_one_event(
        "SELECT @item(e.contexts, x, 't') AS t, @item_number(e.contexts, x, 'n') AS n, @item(e.contexts, x, 'nobody') AS o"
        f" FROM @entities(e, contexts, x, {family}) WHERE @is(e.contexts, x, {family})"
    )
    for rows in found.values():
        assert sorted((str(text), number, none) for text, number, none in rows) == [("3", 3, None), ("4", None, None)]


def test_an_entity_in_the_first_place_is_found_there() -> None:
    family = "'iglu:a/other/jsonschema/1-'"
    source = f"@entities(e, contexts, x, {family}) WHERE @is(e.contexts, x, {family})"
    assert of_one_event(f"SELECT @item_number(e.contexts, x, 'n') AS n FROM {source}") == {"sqlite": [(1,)], "duckdb": [(1,)]}
    assert all(written.startswith(LEAD) == (place == 0) for place, written in enumerate(WRITTEN))


@pytest.mark.parametrize(
    ("text", "moment"),
    [("now", NOW), ("30m", NOW - 1_800_000), ("24h", NOW - 86_400_000), ("2w", NOW - 1_209_600_000),
     ("2026-03-16", NOW - 43_200_000), ("2026-03-16 12:00", NOW), ("2026-03-16T13:00:00+01:00", NOW)],
)  # fmt: skip
def test_a_time_is_a_moment_or_how_long_ago(text: str, moment: int) -> None:
    assert asking.moment_ms(text, NOW) == moment


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"since": "yesterday"}, "since: expected a time such as 7d"),
        ({"since": "99999999999d"}, "since: expected a time"),
        ({"top": "many"}, "top: expected a whole number, not 'many'"),
        ({"tip": "3"}, "pages has no parameter 'tip'; it has since, until, app, heartbeat_s, top"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        asking.bound(asking.named("pages"), given, NOW)


def test_a_number_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match="deviations: expected a number, not 'nan'"):
        asking.bound(asking.named("sensor_anomalies"), {"deviations": "nan"}, NOW)


@pytest.mark.parametrize("field", ["", "air..humidity", ".air", "air."])
@pytest.mark.parametrize("name", [one.name for one in asking.questions().values() if "field" in {p.name for p in one.parameters}])
def test_a_property_must_have_a_name(name: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match="field: expected the name of a property"):
        asking.bound(asking.named(name), {"field": field}, NOW)


def test_a_question_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no question 'sesions'; there are .*sessions"):
        asking.named("sesions")


def test_a_page_without_values_has_the_defaults() -> None:
    text, nothing = "SELECT :since, :until, :top, :app", {"since": "", "until": "", "top": "", "app": ""}
    db = sqlite3.connect(":memory:")
    since, until, top, app = db.execute(render(parse("x", FORM + text), PAGE), nothing).fetchone()
    week = db.execute("SELECT julianday(?) - julianday(?)", (until, since)).fetchone()[0]
    assert db.execute(render(parse("x", FORM + text), PAGE), {**nothing, "since": "2026", "top": "7"}).fetchone()[::2] == (
        "2026",
        7,
    )
    db.close()
    assert (round(week, 3), top, app) == (7, 5, "")


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    lines = charting.drawn(Chart("bar", "a", "b"), ("a", "b"), [("x", 8), ("y\x1b", 4), ("z", None), ("x", 8)]).splitlines()
    assert lines[0] == "b by a"
    assert [line.count("█") for line in lines[1:]] == [charting.WIDTH, charting.WIDTH // 2, charting.WIDTH]
    assert lines[2].startswith("y\\x1b ")


def test_a_line_rises_and_falls() -> None:
    lines = charting.drawn(
        Chart("line", "a", "b"), ("a", "b"), [(str(n), n if n <= 36 else 72 - n) for n in range(72)]
    ).splitlines()
    drawing = [line.partition("┤")[2] for line in lines[1 : charting.HEIGHT + 1]]
    assert lines[1].startswith("36 ┤")
    heights = [sum(line[place : place + 1].strip() != "" for line in drawing) for place in range(72)]
    assert heights[36] == charting.HEIGHT
    assert heights[:37] == sorted(heights[:37])
    assert heights[36:] == sorted(heights[36:], reverse=True)
    assert lines[-1].strip() == "0 … 71"


def test_several_series_have_a_line_each() -> None:
    rows = [(day, who, day * size) for day in range(4) for who, size in (("a", 1), ("b", 7))]
    lines = charting.drawn(Chart("line", "d", "n", "w"), ("d", "w", "n"), rows).splitlines()
    assert lines[1:3] == ["a  ▁▁▂▂  3", "b  ▁▃▆█  21"]


def test_a_map_is_darker_where_there_is_more() -> None:
    rows = [("mon", 0, 100.0), ("mon", 1, 50.0), ("tue", 0, 25.0)]
    lines = charting.drawn(Chart("heat", "d", "p", "w"), ("d", "w", "p"), rows).splitlines()
    assert lines[2].split() == ["mon", "█████", "▒▒▒▒▒"]
    assert lines[3].split() == ["tue", "░░░░░"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert charting.drawn(Chart("bar", "a", "b"), ("a", "b"), [("x", None)]) == "nothing to draw"
