"""What the macros of self-describing parts become where these are SUPER columns of `events`: in Redshift, entities = "super".

    @data(e, 'x.y')                    a way into e.unstruct_event; @told joins nothing
    @first(e, 'iglu:…/1-')             joins the first entity of that family for each event; @one(…) is a column of it
    @entities(e, contexts, x, 'iglu:…/1-')   joins each of them; @item(e.contexts, x, 'x.y') is a column of it

Pure: text in, text out. The ways are PartiQL's, in quotes: without SETTING a session does not find names with capitals. Joins and
no correlated subqueries, as in entity_rows. Source: Amazon Redshift Database Developer Guide, "Querying semi-structured data".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from storage.redshift.tables import quoted
from storage.sql.dialect import Asked, Function, literal
from storage.sql.entity_rows import JOINED, NO_NUMBER, NO_TEXT, Wanted, alias_of, same_event, wanted_of

SETTING = "SET enable_case_sensitive_identifier TO true"
_LONGEST, _LONGEST_NAME = 65_535, 127  # bytes of a VARCHAR, and of an identifier


def functions(schema: str) -> Mapping[str, Function]:
    """schema: as it is written before a table, with its dot."""

    def told(asked: Asked, event: str, vendor: str, *names: str) -> str:
        return ""

    def data(asked: Asked, event: str, path: str) -> str:
        return _value(f"{event}.unstruct_event.data.data", tuple(asked.value(path).split(".")), False)

    def data_number(asked: Asked, event: str, path: str) -> str:
        return _value(f"{event}.unstruct_event.data.data", tuple(asked.value(path).split(".")), True)

    def first(asked: Asked, event: str, prefix: str) -> str:
        (column,) = set(re.findall(rf"@one\({event}\.(\w+),\s*{re.escape(prefix)},", asked.sql))
        wanted = wanted_of(asked, asked.uses("one", rf"{event}\.\w+,\s*{re.escape(prefix)},"))
        place = "row_number() OVER (PARTITION BY s.event_id, s.collector_tstamp ORDER BY place) AS row_in_event"
        rows = _rows(schema, column, prefix, wanted, asked, place)
        kept = ", ".join(["root_id", "root_tstamp", *map(quoted, wanted)])
        alias = alias_of(event, prefix)
        return f"LEFT JOIN (SELECT {kept} FROM ({rows}) AS r WHERE row_in_event = 1) AS {alias} ON {same_event(event, alias)}"

    def entities(asked: Asked, event: str, column: str, alias: str, prefix: str) -> str:
        wanted = wanted_of(asked, asked.uses("item|item_number", rf"{event}\.{column},\s*{alias},"))
        rows = _rows(schema, column, prefix, wanted, asked)
        return f"{schema}events AS {event} JOIN ({rows}) AS {alias} ON {same_event(event, alias)}"

    return {"told": told, "first": first, "entities": entities, "data": data, "data_number": data_number, **JOINED}


def _rows(schema: str, column: str, prefix: str, wanted: Wanted, asked: Asked, *more: str) -> str:
    """A SELECT of the entities of that family in the period, one row for each, with these properties as columns."""
    values = [f"{_value('part.data', path, number)} AS {quoted(name)}" for name, (path, number) in wanted.items()]
    columns = ", ".join(["s.event_id AS root_id", "s.collector_tstamp AS root_tstamp", *values, *more])
    period = f"s.collector_tstamp >= {asked.parameter('since')} AND s.collector_tstamp < {asked.parameter('until')}"
    family = f"substring(CAST(part.schema AS varchar(1024)), 1, {len(literal(prefix) or '')}) = {prefix}"
    return f"SELECT {columns} FROM {schema}events AS s, s.{column}.data AS part AT place WHERE {period} AND {family}"


def _value(root: str, path: tuple[str, ...], number: bool) -> str:
    """What is there as text, or as a number; null unless it is one."""
    if not all(0 < len(key.encode()) <= _LONGEST_NAME for key in path):
        return NO_NUMBER if number else NO_TEXT
    way = ".".join([root, *map(quoted, path)])
    if number:
        return f"CASE WHEN json_typeof({way}) = 'number' THEN CAST({way} AS double precision) END"
    return (
        f"CASE WHEN json_typeof({way}) = 'string' THEN CAST({way} AS varchar({_LONGEST}))"
        f" WHEN json_typeof({way}) <> 'null' AND json_size({way}) <= {_LONGEST} THEN json_serialize({way}) END"
    )
