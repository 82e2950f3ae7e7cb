"""A schema file -> a function that names what does not fit. Enough of JSON Schema draft 4 for flat and nested event data.

A keyword that is not in KEYWORDS or ABOUT is refused at loading: a check that ignores a rule would be worse than none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

ABOUT = frozenset({"$schema", "$id", "id", "self", "title", "description", "default", "examples", "$comment", "format"})
KEYWORDS = frozenset({
    "type", "enum", "required", "properties", "additionalProperties", "items", "minItems", "maxItems", "uniqueItems",
    "minLength", "maxLength", "pattern", "minimum", "maximum", "multipleOf",
})  # fmt: skip

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, (list, tuple)),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
}


def load(file: str | Path) -> Callable[[Any], list[str]]:
    """Raises OSError, and ValueError for a file that is no schema or uses a keyword that is not known here."""
    schema = json.loads(Path(file).read_text("utf-8"))
    _understood(schema, str(file))
    return lambda data: list(_wrong(schema, data, "$"))


def _understood(parsed: Any, where: str) -> None:
    if isinstance(parsed, bool):
        return
    if not isinstance(parsed, dict):
        raise ValueError(f"{where}: not a schema")
    schema = cast("dict[str, Any]", parsed)
    if unknown := schema.keys() - KEYWORDS - ABOUT:
        raise ValueError(f"{where}: cannot check {', '.join(sorted(unknown))}; known are {', '.join(sorted(KEYWORDS))}")
    for kind in _listed(schema.get("type", [])):
        if kind not in _TYPES:
            raise ValueError(f"{where}: no type {kind}")
    re.compile(schema.get("pattern", ""))
    for name, inner in schema.get("properties", {}).items():
        _understood(inner, f"{where}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            _understood(schema[name], f"{where}.{name}")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _wrong(schema: Any, value: Any, at: str) -> Iterator[str]:
    if isinstance(schema, bool):
        if not schema:
            yield f"{at}: not allowed"
        return
    if "type" in schema and not any(_TYPES[kind](value) for kind in _listed(schema["type"])):
        yield f"{at}: not {' or '.join(_listed(schema['type']))}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: not one of {schema['enum']}"
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value)
        known = schema.get("properties", {})
        yield from (f"{at}: lacks {name}" for name in schema.get("required", []) if name not in value)
        for name, inner in value.items():
            yield from _wrong(known.get(name, schema.get("additionalProperties", True)), inner, f"{at}.{name}")
    elif isinstance(value, (list, tuple)):
        value = cast("list[Any]", value)  # a tuple is as good
        yield from _size(schema, "Items", len(value), at)
        if schema.get("uniqueItems") and any(item in value[:place] for place, item in enumerate(value)):
            yield f"{at}: the same twice"
        for place, item in enumerate(value):
            yield from _wrong(schema.get("items", True), item, f"{at}[{place}]")
    elif isinstance(value, str):
        yield from _size(schema, "Length", len(value), at)
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{at}: does not match {schema['pattern']}"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield f"{at}: below {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{at}: above {schema['maximum']}"
        if "multipleOf" in schema and (value / schema["multipleOf"]) % 1:
            yield f"{at}: no multiple of {schema['multipleOf']}"


def _size(schema: dict[str, Any], what: str, size: int, at: str) -> Iterator[str]:
    if size < schema.get(f"min{what}", 0):
        yield f"{at}: fewer than {schema[f'min{what}']}"
    if size > schema.get(f"max{what}", size):
        yield f"{at}: more than {schema[f'max{what}']}"
