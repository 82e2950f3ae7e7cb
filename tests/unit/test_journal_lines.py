from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.lines import MARK, decode, encode, pieces
from protocol.seams import RawPayload

PAYLOADS = [RawPayload(f"{n:032x}", n, "http", "/i", body=body) for n, body in enumerate([b"one", b"\xff\n", MARK * 3], 1)]
LINES = [encode(payload, n) for n, payload in enumerate(PAYLOADS, 1)]


def good(data: bytes, final: bool = True) -> list[int]:
    return [decode(data[start:end])[0] for start, end, ok in pieces(data, final) if ok]


def test_a_line_is_json_whose_crc_covers_what_follows_it() -> None:
    line = LINES[0]
    fields = json.loads(line)
    assert list(fields)[:3] == ["crc", "n", "id"]
    assert line.endswith(b"\n")
    assert fields["crc"] == f"{zlib.crc32(line[len(MARK) + 10 : -1]):08x}"


def test_decoding_gives_number_and_payload_back() -> None:
    assert [decode(line) for line in LINES] == list(enumerate(PAYLOADS, 1))


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_costs_one_line_at_most(mask: int) -> None:
    data = b"".join(LINES)
    ends = [len(LINES[0]), len(LINES[0] + LINES[1]), len(data)]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= mask
        hit = next(number for number, end in enumerate(ends, 1) if position < end)
        assert set(good(bytes(damaged))) >= {1, 2, 3} - {hit}, position


def test_a_flipped_line_feed_costs_nothing() -> None:
    assert good(b"".join(line[:-1] + b"\x0b" for line in LINES)) == [1, 2, 3]


def test_a_piece_at_the_end_waits_for_its_rest_unless_nothing_follows() -> None:
    torn = LINES[0] + LINES[1][:-5]
    assert list(pieces(torn, False)) == [(0, len(LINES[0]), True)]
    assert list(pieces(torn, True)) == [(0, len(LINES[0]), True), (len(LINES[0]), len(torn), False)]


@given(st.lists(st.sampled_from([*LINES, b"\n", b"{", MARK, b"\x00" * 9, LINES[0][:-1], LINES[1][5:]])))
def test_pieces_cover_everything_in_order_and_find_every_whole_line(parts: list[bytes]) -> None:
    data = b"".join(parts)
    found = list(pieces(data, True))
    assert b"".join(data[start:end] for start, end, _ in found) == data
    whole = 0
    for part in parts:
        whole += part in LINES
    assert len([1 for *_, ok in found if ok]) >= whole


def test_a_line_that_another_program_wrote_is_refused() -> None:
    fields = b'"id":"x"}'
    with pytest.raises(ValueError, match="number"):
        decode(b'{"crc":"%08x",%b\n' % (zlib.crc32(fields), fields))
