"""Every failed event the vectors know becomes a bad row that its published schema accepts."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.enrichments import defaults
from enrich.pipeline import Options, Pipeline
from protocol.payloads import from_json
from protocol.schemas import bundled
from protocol.seams import FailedEvent, FailedKind, RawPayload, Reason
from protocol.tables import COLUMN_NAMES
from spoorway.badrows import bad_rows
from spoorway.webhooks import bundled as bundled_mappings
from spoorway.world import World
from storage.failed import to_json, to_row
from tests.conformance import vectors

WHOLE: tuple[FailedKind, ...] = ("collector_payload_format_violation", "adapter_failures", "tracker_protocol_violations")
_validators: dict[str, Any] = {}


def exported(failed: FailedEvent) -> list[dict[str, Any]]:
    return list(bad_rows(to_json(to_row(failed)), failed.payload))


def schema(uri: str) -> dict[str, Any]:
    """Without $schema: Iglu's own meta-schema is draft 4 with a name."""
    document = bundled(uri)
    assert document is not None, uri
    return {name: value for name, value in document.items() if name != "$schema"}


def check(bad_row: dict[str, Any]) -> None:
    uri = bad_row["schema"]
    if uri not in _validators:
        _validators[uri] = jsonschema_rs.Draft4Validator(schema(uri), validate_formats=True)
    parsed = json.loads(json.dumps(bad_row))
    errors = [f"{error.instance_path}: {error.message[:200]}" for error in _validators[uri].iter_errors(parsed["data"])]
    assert errors == [], uri


def failures() -> Iterator[tuple[str, FailedEvent]]:
    for case in vectors.cases("enrich"):
        if any("failed" in outcome for outcome in case.fields["expect"]):
            schemas = case.fields.get("schemas", {})
            lenient = frozenset(case.fields["lenient"]) if "lenient" in case.fields else Options().lenient
            options = Options(lenient=lenient, webhooks=tuple(bundled_mappings()))
            pipeline = Pipeline(options, lambda uri, own=schemas: own.get(uri) or bundled(uri), defaults(World()))
            payload = vectors.raw_payload(case)
            yield from ((case.id, one) for one in pipeline.outcomes(payload, 0) if isinstance(one, FailedEvent))


def test_every_failure_of_the_vectors_has_the_published_shape() -> None:
    kinds: Counter[str] = Counter()
    for case, failed in failures():
        rows = exported(failed)
        assert len(rows) == (len(failed.reasons) if failed.kind == "collector_payload_format_violation" else 1), case
        for row in rows:
            check(row)
            kinds[row["schema"].split("/")[1]] += 1
    assert set(kinds) == {*WHOLE, "schema_violations", "enrichment_failures"}
    assert sum(kinds.values()) > 100


TEXT = st.text(max_size=600)
REASON = st.builds(
    Reason,
    st.sampled_from(["payload", "adapter", "atomic", "unstruct_event", "contexts", "derived_contexts", "geo_ip"]),
    TEXT,
    TEXT,
    st.none() | TEXT,
    st.sampled_from(["", "NotJson", "INVALID_IGLUURI", "CriterionMismatch", "ResolutionError", "ValidationError"]),
    st.none() | st.just("iglu:com.acme/reading/jsonschema/1-0-0"),
)
PAYLOAD = st.builds(
    RawPayload,
    st.just("a" * 32),
    st.integers(0, 2**42),
    TEXT,
    TEXT | st.just("/i") | st.just("/com.acme/v1"),
    TEXT,
    st.none() | st.binary(),
    st.none() | TEXT,
    st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | TEXT | st.uuids().map(str),
)


@settings(max_examples=40)
@pytest.mark.parametrize("kind", [*WHOLE, "schema_violations", "enrichment_failures", "size_violation", "journal_damage"])
@given(reasons=st.lists(REASON, min_size=1, max_size=3), payload=PAYLOAD, parameters=st.dictionaries(TEXT, TEXT, max_size=3))
def test_whatever_was_sent_has_the_published_shape(
    kind: FailedKind, reasons: list[Reason], payload: RawPayload, parameters: dict[str, str]
) -> None:
    failed = FailedEvent("f", kind, tuple(reasons), payload, 1_768_471_206_000, 0, parameters)
    rows = exported(failed)
    assert rows
    for row in rows:
        check(row)


def test_an_event_has_every_column_and_its_request() -> None:
    payload = RawPayload(
        "a" * 32, 1_768_471_205_123, "http", "/i", "e=se&se_va=1.50", None, None, (("User-Agent", "x"),), "10.0.0.1"
    )
    pipeline = Pipeline(Options(version="9.9.9"), bundled, ())
    (failed,) = pipeline.outcomes(replace(payload, query=payload.query + "&tid=7&cookie=1&vid=three&eid=x"), 1_768_471_206_000)
    assert isinstance(failed, FailedEvent)
    (row,) = exported(failed)
    enriched, raw = row["data"]["payload"]["enriched"], row["data"]["payload"]["raw"]
    assert set(enriched) == set(COLUMN_NAMES)
    assert (enriched["se_value"], enriched["txn_id"], enriched["br_cookies"]) == ("1.50", "7", 1)
    assert enriched["collector_tstamp"] == "2026-01-15 10:00:05.123"
    assert {"name": "vid", "value": "three"} in raw["parameters"]
    assert (raw["timestamp"], raw["useragent"]) == ("2026-01-15T10:00:05.123Z", "x")
    assert row["data"]["failure"]["timestamp"] == "2026-01-15T10:00:06.000Z"
    assert [message["field"] for message in row["data"]["failure"]["messages"]] == ["vid", "eid"]


def test_what_could_not_be_taken_apart_is_there_byte_for_byte() -> None:
    payload = RawPayload("a" * 32, 1_768_471_205_123, "http", "/com.acme/v1/x", "a={", b"\xff\x00")
    reasons = (Reason("payload", "path", "wrong"), Reason("payload", "querystring", "wrong", "a={"))
    rows = exported(FailedEvent("f", "collector_payload_format_violation", reasons, payload, 1_768_471_206_000))
    assert [row["data"]["failure"]["message"]["payloadField"] for row in rows] == ["path", "querystring"]
    assert {from_json(base64.b64decode(row["data"]["payload"])) for row in rows} == {payload}
