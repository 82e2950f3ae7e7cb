"""Every case of protocol/vectors/serial, against protocol.lines; streams are cut at every place, and byte by byte."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from protocol.lines import (
    Answer,
    Damaged,
    Deframer,
    Line,
    Text,
    checksum,
    decode,
    decode_answer,
    device_lines,
    encode,
    encode_answer,
    gateway_lines,
    signed,
)
from tests.conformance import vectors

CASES = list(vectors.cases("serial"))


def _of(file: str) -> list[Any]:
    return [pytest.param(case.fields, id=case.id) for case in CASES if case.file == file]


def _line(fields: Mapping[str, Any]) -> Line:
    code = bytes.fromhex(fields.get("signature", ""))
    return Line(fields["kind"], fields["device"], fields["boot"], fields["sequence"], fields["body"].encode(), code)


def _item(item: Line | Text | Damaged, expected: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a stream gave, written as the case writes it, so far as the case speaks of it."""
    if isinstance(item, Line):
        fields = item._asdict() | {"body": item.body.decode(), "signature": item.signature.hex()}
        return {"line": {name: value for name, value in fields.items() if name != "signature" or value}}
    if isinstance(item, Text):
        text = item.data.decode("latin-1")
        return dict(expected) if expected.get("text_has", "\n") in text else {"text": text}
    found = {"damaged": item.reason, "boot": item.boot, "sequence": item.sequence}
    return {name: value for name, value in found.items() if name == "damaged" or name in expected}


def test_sum_is_the_one_that_everybody_calls_ccitt_false() -> None:
    assert checksum(b"123456789") == 0x29B1


@pytest.mark.parametrize("case", _of("lines"))
def test_line_is_written_and_read(case: Mapping[str, Any]) -> None:
    line, text = _line(case["line"]), case["text"].encode()
    assert encode(line) == text + b"\n"
    assert decode(text) == line


@pytest.mark.parametrize("case", [p for p in _of("lines") if "key" in p.values[0]])
def test_line_is_signed(case: Mapping[str, Any]) -> None:
    line = _line(case["line"])
    name = case.get("device", line.device)
    signed_line = signed(line._replace(device=name, signature=b""), bytes.fromhex(case["key"]), len(line.signature))
    assert signed_line.signature == line.signature


@pytest.mark.parametrize("case", _of("answers"))
def test_answer_is_written_and_read(case: Mapping[str, Any]) -> None:
    answer, text = Answer(**case["answer"]), case["text"].encode()
    assert encode_answer(answer) == text + b"\n"
    assert decode_answer(text) == answer
    assert gateway_lines().feed(b"noise" + text + b"\r\n") == [Text(b"noise"), answer]


def _read(case: Mapping[str, Any], pieces: list[bytes]) -> list[Line | Text | Damaged]:
    deframer: Deframer[Line] = device_lines(case.get("longest", 4096))
    return [item for piece in pieces for item in deframer.feed(piece)]


@pytest.mark.parametrize("case", _of("streams"))
def test_stream_is_read_alike_however_it_is_cut(case: Mapping[str, Any]) -> None:
    data, expected = case["stream"].encode("latin-1"), case["items"]
    whole = _read(case, [data])
    assert len(whole) == len(expected), whole
    assert [_item(item, as_) for item, as_ in zip(whole, expected, strict=True)] == expected
    chance = random.Random(case["id"])
    places = range(1, len(data)) if len(data) < 400 else sorted(chance.sample(range(1, len(data)), 60))
    for cuts in [[place] for place in places] + [sorted(chance.sample(range(len(data)), min(9, len(data)))) for _ in range(10)]:
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        cut = _read(case, pieces)
        assert [_item(item, as_) for item, as_ in zip(cut, expected, strict=True)] == expected, cuts
    single = _read(case, [bytes([byte]) for byte in data])
    assert [_item(item, as_) for item, as_ in zip(single, expected, strict=True)] == expected


def test_every_reason_and_kind_has_a_case() -> None:
    items = [item for case in CASES for item in case.fields.get("items", ())]
    assert {item["damaged"] for item in items if "damaged" in item} == {"crc", "line", "form", "large"}
    assert {case.fields["line"]["kind"] for case in CASES if "line" in case.fields} == {"h", "q", "j", "c"}
    assert {case.fields["answer"]["kind"] for case in CASES if "answer" in case.fields} == {"a", "n", "t", "r"}
