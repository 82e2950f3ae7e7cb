"""What the macros of self-describing parts become where these are rows of tables of their own, named by schema: in Redshift.

    @told(e, 'vendor', 'name', …)      joins what those events say, one row for each event; @data(e, 'x.y') is a column of it
    @first(e, 'iglu:…/1-')             joins one entity of that family for each event; @one(…) is a column of it
    @entities(e, contexts, x, 'iglu:…/1-')   joins each of them; @item(e.contexts, x, 'x.y') is a column of it

Pure: text in, text out. A table or column that is not there is a null. Only rows of the period are read: `root_tstamp` is the
`collector_tstamp` of the event. Joins and no correlated subqueries, of which Redshift takes a few forms only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from protocol.iglu import parse
from protocol.schemas import bundled, uris
from storage.redshift.tables import Column, Table, extended, family, quoted, table_name
from storage.sql.dialect import Asked, Function, literal

_NUMBERS = ("smallint", "int", "bigint", "decimal", "double precision")
_NO_TEXT, _NO_NUMBER = "CAST(NULL AS varchar(4096))", "CAST(NULL AS double precision)"


def functions(schema: str, tables: Callable[[], Mapping[str, Table]]) -> Mapping[str, Function]:
    """schema: as it is written before a table, with its dot. tables: by family, as the target noted them."""

    def told(asked: Asked, event: str, vendor: str, *names: str) -> str:
        wanted = _wanted(asked, asked.uses("data|data_number", f"{event},"))
        owner, known = asked.value(vendor), {asked.value(name) for name in names}
        found = [
            table for key, table in sorted(tables().items()) if key[5:].split("/")[0] == owner and key.split("/")[1] in known
        ]
        rows = _rows(schema, found, wanted, asked, ("schema_name", "schema_version"))
        return (
            f"LEFT JOIN {rows} AS {event}_data ON {_same(event, f'{event}_data')}"
            f" AND {event}_data.schema_name = {event}.event_name AND {event}_data.schema_version = {event}.event_version"
        )

    def first(asked: Asked, event: str, prefix: str) -> str:
        wanted = _wanted(asked, asked.uses("one", rf"{event}\.\w+,\s*{re.escape(prefix)},"))
        alias = _alias(event, prefix)
        return f"LEFT JOIN {_rows(schema, _family(tables(), prefix), wanted, asked, ())} AS {alias} ON {_same(event, alias)}"

    def entities(asked: Asked, event: str, column: str, alias: str, prefix: str) -> str:
        wanted = _wanted(asked, asked.uses("item|item_number", rf"{event}\.{column},\s*{alias},"))
        rows = _rows(schema, _family(tables(), prefix), wanted, asked, None)
        return f"{schema}events AS {event} JOIN {rows} AS {alias} ON {_same(event, alias)}"

    def data(asked: Asked, event: str, path: str) -> str:
        return f"{_joined(asked, f'@told({event},')}{event}_data.{quoted(_name(path))}"

    def data_number(asked: Asked, event: str, path: str) -> str:
        return f"{_joined(asked, f'@told({event},')}{event}_data.{quoted(_name(path, True))}"

    def one(asked: Asked, column: str, prefix: str, path: str) -> str:
        event = column.partition(".")[0]
        return f"{_joined(asked, f'@first({event}, {prefix}')}{_alias(event, prefix)}.{quoted(_name(path))}"

    def item(asked: Asked, column: str, alias: str, path: str) -> str:
        return f"{alias}.{quoted(_name(path))}"

    def item_number(asked: Asked, column: str, alias: str, path: str) -> str:
        return f"{alias}.{quoted(_name(path, True))}"

    def is_(asked: Asked, column: str, alias: str, prefix: str) -> str:
        return "1 = 1"  # it is joined as such

    made: dict[str, Function] = {"told": told, "first": first, "entities": entities, "data": data, "data_number": data_number}
    return made | {"one": one, "item": item, "item_number": item_number, "is": is_}


@cache
def bundled_tables() -> Mapping[str, Table]:
    """As the target makes them of the bundled schemas, by family."""
    found: dict[str, Table] = {}
    for uri in uris():
        key = parse(uri)
        table = found.get(family(key)) or Table(table_name(key, {one.name for one in found.values()}), ())
        found[family(key)], _, _ = extended(table, bundled(uri))
    return found


def _family(tables: Mapping[str, Table], prefix: str) -> list[Table]:
    table = tables.get((literal(prefix) or "").removesuffix("-"))
    return [table] if table else []


def _wanted(asked: Asked, uses: Iterable[tuple[str, bool]]) -> dict[str, tuple[tuple[str, ...], bool]]:
    """The column's name -> the way to the property, and whether a number is wanted."""
    return {_name(path, number): (tuple(asked.value(path).split(".")), number) for path, number in uses}


def _name(path: str, number: bool = False) -> str:
    """A path that is a parameter has the parameter's name: what people give is never part of the statement."""
    return (literal(path) or path.removeprefix(":")) + " as number" * number


def _joined(asked: Asked, macro: str) -> str:
    """Nothing. Raises ValueError when the question does not join what it uses."""
    if macro not in asked.sql:
        raise ValueError(f"there is no {macro}…) in {asked.sql!r}")
    return ""


def _alias(event: str, prefix: str) -> str:
    return f"{event}_{(literal(prefix) or '').split('/')[1]}"


def _same(event: str, alias: str) -> str:
    return f"{alias}.root_id = {event}.event_id AND {alias}.root_tstamp = {event}.collector_tstamp"


def _rows(
    schema: str,
    tables: Sequence[Table],
    wanted: Mapping[str, tuple[tuple[str, ...], bool]],
    asked: Asked,
    one_of: Iterable[str] | None,
) -> str:
    """Their rows of the period with these columns, in parentheses. one_of: one row for each event and those columns."""
    keys = ["root_id", "root_tstamp", *(one_of or ())]
    kept = ", ".join([*keys, *map(quoted, wanted)])
    if not tables:
        nothing = [f"{_NO_NUMBER if number else _NO_TEXT} AS {quoted(name)}" for name, (_, number) in wanted.items()]
        empty = ["event_id AS root_id", "collector_tstamp AS root_tstamp", *(f"{_NO_TEXT} AS {name}" for name in one_of or ())]
        return f"(SELECT {', '.join([*empty, *nothing])} FROM {schema}events WHERE 1 = 0)"
    period = f"root_tstamp >= {asked.parameter('since')} AND root_tstamp < {asked.parameter('until')}"
    selects: list[str] = []
    for table in tables:
        columns = {column.path: column for column in table.columns if column.path}
        values = [f"{_value(columns.get(path), number)} AS {quoted(name)}" for name, (path, number) in wanted.items()]
        if one_of is not None:  # no order is kept there: what sorts first
            order = ", ".join(quoted(columns[path].name) for path, _ in wanted.values() if path in columns) or "root_id"
            values.append(f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {order}) AS row_in_event")
        selects.append(f"SELECT {', '.join([*keys, *values])} FROM {schema}{quoted(table.name)} WHERE {period}")
    rows = " UNION ALL ".join(selects)
    return f"({rows})" if one_of is None else f"(SELECT {kept} FROM ({rows}) AS r WHERE row_in_event = 1)"


def _value(column: Column | None, number: bool) -> str:
    """As text, or as a number; null unless it is one."""
    if column is None:
        return _NO_NUMBER if number else _NO_TEXT
    name, kind = quoted(column.name), column.kind.partition("(")[0]
    if number:
        return f"CAST({name} AS double precision)" if kind in _NUMBERS else _NO_NUMBER
    if kind == "boolean":
        return f"CASE WHEN {name} THEN 'true' WHEN NOT {name} THEN 'false' END"  # there is no cast
    return name if kind in ("varchar", "char") else f"CAST({name} AS varchar(64))"
