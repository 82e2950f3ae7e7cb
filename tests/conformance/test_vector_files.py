"""The vector files themselves: well-formed, each id once and in its place, and every part of the protocol's table covered."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest

from enrich.leniency import LENIENCIES
from protocol.schemas import bundled
from protocol.seams import FailedKind
from protocol.tables import COLUMN_NAMES, PARAMETERS
from protocol.wire import parse_query
from tests.conformance import vectors

SCHEMA = json.loads((vectors.FOLDER / "vector.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema_rs.Draft7Validator(SCHEMA, validate_formats=True)
FILES = vectors.files()
ENRICH = list(vectors.cases("enrich"))
FALLIBLE = {"int32", "decimal", "bool01", "uuid", "epoch_ms", "dimensions", "event_code", "platform_code"}
JSON = {"json_text", "base64_json_text"}
# Transport's own: used by a path's adapter or by the gateway, not by any event.
RESERVED = {"u": "redirect", "schema": "webhook", "n3pc": "parameters"}


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(pairs) == len(dict(pairs)), f"a key stands twice: {[key for key, _ in pairs]}"
    return dict(pairs)


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_file_is_what_its_schema_says(file: Path) -> None:
    document = json.loads(file.read_text("utf-8"), object_pairs_hook=_object_without_repeats)
    assert [f"{list(e.instance_path)}: {e.message[:200]}" for e in VALIDATOR.iter_errors(document)] == []


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_ids_name_their_file(file: Path) -> None:
    document = json.loads(file.read_text("utf-8"))
    assert [c["id"] for c in document["cases"] if not c["id"].startswith(f"{file.parent.name}/{file.stem}-")] == []


def test_schema_refuses_what_is_no_case() -> None:
    good = {"id": "enrich/a-b", "why": "because of something", "parameters": {"e": "pv"}, "expect": [{"columns": {"event": "x"}}]}
    assert VALIDATOR.is_valid({"about": "long enough", "cases": [good]})
    faults: list[dict[str, Any]] = [
        {"why": ""},
        {"expect": []},
        {"parameters": {"e": 1}},
        {"expected": []},
        {"id": "enrich/a"},
        {"event": {}},
    ]
    for fault in faults:
        assert not VALIDATOR.is_valid({"about": "long enough", "cases": [good | fault]}), fault


def test_every_id_is_used_once() -> None:
    ids = Counter(case.id for group in ("enrich", "gateway", "tracker") for case in vectors.cases(group))
    assert [name for name, count in ids.items() if count > 1] == []


def test_enrich_cases_name_what_exists() -> None:
    for case in ENRICH:
        assert set(case.fields.get("lenient", ())) <= LENIENCIES.keys(), case.id
        for outcome in case.fields["expect"]:
            assert outcome.get("columns", {}).keys() <= set(COLUMN_NAMES), case.id
        for uri in case.fields.get("schemas", {}):
            assert bundled(uri) is None, f"{case.id}: {uri} is bundled"


def _sent(case: vectors.Case) -> set[str]:
    fields = case.fields
    query = parse_query(fields.get("payload", {}).get("query", ""))
    return {*fields.get("parameters", {}), *fields.get("event", {}), *query}


def _filled(case: vectors.Case) -> set[str]:
    return {name for outcome in case.fields["expect"] for name, value in outcome.get("columns", {}).items() if value is not None}


def _blamed(case: vectors.Case) -> set[str]:
    return {r.get("field", "") for o in case.fields["expect"] for r in o.get("failed", {"reasons": []})["reasons"]}


def test_every_parameter_is_good_once_and_bad_once() -> None:
    good = {
        name for case in ENRICH for name in _sent(case) if name in PARAMETERS and set(PARAMETERS[name].columns) <= _filled(case)
    }
    bad = {name for case in ENRICH for name in _sent(case) & _blamed(case)}
    for name, parameter in PARAMETERS.items():
        if parameter.status == "reserved":
            assert any(name in _sent(case) for case in ENRICH if case.file == RESERVED[name]), name
            continue
        assert name in good, f"no case fills the columns of {name}"
        if parameter.conversion in FALLIBLE | JSON:
            assert name in bad, f"no case shows {name} malformed"


def test_every_leniency_is_seen_on_and_off() -> None:
    strict = [case for case in ENRICH if case.fields.get("lenient") == []]
    assert len(strict) >= 10
    by_input = {json.dumps([c.fields.get(k) for k in ("payload", "parameters", "event")]): c for c in strict}
    changed = [
        case
        for case in ENRICH
        if "lenient" not in case.fields
        if (other := by_input.get(json.dumps([case.fields.get(k) for k in ("payload", "parameters", "event")])))
        if other.fields["expect"] != case.fields["expect"]
    ]
    assert len(changed) >= len(LENIENCIES)


def test_every_kind_of_failure_of_this_room_occurs() -> None:
    kinds = {o["failed"]["kind"] for case in ENRICH for o in case.fields["expect"] if "failed" in o}
    elsewhere = {"size_violation", "journal_damage", "relay_refused"}  # not by enrichment
    assert kinds == set(get_args(FailedKind)) - elsewhere
