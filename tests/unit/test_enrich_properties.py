"""Whatever arrives, enrichment answers with events or failed events, never with an exception, and says the same twice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.enrichments import defaults
from enrich.pipeline import Options, Pipeline
from protocol.schemas import bundled
from protocol.seams import FailedEvent, RawPayload
from protocol.tables import COLUMN_NAMES, PARAMETERS
from protocol.wire import decode_base64, encode_base64, parse_query, write_query
from spoorway.world import World

NOW = 1_768_471_206_000
LENIENT = Pipeline(Options(), bundled, defaults(World()))
STRICT = Pipeline(Options(lenient=frozenset()), bundled, defaults(World()))
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"

any_text = st.text(max_size=40)
names = st.one_of(st.sampled_from(sorted(PARAMETERS)), any_text)
numbers = st.sampled_from(["0", "1", "-1", "3.0", "1E7", "1e-9", "NaN", "null", "9" * 30, "1768471200000", "12x9", "", " 1"])
nested = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=8,
)
described = st.fixed_dictionaries(
    {"schema": st.one_of(any_text, st.just("iglu:com.snowplowanalytics.snowplow/web_page/jsonschema/1-0-0")), "data": nested}
)
wrapped = st.builds(
    lambda name, data: json.dumps({"schema": f"iglu:com.snowplowanalytics.snowplow/{name}", "data": data}),
    st.sampled_from(["contexts/jsonschema/1-0-0", "unstruct_event/jsonschema/1-0-0", "contexts/jsonschema/2-0-0"]),
    st.one_of(described, st.lists(described, max_size=3), nested),
)
values = st.one_of(any_text, numbers, wrapped, wrapped.map(encode_base64), st.just("https://a.b/c?_sp=d.1&utm_source=e#f"))
events = st.dictionaries(names, values, max_size=12)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=200),
    nested.map(lambda value: json.dumps(value).encode()),
    st.lists(st.one_of(events, nested), max_size=4).map(
        lambda data: json.dumps({"schema": PAYLOAD_DATA, "data": data}).encode("utf-8", "surrogatepass")
    ),
)
paths = st.sampled_from(
    ["/i", "/com.snowplowanalytics.snowplow/tp2", "/r/tp2", "/com.snowplowanalytics.iglu/v1", "/x/y", "/", "", "/a/b/c"]
)
payloads = st.builds(
    RawPayload,
    id=st.just("a" * 32),
    received_ms=st.integers(0, 4_000_000_000_000),
    transport=st.just("http"),
    path=paths,
    query=st.one_of(any_text, events.map(lambda e: write_query({k: v for k, v in e.items() if _encodable(k + v)}))),
    body=bodies,
    content_type=st.one_of(st.none(), any_text, st.just("application/json"), st.just("application/x-www-form-urlencoded")),
    headers=st.lists(st.tuples(st.sampled_from(["User-Agent", "Referer", "X"]), any_text), max_size=3).map(tuple),
    ip=st.one_of(st.none(), any_text, st.just("198.51.100.7"), st.just("2001:db8::1")),
    network_userid=st.one_of(st.none(), any_text, st.just("1-1-1-1-1")),
)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


@settings(max_examples=800, deadline=None)
@given(payloads)
def test_any_payload_becomes_events_or_failed_events(payload: RawPayload) -> None:
    for pipeline in (LENIENT, STRICT):
        outcomes = list(pipeline.outcomes(payload, NOW))
        assert outcomes, "a payload that leaves no trace"
        for outcome in outcomes:
            if isinstance(outcome, FailedEvent):
                assert outcome.reasons
                assert outcome.payload is payload
            else:
                assert outcome.keys() <= set(COLUMN_NAMES)
                assert outcome["event_id"] and outcome["collector_tstamp"] == payload.received_ms
        assert list(pipeline.outcomes(payload, NOW)) == outcomes


@pytest.mark.parametrize("name", ["ue_pr", "co"])
@pytest.mark.parametrize("schema", [[1], {"a": 1}, None, 1], ids=["list", "object", "null", "number"])
def test_a_schema_of_any_type_fails_its_own_event_alone(name: str, schema: object) -> None:
    sent = json.dumps({"schema": schema, "data": {"schema": schema, "data": {}}})
    good = {"e": "pv", "p": "web", "tv": "js-4"}
    body = {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [good | {name: sent}, good]}
    payload = RawPayload(
        "0" * 32, NOW, "http", "/com.snowplowanalytics.snowplow/tp2", "", json.dumps(body).encode(), "application/json"
    )
    bad, other = LENIENT.outcomes(payload, NOW)
    assert isinstance(bad, FailedEvent)
    assert [reason.keyword for reason in bad.reasons] == ["INVALID_DATA_PAYLOAD"]
    assert not isinstance(other, FailedEvent)


@settings(max_examples=500, deadline=None)
@given(payloads)
def test_strict_rules_never_take_more_than_lenient_ones(payload: RawPayload) -> None:
    def good(pipeline: Pipeline) -> int:
        return sum(not isinstance(outcome, FailedEvent) for outcome in pipeline.outcomes(payload, NOW))

    assert good(STRICT) <= good(LENIENT)


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_base64_as_trackers_write_it_is_read_back(text: str) -> None:
    if _encodable(text):
        assert decode_base64(encode_base64(text)).decode() == text
        assert decode_base64(encode_base64(text) + "==") == text.encode()


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_query_string_is_read_back(parameters: dict[str, str]) -> None:
    if all(map(_encodable, [*parameters, *parameters.values()])):
        assert parse_query(write_query(parameters)) == parameters


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_any_text_is_some_query_and_some_base64(text: str) -> None:
    parse_query(text)
    decode_base64(text)
