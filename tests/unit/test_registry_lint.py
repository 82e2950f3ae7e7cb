"""Each rule of `schema lint`, by a document that breaks it and by one that keeps it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from protocol import schemas
from protocol.iglu import parse
from spoorway.commands import schema as command_module
from spoorway.registry import lint as lint_module
from spoorway.registry import versions as versions_module
from spoorway.registry.lint import SELF_DESCRIBING, lint
from spoorway.registry.versions import Size, changes, check

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/schemas.md").read_text("utf-8")
SELF = {"vendor": "com.acme", "name": "reading", "format": "jsonschema", "version": "1-0-0"}
ANY: dict[str, Any] = {"type": "boolean"}
TEXT: dict[str, Any] = {"type": "string", "maxLength": 20}


def document(**parts: Any) -> Any:
    """A schema that lint has nothing against, with these parts over it; None takes one away."""
    good = {
        "$schema": SELF_DESCRIBING,
        "self": SELF,
        "description": "A reading.",
        "type": "object",
        "properties": {"ok": ANY},
        "additionalProperties": False,
    }
    return {name: value for name, value in (good | parts).items() if value is not None}


def own(**parts: Any) -> Any:
    return document(self={name: value for name, value in (SELF | parts).items() if value is not None})


def property_(schema: Any) -> Any:
    return document(properties={"v": schema})


def rules(of: Any, place: str | None = None) -> list[tuple[str, str, str]]:
    return [(f.level, f.rule, f.path) for f in lint(of, parse(place) if place else None)]


@pytest.mark.parametrize(
    ("broken", "level", "rule", "path"),
    [
        (document(**{"$schema": None}), "error", "schema-line", "$"),
        (document(**{"$schema": "http://json-schema.org/draft-04/schema#"}), "error", "schema-line", "$"),
        (document(self=None), "error", "self", "$"),
        (document(self="com.acme"), "error", "self", "$"),
        (own(vendor=None), "error", "self", "$"),
        (own(name=None), "error", "self", "$"),
        (own(version=None), "error", "self", "$"),
        (own(version=1), "error", "self", "$"),
        (own(version="1-0"), "error", "self", "$"),
        (own(version="0-1-0"), "error", "self", "$"),
        (own(version="1-01-0"), "error", "self", "$"),
        (own(name="a b"), "error", "self", "$"),
        (own(vendor=".."), "error", "self", "$"),
        (own(format="avro"), "warning", "format-part", "$"),
        (document(**{"$supersededBy": "1-0"}), "error", "superseded", "$"),
        (document(**{"$supersededBy": "1-0-0"}), "error", "superseded", "$"),
        (document(**{"$supersedes": "1-0-0"}), "error", "superseded", "$"),
        (document(**{"$supersedes": ["1-0-0"]}), "error", "superseded", "$"),
        (document(**{"$supersedes": [1]}), "error", "superseded", "$"),
        (document(type="objekt"), "error", "draft-4", "$"),
        (property_({"type": "string", "maxLength": -1}), "error", "draft-4", "$"),
        (property_({"type": "string", "maxLength": 9, "pattern": "("}), "error", "draft-4", "$"),
        (document(required=[]), "error", "draft-4", "$"),
        (property_({"type": "integer", "minimum": 0, "maximum": 9, "exclusiveMinimum": 0}), "error", "draft-4", "$"),
        (property_({"enum": []}), "error", "nothing-fits", "$.v"),
        (property_({"$ref": "#/definitions/none"}), "error", "draft-4", "$"),
        (property_({"$ref": "http://a.example/b"}), "error", "remote-ref", "$.v"),
        (property_({"type": "number", "minimum": 3, "maximum": 2}), "error", "nothing-fits", "$.v"),
        (property_({"type": "string", "minLength": 3, "maxLength": 2}), "error", "nothing-fits", "$.v"),
        (property_({"type": "array", "items": ANY, "minItems": 3, "maxItems": 2}), "error", "nothing-fits", "$.v"),
        (document(required=["gone"]), "error", "nothing-fits", "$"),
        (property_({"type": "integer", "enum": ["a", "b"]}), "error", "nothing-fits", "$.v"),
        (property_({"type": "string", "enum": ["a", None]}), "warning", "enum-type", "$.v"),
        (document(required=["x"], patternProperties={"^x": ANY}), "warning", "required-unknown", "$"),
        (property_({"type": "boolean", "const": True}), "warning", "later-draft", "$.v"),
        (property_({"type": "boolean", "examples": [True]}), "warning", "later-draft", "$.v"),
        (property_({**TEXT, "maxLenght": 9}), "warning", "unknown-word", "$.v"),
        (property_({**TEXT, "format": "datetime"}), "warning", "unknown-format", "$.v"),
        (property_({"type": "boolean", "maxLength": 3}), "warning", "idle-word", "$.v"),
        (property_({**TEXT, "maximum": 3}), "warning", "idle-word", "$.v"),
        (property_({}), "warning", "untyped", "$.v"),
        (property_({"type": "string"}), "warning", "no-max-length", "$.v"),
        (property_({"type": ["string", "null"]}), "warning", "no-max-length", "$.v"),
        (property_({"type": "string", "format": "uri"}), "warning", "no-max-length", "$.v"),
        (property_({"type": "string", "maxLength": 65_536}), "warning", "wide-text", "$.v"),
        (property_({"type": "integer"}), "warning", "no-range", "$.v"),
        (property_({"type": "integer", "minimum": 0}), "warning", "no-range", "$.v"),
        (property_({"type": "array", "items": ANY}), "warning", "no-max-items", "$.v"),
        (property_({"type": "array", "maxItems": 3}), "warning", "untyped-items", "$.v"),
        (property_({"type": "array", "maxItems": 3, "items": {"type": "string"}}), "warning", "no-max-length", "$.v[]"),
        (property_({"type": "object"}), "warning", "untyped-object", "$.v"),
        (document(definitions={"d": {"type": "string"}}), "warning", "no-max-length", "$#d"),
        (document(type="array", properties=None, items=ANY, maxItems=3, additionalProperties=None), "warning", "root-type", "$"),
        (document(additionalProperties=None), "warning", "open-root", "$"),
        (document(additionalProperties={"type": "string", "maxLength": 5}), "warning", "open-root", "$"),
        (document(description=None), "warning", "no-description", "$"),
        (document(properties={"roomNo": ANY, "room_no": ANY}), "warning", "alike", "$"),
    ],
)
def test_rule_bites(broken: Any, level: str, rule: str, path: str) -> None:
    assert rules(broken) == [(level, rule, path)]


@pytest.mark.parametrize(
    "good",
    [
        document(),
        document(required=["ok"]),
        document(**{"$supersededBy": "1-0-1"}),
        document(**{"$supersedes": []}),
        property_(TEXT),
        property_({"type": "string", "enum": ["a", "b"]}),
        property_({"type": ["string", "null"], "enum": ["a", None]}),
        property_({"enum": ["a", 1]}),
        property_({"type": "string", "format": "uuid"}),
        property_({"type": "integer", "minimum": -5, "maximum": 5}),
        property_({"type": "number", "minimum": 0.5, "multipleOf": 0.01}),
        property_({"anyOf": [{"type": "string"}, {"type": "null"}], "maxLength": 9}),
        property_({"type": "object", "additionalProperties": TEXT}),
        property_({"type": ["array", "null"], "items": TEXT, "maxItems": 4}),
        document(properties={"v": {"$ref": "#/definitions/d"}}, definitions={"d": TEXT}),
        document(properties={"$ref": TEXT, "type": TEXT, "enum": TEXT, "maxLenght": TEXT}),
        property_({"type": "string", "maxLength": 5, "not": {"enum": [""]}}),
    ],
)
def test_good_document_is_left_alone(good: Any) -> None:
    assert rules(good) == []


def test_file_in_another_place_is_noticed() -> None:
    assert rules(document(), "iglu:com.acme/reading/jsonschema/1-0-0") == []
    assert rules(document(), "iglu:com.acme/reading/jsonschema/1-0-1") == [("error", "place", "$")]


def test_bundled_schemas_have_no_errors() -> None:
    found = {uri: [f for f in lint(schemas.bundled(uri) or {}, parse(uri)) if f.level == "error"] for uri in schemas.uris()}
    assert len(found) > 300
    assert {uri: errors for uri, errors in found.items() if errors} == {}


OPEN = {"type": "object", "properties": {"a": TEXT}}
CLOSED = {**OPEN, "additionalProperties": False}
INT = {"type": "integer", "minimum": 0, "maximum": 10}


def closed(**found: Any) -> Any:
    return {"type": "object", "properties": found, "additionalProperties": False}


@pytest.mark.parametrize(
    ("old", "new", "size", "path"),
    [
        (closed(a=TEXT), {**closed(a=TEXT), "description": "new", "title": "x"}, "none", ""),
        (closed(a=TEXT), closed(a=TEXT, b=TEXT), "addition", "$.b"),
        (OPEN, {"type": "object", "properties": {"a": TEXT, "b": TEXT}}, "revision", "$.b"),
        (OPEN, {"type": "object", "properties": {"a": TEXT, "b": {}}}, "addition", "$.b"),
        (closed(a=TEXT), {**closed(a=TEXT, b=TEXT), "required": ["b"]}, "model", "$.b"),
        (closed(a=TEXT), {**closed(a=TEXT), "required": ["a"]}, "revision", "$.a"),
        ({**closed(a=TEXT), "required": ["a"]}, closed(a=TEXT), "addition", "$.a"),
        (closed(a=TEXT, b=TEXT), closed(a=TEXT), "revision", "$.b"),
        ({**closed(a=TEXT, b=TEXT), "required": ["b"]}, closed(a=TEXT), "model", "$.b"),
        (OPEN, {"type": "object"}, "addition", "$.a"),
        (closed(a=TEXT), OPEN, "addition", "$"),
        (OPEN, CLOSED, "revision", "$"),
        ({**OPEN, "additionalProperties": INT}, OPEN, "addition", "$"),
        (OPEN, {**OPEN, "additionalProperties": INT}, "revision", "$"),
        ({**OPEN, "additionalProperties": INT}, {**OPEN, "additionalProperties": {**INT, "maximum": 5}}, "revision", "$.*"),
        (TEXT, {**TEXT, "maxLength": 21}, "addition", "$"),
        (TEXT, {**TEXT, "maxLength": 19}, "revision", "$"),
        (TEXT, {"type": "string"}, "addition", "$"),
        ({"type": "string"}, TEXT, "revision", "$"),
        (INT, {**INT, "minimum": -1}, "addition", "$"),
        (INT, {**INT, "minimum": 1}, "revision", "$"),
        (INT, {**INT, "maximum": 9}, "revision", "$"),
        (INT, {**INT, "exclusiveMaximum": True}, "revision", "$"),
        (INT, {**INT, "exclusiveMaximum": False}, "none", ""),
        (TEXT, {**TEXT, "type": ["string", "null"]}, "addition", "$"),
        ({**TEXT, "type": ["string", "null"]}, TEXT, "revision", "$"),
        (TEXT, {**TEXT, "type": ["string", "integer"]}, "revision", "$"),
        ({"type": "string"}, {"type": "integer"}, "model", "$"),
        ({"type": ["string", "null"]}, {"type": ["integer", "null"]}, "model", "$"),
        ({"type": "integer"}, {"type": "number"}, "revision", "$"),
        ({"type": "number"}, {"type": "integer"}, "revision", "$"),
        ({"type": "string"}, {}, "revision", "$"),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, "addition", "$"),
        ({"enum": ["a", "b"]}, {"enum": ["b"]}, "revision", "$"),
        ({"type": "string"}, {"type": "string", "enum": ["a"]}, "revision", "$"),
        ({"type": "string", "enum": ["a"]}, {"type": "string"}, "addition", "$"),
        (TEXT, {**TEXT, "pattern": "^a"}, "revision", "$"),
        ({**TEXT, "pattern": "^a"}, TEXT, "addition", "$"),
        ({**TEXT, "format": "uri"}, {**TEXT, "format": "email"}, "revision", "$"),
        ({"type": "array", "items": TEXT}, {"type": "array", "items": {**TEXT, "maxLength": 5}}, "revision", "$[]"),
        ({"type": "array", "items": TEXT}, {"type": "array"}, "addition", "$[]"),
        ({"type": "array"}, {"type": "array", "uniqueItems": True}, "revision", "$"),
        (closed(a=closed(b=TEXT)), closed(a=closed(b=TEXT, c=TEXT)), "addition", "$.a.c"),
        (closed(a=closed(b=TEXT)), closed(a=closed(b=INT)), "model", "$.a.b"),
        ({"oneOf": [TEXT]}, {"oneOf": [TEXT, INT]}, "revision", "$"),
    ],
)
def test_change_has_its_size(old: Any, new: Any, size: str, path: str) -> None:
    found = changes(old, new)
    gravest = (found[0].size, found[0].path) if found else (Size.none, "")
    assert gravest == (Size[size], path)


SAME, MORE, LESS = closed(a=TEXT), closed(a=TEXT, b=TEXT), closed(b=TEXT)
OTHER = closed(a=INT)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({"1-0-0": SAME}, []),
        ({"1-0-0": SAME, "1-0-1": MORE}, []),
        ({"1-0-0": MORE, "1-1-0": LESS}, []),
        ({"1-0-0": SAME, "2-0-0": OTHER}, []),
        ({"1-0-0": SAME, "1-0-1": MORE, "1-1-0": SAME, "2-0-0": OTHER}, []),
        ({"1-0-0": MORE, "1-0-1": LESS}, [("1-0-1", "error", "version-too-small")]),
        ({"1-0-0": SAME, "1-0-1": OTHER}, [("1-0-1", "error", "version-too-small")]),
        ({"1-0-0": SAME, "1-1-0": OTHER}, [("1-1-0", "error", "version-too-small")]),
        ({"1-0-0": SAME, "1-1-0": MORE}, [("1-1-0", "warning", "version-too-large")]),
        ({"1-0-0": SAME, "2-0-0": MORE}, [("2-0-0", "warning", "version-too-large")]),
        ({"1-0-0": SAME, "2-0-0": SAME}, [("2-0-0", "warning", "version-too-large")]),
        ({"1-0-0": SAME, "1-0-1": SAME}, [("1-0-1", "warning", "no-change")]),
        ({"1-0-0": SAME, "1-0-2": MORE}, [("1-0-2", "warning", "version-gap")]),
        ({"1-0-0": MORE, "1-1-1": LESS}, [("1-1-1", "warning", "version-gap")]),
        ({"1-0-1": SAME}, [("1-0-1", "warning", "first-version")]),
        ({"1-0-9": SAME, "1-0-10": MORE}, [("1-0-9", "warning", "first-version")]),
    ],
)
def test_version_says_what_changed(history: Any, expected: Any) -> None:
    keyed = [(parse(f"iglu:com.acme/reading/jsonschema/{version}"), schema) for version, schema in history.items()]
    found = [(key.version, finding.level, finding.rule) for key, finding in check(keyed)]
    assert list(dict.fromkeys(found)) == expected


def test_finding_names_the_version_that_would_be_right() -> None:
    (before, after) = (parse(f"iglu:com.acme/reading/jsonschema/{version}") for version in ("1-2-3", "1-2-4"))
    (_, first), (_, small) = check([(before, MORE), (after, SAME)])
    assert first.rule == "first-version"
    assert small.message == "the property is gone: a revision, so after 1-2-3 comes 1-3-0"
    assert small.path == "$.b"


def test_every_rule_is_documented() -> None:
    modules = (lint_module, versions_module, command_module)
    source = "".join(Path(str(module.__file__)).read_text("utf-8") for module in modules)
    named = set(re.findall(r'"(?:warning|error)", "([a-z0-9-]+)", ', source)) | set(re.findall(r'warn\("([a-z-]+)"', source))
    named |= {"nothing-fits", "enum-type"}
    assert named == set(re.findall(r"^\| `([a-z0-9-]+)` \| (?:error|warning)", PAGE, re.MULTILINE))
