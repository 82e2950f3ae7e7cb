"""Inferring a schema: all samples fit it, and what it says of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.validators import validator
from protocol.iglu import SchemaKey
from spoorway.registry.infer import infer
from spoorway.registry.lint import lint

KEY = SchemaKey("com.acme", "reading", "jsonschema", 1, 0, 0)

TEXTS = st.one_of(
    st.text(max_size=100),
    st.sampled_from(["red", "green"]),
    st.uuids().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.dates().map(str),
    st.ip_addresses().map(str),
    st.emails(),
    st.sampled_from(["http://a.example/x?y", "ftp://b", "a:b", ""]),
)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 300))
NAMES = st.one_of(st.text(max_size=8), st.sampled_from(["id", "$ref", "$schema", "type", "properties", "self", "a", "b"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=20,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(OBJECTS, VALUES), min_size=1, max_size=12), st.booleans())
def test_all_samples_fit(samples: list[Any], enums: bool) -> None:
    document = infer(samples, KEY, enums)
    assert [finding for finding in lint(document) if finding.level == "error"] == []
    check = validator(document)
    for sample in samples:
        assert check.is_valid(sample), (sample, document)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"v": TEXTS}), min_size=1, max_size=4), st.integers(1, 40))
def test_samples_that_repeat_fit(samples: list[Any], times: int) -> None:
    check = validator(infer(samples * times, KEY))
    assert all(map(check.is_valid, samples))


def properties(*samples: Any, enums: bool = True) -> Any:
    return infer(samples, KEY, enums)["properties"]


def value(*values: Any) -> Any:
    return properties(*({"v": value} for value in values))["v"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 200), {"type": "integer", "minimum": 0, "maximum": 32767}),
        ((-1, 200), {"type": "integer", "minimum": -32768, "maximum": 32767}),
        ((20_000,), {"type": "integer", "minimum": 0, "maximum": 2147483647}),
        ((1_768_478_400_000,), {"type": "integer", "minimum": 0, "maximum": 9223372036854775807}),
        ((2**63 - 1,), {"type": "integer", "minimum": 0, "maximum": 9223372036854775807}),
        ((2**63,), {"type": "integer"}),
        ((21.5, 24), {"type": "number", "minimum": -100, "maximum": 100}),
        ((1e300,), {"type": "number"}),
        (("abc",), {"type": "string", "maxLength": 16}),
        (("x" * 17, "y"), {"type": "string", "maxLength": 32}),
        (("x" * 256,), {"type": "string", "maxLength": 256}),
        (("x" * 257,), {"type": "string", "maxLength": 512}),
        (("\N{CROCODILE}" * 17,), {"type": "string", "maxLength": 32}),
        (("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5+01:00"), {"type": "string", "format": "date-time"}),
        (("2026-01-31",), {"type": "string", "format": "date"}),
        (("2026-01-31", "soon"), {"type": "string", "maxLength": 16}),
        (("6ba7b810-9dad-11d1-80b4-00c04fd430c8",), {"type": "string", "format": "uuid"}),
        (("192.0.2.1",), {"type": "string", "format": "ipv4"}),
        (("2001:db8::1",), {"type": "string", "format": "ipv6"}),
        (("a@b.example",), {"type": "string", "format": "email", "maxLength": 16}),
        (("http://a.example/x",), {"type": "string", "format": "uri", "maxLength": 32}),
        (("door:open",), {"type": "string", "maxLength": 16}),
        (("", "2026-01-31"), {"type": "string", "maxLength": 16}),
        (("on", "off") * 10, {"type": "string", "enum": ["off", "on"]}),
        (("on", "off", None) * 10, {"type": ["null", "string"], "enum": ["off", "on", None]}),
        (("on", "off") * 9, {"type": "string", "maxLength": 16}),
        (("on",) * 30 + ("odd",), {"type": "string", "maxLength": 16}),
        (("on", 1) * 30, {"type": ["integer", "string"], "minimum": 0, "maximum": 32767, "maxLength": 16}),
        ((True, False), {"type": "boolean"}),
        ((None,), {"type": "null"}),
        ((True, None), {"type": ["boolean", "null"]}),
        (([],), {"type": "array", "items": {}, "maxItems": 16}),
        (([True] * 17,), {"type": "array", "items": {"type": "boolean"}, "maxItems": 32}),
    ],
)
def test_value_is_described(values: Any, expected: Any) -> None:
    assert value(*values) == expected


def test_property_that_all_have_is_required() -> None:
    document = infer([{"a": True, "b": True}, {"a": None}], KEY)
    assert document["required"] == ["a"]
    assert document["additionalProperties"] is False


def test_names_that_are_data_are_left_open() -> None:
    document = infer([{f"sensor-{n}": n for n in range(300)}], KEY)
    assert document["additionalProperties"] is True
    assert "properties" not in document


def test_enums_can_be_done_without() -> None:
    assert properties(*[{"v": "on"}] * 50, enums=False) == {"v": {"type": "string", "maxLength": 16}}


def test_header_says_whose_it_is() -> None:
    document = infer([{}], KEY)
    assert document["self"] == {"vendor": "com.acme", "name": "reading", "format": "jsonschema", "version": "1-0-0"}


def test_lint_has_nothing_against_an_ordinary_one() -> None:
    assert lint(infer([{"at": "2026-01-31T12:00:00Z", "celsius": 21.5, "tags": ["a"], "room": {"no": 7}}], KEY)) == []


def test_without_samples_there_is_none() -> None:
    with pytest.raises(ValueError, match="no samples"):
        infer([], KEY)
