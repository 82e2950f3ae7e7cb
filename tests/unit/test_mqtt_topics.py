"""Topics: which are taken, as what, and that no message is lost for what it holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.pipeline import Options, Pipeline
from gateway.mqtt.topics import READY, Topics
from protocol.payloads import from_json, to_json
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, FailedEvent, RawPayload


def payload(topic: str, body: bytes = b"{}", *, foreign: dict[str, str] | None = None, **more: object) -> RawPayload | None:
    given = {"retain": False, **more}
    return Topics(READY if foreign is None else foreign).payload(
        id="a" * 32, received_ms=7, transport="mqtt", topic=topic, body=body, **given
    )


def test_payload_data_is_a_post() -> None:
    headers = (("MQTT-Topic", "spoorway/pump-1/tp2"), ("Spoorway-Device", "pump-1"))
    path = "/com.snowplowanalytics.snowplow/tp2"
    expected = RawPayload("a" * 32, 7, "mqtt", path, "", b"{}", "application/json", headers)
    assert payload("spoorway/pump-1/tp2") == expected


def test_query_string_is_a_get() -> None:
    found = payload("spoorway/pump-1/tp1", "e=pv&page=ä".encode())
    assert found is not None
    assert (found.path, found.query, found.body, found.content_type) == ("/i", "e=pv&page=ä", None, None)


def test_compact_frames_are_bytes() -> None:
    found = payload("spoorway/pump-1/c", b"\xff\0")
    assert found is not None
    assert (found.path, found.query, found.body, found.content_type) == (
        "/io.spoorway/c1",
        "",
        b"\xff\0",
        "application/octet-stream",
    )


def test_device_of_the_topic_is_a_claim_and_the_proven_one_is_the_payloads() -> None:
    found = payload("spoorway/pump-1/tp2", device="pump-2", ip="10.0.0.7")
    assert found is not None
    assert (found.device, found.ip) == ("pump-2", "10.0.0.7")
    assert ("Spoorway-Device", "pump-1") in found.headers


def test_retained_message_is_marked() -> None:
    found = payload("spoorway/pump-1/tp2", retain=True)
    assert found is not None
    assert ("MQTT-Retain", "1") in found.headers


@pytest.mark.parametrize(
    "topic", ["spoorway/a b/tp2", "spoorway/-a/tp2", "spoorway/ä/tp2", f"spoorway/{'x' * 65}/tp2", "spoorway//tp2"]
)
def test_what_is_no_device_name_is_nobody_but_taken(topic: str) -> None:
    found = payload(topic)
    assert found is not None
    assert found.headers == (("MQTT-Topic", topic),)
    assert Topics().device(topic) is None


@pytest.mark.parametrize(
    ("topic", "taken"),
    [
        ("zigbee2mqtt/kitchen", "/io.spoorway.zigbee2mqtt/v1"),
        ("tele/plug/SENSOR", "/io.spoorway.tasmota/v1"),
        ("porch/sensor/temperature/state", "/io.spoorway.esphome/v1"),
        ("zigbee2mqtt/kitchen/set", None),
        ("zigbee2mqtt/bridge/devices", None),
        ("tele/plug/INFO1", None),
        ("spoorway/pump-1/down", None),
        ("spoorway/pump-1/tp2/x", None),
        ("Spoorway/pump-1/tp2", None),
        ("/spoorway/pump-1/tp2", None),
        ("", None),
    ],
)
def test_ready_topics(topic: str, taken: str | None) -> None:
    found = payload(topic)
    assert (found.path if found else None) == taken


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("+", "a", True),
        ("+", "/a", False),
        ("+/+", "/a", True),
        ("#", "a/b", True),
        ("#", "$SYS/broker/uptime", False),
        ("+/broker/uptime", "$SYS/broker/uptime", False),
        ("$SYS/#", "$SYS/broker/uptime", True),
        ("a/+/c", "a/b/c/d", False),
    ],
)
def test_filters_match_as_the_specification_says(topic_filter: str, topic: str, matches: bool) -> None:
    assert (payload(topic, foreign={topic_filter: "/com.acme/v1"}) is not None) is matches


def test_first_of_the_users_filters_counts_and_ours_come_before() -> None:
    foreign = {"a/b": "/com.acme/v1", "#": "/com.acme/v2"}
    paths = [found.path for topic in ("a/b", "a/c", "spoorway/x/tp2") if (found := payload(topic, foreign=foreign))]
    assert paths == ["/com.acme/v1", "/com.acme/v2", "/com.snowplowanalytics.snowplow/tp2"]


def test_foreign_topic_may_name_a_schema_in_place_of_a_mapping() -> None:
    target = "/com.snowplowanalytics.iglu/v1?schema=iglu:io.spoorway/weather_reading/jsonschema/1-0-0&aid=roof"
    found = payload("roof/1", b'{"station_id":"s","period_seconds":0}', foreign={"roof/+": target})
    assert found is not None
    (event,) = Pipeline(Options(), bundled, ()).outcomes(found, 7)
    assert not isinstance(event, FailedEvent)
    assert (event.get("app_id"), event.get("event_name")) == ("roof", "weather_reading")


@pytest.mark.parametrize("topic_filter", ["", "a#", "a/#/b", "a+/b", "a/b+", "a\0", "a/##", "x" * 65_536])
def test_bad_filter_is_told(topic_filter: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no topic filter: \+ stands for one level"):
        Topics({topic_filter: "/com.acme/v1"})


def test_shared_filter_names_the_option() -> None:
    with pytest.raises(ConfigurationError, match="the option group"):
        Topics({"$share/g/a": "/com.acme/v1"})


@pytest.mark.parametrize("path", ["", "/a", "a/b", "/a/b/c", "/a/b#c", "/a/b ?c", "https://x/y"])
def test_bad_path_is_told(path: str) -> None:
    with pytest.raises(
        ConfigurationError,
        match=re.escape(f"topics: t: expected a path such as /com.acme/v1, or one with a query string, not {path!r}"),
    ):
        Topics({"t": path})


def test_bytes_that_are_no_text_are_journaled_and_fail() -> None:
    found = payload("spoorway/pump-1/tp1", b"e=pv\xff")
    assert found is not None
    assert from_json(to_json(found)) == found
    assert found.body == b"e=pv\xff"
    (outcome,) = Pipeline(Options(), bundled, ()).outcomes(found, 7)
    assert isinstance(outcome, FailedEvent)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), st.sampled_from(["tp1", "tp2", "c"]))
def test_every_message_of_ours_is_kept_whole(device: str, body: bytes, kind: str) -> None:
    found = payload(f"spoorway/{device.replace('/', '')}/{kind}", body)
    assert found is not None
    kept = from_json(to_json(found))
    assert kept == found
    assert (kept.query.encode() if kept.body is None else kept.body) == body
