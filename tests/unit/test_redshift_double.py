"""The double of Redshift refuses what Redshift refuses: its rules (tests/peers/redshift_double.md), one by one."""

from __future__ import annotations

import gc
import gzip
import io
import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from tests.peers import redshift_copy
from tests.peers.redshift_copy import Column, LoadError
from tests.peers.redshift_double import PASSWORD, ROLE, Cut, RedshiftDouble
from tests.peers.redshift_sql import Refused, translate

driver: Any = import_module("redshift_connector")
COPY = f"COPY t (a, b) FROM 's3://abc/x' IAM_ROLE '{ROLE}' DELIMITER '\\t'"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX i ON t (a)",
        "CREATE UNIQUE INDEX i ON t (a)",
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO t VALUES (1) RETURNING a",
        "SELECT DISTINCT ON (a) * FROM t",
        "SELECT count(*) FILTER (WHERE a > 1) FROM t",
        "SELECT a::jsonb FROM t",
        "SELECT jsonb_agg(a) FROM t",
        "SELECT string_agg(a, ',') FROM t",
        "SELECT * FROM t WHERE a = ANY($1)",
        "SELECT * FROM t FOR UPDATE",
        "SELECT a AS percent FROM t",
        "WITH a AS (SELECT b FROM t) SELECT b FROM a ORDER BY system",
        "WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a",
        "CREATE SEQUENCE s",
        "CREATE TABLE t (a jsonb)",
        "CREATE TABLE t (a uuid)",
        "CREATE TABLE t (a bytea)",
        "CREATE TABLE t (a serial)",
        "CREATE TABLE t (a varchar(65536))",
        "CREATE TABLE t (a char(4097))",
        "CREATE TABLE t (a decimal(39,2))",
        "CREATE TABLE t (a varchar(5) ENCODE az64)",
        "CREATE TABLE t (a int ENCODE zstandard)",
        "CREATE TABLE t (a int CHECK (a > 1))",
        "CREATE TABLE t (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE t (a int, b int) DISTKEY (a, b)",
        "ALTER TABLE t ADD COLUMN IF NOT EXISTS a int",
        "ALTER TABLE t ADD COLUMN a int, ADD COLUMN b int",
        "ALTER TABLE t ADD COLUMN a int NOT NULL",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
    ],
)
def test_sql_that_redshift_refuses(sql: str) -> None:
    with pytest.raises(Refused):
        translate(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'ON CONFLICT', \"returning\" FROM t -- CREATE INDEX",
        "SELECT 'system' AS \"system\" FROM t",
        "CREATE TEMP TABLE s (LIKE t)",
        "CREATE TABLE t (a int IDENTITY(0,1) ENCODE az64 DISTKEY, b varchar(max) SORTKEY UNIQUE) DISTSTYLE KEY BACKUP NO",
        "CREATE TABLE t (a dec(18,2) DEFAULT 0.5 NOT NULL, PRIMARY KEY (a)) DISTSTYLE EVEN COMPOUND SORTKEY (a)",
        "LOCK t",
    ],
)
def test_sql_that_redshift_takes(sql: str) -> None:
    assert translate(sql)


@pytest.mark.parametrize(
    ("sql", "case_sensitive", "row"),
    [
        ('SELECT json_serialize(e.doc.data."camelCase") FROM t AS e', True, ["1.5"]),
        ('SELECT e.doc.data."camelCase" FROM t AS e', False, [None]),
        ("SELECT e.doc.data.camelCase FROM t AS e", True, [None]),
        ("SELECT CAST(e.doc.DATA.name AS varchar(20)) FROM t AS e", True, ['a "text"']),
        ("SELECT CAST(e.doc.data AS varchar(20)) FROM t AS e", True, [None]),
        ("SELECT CAST(e.doc.data.name AS double precision) FROM t AS e", True, [None]),
        ('SELECT CAST(e.doc.data."camelCase" AS double precision) FROM t AS e', True, [1.5]),
        ("SELECT json_typeof(e.doc.data.nobody.nothing) FROM t AS e", True, [None]),
        ("SELECT json_typeof(e.doc.data), json_typeof(e.doc.list) FROM t AS e", True, ["object", "array"]),
        ("SELECT count(*) FROM t AS e, e.doc.data AS x", True, [0]),
        ("SELECT CAST(x.k AS varchar(9)), place FROM t AS e, e.doc.list AS x AT place WHERE place = 1", True, ["b", 1]),
        ("SELECT n FROM (SELECT count(*) AS n FROM t AS e, e.doc.list AS x WHERE e.id = 7) AS r", True, [2]),
    ],
)
def test_ways_into_super_columns(double: RedshiftDouble, sql: str, case_sensitive: bool, row: list[Any]) -> None:
    with double.connect() as connection:
        cursor = connection.cursor()
        if case_sensitive:
            cursor.execute("SET enable_case_sensitive_identifier TO true")
        cursor.execute("CREATE TEMP TABLE t (id int, doc super)")
        document = {"data": {"camelCase": 1.5, "name": 'a "text"'}, "list": [{"k": "a"}, {"k": "b"}]}
        cursor.execute("INSERT INTO t SELECT 7, json_parse(%s)", (json.dumps(document),))
        cursor.execute(sql)
        assert [list(one) for one in cursor.fetchall()] == [row]


def test_a_varchar_is_widened_outside_of_transactions_only() -> None:
    sql = "ALTER TABLE t ALTER COLUMN a TYPE VARCHAR(9)"
    assert translate(sql)
    with pytest.raises(Refused, match="cannot run inside a transaction block"):
        translate(sql, in_transaction=True)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t FROM STDIN",
        "COPY t FROM 's3://abc/x'",
        "COPY t FROM 's3://abc/x' IAM_ROLE 'loader'",
        "COPY t FROM 's3://abc/x' ACCESS_KEY_ID 'a'",
        f"{COPY} GZIPPED",
        f"{COPY} MAXERROR 100001",
        f"{COPY} FORMAT AS PARQUET",
        COPY.replace("'\\t'", "'||'"),
        "COPY t FROM '/tmp/file' IAM_ROLE default",
    ],
)
def test_copies_that_are_refused(sql: str) -> None:
    with pytest.raises(Refused):
        redshift_copy.parse(sql)


class Bucket:
    """As much of boto3's client as a COPY without a manifest needs."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def list_objects_v2(self, **_: Any) -> Any:
        return {"Contents": [{"Key": "x"}]}

    def get_object(self, **_: Any) -> Any:
        return {"Body": io.BytesIO(self.body)}


def load(line: str, kind: str, options: str = "", not_null: bool = False) -> list[list[str | None]] | list[LoadError]:
    """What one line of one column becomes: rows, or errors."""
    errors: list[LoadError] = []
    copy = redshift_copy.parse(f"{COPY} {options}")
    found = list(redshift_copy.rows(copy, [Column("a", kind, not_null)], Bucket(f"{line}\n".encode()), errors.append))
    return errors or found


@pytest.mark.parametrize(
    ("line", "kind", "options", "value"),
    [
        ("", "character varying(5)", "", ""),
        ("", "character varying(5)", "EMPTYASNULL", None),
        ("", "integer", "", None),
        ("\\N", "character varying(5)", "", None),
        ("\\N", "character varying(5)", "NULL AS 'x'", "\\N"),
        ("a\\tb", "character varying(5)", "", "a\\tb"),
        ("a\\\\b", "character varying(5)", "ESCAPE", "a\\b"),
        ("ééé", "character varying(5)", "TRUNCATECOLUMNS", "éé"),
        ("1.239", "numeric(18,2)", "", "1.23"),
        ("1.239", "numeric(18,2)", "ROUNDEC", "1.24"),
        ("1e-3", "double precision", "", "1e-3"),
        ('{"a":"\\t"}', "jsonb", "", '{"a":"\\t"}'),
    ],
)
def test_a_field_becomes_a_value(line: str, kind: str, options: str, value: str | None) -> None:
    assert load(line, kind, options) == [[value]]


@pytest.mark.parametrize(
    ("line", "kind", "code"),
    [
        ("ééé", "character varying(5)", 1204),
        ("é", "character(5)", 1220),
        ("x", "integer", 1207),
        ("2147483648", "integer", 1207),
        ("1e3", "numeric(18,2)", 1207),
        ("99999999999999999", "numeric(18,2)", 1209),
        ("1e999", "double precision", 1208),
        ("maybe", "boolean", 1210),
        ("2026-02-30 00:00:00", "timestamp without time zone", 1206),
        ("0000-01-01 00:00:00", "timestamp without time zone", 1206),
        ("31.1.2026", "date", 1205),
        ("{'a':1}", "jsonb", 1224),
        ("1\t2", "integer", 1202),
    ],
)
def test_a_field_is_refused_with_the_code_of_its_fault(line: str, kind: str, code: int) -> None:
    (error,) = load(line, kind)
    assert isinstance(error, LoadError)
    assert (error.code, error.line) == (code, 1)


def test_a_null_where_none_may_be_is_refused() -> None:
    (error,) = load("", "integer", not_null=True)
    assert isinstance(error, LoadError) and error.code == 1213


# Over the wire -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path_factory.mktemp("redshift")) as made:
        made.s3.bucket("abc")
        yield made


@pytest.fixture
def connection(double: RedshiftDouble) -> Iterator[Any]:
    made = double.connect()
    cursor = made.cursor()
    cursor.execute("DROP TABLE IF EXISTS t")
    cursor.execute("CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(5)) DISTKEY (a)")
    made.commit()
    yield made
    made.close()


def put(double: RedshiftDouble, lines: str) -> None:
    client = double.s3.client()
    client.put_object(Bucket="abc", Key="x.gz", Body=gzip.compress(lines.encode()))
    entries = {"entries": [{"url": "s3://abc/x.gz", "mandatory": True}]}
    client.put_object(Bucket="abc", Key="x", Body=json.dumps(entries))


def test_no_key_is_enforced_and_a_varchar_counts_bytes(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (1, 'x'), (1, 'x')")
    with pytest.raises(driver.ProgrammingError, match="value too long for type character varying"):
        cursor.execute("INSERT INTO t VALUES (2, %s)", ("ééé",))


def test_a_copy_is_part_of_the_transaction(double: RedshiftDouble, connection: Any) -> None:
    put(double, "1\tone\n2\ttwo\n")
    cursor = connection.cursor()
    cursor.execute(f"{COPY} MANIFEST GZIP")
    cursor.execute("SELECT pg_last_copy_count(), count(*) FROM t")
    assert cursor.fetchall() == ([2, 2],)
    connection.rollback()
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchall() == ([0],)


def test_rows_that_do_not_fit_are_left_out_up_to_maxerror_and_told_even_after_a_rollback(
    double: RedshiftDouble, connection: Any
) -> None:
    put(double, "1\tone\nx\ttwo\n3\tthree!\n")
    cursor = connection.cursor()
    with pytest.raises(driver.ProgrammingError, match="Check 'sys_load_error_detail'"):
        cursor.execute(f"{COPY} MANIFEST GZIP MAXERROR 2")
    with pytest.raises(driver.ProgrammingError, match="transaction is aborted"):
        cursor.execute("SELECT 1")
    connection.rollback()
    cursor.execute(
        "SELECT line_number, trim(column_name), error_code FROM sys_load_error_detail WHERE file_name = 's3://abc/x.gz'"
        " ORDER BY line_number"
    )
    assert cursor.fetchall() == ([2, "a", 1207], [3, "b", 1204])
    cursor.execute("SELECT colname, raw_field_value, raw_line FROM stl_load_errors WHERE line_number = 3")
    assert [one.rstrip() for one in cursor.fetchall()[0]] == ["b", "three!", "3\tthree!"]
    cursor.execute(f"{COPY} MANIFEST GZIP MAXERROR 3")
    cursor.execute("SELECT pg_last_copy_count()")
    assert cursor.fetchall() == ([1],)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (COPY.replace(ROLE, ROLE + "2") + " MANIFEST GZIP", "not authorized to assume IAM Role"),
        (COPY.replace("abc/x", "abc/none") + " MANIFEST GZIP", "S3ServiceException"),
        (COPY.replace("(a, b)", "(a, c)") + " MANIFEST GZIP", 'column "c" of relation'),
    ],
    ids=["role", "manifest", "column"],
)
def test_a_copy_that_cannot_be_ends_its_transaction(double: RedshiftDouble, connection: Any, sql: str, message: str) -> None:
    put(double, "1\tone\n")
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (1, 'x')")
    with pytest.raises(driver.ProgrammingError, match=message):
        cursor.execute(sql)
    connection.rollback()
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchall() == ([0],)


def test_the_driver_finds_the_catalogue_it_asks_for(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT table_type FROM pg_catalog.svv_all_tables WHERE table_name = 't'")
    assert cursor.fetchall() == (["TABLE"],)


@pytest.mark.parametrize("after", [False, True])
def test_a_connection_is_lost_before_or_after_the_statement_was_done(
    double: RedshiftDouble, connection: Any, after: bool
) -> None:
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (1, 'x')")
    double.cuts = [Cut("^commit", after=after)]
    with pytest.raises((driver.Error, OSError)):
        connection.commit()
    with double.query() as db:
        assert db.execute("SELECT count(*) FROM t").fetchall() == [(1 if after else 0,)]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",  # the driver does not close its socket
    r"ignore:ssl\.:DeprecationWarning",
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"password": PASSWORD + "x"}, "password authentication failed"),
        ({"database": "x"}, "does not exist"),
        ({"ssl": True}, "SSL"),
    ],
    ids=["password", "database", "tls"],
)
def test_who_may_not_come_in_is_told_why(double: RedshiftDouble, options: dict[str, Any], message: str) -> None:
    with pytest.raises(driver.Error, match=message):
        double.connect(**options)
    gc.collect()
