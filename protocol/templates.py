"""A template document -> what the values of a compact frame mean: which schema, which fields in which order, at which scale.

Pure but for `bundled`, which reads the files beside it. What is wrong with a document is a BadTemplate that names the place.
protocol/compact.md is the text of it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast, get_args

from protocol.iglu import InvalidUri, parse
from protocol.seams import Json

Kind = Literal["integer", "decimal", "boolean", "enum", "text", "bytes"]

LARGEST_ID, LARGEST_VERSION = 65_535, 8
RESERVED_IDS = 8  # the ids below are ours: bundled ones
LARGEST_CODE = 0x7FFF_FFFF  # of a number on the wire, either sign; one more below means "absent"
_MOST_FIELDS, _MOST_SCALE, _MOST_BYTES = 32, 9, 200
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*(?:\.[A-Za-z_$][A-Za-z0-9_$-]*)*")
# What each type needs beside a name, and what it may have.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "integer": ("offset",),
    "decimal": ("scale", "offset"),
    "boolean": (),
    "enum": ("values",),
    "text": ("most",),
    "bytes": ("most",),
}


class BadTemplate(ValueError):
    """The document is no template; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a reading. name: its path in the data, joined by dots. Two fields are equal when they mean the same.

    scale: decimal digits. offset: what the number on the wire counts from, in the last of those digits. values: of an enum.
    most: bytes of a text, or of bytes that are told as hex digits.
    """

    name: str
    type: Kind
    scale: int = 0
    offset: int = 0
    values: tuple[str, ...] = ()
    most: int = 0
    unit: str = field(default="", compare=False)

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.name.split("."))


@dataclass(frozen=True, slots=True)
class Template:
    """id and version name it on the wire. Two are equal when the same frame means the same under both."""

    id: int
    version: int
    schema: str
    fields: tuple[Field, ...]
    app_id: str = ""
    about: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """As failed events name it."""
        return f"{self.id}/{self.version}"

    @property
    def number(self) -> int:
        """As a frame names it."""
        return self.id << 3 | self.version - 1


def template(document: object) -> Template:
    """Of a parsed TOML or JSON document. Raises BadTemplate."""
    table = _table(document, "the template", ("id", "version", "schema", "fields"), ("app_id", "about"))
    uri = _text(table["schema"], "schema")
    try:
        parse(uri)
    except InvalidUri:
        raise BadTemplate(f"schema: expected iglu:vendor/name/jsonschema/1-0-0, not {uri!r}") from None
    rows = table["fields"]
    if not isinstance(rows, list) or not 1 <= len(cast(list[object], rows)) <= _MOST_FIELDS:
        raise BadTemplate(f"fields: expected a list of 1 to {_MOST_FIELDS} tables")
    fields = tuple(_field(row, f"fields[{n}]") for n, row in enumerate(cast(list[object], rows)))
    paths = [each.path for each in fields]
    for n, path in enumerate(paths):
        for other in paths[n + 1 :]:
            if path[: len(other)] == other[: len(path)]:
                raise BadTemplate(f"fields: {'.'.join(path)} and {'.'.join(other)} are in each other's place")
    return Template(
        _integer(table["id"], "id", 1, LARGEST_ID),
        _integer(table["version"], "version", 1, LARGEST_VERSION),
        uri,
        fields,
        _text(table.get("app_id", ""), "app_id"),
        _text(table.get("about", ""), "about"),
    )


def _field(row: object, place: str) -> Field:
    kind = _table(row, place, ("name", "type"), ("scale", "offset", "values", "most", "unit"))["type"]
    if kind not in get_args(Kind):
        raise BadTemplate(f"{place}.type: expected one of {', '.join(get_args(Kind))}, not {kind!r}")
    table = _table(row, place, ("name", "type"), (*_OPTIONS[kind], "unit"))
    name = _text(table["name"], f"{place}.name")
    if not _NAME.fullmatch(name):
        raise BadTemplate(f"{place}.name: expected a property's name, or a path such as air.temperature, not {name!r}")
    scale, offset, most = 0, 0, 0
    if kind == "decimal":
        scale = _integer(table.get("scale"), f"{place}.scale", 1, _MOST_SCALE)
    if "offset" in table:
        offset = _scaled(table["offset"], scale, f"{place}.offset")
    if kind in ("text", "bytes"):
        most = _integer(table.get("most"), f"{place}.most", 1, _MOST_BYTES)
    values: tuple[str, ...] = ()
    if kind == "enum":
        given = table.get("values")
        found = cast(list[object], given) if isinstance(given, list) else []
        values = tuple(_text(value, f"{place}.values") for value in found)
        if not values or len(set(values)) < len(values):
            raise BadTemplate(f"{place}.values: expected a list of different texts")
    return Field(name, kind, scale, offset, values, most, _text(table.get("unit", ""), f"{place}.unit"))


def _table(value: object, place: str, needed: Sequence[str], possible: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadTemplate(f"{place}: expected a table")
    table = cast(dict[str, Any], value)
    for name in needed:
        if name not in table:
            raise BadTemplate(f"{place}: {name} is missing")
    for name in table:
        if name not in needed and name not in possible:
            raise BadTemplate(f"{place}: no {name!r} here; there are {', '.join((*needed, *possible))}")
    return table


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or any(character < " " for character in value):
        raise BadTemplate(f"{place}: expected a text in one line")
    return value


def _integer(value: object, place: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadTemplate(f"{place}: expected an integer from {least} to {most}, not {value!r}")
    return value


def _scaled(value: object, scale: int, place: str) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        scaled = Decimal(repr(value)).scaleb(scale)
        if scaled.is_finite() and scaled == scaled.to_integral_value() and abs(scaled) <= LARGEST_CODE:
            return int(scaled)
    raise BadTemplate(f"{place}: expected a number with at most {scale} decimal digits, not {value!r}")


# Against the schema -------------------------------------------------------------------------------------------------


def faults(template: Template, schema: Mapping[str, Json]) -> list[str]:
    """Why readings of this template would not be what their schema asks for, each in a line; empty when they can be."""
    found = [fault for each in template.fields for fault in _field_faults(each, schema)]
    found += [
        f"{path}: the schema requires it, no field fills it" for path in _missing(schema, [f.path for f in template.fields])
    ]
    return found


def _property(schema: Mapping[str, Json], name: str) -> Mapping[str, Json] | None:
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, dict) else None
    return found if isinstance(found, dict) else None


_PRODUCES: Mapping[Kind, tuple[str, ...]] = {
    "integer": ("integer", "number"),
    "decimal": ("number",),
    "boolean": ("boolean",),
    "enum": ("string",),
    "text": ("string",),
    "bytes": ("string",),
}


def _field_faults(each: Field, schema: Mapping[str, Json]) -> Iterator[str]:
    for name in each.path:
        inner = _property(schema, name)
        if inner is None:
            yield f"{each.name}: the schema has no such property"
            return
        schema = inner
    types = schema.get("type", list(_PRODUCES[each.type]))
    if not any(kind in _PRODUCES[each.type] for kind in ([types] if isinstance(types, str) else cast(list[str], types))):
        yield f"{each.name}: {each.type} does not fit the schema's type {types}"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and (strange := [value for value in each.values if value not in allowed]):
        yield f"{each.name}: the schema does not allow {', '.join(strange)}"
    longest = schema.get("maxLength")
    if isinstance(longest, int) and each.most * (2 if each.type == "bytes" else 1) > longest:
        yield f"{each.name}: up to {each.most} bytes do not fit the schema's maxLength {longest}"


def _missing(schema: Mapping[str, Json], paths: Sequence[tuple[str, ...]], place: str = "") -> Iterator[str]:
    filled = dict.fromkeys(path[0] for path in paths)
    required = schema.get("required")
    yield from (f"{place}{name}" for name in (required if isinstance(required, list) else ()) if name not in filled)
    for name in filled:
        below = [path[1:] for path in paths if path[0] == name and len(path) > 1]
        if below and (inner := _property(schema, name)) is not None:
            yield from _missing(inner, below, f"{place}{name}.")


# Bundled ------------------------------------------------------------------------------------------------------------


@cache
def bundled() -> Mapping[tuple[int, int], Template]:
    """Ours, by id and version."""
    found = files(__package__ or "protocol").joinpath("templates").iterdir()
    texts = [file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name) if file.name.endswith(".toml")]
    return {(each.id, each.version): each for text in texts if (each := template(tomllib.loads(text)))}


def bundled_template(number: int, version: int) -> Template | None:
    """A look-up that knows ours only."""
    return bundled().get((number, version))
