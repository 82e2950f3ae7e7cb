"""Every case of protocol/vectors/compact: what enrichment makes of the frames, and that encoders write these very bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from enrich.compact import readings
from protocol.compact import encode
from protocol.devices import COMPACT_PATH
from protocol.seams import RawPayload, Reason
from protocol.templates import Template, bundled, template
from protocol.wire import parse_query
from tests.conformance import vectors

CASES = list(vectors.cases("compact"))
WRITTEN = [case for case in CASES if "written" in case.fields]


def known(fields: Mapping[str, Any]) -> dict[tuple[int, int], Template]:
    own = [template(document) for document in fields.get("templates", ())]
    return {**bundled(), **{(each.id, each.version): each for each in own}}


def exact(text: str) -> Any:
    """JSON whose numbers keep every digit that is written."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def told(outcome: dict[str, str] | Reason) -> dict[str, Any]:
    if isinstance(outcome, Reason):
        return {"refused": outcome.keyword, "message": outcome.message, "value": outcome.value}
    assert (outcome["e"], outcome["p"], outcome["tv"]) == ("ue", "iot", "compact-1")
    event, entities = exact(outcome["ue_pr"])["data"], exact(outcome["co"])["data"]
    assert [entity["schema"] for entity in entities] == ["iglu:io.spoorway/device_clock/jsonschema/1-0-0"]
    return {**event, "clock": entities[0]["data"], **{name: outcome[name] for name in ("dtm", "stm", "aid") if name in outcome}}


def differences(expected: list[dict[str, Any]], outcomes: list[dict[str, Any]]) -> list[str]:
    found = [f"{len(expected)} expected, {len(outcomes)} came"] if len(expected) != len(outcomes) else []
    for n, (want, have) in enumerate(zip(expected, outcomes, strict=False)):
        message = have.pop("message", "")
        if "value" not in want:
            have.pop("value", None)
        if want.pop("message_has", "") not in message:
            found.append(f"{n}: {message}")
        if want != have:
            found.append(f"{n}: {have} instead of {want}")
    return found


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_frames_become_the_expected_events(case: vectors.Case) -> None:
    fields = case.fields
    headers = tuple((name, value) for name, value in fields.get("headers", ()))
    body, device = bytes.fromhex(fields["frames"]), fields.get("device")
    payload = RawPayload("a" * 32, 0, "mqtt", COMPACT_PATH, body=body, headers=headers, device=device)
    query = {name: value for name, value in parse_query(fields.get("query", "")).items() if value is not None}
    there = known(fields)
    outcomes = [told(each) for each in readings(payload, query, lambda number, version: there.get((number, version)))]
    assert differences(exact(json.dumps(fields["expect"])), outcomes) == [], fields["why"]


def test_comparing_bites() -> None:
    one = {"schema": "s", "data": {"a": Decimal("21.5")}, "clock": {}, "dtm": "1"}
    assert differences([dict(one)], [dict(one)]) == []
    assert differences([dict(one)], [{**one, "data": {"a": Decimal("21.500000000000004")}}])
    assert differences([dict(one)], [])
    assert differences([dict(one)], [{"refused": "Malformed", "message": "m", "value": None}])
    assert differences([{"refused": "Malformed", "message_has": "x"}], [{"refused": "Malformed", "message": "m", "value": None}])


@pytest.mark.parametrize("case", WRITTEN, ids=[case.id for case in WRITTEN])
def test_the_codec_writes_these_bytes(case: vectors.Case) -> None:
    written = case.fields["written"]
    rest = {key: written[key] for key in ("boot", "sequence", "mark_ms", "device", "earlier") if key in written}
    if by := written.get("sealed_by"):
        rest["sealed_by"] = by["device"], bytes.fromhex(by["key"])
    number, version = map(int, written["template"].split("/"))
    each = [(reading["uptime_ms"], reading["data"]) for reading in written["readings"]]
    assert encode(known(case.fields)[number, version], each, **rest).hex() == case.fields["frames"]


def test_every_way_to_be_refused_has_a_case() -> None:
    schema = json.loads((vectors.FOLDER / "vector.schema.json").read_text("utf-8"))
    possible = schema["definitions"]["compact"]["properties"]["expect"]["items"]["oneOf"][1]["properties"]["refused"]["enum"]
    seen = {item["refused"] for case in CASES for item in case.fields["expect"] if "refused" in item}
    assert seen == set(possible)
