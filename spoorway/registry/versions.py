"""What a new version of a schema does to data of the version before, and whether the version number says so. Pure.

addition: all older data stay valid. revision: some may not, or a typed column changes. model: none does, or a column cannot
hold both. Source: tracker protocol, "Iglu URI and SchemaVer"; docs/schemas.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from protocol.iglu import SchemaKey
from protocol.seams import Json
from spoorway.registry.layout import Document
from spoorway.registry.lint import Finding, types


class Size(IntEnum):
    none = 0
    addition = 1
    revision = 2
    model = 3


class Change(NamedTuple):
    size: Size
    path: str
    message: str


_EVERY_TYPE = frozenset(("null", "boolean", "object", "array", "number", "integer", "string"))
_UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "minLength", "minItems", "minProperties")
_HANDLED = {*_UPPER, *_LOWER, "type", "enum", "properties", "required", "additionalProperties", "items"}
_SAYS_NOTHING = {"title", "description", "default", "id", "$schema", "self", "$supersedes", "$supersededBy"}
_SAME_AS_ABSENT: Mapping[str, Json] = {"uniqueItems": False, "exclusiveMinimum": False, "exclusiveMaximum": False}


def changes(old: Mapping[str, Json], new: Mapping[str, Json], path: str = "$") -> list[Change]:
    """Every difference that matters to data, the gravest first."""
    return sorted(_changes(old, new, path), key=lambda change: -change.size)


def check(history: Sequence[tuple[SchemaKey, Document]]) -> list[tuple[SchemaKey, Finding]]:
    """history: versions of one schema (vendor, name, format). Each is held against the one before it."""
    found: list[tuple[SchemaKey, Finding]] = []
    ordered = sorted(history, key=lambda item: item[0])
    if ordered and ordered[0][0].version != "1-0-0":
        key = ordered[0][0]
        found.append((key, Finding("warning", "first-version", "$", f"the first version here is {key.version}, not 1-0-0")))
    for (before, old), (after, new) in pairwise(ordered):
        found += [(after, finding) for finding in _step(before, old, after, new)]
    return found


def _step(before: SchemaKey, old: Document, after: SchemaKey, new: Document) -> Iterator[Finding]:
    said = Size.model if after.model != before.model else Size.revision if after.revision != before.revision else Size.addition
    if after.version != _next(before, said):
        yield Finding("warning", "version-gap", "$", f"after {before.version} comes {_next(before, said)}, not {after.version}")
    made = changes(old, new)
    needed = made[0].size if made else Size.none
    if needed > said:
        for change in made:
            if change.size > said:
                message = f"{change.message}: a {change.size.name}, so after {before.version} comes {_next(before, needed)}"
                yield Finding("error", "version-too-small", change.path, message)
    elif needed < said and said > Size.addition:
        why = f"{_next(before, Size(max(needed, Size.addition)))} would do: all changes since {before.version} are {needed.name}"
        yield Finding("warning", "version-too-large", "$", why if made else f"nothing changed since {before.version}")
    elif not made:
        yield Finding("warning", "no-change", "$", f"nothing that matters to data changed since {before.version}")


def _next(before: SchemaKey, size: Size) -> str:
    if size == Size.model:
        return f"{before.model + 1}-0-0"
    if size == Size.revision:
        return f"{before.model}-{before.revision + 1}-0"
    return f"{before.model}-{before.revision}-{before.addition + 1}"


def _changes(old: Mapping[str, Json], new: Mapping[str, Json], path: str) -> Iterator[Change]:
    yield from _type(old, new, path)
    yield from _enum(old, new, path)
    for words, upper in ((_UPPER, True), (_LOWER, False)):
        for word in words:
            yield from _bound(word, upper, old.get(word), new.get(word), path)
    yield from _properties(old, new, path)
    yield from _inner("items", old.get("items"), new.get("items"), f"{path}[]")
    for word in (old.keys() | new.keys()) - _HANDLED - _SAYS_NOTHING:
        before, after = (s.get(word) if s.get(word) != _SAME_AS_ABSENT.get(word) else None for s in (old, new))
        if before != after:
            size = Size.addition if after is None else Size.revision
            yield Change(size, path, f"{word} is {'gone' if after is None else 'new' if before is None else 'another'}")


def _type(old: Mapping[str, Json], new: Mapping[str, Json], path: str) -> Iterator[Change]:
    before, after = _expanded(old), _expanded(new)
    if before == after:
        return
    what = f"type {_named(old)} became {_named(new)}"
    if (before & after) <= {"null"} and not before <= {"null"}:
        yield Change(Size.model, path, what)
    elif before <= after and after - before <= {"null"}:
        yield Change(Size.addition, path, what)
    else:
        yield Change(Size.revision, path, what)


def _expanded(schema: Mapping[str, Json]) -> frozenset[str]:
    kinds = types(schema) or _EVERY_TYPE
    return kinds | {"integer"} if "number" in kinds else kinds


def _named(schema: Mapping[str, Json]) -> str:
    return " or ".join(sorted(types(schema))) or "anything"


def _enum(old: Mapping[str, Json], new: Mapping[str, Json], path: str) -> Iterator[Change]:
    before, after = old.get("enum"), new.get("enum")
    if not isinstance(before, list) or not isinstance(after, list):
        if before != after:
            yield Change(Size.addition if after is None else Size.revision, path, f"enum is {'gone' if after is None else 'new'}")
        return
    if lost := [value for value in before if value not in after]:
        yield Change(Size.revision, path, f"enum lost {', '.join(map(str, lost))}")
    if gained := [value for value in after if value not in before]:
        yield Change(Size.addition, path, f"enum gained {', '.join(map(str, gained))}")


def _bound(word: str, upper: bool, before: Json, after: Json, path: str) -> Iterator[Change]:
    if before == after:
        return
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        wider, what = after is None, f"{word} is {'gone' if after is None else 'new'}"
    else:
        wider, what = (after > before) == upper, f"{word} {before} became {after}"
    yield Change(Size.addition if wider else Size.revision, path, what)


def _properties(old: Mapping[str, Json], new: Mapping[str, Json], path: str) -> Iterator[Change]:
    before, after = _table(old), _table(new)
    demanded_before, demanded_after = _names(old), _names(new)
    was_closed, is_closed = old.get("additionalProperties") is False, new.get("additionalProperties") is False
    for name in sorted(after.keys() - before.keys()):
        here = f"{path}.{name}"
        if name in demanded_after:
            yield Change(Size.model, here, "a new property that is required")
        elif was_closed or after[name] == {}:
            yield Change(Size.addition, here, "a new optional property")
        else:
            yield Change(Size.revision, here, "a new property, and older data may have held anything under that name")
    for name in sorted(before.keys() - after.keys()):
        here = f"{path}.{name}"
        if not is_closed:
            yield Change(Size.addition, here, "the property is not described any more")
        elif name in demanded_before:
            yield Change(Size.model, here, "the property, which all older data have, is gone")
        else:
            yield Change(Size.revision, here, "the property is gone")
    for name in sorted(before.keys() & after.keys()):
        yield from _inner(name, before[name], after[name], f"{path}.{name}")
    for name in sorted(demanded_after - demanded_before - (after.keys() - before.keys())):
        yield Change(Size.revision, f"{path}.{name}", "is required now")
    for name in sorted(demanded_before - demanded_after - (before.keys() - after.keys())):
        yield Change(Size.addition, f"{path}.{name}", "is not required any more")
    yield from _others(old.get("additionalProperties", True), new.get("additionalProperties", True), path)


def _others(before: Json, after: Json, path: str) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _changes(before, after, f"{path}.*")
    elif before != after:
        wider = after is True or before is False
        yield Change(
            Size.addition if wider else Size.revision, path, f"{'more' if wider else 'fewer'} additional properties are allowed"
        )


def _inner(word: str, before: Json, after: Json, path: str) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _changes(before, after, path)
    elif before != after:
        yield Change(Size.addition if after is None else Size.revision, path, f"{word} is described otherwise")


def _table(schema: Mapping[str, Json]) -> dict[str, Json]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _names(schema: Mapping[str, Json]) -> set[str]:
    names = schema.get("required")
    return {str(name) for name in names} if isinstance(names, list) else set()
