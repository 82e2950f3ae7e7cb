"""What is wrong, or unwise, about one schema document. Pure: a document in, findings out; docs/schemas.md lists the rules.

An error makes a schema useless or dangerous: `schema add` refuses it. A warning costs something later: a wide column, an
event refused without need, a rule that is silently not there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, cast

import jsonschema_rs

from enrich.validators import validator
from protocol.iglu import InvalidUri, SchemaKey, parse
from protocol.seams import Json
from spoorway.registry.layout import Document, key_of, key_of_document

SELF_DESCRIBING = "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#"
FORMATS = ("uri", "ipv4", "ipv6", "email", "date-time", "date", "hostname", "uuid")
FIXED_LENGTH = ("uuid", "date-time", "date", "ipv4", "ipv6")
WIDEST_TEXT = 65_535

_DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
_NODES = ("items", "additionalItems", "additionalProperties", "not")
_LISTS = ("allOf", "anyOf", "oneOf", "items")
_TABLES = ("properties", "patternProperties", "definitions", "dependencies")
_ANNOTATIONS = ("title", "description", "default", "id", "$schema", "self")
_OURS = ("$supersedes", "$supersededBy")
_KEYWORDS = {
    *(*_NODES, *_LISTS, *_TABLES, *_ANNOTATIONS, *_OURS),
    *("$ref", "type", "enum", "format", "pattern", "required", "multipleOf", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
}
_LATER_DRAFTS = {
    *("const", "contains", "examples", "if", "then", "else", "propertyNames", "$id", "$defs", "$comment", "$anchor"),
    *("dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems", "minContains", "maxContains"),
    *("prefixItems", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "deprecated"),
}
_PAIRS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
# What only means something for values of one type.
_BELONGS = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "multipleOf"),
    "array": ("items", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
}


class Finding(NamedTuple):
    """path: the place in the data, such as $.tags[]; rule: its name in docs/schemas.md."""

    level: Literal["error", "warning"]
    rule: str
    path: str
    message: str


class _Node(NamedTuple):
    path: str
    schema: Mapping[str, Json]
    whole: bool  # it stands alone; a branch of anyOf and the like may leave to its parent what it does not say


def lint(document: Document, place: SchemaKey | None = None) -> list[Finding]:
    """Errors first. place: what the file's path says it is."""
    found = [*_header(document, place)]
    references = [Finding("error", "remote-ref", n.path, f"{r} is not in this document") for n, r in _remote(document)]
    found += references or _draft_4(document)
    if not any(finding.rule == "draft-4" for finding in found):
        for node in _nodes(document):
            found += _contradictions(node)
            found += _advice(node)
        found += _root(document)
    return sorted(found, key=lambda finding: finding.level)


def _header(document: Document, place: SchemaKey | None) -> Iterator[Finding]:
    if document.get("$schema") != SELF_DESCRIBING:
        yield Finding("error", "schema-line", "$", f'expected "$schema": "{SELF_DESCRIBING}"')
    own = document.get("self")
    if not isinstance(own, dict):
        yield Finding("error", "self", "$", 'expected "self" with vendor, name, format and version')
        return
    for part in ("vendor", "name", "format", "version"):
        if not isinstance(own.get(part), str):
            yield Finding("error", "self", "$", f"self has no {part}")
            return
    key = key_of_document(document)
    if key is None:
        try:
            parse("iglu:{vendor}/{name}/{format}/{version}".format(**own))
            message = "self has a vendor that is no name"
        except InvalidUri as error:
            version = error.code == "INVALID_SCHEMAVER"
            message = (
                "version is not MODEL-REVISION-ADDITION such as 1-0-0" if version else "a part has signs that no URI may have"
            )
        yield Finding("error", "self", "$", message)
        return
    if place is not None and place != key:
        yield Finding("error", "place", "$", f"it says that it is {key.uri} and lies where {place.uri} belongs")
    if key.format != "jsonschema":
        yield Finding("warning", "format-part", "$", f"self.format is {key.format}; trackers and tools expect jsonschema")
    newer = document.get("$supersededBy")
    if newer is not None:
        try:
            by = parse(f"{key.uri.rpartition('/')[0]}/{newer}")
        except InvalidUri:
            yield Finding("error", "superseded", "$", f"$supersededBy is no version: {newer}")
        else:
            if by[3:] <= key[3:]:
                yield Finding("error", "superseded", "$", f"$supersededBy {newer} is not newer than {key.version}")
    older = document.get("$supersedes", [])
    if not isinstance(older, list):
        yield Finding("error", "superseded", "$", f"$supersedes is no list of versions: {older}")
        return
    for each in older:
        superseded = key_of(f"{key.uri.rpartition('/')[0]}/{each}")
        if superseded is None or superseded[3:] >= key[3:]:
            yield Finding("error", "superseded", "$", f"$supersedes {each}, which is no version before {key.version}")


def _draft_4(document: Document) -> Iterator[Finding]:
    try:
        jsonschema_rs.meta.validate({**document, **_DRAFT_4})
        validator(document)
    except jsonschema_rs.ValidationError as error:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        yield Finding("error", "draft-4", "$", f"not a JSON Schema of draft 4{f' at {where}' if where else ''}: {error.message}")
    except ValueError as error:
        yield Finding("error", "draft-4", "$", f"not a JSON Schema of draft 4: {error}")


def _remote(document: Document) -> Iterator[tuple[_Node, str]]:
    for node in _nodes(document):
        ref = node.schema.get("$ref")
        if isinstance(ref, str) and not ref.startswith("#"):
            yield node, ref


def _nodes(schema: Mapping[str, Json], path: str = "$", whole: bool = True, deepest: int = 60) -> Iterator[_Node]:
    yield _Node(path, schema, whole)
    if deepest == 0:
        return
    for word, inner, step, stands in _children(schema):
        if isinstance(inner, dict) and word != "dependencies":
            yield from _nodes(inner, path + step, whole and stands, deepest - 1)


def _children(schema: Mapping[str, Json]) -> Iterator[tuple[str, Json, str, bool]]:
    for word in _NODES:
        yield (
            word,
            schema.get(word),
            {"items": "[]", "additionalItems": "[]", "additionalProperties": ".*"}.get(word, ""),
            word != "not",
        )
    for word in _LISTS:
        for inner in _list(schema.get(word)):
            yield word, inner, "[]" if word == "items" else "", word == "items"
    for word in _TABLES:
        table = schema.get(word)
        for name, inner in table.items() if isinstance(table, dict) else ():
            yield word, inner, f"#{name}" if word == "definitions" else f".{name}", True


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def types(schema: Mapping[str, Json]) -> frozenset[str]:
    """The types it names; none = any."""
    kind = schema.get("type")
    return frozenset(str(k) for k in kind) if isinstance(kind, list) else frozenset([kind] if isinstance(kind, str) else [])


def _contradictions(node: _Node) -> Iterator[Finding]:
    schema = node.schema
    for low, high in _PAIRS:
        least, most = schema.get(low), schema.get(high)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield Finding("error", "nothing-fits", node.path, f"{low} {least} is above {high} {most}")
    properties, required = schema.get("properties"), _list(schema.get("required"))
    known = properties if isinstance(properties, dict) else {}
    for name in required:
        if name not in known:
            if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
                yield Finding("error", "nothing-fits", node.path, f"{name} is required and no property of that name is allowed")
            elif node.whole:
                yield Finding("warning", "required-unknown", node.path, f"{name} is required and not described")
    kinds, values = types(schema), _list(schema.get("enum"))
    if schema.get("enum") == []:
        yield Finding("error", "nothing-fits", node.path, "enum has no values")
    strange = [value for value in values if kinds and not _is_of(value, kinds)]
    if strange:
        level: Literal["error", "warning"] = "error" if len(strange) == len(values) else "warning"
        rule = "nothing-fits" if level == "error" else "enum-type"
        yield Finding(level, rule, node.path, f"enum has values that are not {' or '.join(sorted(kinds))}: {strange[:3]}")


def _is_of(value: Json, kinds: frozenset[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int):
        return not kinds.isdisjoint(("integer", "number"))
    names: dict[type, str] = {float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null") in kinds


def _advice(node: _Node) -> Iterator[Finding]:
    schema, kinds = node.schema, types(node.schema)

    def warn(rule: str, message: str) -> Finding:
        return Finding("warning", rule, node.path, message)

    for word in schema:
        if word in _LATER_DRAFTS:
            yield warn("later-draft", f"{word} belongs to a later draft and checks nothing here")
        elif word not in _KEYWORDS:
            near = difflib.get_close_matches(word, _KEYWORDS, n=1, cutoff=0.75)
            yield warn("unknown-word", f"{word} checks nothing" + (f"; did you mean {near[0]}?" if near else ""))
    kind = schema.get("format")
    if isinstance(kind, str) and kind not in FORMATS:
        yield warn("unknown-format", f"format {kind} checks nothing; there are {', '.join(FORMATS)}")
    for owner, words in _BELONGS.items():
        if kinds and owner not in kinds and not (owner == "number" and "integer" in kinds):
            for word in words:
                if word in schema and word != "format":
                    yield warn("idle-word", f"{word} checks nothing in a value that is {' or '.join(sorted(kinds))}")
    if not node.whole or "enum" in schema or "$ref" in schema:
        return
    if not kinds and not any(word in schema for word in ("anyOf", "oneOf", "allOf", "not")):
        yield warn("untyped", "no type: anything goes, and the column is JSON")
    if "string" in kinds and kind not in FIXED_LENGTH:
        longest = schema.get("maxLength")
        if longest is None:
            yield warn("no-max-length", "a string without maxLength, enum or a format of fixed length")
        elif isinstance(longest, int) and longest > WIDEST_TEXT:
            yield warn("wide-text", f"maxLength {longest} is more than a warehouse column holds ({WIDEST_TEXT})")
    if "integer" in kinds and not {"minimum", "maximum"} <= schema.keys():
        yield warn("no-range", "an integer without minimum and maximum")
    if "array" in kinds:
        if "maxItems" not in schema:
            yield warn("no-max-items", "an array without maxItems")
        if "items" not in schema:
            yield warn("untyped-items", "an array without items: anything goes in it")
    if "object" in kinds and not {"properties", "patternProperties", "additionalProperties"} & schema.keys():
        yield warn("untyped-object", "an object without properties: anything goes in it")


def _root(document: Document) -> Iterator[Finding]:
    kinds = types(document)
    if kinds and "object" not in kinds:
        yield Finding("warning", "root-type", "$", "its data is no object, so its columns have no names")
    elif document.get("additionalProperties", True) is not False and not {"$ref", "allOf", "anyOf", "oneOf"} & document.keys():
        yield Finding("warning", "open-root", "$", "additionalProperties is not false: a mistyped name is not noticed")
    if "description" not in document:
        yield Finding("warning", "no-description", "$", "no description")
    seen: dict[str, str] = {}
    properties = cast(Mapping[str, Json], document.get("properties") if isinstance(document.get("properties"), dict) else {})
    for name in properties:
        other = seen.setdefault(name.replace("-", "_").replace("_", "").casefold(), name)
        if other != name:
            yield Finding("warning", "alike", "$", f"{other} and {name} differ only in case or dashes; their columns look alike")
