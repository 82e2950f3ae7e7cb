"""Python scripts: what they add, how they refuse, and that a broken one costs an answer and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.answers import Unusable, added
from enrich.enrichments.script_python import Config, Plugin
from protocol.seams import ConfigurationError, Decimal, Event, Reason
from protocol.tables import COLUMNS
from spoorway.world import World
from tests.unit.enrichment_world import raw

EVENT: Event = {"app_id": "shop", "tr_total": Decimal("42.50")}


def plugin(tmp_path: Path, lines: str, world: World | None = None) -> Plugin:
    file = tmp_path / "script.py"
    file.write_text(f"def enrich(event, parameters):\n    {lines}\n")
    return Plugin(Config(file=str(file)), world or World())


def test_script_adds_columns_and_entities(tmp_path: Path) -> None:
    entity = '{"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": {"e": parameters["e"]}}'
    made = plugin(tmp_path, f'return {{"tr_total_base": event["tr_total"] * 2, "derived_contexts": [{entity}]}}')
    assert made(EVENT, raw()) == {
        "tr_total_base": Decimal("85.00"),
        "derived_contexts": [{"schema": "iglu:com.acme/x/jsonschema/1-0-0", "data": {"e": "pv"}}],
    }


@pytest.mark.parametrize("lines", ["pass", "return None", "return {}", "return {'app_id': None}"])
def test_script_may_have_nothing_to_add(tmp_path: Path, lines: str) -> None:
    assert plugin(tmp_path, lines)(EVENT, raw()) == {}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("raise ValueError('a robot')", "ValueError: a robot"),
        ("raise ValueError('\\ud800')", "ValueError: ?"),
        ("return event['nothing']", "KeyError: 'nothing'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("return enrich(event, parameters)", "RecursionError: maximum recursion depth exceeded"),
        ("return 7", "expected columns by name, not int"),
        ("return {5: 1}", "is no column"),
        ("return {'nonsense': 1}", "is no column"),
        ("return {'event_id': 'x'}", "is not for an enrichment to change"),
        ("return {'geo_latitude': float('nan')}", "expected a finite number"),
        ("return {'br_cookies': 'perhaps'}", "expected true or false"),
        ("return {'domain_sessionidx': 2**40}", "expected an integer of 32 bits"),
        ("return {'app_id': b'x'}", "expected a value of type string, not bytes"),
        ("return {'derived_contexts': [{'schema': 'x', 'data': {1: 2}}]}", "expected text for every key"),
        ("return {'derived_contexts': [{'schema': 'x', 'data': object()}]}", "JSON has no object"),
        ("x = {}; x['x'] = x; return {'derived_contexts': [{'schema': 'x', 'data': x}]}", "deeper than 40 levels"),
        ("return {'derived_contexts': [{'schema': 'x', 'data': list(range(20000))}]}", "more than 10000 values"),
    ],
)
def test_refusal_is_a_reason(tmp_path: Path, lines: str, expected: str) -> None:
    answer = plugin(tmp_path, lines)(EVENT, raw())
    assert isinstance(answer, Reason)
    assert expected in answer.message


def test_script_cannot_change_the_event_by_accident(tmp_path: Path) -> None:
    event: Event = {"app_id": "shop"}
    plugin(tmp_path, "event['app_id'] = 'x'; parameters['e'] = 'y'")(event, raw())
    assert event == {"app_id": "shop"}


def test_changed_script_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    now = [0.0]
    made = plugin(tmp_path, "return {'app_id': 'old'}", World(lambda: now[0]))
    for lines, expected in (("return {'app_id': 'new'}", "new"), ("return (", "new")):
        (tmp_path / "script.py").write_text(f"def enrich(event, parameters):\n    {lines}\n")
        now[0] += 10
        assert made(EVENT, raw()) == {"app_id": expected}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("def enrich(", "SyntaxError"),
        ("x = 1", "no function enrich"),
        ("enrich = 5", "no function enrich"),
        ("import nowhere", "ModuleNotFoundError"),
        ("raise SystemExit(1)", "SystemExit: 1"),
    ],
)
def test_mistake_is_found_at_the_start(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "script.py").write_text(text)
    for config in (Config(file=str(tmp_path / "script.py")),):
        with pytest.raises(ConfigurationError, match=match):
            Plugin(config, World())
    with pytest.raises(ConfigurationError, match="name a script"):
        Plugin(Config(), World())


NAMES = st.sampled_from([column.name for column in COLUMNS]) | st.text(max_size=5)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=3),
    st.decimals(),
    st.datetimes(),
    st.uuids(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
ENTITY = st.fixed_dictionaries({"schema": st.text(), "data": VALUES})


@settings(max_examples=500, deadline=None)
@given(answer=VALUES | st.dictionaries(NAMES, VALUES | st.lists(ENTITY, max_size=2), max_size=4))
def test_any_answer_is_an_event_that_can_be_written_or_refused(answer: Any) -> None:
    try:
        found = added(answer)
    except Unusable as error:
        assert str(error)
        return
    types = {"integer": int, "timestamp": int, "decimal": Decimal, "float": float, "boolean": bool, "json": list}
    kinds = {column.name: types.get(column.type, str) for column in COLUMNS}
    for name, value in found.items():
        assert type(value) is kinds[name]
    orjson.dumps(found, default=str)
