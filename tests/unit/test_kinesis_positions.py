"""Sequence numbers of Kinesis as positions, and the names and keys that are made for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.kinesis.positions import key_of, lane_of, number_of, position_of, stream_name
from protocol.seams import START, PermanentError, RawPayload

NUMBERS = st.integers(1, (1 << 189) - 1)


@given(NUMBERS, NUMBERS)
def test_positions_compare_as_the_numbers_do_and_fit_64_signed_bits(one: int, other: int) -> None:
    first, second = position_of(str(one)), position_of(str(other))
    assert (first < second) == (one < other)
    assert first > START
    assert all(0 <= part < 1 << 63 for part in first)
    assert number_of(first) == str(one)


def test_a_number_of_amazons_is_one() -> None:
    number = "49680454870529416470405907558366801597618940437514420242"
    assert number_of(position_of(number)) == number


@pytest.mark.parametrize("number", ["", "0", "-1", "1.5", "x", str(1 << 189), "\N{ARABIC-INDIC DIGIT ONE}"])
def test_what_does_not_fit_is_refused(number: str) -> None:
    with pytest.raises(PermanentError, match="not one of 1 to 189 bits"):
        position_of(number)


def test_lanes_of_other_streams_have_other_names() -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/raw"
    names = {lane_of(stream_name(*about), "shardId-000000000007") for about in [(arn, 1), (arn, 2), (arn + "2", 1)]}
    assert len(names) == 3
    assert all(name.endswith("-000000000007") and len(name) == 25 for name in names)


@pytest.mark.parametrize(
    ("device", "user", "key"),
    [("pump-1", "u", "pump-1"), (None, "u", "u"), (None, None, "0" * 32), (None, "", "0" * 32)],
    ids=["device", "user", "nobody", "empty"],
)
def test_a_device_goes_before_a_user(device: str | None, user: str | None, key: str) -> None:
    assert key_of(RawPayload("0" * 32, 1, "http", "/i", network_userid=user, device=device)) == key


def test_a_key_is_never_longer_than_kinesis_allows() -> None:
    keys = [key_of(RawPayload("0" * 32, 1, "http", "/i", device="d" * length)) for length in (256, 257, 258)]
    assert list(map(len, keys)) == [256, 64, 64]
    assert len(set(keys)) == 3
