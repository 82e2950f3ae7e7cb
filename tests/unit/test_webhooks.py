"""Webhook mappings: mistakes in a file are told by their place, mistakes in a document never raise."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.pipeline import Options, Pipeline
from enrich.webhooks import COLUMNS, WebhookMapping
from gateway.mqtt.topics import READY
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, FailedEvent, RawPayload, Reason
from protocol.tables import PARAMETERS
from spoorway import building
from spoorway.config import load
from spoorway.webhooks import bundled as bundled_mappings

ROOT = Path(__file__).parents[2]
URI = "iglu:com.acme/reading/jsonschema/1-0-0"
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def mapping(**rule: Any) -> WebhookMapping:
    return WebhookMapping({"path": "/com.acme/v1", "events": [{"schema": URI, "data": "", **rule}]}, "mine.toml")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "mine.toml: path: expected two segments such as /com.acme/v1, not None"),
        ({"path": "/a"}, "mine.toml: path: expected two segments"),
        ({"path": "/a/b"}, "mine.toml: expected at least one table [[events]]"),
        ({"path": "/a/b", "events": {}}, "mine.toml: events: expected a list of tables"),
        ({"path": "/a/b", "event": []}, "mine.toml: unknown name 'event'; there are about, path, body, retained, each, events"),
        ({"path": "/a/b", "events": [{"schema": "x"}]}, "mine.toml: events 1.schema: expected iglu:"),
        ({"path": "/a/b", "body": "plain"}, "mine.toml: body: expected json or text, not 'plain'"),
        ({"path": "/a/b", "retained": True}, "mine.toml: retained: expected skip or keep, not True"),
        ({"path": "/a/b", "each": "a", "events": [{"schema": URI}]}, "mine.toml: each: expected a JSON pointer"),
    ],
)
def test_mistake_in_the_file_is_told_by_its_place(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        WebhookMapping(document, "mine.toml")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"date": {}}, "events 1: unknown name 'date'"),
        ({"data": {"a": "b"}}, "events 1.data.a: expected a JSON pointer such as /a/0/b, ^/a, ?name or +1, not 'b'"),
        ({"data": {"a": {"b": "c"}}}, "events 1.data.a.b: expected a JSON pointer"),
        ({"data": {"a": {"at": "/a", "az": "text"}}}, "events 1.data.a: unknown name 'az'; there are at, as, try, default"),
        ({"data": {"a": {"at": "/a", "as": "float"}}}, "events 1.data.a: as: no 'float'; there are text, lower, number"),
        ({"data": {"a": {"at": "/a", "try": "float"}}}, "events 1.data.a: try: no 'float'; there are text, lower, number"),
        ({"data": {"a": {"at": "/a", "as": "text", "try": "text"}}}, "events 1.data.a: expected one of as and try"),
        ({"data": {"a": "+0"}}, "events 1.data.a: expected a JSON pointer"),
        ({"data": {"a": {"value": 1, "at": "/a"}}}, "events 1.data.a: unknown name 'at'; there are value"),
        ({"data": {"a": 5}}, "events 1.data.a: expected a JSON pointer"),
        ({"data": 5}, "events 1.data: expected a table"),
        ({"columns": {"se_value": "/a"}}, "events 1.columns: unknown name 'se_value'; there are app_id"),
        ({"id": ["a"]}, "events 1.id: expected a JSON pointer"),
        ({"if_present": ["a"]}, "events 1.if_present: expected a JSON pointer"),
        ({"entities": [{"schema": URI, "all": "/a"}]}, "events 1.entities 1: unknown name 'all'"),
        ({"entities": [{"data": {}}]}, "events 1.entities 1.schema: expected iglu:"),
    ],
)
def test_mistake_in_a_rule_is_told_by_its_place(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"mine.toml: {message}")):
        mapping(**rule)


def test_a_tracker_path_cannot_be_taken() -> None:
    theirs = WebhookMapping({"path": "/r/tp2", "events": [{"schema": URI}]}, "x")
    with pytest.raises(ConfigurationError, match="/r/tp2 is taken by the tracker protocol"):
        Pipeline(Options(webhooks=(theirs,)), bundled, ())


def test_every_column_travels_in_a_parameter_of_its_own() -> None:
    for column, parameter in COLUMNS.items():
        assert column in PARAMETERS[parameter].columns


@given(JSON, st.sampled_from(["", "event=up", "event=join&x=%00"]))
def test_no_document_breaks_a_mapping(document: Any, query: str) -> None:
    pipeline = Pipeline(Options(webhooks=tuple(bundled_mappings())), bundled, ())
    for mapped in bundled_mappings():
        payload = RawPayload("a" * 32, 0, "http", mapped.path, query, json.dumps(document).encode(), "application/json")
        outcomes = list(pipeline.outcomes(payload, 0))
        assert outcomes


@given(JSON, JSON)
def test_every_item_has_an_answer(first: Any, second: Any) -> None:
    rule = mapping(
        columns={"user_id": "/a", "true_tstamp": "/t"}, id=["/a"], entities=[{"schema": URI, "each": "/l", "data": {"x": ""}}]
    )
    answers = list(rule.parameters([first, second], {}))
    assert len(answers) == 2
    for answer in answers:
        assert isinstance(answer, Reason) or all(isinstance(text, str) for text in answer.values())


@pytest.mark.parametrize(("choice", "events"), [({}, 0), ({"retained": "skip"}, 0), ({"retained": "keep"}, 1)])
def test_state_that_a_broker_had_kept_is_an_event_where_it_is_asked_for(choice: dict[str, str], events: int) -> None:
    mine = WebhookMapping({"path": "/com.acme/v1", **choice, "events": [{"schema": URI, "data": ""}]}, "mine.toml")
    pipeline = Pipeline(Options(webhooks=(mine,)), lambda uri: {"type": "object"} if uri == URI else bundled(uri), ())
    headers = (("MQTT-Topic", "a/b"), ("MQTT-Retain", "1"))
    old = RawPayload("a" * 32, 0, "mqtt", mine.path, "", b"{}", "application/json", headers)
    assert len(list(pipeline.outcomes(old, 0))) == events
    assert len(list(pipeline.outcomes(replace(old, headers=headers[:1]), 0))) == 1


def test_every_ready_topic_has_its_mapping() -> None:
    assert set(READY.values()) <= {mapped.path for mapped in bundled_mappings()}


def test_files_of_the_users_own_are_read(tmp_path: Path) -> None:
    (tmp_path / "hook.json").write_text(json.dumps({"path": "/com.acme/v1", "events": [{"schema": URI, "data": ""}]}))
    (tmp_path / "ttn.toml").write_text(f'path = "/org.thethingsnetwork/v3"\n[[events]]\nschema = "{URI}"\ndata = ""\n')
    (tmp_path / "spoorway.toml").write_text(f'[enrich]\nwebhooks = ["{tmp_path}/hook.json", "{tmp_path}/ttn.toml"]\n')
    options = building.enrich_options(load(tmp_path / "spoorway.toml", {}, {}))
    pipeline = Pipeline(options, lambda uri: {"type": "object"} if uri == URI else bundled(uri), ())
    for path in ("/com.acme/v1", "/org.thethingsnetwork/v3"):
        (event,) = pipeline.outcomes(RawPayload("a" * 32, 0, "http", path, "", b'{"a":1}', "application/json"), 0)
        assert not isinstance(event, FailedEvent)
        assert event["unstruct_event"]["data"] == {"a": 1}  # pyright: ignore[reportTypedDictNotRequiredAccess]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.toml", None, "No such file"),
        ("a.toml", "path =", "Invalid value"),
        ("a.json", "{", "Expecting"),
        ("a.json", "[]", "a table"),
    ],
)
def test_file_that_is_none_is_one_line(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    (tmp_path / "spoorway.toml").write_text(f'[enrich]\nwebhooks = ["{tmp_path / name}"]\n')
    with pytest.raises(ConfigurationError, match=f"enrich.webhooks: .*{message}") as caught:
        building.enrich_options(load(tmp_path / "spoorway.toml", {}, {}))
    assert "\n" not in str(caught.value)


def test_the_documented_mapping_works() -> None:
    page = (ROOT / "docs/webhooks.md").read_text("utf-8")
    example, topics = re.findall(r"```toml\n(path = .*?)```", page, re.DOTALL)
    (body,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (answer,) = WebhookMapping(tomllib.loads(example), "docs").parameters(json.loads(body), {})
    assert not isinstance(answer, Reason)
    assert json.loads(answer["ue_pr"])["data"]["data"] == {"meter": "m-17", "litres": 412.5, "battery_low": False}
    assert (answer["aid"], answer["uid"], answer["ttm"]) == ("water", "m-17", "1768471200000")
    assert len(json.loads(answer["co"])["data"]) == 2
    assert {name for name, _ in re.findall(r"^\| `(\w+)` \| (`|a |the )", page, re.MULTILINE)} >= {"text", "lower", "time_ms"}
    for body, data in (
        ("12.5", {"device_id": "pump-3", "metres": 12.5, "word": "12.5"}),
        ("dry", {"device_id": "pump-3", "word": "dry"}),
    ):
        (answer,) = WebhookMapping(tomllib.loads(topics), "docs").parameters(body, {}, "site/north/pump-3/level")
        assert not isinstance(answer, Reason)
        assert json.loads(answer["ue_pr"])["data"]["data"] == data


def test_the_documented_bridge_is_configured(tmp_path: Path) -> None:
    page = (ROOT / "docs/mqtt-bridge.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "password").write_text("x")
    (tmp_path / "spoorway.toml").write_text(example.replace("/etc/spoorway/broker.password", str(tmp_path / "password")))
    _, bridge = load(tmp_path / "spoorway.toml", {}, {}).transports()
    bridge.plugin(None)
    assert bridge.config.topics.items() <= READY.items()
    for topic_filter in READY:
        assert f"`{topic_filter}`" in page or f"`{topic_filter.split('/')[1]}`" in page, topic_filter
