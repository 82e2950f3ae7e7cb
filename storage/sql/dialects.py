"""What the questions leave open, for each dialect: macros of time and JSON, how a parameter is written, where events are.

Pure: text in, text out. All dialects answer the same: times as text in UTC with milliseconds, days as `yyyy-MM-dd`.

    @asked(e)                 within the period and application that were asked for
    @ms(t)                    milliseconds since 1970 of a timestamp;  @stamp(t), @stamp_of(ms): as text
    @day(t), @hour(t)         as text;  @days(t): days since 1970;  @day_of(days): as text
    @div(a, b)                whole division of what is not negative;  @real(x);  @round(x, n);  @percent(a, b): one decimal
    @data(e, 'x.y')           a property of the self-describing event, as text;  @data_number: null unless it is a number
    @entities(e, contexts, x, 'iglu:…/1-')  the events with every entity
    @is(e.contexts, x, 'iglu:…/1-')         it is of that family;  @item(e.contexts, x, 'p'), @item_number: of its properties
    @one(e.contexts, 'iglu:…/1-', 'p')      property of the first entity of that family, as text
    @told(e, 'vendor', 'name', …), @first(e, 'iglu:…/1-')   what @data and @one look into; for stores that must join it

In the tables below $1, $2, … are a macro's arguments, SQL expressions as they were written; macros may use others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from storage.sql import shapes
from storage.sql.dialect import LEAD, Dialect, literal
from storage.sql.entity_rows import bundled_tables, functions


def _path(root: str, argument: str) -> str:
    """A JSON path: `@path('$.data', 'x.y')`; the second argument may be a parameter."""
    text = literal(argument)
    return f"{root[:-1]}.' || {argument}" if text is None else f"{root[:-1]}.{text}'"


def _keys(root: str, argument: str) -> str:
    """The same as keys, for jsonb's operators: `@keys('data', 'x.y')`."""
    text = literal(argument)
    if text is None:
        return f"string_to_array({root[:-1]}.' || {argument}, '.')"
    return f"'{{{root[1:-1]}.{text}}}'".replace(".", ",")


def _entity_path(family: str, argument: str) -> str:
    return f"'$.data[*] ? (@.schema starts with \"{literal(family)}\").data.{literal(argument)}'"


FUNCTIONS: Mapping[str, Callable[..., str]] = {"path": _path, "keys": _keys, "entity_path": _entity_path}

_SHARED = {
    "who": "coalesce($1.domain_userid, $1.user_id, $1.network_userid)",
    "page": "(coalesce($1.page_urlhost, '') || coalesce($1.page_urlpath, ''))",
    "asked": "$1.collector_tstamp >= :since AND $1.collector_tstamp < :until AND (:app = '' OR $1.app_id = :app)",
    "percent": "@round(100.0 * ($1) / nullif($2, 0), 1)",
    "told": "",
    "first": "",
}

# SQLite: times are text, JSON is text. instr() comes first: far cheaper than taking the JSON of every event apart. -----
_DATA = '"data":'
_SQLITE = {
    **_SHARED,
    "ms": "CAST((julianday($1) - 2440587.5) * 86400000 + 0.5 AS INTEGER)",
    "stamp": "$1",
    "stamp_of": "strftime('%Y-%m-%d %H:%M:%f', ($1) / 1000.0, 'unixepoch')",
    "day": "substr($1, 1, 10)",
    "hour": "(substr($1, 1, 13) || ':00')",
    "days": "CAST(julianday($1) - 2440587.5 AS INTEGER)",
    "day_of": "date(($1) * 86400, 'unixepoch')",
    "div": "(($1) / ($2))",
    "real": "CAST($1 AS REAL)",
    "round": "round($1, $2)",
    "number": "CASE WHEN json_type($1, $2) IN ('integer', 'real') THEN json_extract($1, $2) END",
    "data": "json_extract($1.unstruct_event, @path('$.data.data', $2))",
    "data_number": "@number($1.unstruct_event, @path('$.data.data', $2))",
    "entities": "atomic.events AS $1, json_each($1.$2, '$.data') AS $3",
    # By the place: to ask for x.value would write the entity down, and to look into it take it apart once more.
    "is": "instr($1, $3) > 0 AND CASE WHEN $2.key = 0 AND @leads($1, $3) THEN 1"
    " ELSE substr(json_extract($1, '$.data[' || $2.key || '].schema'), 1, length($3)) = $3 END",
    "item": "json_extract($1, @place($2, $3))",
    "item_number": "@number($1, @place($2, $3))",
    # A text that does not change is not put together for every event.
    "place": "CASE $1.key WHEN 0 THEN @path('$.data[0].data', $2) ELSE '$.data[' || $1.key || @path('].data', $2) END",
    # As our own writing says: no JSON is taken apart to see it.
    "leads": f"instr($1, '{LEAD[LEAD.index(_DATA) :]}' || $2) = {LEAD.index(_DATA) + 1}",
    "one": "CASE WHEN @leads($1, $2) THEN json_extract($1, @path('$.data[0].data', $3)) WHEN instr($1, $2) > 0 THEN"
    " (SELECT json_extract(j.value, @path('$.data', $3)) FROM json_each($1, '$.data') AS j"
    " WHERE substr(json_extract(j.value, '$.schema'), 1, length($2)) = $2 LIMIT 1) END",
}
_SQLITE_NUMBERS = {"integer": "INTEGER", "number": "REAL"}


def _sqlite_parameter(name: str, kind: str, default: str) -> str:
    return f"CAST(:{name} AS {_SQLITE_NUMBERS[kind]})" if kind in _SQLITE_NUMBERS else f":{name}"


_AGO = {"m": "minutes", "h": "hours", "d": "days"}


def _page_parameter(name: str, kind: str, default: str) -> str:
    """For a page whose form may be empty: what is empty has its default."""
    if kind == "time":
        modifier = "" if default == "now" else f", '-{default[:-1]} {_AGO[default[-1]]}'"
        return f"coalesce(nullif(:{name}, ''), strftime('%Y-%m-%d %H:%M:%f', 'now'{modifier}))"
    written = f"coalesce(nullif(:{name}, ''), '{default}')" if default else f":{name}"
    return f"CAST({written} AS {_SQLITE_NUMBERS[kind]})" if kind in _SQLITE_NUMBERS else written


SQLITE = Dialect("sqlite", "atomic.", _sqlite_parameter, _SQLITE)
# The same file, opened by itself and asked from a page.
PAGE = Dialect("sqlite", "", _page_parameter, _SQLITE)

# DuckDB over Parquet: times are timestamps with or without a zone (UTC), JSON is text, see shapes. --------------------------
_DUCKDB = {
    **_SHARED,
    "ms": "epoch_ms($1)",
    "stamp": "strftime(epoch_ms(epoch_ms($1)), '%Y-%m-%d %H:%M:%S.%g')",
    "stamp_of": "strftime(epoch_ms(CAST($1 AS BIGINT)), '%Y-%m-%d %H:%M:%S.%g')",
    "day": "CAST(CAST(epoch_ms(epoch_ms($1)) AS DATE) AS VARCHAR)",
    "hour": "strftime(epoch_ms(epoch_ms($1)), '%Y-%m-%d %H:00')",
    "days": "(epoch_ms($1) // 86400000)",
    "day_of": "CAST(DATE '1970-01-01' + CAST($1 AS INTEGER) AS VARCHAR)",
    "div": "(($1) // ($2))",
    "real": "CAST($1 AS DOUBLE)",
    "round": "round(CAST($1 AS DOUBLE), $2)",
}
_DUCKDB_KINDS = {"time": "TIMESTAMPTZ", "text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE"}


def _duckdb_parameter(name: str, kind: str, default: str) -> str:
    return f"CAST(${name} AS {_DUCKDB_KINDS[kind]})"


DUCKDB = Dialect("duckdb", "atomic.", _duckdb_parameter, _DUCKDB, shapes.FUNCTIONS)

# PostgreSQL: timestamps without a zone hold UTC, JSON is jsonb. CASE is a fence: only what is a number is made one. ----
_POSTGRES = {
    **_SHARED,
    "ms": "CAST(extract(epoch FROM $1) * 1000 AS bigint)",
    "stamp": "to_char($1, 'YYYY-MM-DD HH24:MI:SS.MS')",
    "stamp_of": "to_char(timestamp '1970-01-01' + ($1) * interval '1 millisecond', 'YYYY-MM-DD HH24:MI:SS.MS')",
    "day": "to_char($1, 'YYYY-MM-DD')",
    "hour": "to_char($1, 'YYYY-MM-DD HH24:00')",
    "days": "(CAST($1 AS date) - date '1970-01-01')",
    "day_of": "to_char(date '1970-01-01' + CAST($1 AS integer), 'YYYY-MM-DD')",
    "div": "(($1) / ($2))",
    "real": "CAST($1 AS double precision)",
    "round": "round(CAST($1 AS numeric), $2)",
    "number": "CASE WHEN jsonb_typeof($1 #> $2) = 'number' THEN CAST($1 #>> $2 AS double precision) END",
    "data": "($1.unstruct_event #>> @keys('data.data', $2))",
    "data_number": "@number($1.unstruct_event, @keys('data.data', $2))",
    "entities": "atomic.events AS $1 CROSS JOIN LATERAL jsonb_array_elements($1.$2 -> 'data') AS $3(value)",
    "is": "substr($2.value ->> 'schema', 1, length($3)) = $3",
    "item": "($2.value #>> @keys('data', $3))",
    "item_number": "@number($2.value, @keys('data', $3))",
    "one": "(jsonb_path_query_first($1, @entity_path($2, $3)) #>> '{}')",
}
_POSTGRES_KINDS = {"time": "timestamp", "text": "varchar", "integer": "bigint", "number": "double precision"}


def _postgres_parameter(name: str, kind: str, default: str) -> str:
    return f"CAST(%({name})s AS {_POSTGRES_KINDS[kind]})"


POSTGRES = Dialect("postgres", "atomic.", _postgres_parameter, _POSTGRES)

# Redshift: as an old PostgreSQL, where extract() drops the milliseconds, NUMERIC alone has no decimals, VARCHAR alone 256 bytes,
# and a WITH is never computed before it is asked for. Self-describing parts are rows of tables of their own, see entity_rows,
# or values in SUPER columns, see entity_values.
_REDSHIFT = {
    **{name: macro for name, macro in _SHARED.items() if name not in ("told", "first")},
    "ms": "(CAST(extract(epoch FROM date_trunc('second', $1)) AS bigint) * 1000 + CAST(to_char($1, 'MS') AS bigint))",
    **{name: _POSTGRES[name] for name in ("stamp", "stamp_of", "day", "hour", "days", "day_of", "div", "real")},
    "round": "round(CAST($1 AS decimal(38, 10)), $2)",
}
_REDSHIFT_KINDS = _POSTGRES_KINDS | {"text": "varchar(65535)"}


def _redshift_parameter(name: str, kind: str, default: str) -> str:
    return f"CAST(%({name})s AS {_REDSHIFT_KINDS[kind]})"


REDSHIFT = Dialect("redshift", "atomic.", _redshift_parameter, _REDSHIFT, functions("atomic.", bundled_tables), fence="")

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (SQLITE, DUCKDB, POSTGRES, REDSHIFT)}
