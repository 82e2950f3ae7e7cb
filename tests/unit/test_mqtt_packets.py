"""The MQTT codec: what is written is read again, however it is cut; any bytes give packets or one Malformed, within the limit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mqtt.packets import (
    AUTH,
    CONNACK,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    V5,
    V311,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Reader,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
)
from gateway.mqtt.properties import BY_ID, NONE, Malformed, Properties, read_variable, variable

LIMIT = 4_096

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
topics = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20)
bodies = st.binary(max_size=60)
packet_ids = st.integers(1, 65_535)
codes = st.integers(0, 255)


def properties(letter: str) -> st.SearchStrategy[Properties]:
    values = {
        "bit": st.integers(0, 1),
        "two": st.integers(1, 65_535),
        "four": st.integers(1, 0xFFFF_FFFF),
        "variable": st.integers(1, 268_435_455),
        "text": texts,
        "data": bodies,
        "pair": st.lists(st.tuples(texts, texts), min_size=1, max_size=2).map(tuple),
    }
    return st.fixed_dictionaries({}, optional={p.name: values[p.kind] for p in BY_ID.values() if letter in p.packets})


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    v5 = version == V5
    will = draw(st.none() | st.builds(Will, topics, bodies, st.integers(0, 2), st.booleans(), st.just(NONE)))
    if will is not None and v5:
        will = will._replace(properties=draw(properties("W")))
    user = draw(st.none() | texts)
    password = draw(st.none() | bodies) if v5 or user is not None else None
    connect = Connect(draw(texts), version, draw(st.booleans()), draw(st.integers(0, 65_535)), will, user, password)
    return connect._replace(properties=draw(properties("C"))) if v5 else connect


@st.composite
def from_client(draw: st.DrawFn, version: int) -> Packet:
    def props(letter: str) -> Properties:
        return draw(properties(letter)) if version == V5 else NONE

    code = draw(codes) if version == V5 else 0
    match draw(st.integers(0, 6 if version == V5 else 5)):
        case 0:
            qos = draw(st.integers(0, 2))
            dup, packet_id = (draw(st.booleans()), draw(packet_ids)) if qos else (False, 0)
            return Publish(draw(topics), draw(bodies), qos, packet_id, draw(st.booleans()), dup, props("P"))
        case 1:
            return Ack(draw(st.sampled_from([PUBACK, PUBREC, PUBREL, PUBCOMP])), draw(packet_ids), code, props("A"))
        case 2:
            filters = draw(st.lists(st.tuples(topics, st.integers(0, 2)), min_size=1, max_size=3))
            return Subscribe(draw(packet_ids), tuple(filters), props("S"))
        case 3:
            return Unsubscribe(draw(packet_ids), tuple(draw(st.lists(topics, min_size=1, max_size=3))), props("U"))
        case 4:
            return Ping()
        case 5:
            return Disconnect(code, props("D"))
        case _:
            return Auth(code, props("X"))


@st.composite
def from_server(draw: st.DrawFn, version: int) -> Packet:
    def props(letter: str) -> Properties:
        return draw(properties(letter)) if version == V5 else NONE

    found = draw(st.binary(min_size=1, max_size=4))
    match draw(st.integers(0, 3)):
        case 0:
            return Connack(draw(codes), draw(st.booleans()), props("c"))
        case 1:
            return Suback(SUBACK, draw(packet_ids), found, props("s"))
        case 2:
            return Suback(UNSUBACK, draw(packet_ids), found if version == V5 else b"", props("u"))
        case _:
            return Ping(PINGRESP)


def read(reader: Reader, data: bytes, cuts: list[int]) -> list[Packet]:
    found: list[Packet] = []
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        found += reader.feed(data[start:end])
    return found


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([V311, V5]), st.lists(st.integers(0, 10_000), max_size=12))
def test_what_a_client_writes_a_server_reads(data: st.DataObject, version: int, cuts: list[int]) -> None:
    sent = [data.draw(connects(version)), *data.draw(st.lists(from_client(version), max_size=3))]
    reader = Reader(1 << 20)
    assert read(reader, b"".join([encode(packet, version) for packet in sent]), cuts) == sent
    assert reader.fault is None
    assert reader.kept == 0


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([V311, V5]), st.lists(st.integers(0, 10_000), max_size=12))
def test_what_a_server_writes_a_client_reads(data: st.DataObject, version: int, cuts: list[int]) -> None:
    sent = data.draw(st.lists(from_server(version), max_size=5))
    reader = Reader(1 << 20, server=False, version=version)
    assert read(reader, b"".join([encode(packet, version) for packet in sent]), cuts) == sent
    assert reader.fault is None


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.sampled_from(range(16)), st.integers(0, 15), st.binary(max_size=120)).map(
            lambda t: bytes((t[0] << 4 | t[1],)) + variable(len(t[2])) + t[2]
        ),
    ),
    st.sampled_from([0, V311, V5]),
    st.lists(st.integers(0, 400), max_size=20),
)
def test_any_bytes_in_any_pieces_give_the_same_and_never_more_memory(data: bytes, version: int, cuts: list[int]) -> None:
    whole, pieces = Reader(LIMIT, version=version), Reader(LIMIT, version=version)
    assert read(whole, data, []) == read(pieces, data, cuts)
    assert str(whole.fault) == str(pieces.fault)
    assert max(whole.kept, pieces.kept) <= LIMIT


def test_a_damaged_stream_still_gives_what_came_before_it() -> None:
    good = encode(Connect("c")) + encode(Publish("spoorway/d/tp1", b"x"))
    reader = Reader(LIMIT)
    assert len(reader.feed(good + b"\x00\x00")) == 2
    assert reader.fault is not None
    assert reader.feed(good) == []


def test_a_large_packet_is_refused_before_it_is_here() -> None:
    reader = Reader(LIMIT, version=V5)
    assert reader.feed(b"\x30" + variable(LIMIT)) == []
    assert reader.fault is not None
    assert reader.fault.code == 0x95
    assert reader.kept == 0


def test_single_bytes_cost_no_more_than_one_pass() -> None:
    body = b"x" * 100_000
    reader, found = Reader(1 << 20, version=V311), []
    for byte in encode(Publish("t", body)):
        found += reader.feed(bytes((byte,)))
    assert found == [Publish("t", body)]


def test_packets_of_one_read_are_given_in_portions() -> None:
    reader = Reader(LIMIT, version=V311)
    data = encode(Publish("t", b"x")) * 25 + b"\x30"
    found = [len(reader.feed(data, 10)), len(reader.feed(b"", 10)), len(reader.feed(b"", 10)), len(reader.feed(b"", 10))]
    assert found == [10, 10, 5, 0]
    assert reader.kept == 1


@pytest.mark.parametrize("number", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_variable_integers(number: int) -> None:
    data = variable(number)
    assert read_variable(data, 0, len(data)) == (number, len(data))
    with pytest.raises(Malformed):
        read_variable(data, 0, len(data) - 1)


def test_kinds_of_one_side_are_refused_by_the_other() -> None:
    for kind in (CONNACK, SUBACK, UNSUBACK, PINGRESP):
        reader = Reader(LIMIT, version=V5)
        reader.feed(bytes((kind << 4, 0)))
        assert reader.fault is not None
    client = Reader(LIMIT, server=False, version=V311)
    client.feed(bytes((AUTH << 4, 0)))
    assert client.fault is not None
