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

Wanted = Mapping[str, tuple[tuple[str, ...], bool]]  # the column's name -> the way to the property, and whether it is a number
_NUMBERS = ("smallint", "int", "bigint", "decimal", "double precision")
NO_TEXT, NO_NUMBER = "CAST(NULL AS varchar(4096))", "CAST(NULL AS double precision)"


def functions(schema: str, tables: Callable[[], Mapping[str, Table]]) -> Mapping[str, Function]:
    """schema: as it is written before a table, with its dot. tables: by family, as the target noted them."""

    def told(asked: Asked, event: str, vendor: str, *names: str) -> str:
        wanted = wanted_of(asked, asked.uses("data|data_number", f"{event},"))
        owner, known = asked.value(vendor), {asked.value(name) for name in names}
        found = [
            table for key, table in sorted(tables().items()) if key[5:].split("/")[0] == owner and key.split("/")[1] in known
        ]
        rows = _rows(schema, found, wanted, asked, ("schema_name", "schema_version"))
        return (
            f"LEFT JOIN {rows} AS {event}_data ON {same_event(event, f'{event}_data')}"
            f" AND {event}_data.schema_name = {event}.event_name AND {event}_data.schema_version = {event}.event_version"
        )

    def first(asked: Asked, event: str, prefix: str) -> str:
        wanted = wanted_of(asked, asked.uses("one", rf"{event}\.\w+,\s*{re.escape(prefix)},"))
        alias = alias_of(event, prefix)
        return f"LEFT JOIN {_rows(schema, _family(tables(), prefix), wanted, asked, ())} AS {alias} ON {same_event(event, alias)}"

    def entities(asked: Asked, event: str, column: str, alias: str, prefix: str) -> str:
        wanted = wanted_of(asked, asked.uses("item|item_number", rf"{event}\.{column},\s*{alias},"))
        rows = _rows(schema, _family(tables(), prefix), wanted, asked, None)
        return f"{schema}events AS {event} JOIN {rows} AS {alias} ON {same_event(event, alias)}"

    def data(asked: Asked, event: str, path: str) -> str:
        return f"{_joined(asked, f'@told({event},')}{event}_data.{quoted(_name(path))}"

    def data_number(asked: Asked, event: str, path: str) -> str:
        return f"{_joined(asked, f'@told({event},')}{event}_data.{quoted(_name(path, True))}"

    return {"told": told, "first": first, "entities": entities, "data": data, "data_number": data_number, **JOINED}


def _one(asked: Asked, column: str, prefix: str, path: str) -> str:
    event = column.partition(".")[0]
    return f"{_joined(asked, f'@first({event}, {prefix}')}{alias_of(event, prefix)}.{quoted(_name(path))}"


def _item(asked: Asked, column: str, alias: str, path: str) -> str:
    return f"{alias}.{quoted(_name(path))}"


def _item_number(asked: Asked, column: str, alias: str, path: str) -> str:
    return f"{alias}.{quoted(_name(path, True))}"


def _is(asked: Asked, column: str, alias: str, prefix: str) -> str:
    return "1 = 1"  # it is joined as such


# What @first and @entities have joined.
JOINED: Mapping[str, Function] = {"one": _one, "item": _item, "item_number": _item_number, "is": _is}


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


def wanted_of(asked: Asked, uses: Iterable[tuple[str, bool]]) -> Wanted:
    """What the question takes from them. uses: see Asked.uses."""
    return {_name(path, number): (tuple(asked.value(path).split(".")), number) for path, number in uses}


def _name(path: str, number: bool = False) -> str:
    """A path that is a parameter has the parameter's name: what people give is never part of the statement."""
    return (literal(path) or path.removeprefix(":")) + " as number" * number


def _joined(asked: Asked, macro: str) -> str:
    """Nothing. Raises ValueError when the question does not join what it uses."""
    if macro not in asked.sql:
        raise ValueError(f"there is no {macro}…) in {asked.sql!r}")
    return ""


def alias_of(event: str, prefix: str) -> str:
    """Of the family's rows that are joined to an event."""
    return f"{event}_{(literal(prefix) or '').split('/')[1]}"


def same_event(event: str, alias: str) -> str:
    """The condition that a row is of that event."""
    return f"{alias}.root_id = {event}.event_id AND {alias}.root_tstamp = {event}.collector_tstamp"


def _rows(
    schema: str,
    tables: Sequence[Table],
    wanted: Wanted,
    asked: Asked,
    one_of: Iterable[str] | None,
) -> str:
    """Their rows of the period with these columns, in parentheses. one_of: one row for each event and those columns."""
    keys = ["root_id", "root_tstamp", *(one_of or ())]
    kept = ", ".join([*keys, *map(quoted, wanted)])
    if not tables:
        nothing = [f"{NO_NUMBER if number else NO_TEXT} AS {quoted(name)}" for name, (_, number) in wanted.items()]
        empty = ["event_id AS root_id", "collector_tstamp AS root_tstamp", *(f"{NO_TEXT} AS {name}" for name in one_of or ())]
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
        return NO_NUMBER if number else NO_TEXT
    name, kind = quoted(column.name), column.kind.partition("(")[0]
    if number:
        return f"CAST({name} AS double precision)" if kind in _NUMBERS else NO_NUMBER
    if kind == "boolean":
        return f"CASE WHEN {name} THEN 'true' WHEN NOT {name} THEN 'false' END"  # there is no cast
    return name if kind in ("varchar", "char") else f"CAST({name} AS varchar(64))"
