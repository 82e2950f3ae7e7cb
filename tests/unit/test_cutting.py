"""A person's events taken out of payloads of every form; everybody else's stay byte for byte."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enrich.leniency import EVERY_LENIENCY
from enrich.pipeline import Options, Pipeline
from gateway.journal.erasing import Cut
from gateway.journal.lines import encode
from protocol.devices import DEVICE_CLOCK
from protocol.persons import Person
from protocol.schemas import bundled
from protocol.seams import FailedEvent, RawPayload
from spoorway.cutting import Cutting, suspect

NOW = 1_700_000_000_000
POST = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
U1 = Person(user=frozenset({"u-1"}))
PIPELINE = Pipeline(Options(), bundled, [])
STRICT = Pipeline(Options(lenient=EVERY_LENIENCY - {"bad_object"}), bundled, [])


def cut(payload: RawPayload, who: Person = U1, pipeline: Pipeline = PIPELINE) -> Cut | None:
    return Cutting(pipeline, who, NOW)(payload)


def event(uid: str, **more: str) -> dict[str, str]:
    return {"e": "pv", "p": "web", "tv": "t", "uid": uid, "url": "http://x/", **more}


def post(*events: Any, text: str | None = None, **more: Any) -> RawPayload:
    body = json.dumps({"schema": POST, "data": events}) if text is None else text
    return RawPayload(
        "a" * 32, NOW, "http", "/com.snowplowanalytics.snowplow/tp2", "", body.encode(), "application/json", ip="10.0.0.1", **more
    )


def get(query: str, **more: Any) -> RawPayload:
    return RawPayload("b" * 32, NOW, "http", "/i", query, **more)


def kept(payload: RawPayload) -> list[Any]:
    """(id, user) of what it becomes, in order."""
    found = PIPELINE.outcomes(payload, NOW)
    return [one.id if isinstance(one, FailedEvent) else (one.get("event_id"), one.get("user_id")) for one in found]


def test_of_a_shared_body_only_theirs_go_and_the_rest_keeps_its_bytes_and_ids() -> None:
    text = f'{{ "data" : [ {json.dumps(event("u-2"))} ,\n{json.dumps(event("u-1"))}, {{"e":"pv","p":"web","tv":"ü\\u00fc"}} ],'
    payload = post(text=text + f'"schema":"{POST}"}}')
    before = kept(payload)
    found = cut(payload)
    assert found is not None and (found.places, found.others) == (1, 0)
    assert found.payload.erased == (1,)
    assert found.events == ((before[1][0], NOW),)
    assert kept(found.payload) == [before[0], before[2]]
    blank = text.replace(json.dumps(event("u-1")), '{"e":"","p":"","tv":""}')
    assert found.payload == replace(payload, body=(blank + f'"schema":"{POST}"}}').encode(), erased=(1,))
    assert cut(found.payload) is None


def test_another_person_of_the_same_body_can_be_erased_later() -> None:
    payload = post(event("u-1"), event("u-2"), event("u-3"))
    first = cut(payload)
    assert first is not None
    second = cut(first.payload, Person(user=frozenset({"u-3"})))
    assert second is not None and second.payload.erased == (0, 2)
    assert [user for _, user in kept(second.payload)] == ["u-2"]
    third = cut(second.payload, Person(user=frozenset({"u-2"})))
    assert third is not None and third.payload.erased == (0, 1, 2) and third.payload.body is None and third.places == 1
    assert kept(third.payload) == []


def test_a_payload_of_one_person_leaves_its_id_and_time_alone() -> None:
    for payload in (
        post(event("u-1"), event("u-1", eid="not a uuid")),
        get("e=pv&p=web&uid=u-1", headers=(("User-Agent", "x"),)),
    ):
        found = cut(payload)
        assert found is not None
        count = len(kept(payload))
        assert found.payload == RawPayload(payload.id, NOW, "http", payload.path, erased=tuple(range(count)))
        assert (len(found.events) + len(found.failed), found.others) == (count, 0)


@pytest.mark.parametrize("pipeline", [PIPELINE, STRICT], ids=["lenient", "strict"])
def test_a_blank_spoils_nothing_for_its_neighbours(pipeline: Pipeline) -> None:
    payload = post(event("u-1"), event("u-2"))
    found = cut(payload, pipeline=pipeline)
    assert found is not None
    (left,) = pipeline.outcomes(found.payload, NOW)
    assert not isinstance(left, FailedEvent) and left.get("user_id") == "u-2"


def test_a_bad_object_that_names_the_person_goes() -> None:
    payload = post({"uid": "u-1", "x": 1}, event("u-2"))
    found = cut(payload)
    assert found is not None and found.payload.erased == (0,) and len(found.failed) == 1
    assert [user for _, user in kept(found.payload)] == ["u-2"]


@pytest.mark.parametrize(
    ("who", "payload"),
    [
        (Person(domain_user=frozenset({"d-1"})), get("e=pv&p=web&duid=d%2D1")),
        (Person(domain_user=frozenset({"d-1"})), get("e=pv&p=web&url=" + quote("http://x/?_sp=d-1.1700000000000", ""))),
        (
            Person(network_user=frozenset({"5b1a9f4c-0d5c-4d3b-9a52-3d6d2d0e3e11"})),
            get("e=pv&p=web&nuid=5b1a9f4c-0d5c-4d3b-9a52-3d6d2d0e3e11"),
        ),
        (
            Person(network_user=frozenset({"5b1a9f4c-0d5c-4d3b-9a52-3d6d2d0e3e11"})),
            get("e=pv&p=web", network_userid="5b1a9f4c-0d5c-4d3b-9a52-3d6d2d0e3e11"),
        ),
        (Person(device=frozenset({"kitchen"})), get("e=pv&p=web", device="kitchen")),
        (Person(device=frozenset({"kitchen"})), get("e=pv&p=web", headers=(("spoorway-device", "kitchen"),))),
        (U1, RawPayload("c" * 32, NOW, "http", "/r/tp2", "u=" + quote("http://x/", "") + "&uid=u-1")),
    ],
    ids=["domain", "referred", "network", "cookie", "proven", "claimed", "redirect"],
)
def test_a_request_is_known_by_each_kind_of_identifier(who: Person, payload: RawPayload) -> None:
    found = cut(payload, who)
    assert found is not None and found.payload.erased == (0,)
    assert suspect(who)(encode(payload, 1))
    assert (
        cut(payload, Person(**{kind: frozenset({"somebody"}) for kind in ("user", "domain_user", "network_user", "device")}))
        is None
    )


def clock(device: str) -> str:
    data = {"boot_id": 1, "sequence": 2, "uptime_ms": 3, "device_id": device}
    return json.dumps({
        "schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0",
        "data": [{"schema": DEVICE_CLOCK, "data": data}],
    })  # fmt: skip


@pytest.mark.parametrize("device", ["kitchen", "kitchen1", "kitchen12", "a-much.longer:name"])
def test_a_device_is_found_inside_base64(device: str) -> None:
    who = Person(device=frozenset({device}))
    for encoded in (base64.b64encode(clock(device).encode()), base64.urlsafe_b64encode(clock(device).encode())):
        payload = get("e=pv&p=web&cx=" + quote(encoded.decode(), ""))
        assert suspect(who)(encode(payload, 1))
        assert (cut(payload, who) or Cut(payload, 0)).payload.erased == (0,)


def test_a_body_that_nobody_could_read_goes_when_it_names_the_person_as_a_word() -> None:
    for text, theirs in (('{"uid":"u-1", broken', True), ('{"uid":"u-11", broken', False), ("xu-1", False), ("u-1", True)):
        found = cut(post(text=text))
        assert (found is not None) == theirs, text
        if found is not None:
            assert found.payload.erased == (0,) and found.payload.body is None


def test_events_that_cannot_be_told_apart_go_together_and_are_counted() -> None:
    who = Person(user=frozenset({"u-1"}))
    path = "/com.snowplowanalytics.iglu/v1"
    schema = "iglu:io.spoorway/device_presence/jsonschema/1-0-0"
    payload = RawPayload(
        "d" * 32, NOW, "http", path, f"schema={quote(schema, '')}", b'[{"state":"online"},{"state":"u-1"}]', "application/json"
    )
    found = cut(payload, who)
    assert found is None  # neither names anybody in a column
    found = cut(replace(payload, device="u-1"), Person(device=frozenset({"u-1"})))
    assert found is not None and found.places == 2 and found.others == 0


def test_what_came_later_is_left_alone() -> None:
    assert cut(replace(get("e=pv&p=web&uid=u-1"), received_ms=NOW + 1)) is None


PLAIN = st.text("abcXYZ0189_.:@~-", min_size=3, max_size=12)


@given(PLAIN, st.text(max_size=6), st.text(max_size=6), st.sampled_from(["query", "body", "base64", "escaped", "frame"]))
@example("abc", "/", "", "query")
def test_the_first_look_at_a_line_misses_nothing(value: str, before: str, after: str, form: str) -> None:
    text = before + value + after
    text = text.encode("utf-8", "replace").decode()
    device = form in ("base64",)
    payload = {
        "query": lambda: get("uid=" + "".join(f"%{byte:02x}" for byte in text.encode())),
        "body": lambda: post({"uid": text}),
        "base64": lambda: get("cx=" + quote(base64.b64encode(text.encode()).decode(), "")),
        "escaped": lambda: post(text='{"uid":"' + "".join(f"\\u{ord(c):04x}" for c in text if ord(c) < 65_536) + '"}'),
        "frame": lambda: RawPayload("e" * 32, NOW, "mqtt", "/io.spoorway/c1", body=b"\xff" + text.encode()),
    }[form]()
    who = Person(device=frozenset({value})) if device else Person(user=frozenset({value}))
    assert suspect(who)(encode(payload, 1))


def test_the_first_look_passes_over_what_is_nobodys() -> None:
    look = suspect(Person(user=frozenset({"u-4711"}), device=frozenset({"kitchen"})))
    assert not look(encode(get("e=pv&url=http%3A%2F%2Fx%2F&uid=u-4712&cx=" + base64.b64encode(b"somebody").decode()), 1))
    assert suspect(Person(user=frozenset({"ü"})))(b"anything")
