"""The SQL pack as Redshift takes it: what is rendered parses as its SQL, and calls only functions that Redshift has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from storage.redshift.tables import Column, Table
from storage.sql import entity_values, parse, questions, render
from storage.sql.dialect import Dialect
from storage.sql.dialects import REDSHIFT
from storage.sql.entity_rows import functions
from tests.peers.redshift_sql import Refused, translate

sqlglot: Any = import_module("sqlglot")
PAGE = Path(__file__).parents[2].joinpath("docs", "redshift.md").read_text("utf-8")
# What stands before a parenthesis and calls nothing.
_WORDS = {"and", "as", "by", "from", "in", "join", "not", "on", "or", "over", "select", "then", "values", "when", "where"}
_SIZED = {"varchar", "decimal"}
# As a store with tables of entities is asked, and as one with SUPER columns.
INSIDE = replace(REDSHIFT, functions=entity_values.functions("atomic."))
BOTH = pytest.mark.parametrize("dialect", [REDSHIFT, INSIDE], ids=["tables", "super"])
HEAD = "-- What?\n-- group: web\n-- column: a  one\n"


@cache
def documented() -> set[str]:
    (told,) = re.findall(r"^Functions: (.+?)\.$", PAGE, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`(\w+)`", told))


def called(sql: str) -> set[str]:
    bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"", "''", sql)
    ctes = set(re.findall(r"(\w+) AS\s+\(", bare))
    return {name.lower() for name in re.findall(r"(\w+)\s?\(", bare) if name not in ctes} - _WORDS - _SIZED


@BOTH
@pytest.mark.parametrize("name", sorted(questions()))
def test_a_question_is_sql_that_redshift_parses(name: str, dialect: Dialect) -> None:
    sql = render(questions()[name], dialect)
    written = re.sub(r"%\((\w+)\)s", "'7'", sql)  # as the driver hands parameters over, apart from the statement
    (tree,) = sqlglot.parse(written, read="redshift", error_level=sqlglot.ErrorLevel.RAISE)
    assert tree.find(sqlglot.exp.Command) is None  # which is what it makes of SQL that it does not know
    assert not list(tree.find_all(sqlglot.exp.Lateral))
    assert translate(sql)


@BOTH
@pytest.mark.parametrize("name", sorted(questions()))
def test_a_question_calls_only_functions_that_are_documented(name: str, dialect: Dialect) -> None:
    assert called(render(questions()[name], dialect)) <= documented()


def test_no_function_is_documented_in_vain() -> None:
    rendered = [render(question, dialect) for question in questions().values() for dialect in (REDSHIFT, INSIDE)]
    assert documented() == {name for sql in rendered for name in called(sql)}


def test_a_with_that_is_materialized_is_refused_by_the_double_and_never_written() -> None:
    with pytest.raises(Refused):
        translate("WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a")
    assert not [name for name, one in questions().items() if "MATERIALIZED" in render(one, REDSHIFT) + render(one, INSIDE)]


TABLES = {
    "iglu:com.acme/thing/jsonschema/1": Table("com_acme_thing_1", (
        Column("sensor_id", "varchar(10)", ("sensorId",)), Column("place.room", "int", ("place", "room")),
        Column("ok", "boolean", ("ok",)), Column("%(top)s", "varchar(9)", ("odd",)),
    )),
    "iglu:com.acme/thing/jsonschema/2": Table("com_acme_thing_2", (Column("sensor_id", "varchar(20)", ("sensorId",)),)),
}  # fmt: skip


def of_tables(select: str, **values: str) -> str:
    return rendered(select, replace(REDSHIFT, schema="s.", functions=functions("s.", lambda: TABLES)), values)


def of_columns(select: str, **values: str) -> str:
    return rendered(select, replace(REDSHIFT, schema="s.", functions=entity_values.functions("s.")), values)


def rendered(select: str, dialect: Dialect, values: Mapping[str, str]) -> str:
    return render(parse("x", f"{HEAD}-- parameter: field text sensorId  which\n{select}"), dialect, values)


def test_what_an_event_says_is_looked_for_in_the_tables_of_every_model() -> None:
    sql = of_tables("SELECT @data(e, 'sensorId') AS a FROM atomic.events AS e @told(e, 'com.acme', 'thing')")
    assert re.findall(r'FROM s\."(\w+)"', sql) == ["com_acme_thing_1", "com_acme_thing_2"]
    assert sql.startswith('SELECT e_data."sensorId" AS a FROM s.events AS e LEFT JOIN (')


def test_an_entity_is_looked_for_in_its_model_only() -> None:
    sql = of_tables("SELECT @item(e.contexts, x, 'ok') AS a FROM @entities(e, contexts, x, 'iglu:com.acme/thing/jsonschema/1-')")
    assert re.findall(r'FROM s\."(\w+)"', sql) == ["com_acme_thing_1"]
    assert "CASE WHEN \"ok\" THEN 'true'" in sql


@pytest.mark.parametrize(
    ("field", "column"),
    [("place.room", 'CAST("place.room" AS double precision)'), ("sensorId", "CAST(NULL AS double precision)"),
     ("nobody') --", "CAST(NULL AS double precision)"), ("@ms(x)", "CAST(NULL AS double precision)")],
    ids=["number", "text", "quote", "macro"],
)  # fmt: skip
def test_a_property_that_is_given_chooses_a_column_and_is_never_part_of_the_statement(field: str, column: str) -> None:
    sql = of_tables("SELECT @data_number(e, :field) AS a FROM atomic.events AS e @told(e, 'com.acme', 'thing')", field=field)
    assert f'{column} AS "field as number"' in sql
    assert "nobody" not in sql and "@ms" not in sql


def test_a_table_that_is_not_there_has_no_rows() -> None:
    sql = of_tables("SELECT @data(e, :field) AS a FROM atomic.events AS e @told(e, 'com.acme', 'other')")
    assert "FROM s.events WHERE 1 = 0) AS e_data ON" in sql


@pytest.mark.parametrize("macro", ["@data(e, 'x')", "@data_number(e, 'x')", "@one(e.contexts, 'iglu:a/b/jsonschema/1-', 'x')"])
def test_a_question_that_joins_nothing_of_what_it_uses_is_a_mistake(macro: str) -> None:
    with pytest.raises(ValueError, match=r"there is no @(told|first)\(e,"):
        of_tables(f"SELECT {macro} AS a FROM atomic.events AS e")


# Where they are columns ------------------------------------------------------------------------------------------------


def test_what_an_event_says_is_looked_for_in_its_column_and_joined_to_nothing() -> None:
    sql = of_columns("SELECT @data_number(e, 'place.roomNo') AS a FROM atomic.events AS e @told(e, 'com.acme', 'thing')")
    way = 'e.unstruct_event.data.data."place"."roomNo"'
    assert sql == (
        f"SELECT CASE WHEN json_typeof({way}) = 'number' THEN CAST({way} AS double precision) END AS a FROM s.events AS e "
    )


def test_entities_are_taken_out_of_the_column_that_is_named_and_of_the_period() -> None:
    sql = of_columns("SELECT @item(e.contexts, x, 'ok') AS a FROM @entities(e, contexts, x, 'iglu:com.acme/thing/jsonschema/1-')")
    assert sql.startswith('SELECT x."ok" AS a FROM s.events AS e JOIN (SELECT s.event_id AS root_id,')
    assert "FROM s.events AS s, s.contexts.data AS part AT place WHERE s.collector_tstamp >= " in sql
    assert "substring(CAST(part.schema AS varchar(1024)), 1, 33) = 'iglu:com.acme/thing/jsonschema/1-'" in sql


@pytest.mark.parametrize(
    ("field", "way"),
    [("place.roomNo", '."place"."roomNo"'), ('a"b', '."a""b"'), ("a') --", '."a\') --"'), ("@ms(x)", '."@ms(x)"'),
     (":since", '.":since"')],
    ids=["nested", "quote", "comment", "macro", "parameter"],
)  # fmt: skip
def test_a_property_that_is_given_is_a_name_in_quotes(field: str, way: str) -> None:
    sql = of_columns("SELECT @data_number(e, :field) AS a FROM atomic.events AS e @told(e, 'com.acme', 'thing')", field=field)
    assert sql.count(f"(e.unstruct_event.data.data{way}") == 2
    assert not re.sub(r'"(?:[^"]|"")*"', "", sql).count("--")


@pytest.mark.parametrize("field", ["", "a..b", "é" * 64])
def test_a_property_that_is_no_name_is_nothing(field: str) -> None:
    sql = of_columns("SELECT @data(e, :field) AS a FROM atomic.events AS e @told(e, 'com.acme', 'thing')", field=field)
    assert sql.startswith("SELECT CAST(NULL AS varchar(4096)) AS a")
