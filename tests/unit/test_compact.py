"""Compact frames: what is written is read back exactly, what is damaged is refused, and nothing breaks on any bytes."""

from __future__ import annotations

import json
from binascii import crc_hqx
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.compact import LARGEST_FRAME, Frame, Reading, Refused, decode, encode, seal, split
from protocol.devices import LARGEST
from protocol.templates import LARGEST_CODE, Field, Template, bundled, bundled_template, template

ENVIRONMENT = bundled()[1, 1]
EVERYTHING = template(
    {
        "id": 9,
        "version": 2,
        "schema": "iglu:com.acme/everything/jsonschema/1-0-0",
        "fields": [
            {"name": "count", "type": "integer", "offset": -7},
            {"name": "air.temperature", "type": "decimal", "scale": 3, "offset": 20.5},
            {"name": "air.wet", "type": "boolean"},
            {"name": "door", "type": "enum", "values": ["open", "shut", "ajar"]},
            {"name": "note", "type": "text", "most": 20},
            {"name": "tag", "type": "bytes", "most": 8},
        ],
    }
)
READING = {"temperature_celsius": 21.5, "humidity_percent": 45.2, "pressure_hpa": 1013.2}


def look_up(number: int, version: int) -> Template | None:
    return EVERYTHING if (number, version) == (9, 2) else bundled_template(number, version)


def keywords(payload: bytes) -> list[str]:
    return [found.keyword if isinstance(found, Refused) else "" for found in decode(payload, look_up)]


def whole(payload: bytes) -> list[Reading]:
    found = decode(payload, look_up)
    assert all(isinstance(each, Reading) for each in found), found
    return [each for each in found if isinstance(each, Reading)]


# The limits that were promised --------------------------------------------------------------------------------------


def test_a_reading_of_three_values_takes_24_bytes_at_most_though_it_waited() -> None:
    at_once = encode(ENVIRONMENT, [(2_592_000_000, READING)], 300, 20_000, 2_592_000_000)
    waited = encode(ENVIRONMENT, [(2_592_000_000, READING)], 300, 20_000, 2_592_000_000 + 1_800_000)
    assert (len(at_once), len(waited)) == (19, 24)


def test_ten_readings_take_220_bytes_at_most() -> None:
    readings = [(2_592_000_000 + n * 600_000, READING) for n in range(10)]
    frame = encode(ENVIRONMENT, readings, 300, 20_000, readings[-1][0] + 1_000, device="greenhouse-7")
    assert len(frame) == 123
    assert len(whole(frame)) == 10


@pytest.mark.parametrize(("boot", "sequence"), [(127, 2_097_151), (16_383, 16_383)])
def test_a_lora_frame_takes_20_bytes_with_its_seal(boot: int, sequence: int) -> None:
    frame = encode(ENVIRONMENT, [(LARGEST, READING)], boot, sequence, LARGEST, sealed_by=("node-7", b"k" * 32))
    assert len(frame) == 20


# There and back -----------------------------------------------------------------------------------------------------


def numbers(scale: int, offset: int) -> st.SearchStrategy[Decimal]:
    codes = st.integers(-LARGEST_CODE, LARGEST_CODE) | st.integers(-300, 300)
    return codes.map(lambda code: Decimal(code + offset).scaleb(-scale))


def values_of(field: Field) -> st.SearchStrategy[Any]:
    match field.type:
        case "integer" | "decimal":
            return numbers(field.scale, field.offset)
        case "boolean":
            return st.booleans()
        case "enum":
            return st.sampled_from(field.values)
        case "text":
            return st.text(max_size=field.most // 4)
        case "bytes":
            return st.binary(max_size=field.most).map(bytes.hex)


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """Any template, paths of one or two levels."""
    fields: list[dict[str, Any]] = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)):
        field: dict[str, Any] = {"name": name + draw(st.sampled_from(["", ".inner"]))}
        field["type"] = draw(st.sampled_from(["integer", "decimal", "boolean", "enum", "text", "bytes"]))
        if field["type"] == "decimal":
            field["scale"] = draw(st.integers(1, 9))
        if field["type"] in ("integer", "decimal"):
            field["offset"] = draw(st.integers(-2, 2))
        if field["type"] == "enum":
            field["values"] = draw(st.lists(st.text("abcä", min_size=1), min_size=1, max_size=4, unique=True))
        if field["type"] in ("text", "bytes"):
            field["most"] = draw(st.integers(1, 12))
        fields.append(field)
    head = {"id": draw(st.integers(1, 65_535)), "version": draw(st.integers(1, 8))}
    return template({**head, "schema": "iglu:com.acme/any/jsonschema/1-0-0", "fields": fields})


@st.composite
def sent(draw: st.DrawFn) -> tuple[Template, list[tuple[int, dict[str, Any]]], dict[str, Any]]:
    """A template, readings of it, and the rest of what encode is told."""
    of = draw(templates())
    readings: list[tuple[int, dict[str, Any]]] = []
    for _ in range(draw(st.integers(1, 3))):
        data: dict[str, Any] = {}
        for field in of.fields:
            if (value := draw(st.none() | values_of(field))) is not None:
                *above, name = field.path
                inner = data
                for level in above:
                    inner = inner.setdefault(level, {})
                inner[name] = value
        readings.append((draw(st.integers(0, LARGEST)), data))
    rest = {
        "boot": draw(st.integers(0, LARGEST)),
        "sequence": draw(st.integers(1, LARGEST - 2)),
        "mark_ms": draw(st.integers(0, LARGEST)),
        "device": draw(st.sampled_from(["", "d", "green.house-7"])),
        "sealed_by": draw(st.sampled_from([None, ("d", b"k" * 32)])),
        "earlier": draw(st.booleans()),
        "batch": draw(st.sampled_from([None, True])),
    }
    return of, readings, rest


@given(sent())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back_exactly(case: tuple[Template, list[tuple[int, dict[str, Any]]], dict[str, Any]]) -> None:
    of, readings, rest = case
    frame = encode(of, readings, **rest)
    found = decode(frame, lambda number, version: of if (number, version) == (of.id, of.version) else None)
    assert len(found) == len(readings)
    for n, (have, (uptime, data)) in enumerate(zip(found, readings, strict=True)):
        assert isinstance(have, Reading)
        assert (have.boot, have.sequence, have.device) == (rest["boot"], rest["sequence"] + n, rest["device"])
        assert have.uptime_ms == uptime
        age = (rest["mark_ms"] - uptime) % 2**32
        assert have.sent_ms == (None if rest["earlier"] else uptime + age)
        # As JSON text: what is stored must not show more digits than were sent.
        assert digits(json.loads(json.dumps(have.data), parse_float=Decimal, parse_int=Decimal)) == digits(data)


def digits(value: Any) -> Any:
    """Numbers by their decimal value, whatever their notation."""
    if isinstance(value, dict):
        return {key: digits(each) for key, each in value.items()}
    return value.normalize() + 0 if isinstance(value, Decimal) else value


def test_numbers_are_those_of_their_decimal_text() -> None:
    payload = encode(ENVIRONMENT, [(5, {"temperature_celsius": "21.57", "pressure_hpa": "1013.2"})], 1, 1, 5)
    assert json.dumps(whole(payload)[0].data) == '{"temperature_celsius": 21.57, "pressure_hpa": 1013.2}'


def test_every_type_and_what_is_absent() -> None:
    data = {"count": -3, "air": {"temperature": 20.125, "wet": False}, "door": "ajar", "note": "grün", "tag": "00ff"}
    found = whole(encode(EVERYTHING, [(10, data), (11, {}), (12, {"note": "", "tag": ""})], 1, 1, 12))
    assert [each.data for each in found] == [data, {}, {"note": "", "tag": ""}]


def test_uptime_wraps_with_its_counter_and_the_age_does_not() -> None:
    (found,) = whole(encode(ENVIRONMENT, [(LARGEST - 9, READING)], 1, 1, 90))
    assert (found.uptime_ms, found.sent_ms) == (LARGEST - 9, LARGEST + 91)


def test_writing_refuses_what_no_frame_holds() -> None:
    for wrong in (
        {"readings": []},
        {"sequence": 0},
        {"boot": LARGEST + 1},
        {"device": "-no"},
        {"readings": [(1, {"temperature_celsius": 3e8})]},
        {"readings": [(n, READING) for n in range(40)]},
        {"batch": False, "mark_ms": 2},
    ):
        with pytest.raises(ValueError):
            encode(**{"template": ENVIRONMENT, "readings": [(1, READING)], "boot": 1, "sequence": 1, "mark_ms": 1, **wrong})


# Damage -------------------------------------------------------------------------------------------------------------

BATCH = encode(ENVIRONMENT, [(1, READING), (2, READING)], 1, 7, 3, device="a")
SHORT = encode(ENVIRONMENT, [(3, READING)], 1, 9, 3)


def test_every_changed_bit_is_noticed() -> None:
    for place in range(len(BATCH) * 8):
        damaged = bytearray(BATCH)
        damaged[place // 8] ^= 1 << place % 8
        # A first bit that says "sealed" takes the CRC for a seal: no reading counts before a gateway has confirmed that.
        unsealed = [each for each in decode(bytes(damaged), look_up) if isinstance(each, Reading) and not each.sealed]
        assert unsealed == []


def test_every_cut_is_noticed() -> None:
    for size in range(len(BATCH)):
        assert keywords(BATCH[:size]) == ["Truncated"], size
    for size in range(1, len(SHORT)):
        assert keywords(SHORT[:size]) != [""], size


def test_good_frames_around_a_bad_one_count() -> None:
    bad = BATCH[:-3] + b"\0" + BATCH[-2:]
    assert keywords(BATCH + bad + BATCH + SHORT) == ["", "", "WrongCheck", "", "", ""]


def test_what_follows_two_bad_frames_is_one_refusal() -> None:
    bad = BATCH[:-3] + b"\0" + BATCH[-2:]
    assert keywords(bad + bad + BATCH) == ["WrongCheck"]
    assert keywords(BATCH + bytes(500)) == ["", "", "UnknownVersion"]


def test_a_template_that_is_unknown_is_one_refusal_for_each_reading() -> None:
    later = decode(encode(EVERYTHING, [(1, {}), (2, {}), (3, {})], 1, 1, 3) + SHORT, bundled_template)
    assert [(each.keyword, each.template) for each in later[:3] if isinstance(each, Refused)] == [("UnknownTemplate", "9/2")] * 3
    assert isinstance(later[3], Reading)


def test_a_frame_that_another_template_wrote_counts_not_at_all() -> None:
    payload = encode(EVERYTHING, [(1, {"count": 1}), (2, {"count": 2})], 1, 1, 2)
    shorter = Template(9, 2, EVERYTHING.schema, EVERYTHING.fields[:2])
    found = decode(payload, lambda number, version: shorter)
    assert [each.keyword for each in found if isinstance(each, Refused)] == ["Malformed", "Malformed"]


def test_a_value_that_has_no_meaning_is_refused() -> None:
    narrow = template({"id": 9, "version": 2, "schema": EVERYTHING.schema, "fields": [{"name": "a", "type": "boolean"}]})
    wide = template({"id": 9, "version": 2, "schema": EVERYTHING.schema, "fields": [{"name": "a", "type": "integer"}]})
    for code, keyword in ((1, ""), (2, "Malformed"), (-1, "Malformed")):
        (found,) = decode(encode(wide, [(1, {"a": code})], 1, 1, 1), lambda number, version: narrow)
        assert (found.keyword if isinstance(found, Refused) else "") == keyword


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda b: b"\xca" + bytes([len(b)]) + b))
@example(b"\xca\x0a\xff\x08\x01\x01\0\0\0\0\0\0\0\0\0")
@settings(max_examples=400, deadline=None)
def test_any_bytes_give_an_answer_of_bounded_size(payload: bytes) -> None:
    found = decode(payload, look_up)
    assert found
    assert len(found) <= max(1, len(payload) // 2)


@given(st.sampled_from([BATCH, SHORT]), st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=2)), max_size=3))
@settings(max_examples=300, deadline=None)
def test_one_meaning_has_one_encoding(frame: bytes, changes: list[tuple[int, bytes]]) -> None:
    """Whatever is understood would have been written like that."""
    body = bytearray(frame[:-2])
    for place, bytes_ in changes:
        body[place : place + 1] = bytes_
    if len(body) > 1 and body[0] & 8:
        body[1] = len(body)
    changed = bytes(body) + crc_hqx(bytes(body), 0xFFFF).to_bytes(2, "big")
    readings = [each for each in decode(changed, look_up) if isinstance(each, Reading)]
    if not readings or readings[0].sealed or readings[0].sent_ms is None:
        return  # the mark of an earlier boot is not kept, a seal is not made here
    first, marks = readings[0], {each.sent_ms & LARGEST for each in readings if each.sent_ms is not None}
    assert len(marks) == 1
    told = [(each.uptime_ms, each.data) for each in readings]
    again = encode(first.template, told, first.boot, first.sequence, marks.pop(), device=first.device, batch=bool(changed[0] & 8))
    assert again == changed


# Seals --------------------------------------------------------------------------------------------------------------


def test_a_seal_is_over_the_name_and_the_frame() -> None:
    key = b"k" * 32
    (frame,) = split(encode(ENVIRONMENT, [(3, READING)], 1, 9, 3, sealed_by=("node-7", key)))
    assert isinstance(frame, Frame)
    assert frame.seal == seal(key, "node-7", frame.covered)
    assert frame.seal != seal(key, "node-8", frame.covered)
    assert frame.seal != seal(b"j" * 32, "node-7", frame.covered)


def test_the_largest_frame_is_written_and_read() -> None:
    of = template({"id": 9, "version": 2, "schema": EVERYTHING.schema, "fields": [{"name": "a", "type": "text", "most": 200}]})
    frame = encode(of, [(0, {"a": "x" * 200}), (1, {"a": "y" * 40})], 1, 1, 1)
    assert len(frame) == LARGEST_FRAME
    with pytest.raises(ValueError, match="at most"):
        encode(of, [(0, {"a": "x" * 200}), (1, {"a": "y" * 41})], 1, 1, 1)
    assert len(decode(frame, lambda number, version: of)) == 2
