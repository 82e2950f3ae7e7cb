"""Headers and cookies of the request become entities, valid and in their order; whatever a client sends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.enrichments import Enrichment, cookies, headers
from enrich.validators import Validators
from protocol.schemas import bundled
from protocol.seams import ConfigurationError
from spoorway.world import World
from tests.unit.enrichment_world import raw

VALIDATORS = Validators(bundled)


def found(made: Enrichment, *sent: tuple[str, str]) -> list[tuple[str, Any]]:
    answer = made({}, raw(*sent))
    assert isinstance(answer, dict)
    assert answer.get("derived_contexts", [0]) != []
    pairs = []
    for entity in answer.get("derived_contexts", []):
        assert VALIDATORS.reasons(entity["schema"], entity["data"], "x") == ()
        data: Any = entity["data"]
        pairs.append((data["name"], data["value"]))
    return pairs


def header(pattern: str) -> Enrichment:
    return headers.Plugin(headers.Config(pattern), World())


def cookie(*names: str) -> Enrichment:
    return cookies.Plugin(cookies.Config(names), World())


SENT = (("User-Agent", "x"), ("accept-language", "sv, en"), ("X-A", "1"), ("X-A", "2"), ("Origin", ""))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (".*", list(SENT)),
        ("x-a", [("X-A", "1"), ("X-A", "2")]),
        ("X", []),
        ("Origin|ACCEPT.*", [("accept-language", "sv, en"), ("Origin", "")]),
        ("", []),
    ],
)
def test_headers_whose_whole_name_matches_become_entities(pattern: str, expected: list[tuple[str, str]]) -> None:
    assert found(header(pattern), *SENT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1; b=2; c=3", [("a", "1"), ("c", "3")]),
        ("c=3;a=1", [("c", "3"), ("a", "1")]),
        ("a=1; a=2", [("a", "1"), ("a", "2")]),
        ("a=", [("a", "")]),
        ("a", []),
        ("A=1", []),
        ('a="quoted"', [("a", '"quoted"')]),
        ("a=b=c==", [("a", "b=c==")]),
        ("a=%20x y", [("a", "%20x y")]),
        (" a = 1 ;; ;c=3;", [("a", "1"), ("c", "3")]),
        ("", []),
        ("a=" + "x" * 4096, [("a", "x" * 4096)]),
        ("a=" + "x" * 4097 + "; c=3", [("c", "3")]),
    ],
)
def test_chosen_cookies_become_entities(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(cookie("a", "c"), ("X", "a=no"), ("cookie", text)) == expected


def test_too_long_a_header_is_left_out() -> None:
    assert found(header(".*"), ("X", "y" * 4096), ("Y", "z" * 4097), ("n" * 4097, "")) == [("X", "y" * 4096)]


@pytest.mark.parametrize(
    ("make", "match"), [(lambda: header("("), r"headers\.pattern"), (lambda: cookie(), "name at least one cookie")]
)
def test_mistake_is_found_at_the_start(make: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        make()


@settings(max_examples=300, deadline=None)
@given(sent=st.lists(st.tuples(st.sampled_from(["Cookie", "COOKIE", "X"]) | st.text(), st.text()), max_size=6))
def test_whatever_is_sent_becomes_valid_entities(sent: list[tuple[str, str]]) -> None:
    assert found(header(".*"), *sent) == [pair for pair in sent if "\n" not in pair[0]]
    found(cookie("a", "", "b c"), *sent)
