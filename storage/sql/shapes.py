"""What the macros of self-describing parts become in DuckDB: each JSON text is parsed once, for all that a question wants of it.

Text for text each use asks for the same expression, a struct with everything wanted, which DuckDB works out once. Entities are
unnested in the list of a SELECT: a join with `unnest` would group and join by the whole text. Pure: text in, text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from storage.sql.dialect import LEAD, Asked, Function, literal


def _entities(asked: Asked, event: str, column: str, alias: str, prefix: str) -> str:
    shape = _shape(asked.uses("item|item_number", rf"{event}\.{column},\s*{alias},"))
    rows = f"unnest(json_transform({column}, {_several(shape)}).data) AS {alias}"
    return f"(SELECT *, {rows} FROM atomic.events WHERE contains({column}, {prefix})) AS {event}"


def _is(asked: Asked, column: str, alias: str, prefix: str) -> str:
    return f"starts_with({alias}.schema, {prefix})"


def _item(asked: Asked, column: str, alias: str, path: str) -> str:
    return _text(f"{alias}.data", path, asked.uses("item|item_number", rf"{re.escape(column)},\s*{alias},"))


def _item_number(asked: Asked, column: str, alias: str, path: str) -> str:
    return _number(f"{alias}.data.{_steps(path)}")


def _one(asked: Asked, column: str, prefix: str, path: str) -> str:
    uses = asked.uses("one", rf"{re.escape(column)},\s*{re.escape(prefix)},")
    if len(set(uses)) == 1:  # of a single property, in the first place as most have it: half the work
        leads = f"starts_with({column}, '{LEAD}' || {prefix})"
        first = f"json_extract_string({column}, '$.data[0].data.{literal(path)}')"
        return f"CASE WHEN {leads} THEN {first} ELSE {_found(column, prefix, uses)}.{_steps(path)} END"
    return f"{_found(column, prefix, uses)}.{_steps(path)}"


def _found(column: str, prefix: str, uses: Iterable[tuple[str, bool]]) -> str:
    """What the first entity of that family says."""
    found = f"CASE WHEN contains({column}, {prefix}) THEN {column} END"
    every = f"json_transform({found}, {_several(_shape(uses))}).data"
    return f"list_filter({every}, lambda j: starts_with(j.schema, {prefix}))[1].data"


def _data(asked: Asked, event: str, path: str) -> str:
    if literal(path) is None:
        return f"json_extract_string({event}.unstruct_event, '$.data.data.' || {asked.parameter(path[1:])})"
    uses = asked.uses("data|data_number", f"{event},")
    return _text(_told(event, uses), path, uses)


def _data_number(asked: Asked, event: str, path: str) -> str:
    if literal(path) is None:
        return _number(f"json_extract({event}.unstruct_event, '$.data.data.' || {asked.parameter(path[1:])})")
    return _number(f"{_told(event, asked.uses('data|data_number', f'{event},'))}.{_steps(path)}")


FUNCTIONS: Mapping[str, Function] = {
    "entities": _entities,
    "is": _is,
    "item": _item,
    "item_number": _item_number,
    "one": _one,
    "data": _data,
    "data_number": _data_number,
}


def _told(event: str, uses: Iterable[tuple[str, bool]]) -> str:
    return f"json_transform({event}.unstruct_event, {_quoted({'data': {'data': _shape(uses)}})}).data.data"


def _several(shape: Mapping[str, Any]) -> str:
    return _quoted({"data": [{"schema": "VARCHAR", "data": shape}]})


def _shape(uses: Iterable[tuple[str, bool]]) -> dict[str, Any]:
    """A struct as json_transform takes it. What is wanted as a number stays JSON, which tells numbers from texts."""
    shape: dict[str, Any] = {}
    for argument, number in sorted(set(uses)):  # numbers come last
        if path := literal(argument):
            *above, last = path.split(".")
            inner = shape
            for step in above:
                inner = inner.setdefault(step, {})
            inner[last] = "JSON" if number else "VARCHAR"
    return shape


def _text(struct: str, path: str, uses: Iterable[tuple[str, bool]]) -> str:
    value = f"{struct}.{_steps(path)}"
    return f"json_extract_string({value}, '$')" if (path, True) in uses else value


def _number(value: str) -> str:
    """Null for any other JSON: a text is in quotes there."""
    return f"TRY_CAST(CAST({value} AS VARCHAR) AS DOUBLE)"


def _steps(path: str) -> str:
    return ".".join(f'"{step}"' for step in (literal(path) or "").split("."))


def _quoted(shape: Mapping[str, Any]) -> str:
    return f"'{json.dumps(shape)}'"
