"""Pseudonyms: golden hashes (made with sha256sum and openssl), every kind of place, and that nothing plain is left there."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.enrichments import Enrichment, Replacing, Step
from enrich.enrichments.pii import COLUMNS, Config, Plugin
from enrich.pipeline import Options, Pipeline
from enrich.validators import Validators
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Event, RawPayload, SelfDescribing
from spoorway.world import World
from tests.unit.enrichment_world import raw

USER = "iglu:com.acme/user/jsonschema/1-0-0"
ANN = "ann@example.com"
HASHED = "ba01b1a3c0a6d649f40c6e242cd54df07b8f63c5217d3f2b211880516b39bbdc"
RECORD = "iglu:com.snowplowanalytics.snowplow/pii_transformation/jsonschema/1-0-0"


def plugin(world: World | None = None, **options: Any) -> Plugin:
    return Plugin(Config(**{"salt": "pepper123", **options}), world or World())


def done(made: Enrichment, event: Event, *headers: tuple[str, str]) -> dict[str, Any]:
    """The event as it is afterwards; checks that the one that was given is untouched."""
    before = copy.deepcopy(event)
    added = made(event, raw(*headers))
    assert isinstance(added, dict)
    assert event == before
    return {**event, **added}


def in_json(path: str, data: Any, **options: Any) -> Any:
    made = plugin(json=(f"contexts iglu:com.acme/user/jsonschema/1-*-* {path}",), **options)
    return done(made, {"contexts": [{"schema": USER, "data": data}]})["contexts"][0]["data"]


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("hmac_sha256", HASHED),
        ("sha256", "0bd4bd4d98f504f7cb568fe17ef48fe07f9907625995e103b6ad91619c115ef4"),
        ("sha1", "f263d41ab09eaa0f286a636d553949e9d2dea2df"),
        ("md5", "216599d84f41d3d955bc964e966e9f28"),
    ],
)
def test_column_becomes_its_hash(algorithm: str, expected: str) -> None:
    event: Event = {"user_id": ANN, "app_id": "shop"}
    assert done(plugin(columns=("user_id", "domain_userid"), algorithm=algorithm), event) == {
        "user_id": expected,
        "app_id": "shop",
    }


def test_every_column_can_be_hashed_and_keeps_its_type() -> None:
    event: Any = dict.fromkeys(COLUMNS, "11111111-1111-4111-8111-111111111111")
    hashed = "4f1346ec014973fefdfd5d4dcbc4b28ef8a6ffcdd00b6efc9e8810a75376b5f4"
    expected = dict.fromkeys(COLUMNS, hashed) | {"domain_sessionid": "4f1346ec-0149-53fe-bdfd-5d4dcbc4b28e"}
    assert done(plugin(columns=COLUMNS), event) == expected


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("$.email", {"email": ANN, "other": ANN}, {"email": HASHED, "other": ANN}),
        ("$.a.b.c.d.e.f", {"a": {"b": {"c": {"d": {"e": {"f": ANN}}}}}}, {"a": {"b": {"c": {"d": {"e": {"f": HASHED}}}}}}),
        ("$.emails[*]", {"emails": [ANN, "", ANN]}, None),
        ("$.emails[1]", {"emails": [ANN, ANN]}, {"emails": [ANN, HASHED]}),
        ("$.emails[9]", {"emails": [ANN]}, {"emails": [ANN]}),
        ("$.people[*].email", {"people": [{"email": ANN}, {"name": ANN}, 5]}, {"people": [{"email": HASHED}, {"name": ANN}, 5]}),
        ("$['e mail']", {"e mail": ANN}, {"e mail": HASHED}),
        ('$["a.b"]', {"a.b": ANN}, {"a.b": HASHED}),
        ("$.*", {"a": ANN, "b": [ANN]}, {"a": HASHED, "b": [HASHED]}),
        ("$..email", {"email": ANN, "x": [{"email": ANN, "y": {"email": ANN}}]}, None),
        ("$.whole", {"whole": {"a": [ANN, {"b": ANN}], "c": None, "d": True}}, None),
        ("$", ANN, HASHED),
        ("$.phone", {"phone": 17}, {"phone": "b63e211fba6bcd3fff256caae011568bc8e9c7103ed6985222402f8fc7fcd555"}),
        ("$.none", {"none": None}, {"none": None}),
        ("$.no.such.place", {"no": ANN}, {"no": ANN}),
        ("$.text.more", {"text": ANN}, {"text": ANN}),
    ],
)
def test_place_in_an_entity_becomes_its_hash(path: str, data: Any, expected: Any) -> None:
    found = in_json(path, data)
    if expected is None:
        assert ANN not in json.dumps(found) and HASHED in json.dumps(found)
    else:
        assert found == expected


def test_only_the_named_schema_is_touched() -> None:
    others = [
        "iglu:com.acme/user/jsonschema/2-0-0",
        "iglu:com.acme/users/jsonschema/1-0-0",
        "iglu:com.other/user/jsonschema/1-0-0",
    ]
    entities: list[SelfDescribing] = [{"schema": uri, "data": {"email": ANN}} for uri in [*others, USER]]
    event: Event = {"contexts": entities, "unstruct_event": entities[-1]}
    after = done(plugin(json=("contexts iglu:com.acme/user/jsonschema/1-*-* $.email",)), event)
    assert [e["data"]["email"] for e in after["contexts"]] == [ANN, ANN, ANN, HASHED]
    assert after["unstruct_event"]["data"]["email"] == ANN


def test_what_the_tracker_sent_and_what_enrichments_made_is_hashed_alike() -> None:
    options = [f"{column} iglu:com.acme/user/jsonschema/1-0-0 $.email" for column in ("unstruct_event", "derived_contexts")]
    entity: SelfDescribing = {"schema": USER, "data": {"email": ANN}}
    after = done(plugin(json=options), {"unstruct_event": entity, "derived_contexts": [entity]})
    assert after["unstruct_event"]["data"]["email"] == HASHED
    assert after["derived_contexts"] == [{"schema": USER, "data": {"email": HASHED}}]
    assert isinstance(after["derived_contexts"], Replacing)


def test_event_without_anything_to_hash_gets_nothing() -> None:
    made = plugin(columns=("user_id",), json=("contexts iglu:com.acme/user/jsonschema/1-*-* $.email",), record=True)
    assert made({"contexts": [{"schema": USER, "data": {"name": "x"}}], "app_id": "x"}, raw()) == {}


@pytest.mark.parametrize(("header", "hashed"), [("SP-Anonymous", True), ("sp-anonymous", True), ("X", False)])
def test_only_anonymous_events_where_it_is_asked_for(header: str, hashed: bool) -> None:
    after = done(plugin(columns=("user_id",), anonymous_only=True), {"user_id": ANN}, (header, "*"))
    assert after["user_id"] == (HASHED if hashed else ANN)


@pytest.mark.parametrize("algorithm", ["hmac_sha256", "sha256", "sha384", "sha512", "sha1", "md5"])
def test_record_is_valid_and_says_what_became_of_what(algorithm: str) -> None:
    places = ("contexts iglu:com.acme/user/jsonschema/1-*-* $.emails[*]",)
    made = plugin(columns=("user_id",), json=places, record=True, algorithm=algorithm)
    earlier: SelfDescribing = {"schema": USER, "data": {}}
    event: Event = {
        "user_id": ANN,
        "contexts": [{"schema": USER, "data": {"emails": [ANN, "b"]}}],
        "derived_contexts": [earlier],
    }
    record, kept = done(made, event)["derived_contexts"]
    assert (record["schema"], kept) == (RECORD, earlier)
    assert Validators(bundled).reasons(RECORD, record["data"], "x") == ()
    (column,) = record["data"]["pii"]["pojo"]
    first, second = (each["fieldMapping"] for each in record["data"]["pii"]["json"])
    assert (column["fieldName"], column["originalValue"]) == ("user_id", ANN)
    assert (first["originalValue"], first["modifiedValue"]) == (ANN, column["modifiedValue"])
    assert (second["originalValue"], second["jsonPath"], second["schema"]) == ("b", "$.emails[*]", USER)


def test_pipeline_replaces_the_entities_that_were_there() -> None:
    entity: SelfDescribing = {"schema": "iglu:org.ietf/http_cookie/jsonschema/1-0-0", "data": {"name": "id", "value": ANN}}
    made = plugin(json=("derived_contexts iglu:org.ietf/http_cookie/jsonschema/1-*-* $.value",))
    steps = [Step("cookie", lambda event, raw: {"derived_contexts": [entity]}), Step("pii", made)]
    payload = RawPayload("0" * 32, 1_700_000_000_000, "http", "/i", "e=pv&p=web&url=http%3A%2F%2Fa.b%2F")
    for _ in range(2):  # the second event finds the first's entity untouched
        (event,) = Pipeline(Options(), bundled, steps).outcomes(payload, 1)
        assert isinstance(event, dict)
        assert event["derived_contexts"] == [{"schema": entity["schema"], "data": {"name": "id", "value": HASHED}}]


def test_salt_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "salt").write_text("pepper123\n")
    made = plugin(salt="", salt_file=str(tmp_path / "salt"), columns=("user_id",))
    assert done(made, {"user_id": ANN})["user_id"] == HASHED


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "name what is to be hashed"),
        ({"columns": ("event_id",)}, "no event_id; there are user_id"),
        ({"columns": ("user_id",), "salt": ""}, "a hash without salt"),
        ({"columns": ("user_id",), "salt_file": "x"}, "two answers"),
        ({"columns": ("user_id",), "salt": "", "salt_file": "/nonexistent"}, "No such file"),
        ({"json": ("user_id",)}, "name it in columns"),
        ({"json": ("contexts iglu:com.acme/user/jsonschema/1-*-* email",)}, "a path begins with"),
        ({"json": ("contexts iglu:com.acme/user/jsonschema/1-*-* $.a[?(@.b)]",)}, "no path"),
        ({"json": ("contexts com.acme/user $.a",)}, "is no schema"),
        ({"json": ("context iglu:com.acme/user/jsonschema/1-*-* $.a",)}, "neither a column nor"),
    ],
)
def test_mistake_is_found_at_the_start(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        plugin(**options)


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text())
KEYS = st.sampled_from(["email", "a", "b", "c d"])
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=15)
PATHS = st.lists(st.sampled_from([".email", ".a", "[0]", "[*]", ".*", "..email", "['c d']"]), max_size=4).map("".join)


@settings(max_examples=300, deadline=None)
@given(data=TREES, path=PATHS, record=st.booleans(), user=st.text())
def test_any_event_is_hashed_without_fail_and_keeps_its_shape(data: Any, path: str, record: bool, user: str) -> None:
    made = plugin(columns=COLUMNS, json=(f"contexts iglu:com.acme/user/jsonschema/1-*-* ${path}",), record=record)
    after = done(made, {"user_id": user, "contexts": [{"schema": USER, "data": data}]})
    assert len(after["user_id"]) == 64
    assert shape(after["contexts"][0]["data"]) == shape(data)


@settings(max_examples=200, deadline=None)
@given(data=TREES)
def test_a_name_at_any_depth_leaves_nothing_plain_below_it(data: Any) -> None:
    def texts(value: Any, below: bool) -> list[Any]:
        if isinstance(value, dict):
            return [text for key, each in value.items() for text in texts(each, below or key == "email")]
        if isinstance(value, list):
            return [text for each in value for text in texts(each, below)]
        return [value] if below and isinstance(value, str) else []

    assert all(len(text) == 64 for text in texts(in_json("$..email", data), False))


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else 0
