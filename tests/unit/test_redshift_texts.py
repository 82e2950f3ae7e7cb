"""The SQL that the Redshift target says, word for word (tests/unit/redshift/*.sql), and what a column holds.

After a change that is meant: `SPOORWAY_WRITE_GOLDEN=1 pytest tests/unit/test_redshift_texts.py`, and read the difference.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from protocol.iglu import parse
from protocol.tables import COLUMNS
from storage.redshift import ddl, tables
from storage.redshift.holding import Misfit, holder, text_of
from storage.redshift.loading import copy_sql
from storage.redshift.tables import META, Column, Table
from tests.peers import redshift_copy, redshift_sql

GOLDEN = Path(__file__).parent / "redshift"
KEY = parse("iglu:com.snowplowanalytics.snowplow/linkClick-Extra/jsonschema/1-0-0")
DOCUMENT: Any = {
    "properties": {
        "zeta": {"type": "string"},
        "targetUrl": {"type": "string", "maxLength": 4000},
        "nested": {
            "type": "object",
            "properties": {"deepName": {"type": ["integer", "null"], "maximum": 9}, 'a"b': {"type": "boolean"}},
        },
        "root_id": {"type": "string", "format": "uuid"},
    },
    "required": ["targetUrl", "zeta"],
}


def statements() -> dict[str, str]:
    table, _, _ = tables.extended(Table(tables.table_name(KEY, ()), ()), DOCUMENT)
    access = "IAM_ROLE 'arn:aws:iam::123456789012:role/loader'"
    events = copy_sql("atomic", "events", ddl.CANONICAL, "s3://bucket/in/0a/0.manifest", access, "eu-central-1", True)
    entities = copy_sql("atomic", table.name, (*META, *table.columns), "s3://b/1.manifest", "IAM_ROLE default", "", False)
    return {
        "tables": ";\n\n".join(ddl.create("atomic", ddl.CANONICAL)) + ";\n",
        "entities": tables.create_sql("atomic", table) + ";\n",
        "copy_events": events + ";\n",
        "copy_entities": entities + ";\n",
        "add_column": tables.add_sql("atomic", table, Column("new.thing", "double precision", ("new", "thing"))) + ";\n",
        "widen_column": tables.widen_sql("atomic", table, Column("zeta", "varchar(5000)", ("zeta",))) + ";\n",
    }


@pytest.mark.parametrize("name", sorted(statements()))
def test_the_sql_is_what_was_agreed(name: str) -> None:
    path, text = GOLDEN / f"{name}.sql", statements()[name]
    if os.environ.get("SPOORWAY_WRITE_GOLDEN") == "1":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("name", sorted(statements()))
def test_the_double_takes_it(name: str) -> None:
    for statement in redshift_sql.statements(statements()[name]):
        if statement.startswith("COPY"):
            redshift_copy.parse(statement)
        else:
            redshift_sql.translate(statement)


def test_entities_as_super_are_three_columns_more_in_their_canonical_places() -> None:
    plain, every = (ddl.create("atomic", columns)[0] for columns in (ddl.CANONICAL, ddl.EVERY))
    redshift_sql.translate(every)
    more = [line for line in difflib.ndiff(plain.splitlines(), every.splitlines()) if line[0] in "+-"]
    assert more == [f"+     {name} SUPER," for name in ("contexts", "unstruct_event", "derived_contexts")]
    names = [line.split()[0] for line in every.splitlines() if line.startswith("    ")]
    order = [c.name for c in COLUMNS]
    assert [name for name in names if name in order] == order


def test_events_are_the_canonical_columns_with_their_types_in_order() -> None:
    text = re.sub(r"\s+", " ", (GOLDEN / "tables.sql").read_text("utf-8").split(";")[0])
    found = re.findall(r"[(,] (\w+) ((?:[A-Z]+(?: PRECISION)?)(?:\([\d,]+\))?)(?: DEFAULT GETDATE\(\))? ENCODE (\w+)", text)
    assert [(name, kind.lower()) for name, kind, _ in found[:-1]] == [(c.name, c.redshift) for c in COLUMNS if c.redshift]
    assert {name for name, _, encoding in found if encoding != "ZSTD"} == {"collector_tstamp"}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"enum": ["a", "bcd", None]}, "varchar(3)"),
        ({"enum": ["é"]}, "varchar(2)"),
        ({"enum": ["only"]}, "char(4)"),
        ({"enum": [1, "two"]}, "varchar(3)"),
        ({"enum": [True, False]}, "varchar(5)"),
        ({"type": "integer", "enum": [1, 40_000]}, "int"),
        ({"type": ["boolean", "integer"]}, "varchar(10)"),
        ({"type": ["string", "integer"]}, "varchar(4096)"),
        ({"type": ["string", "null"], "format": "date-time"}, "timestamp"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "array", "items": {}}, "varchar(65535)"),
        ({"type": "integer"}, "bigint"),
        ({"type": "integer", "maximum": 32_767}, "smallint"),
        ({"type": "integer", "maximum": 10, "minimum": -40_000}, "int"),
        ({"type": "integer", "maximum": 2_147_483_647}, "int"),
        ({"type": "integer", "maximum": 2_147_483_648}, "bigint"),
        ({"multipleOf": 1}, "int"),
        ({"type": "number"}, "double precision"),
        ({"type": ["number", "integer"]}, "double precision"),
        ({"type": "number", "multipleOf": 0.01}, "decimal(36,2)"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "string", "minLength": 4, "maxLength": 4}, "char(4)"),
        ({"type": "string", "format": "uuid"}, "char(36)"),
        ({"type": "string", "format": "ipv6"}, "varchar(39)"),
        ({"type": "string", "format": "ipv4"}, "varchar(15)"),
        ({"type": "string", "format": "email"}, "varchar(255)"),
        ({"type": "string", "maxLength": 99}, "varchar(99)"),
        ({"type": "string", "maxLength": 99_999}, "varchar(65535)"),
        ({"type": "string"}, "varchar(4096)"),
        ({}, "varchar(4096)"),
        (True, "varchar(4096)"),
    ],
    ids=str,
)
def test_a_property_has_the_fields_type(schema: Any, kind: str) -> None:
    table, added, _ = tables.extended(Table("t", ()), {"properties": {"x": schema}})
    assert added == list(table.columns) == [Column("x", kind, ("x",))]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("varchar(5)", "ab\tc", None),
        ("varchar(6)", "a\tb", "a    b"),
        ("varchar(4)", "éé", "éé"),
        ("varchar(3)", "éé", None),
        ("varchar(20)", {"a": [1]}, '{"a":[1]}'),
        ("char(3)", "abc", "abc"),
        ("char(3)", "é", None),
        ("smallint", 32_768, None),
        ("smallint", -32_768.0, "-32768"),
        ("int", 1.5, None),
        ("bigint", True, None),
        ("bigint", 2**63, None),
        ("decimal(36,2)", 0.125, "0.13"),
        ("dec(18,2)", 10**16, None),
        ("dec(4,2)", 99.995, None),
        ("double precision", 1e-300, "1e-300"),
        ("double precision", 10**400, None),
        ("double precision", "1.5", None),
        ("boolean", False, "0"),
        ("boolean", 1, None),
        ("timestamp", "2026-01-31T12:00:00Z", "2026-01-31 12:00:00.000000"),
        ("timestamp", "2026-01-31T12:00:00.1234567+05:30", "2026-01-31 06:30:00.123456"),
        ("timestamp", "0001-01-01T00:00:00+01:00", None),
        ("timestamp", 5, None),
        ("date", "2026-01-31", "2026-01-31"),
        ("date", "31.1.2026", None),
    ],
    ids=str,
)
def test_a_column_holds_a_value_or_says_why_not(kind: str, value: Any, text: str | None) -> None:
    def held() -> str:
        found = text_of(value, kind)
        assert found is not None
        return holder(kind, False)(found)

    if text is None:
        with pytest.raises(Misfit) as told:
            held()
        assert told.value.keyword
    else:
        assert held() == text
        column = redshift_copy.Column("x", _format_type(kind), False)
        assert redshift_copy.value_of(redshift_copy.Copy("t", [], "", ""), column, text) is not None


def _format_type(kind: str) -> str:
    """As PostgreSQL calls it."""
    name, bracket, size = kind.partition("(")
    names = {"varchar": "character varying", "char": "character", "dec": "numeric", "decimal": "numeric", "int": "integer"}
    return names.get(name, name) + bracket + size


def test_too_long_a_text_is_cut_between_two_characters() -> None:
    assert holder("varchar(5)", True)("ééé") == "éé"


def test_names_that_are_too_long_are_cut_and_told_apart() -> None:
    key = parse(f"iglu:com.{'x' * 100}/{'y' * 100}/jsonschema/1-0-0")
    other = parse(f"iglu:com.{'x' * 100}/{'y' * 101}/jsonschema/1-0-0")
    names = {tables.table_name(key, ()), tables.table_name(other, ())}
    assert len(names) == 2 and {len(name) for name in names} == {127}
    properties: dict[str, Any] = {"ä" * 200 + end: {} for end in "abc"}
    found = tables.extended(Table("t", ()), {"properties": properties})[0].columns
    assert len({column.name for column in found}) == 3
    assert max(len(column.name.encode()) for column in found) <= 127


def test_columns_beyond_what_a_table_may_have_are_left_out() -> None:
    table, _, _ = tables.extended(Table("t", ()), {"properties": {f"p{n}": {} for n in range(1_590)}})
    assert len(META) + len(table.columns) <= 1_600
