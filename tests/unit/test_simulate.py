"""Simulated devices: the same seed gives the same events, and the truth they tell is what they did."""

from __future__ import annotations

import orjson
import pytest

from spoorway.simulate.history import FAULTS, Device
from spoorway.simulate.profiles import PROFILES

NOW_MS = 1_795_000_000_000


def device(profile: str = "greenhouse", *faults: str, number: int = 1, events: int = 200) -> Device:
    return Device(profile, number, 7, events, 10, frozenset(faults))


def kept(one: Device) -> list[tuple[int, int]]:
    return [(event.boot, event.sequence) for message in one.messages for event in message.events]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_repeats_every_byte(profile: str) -> None:
    first, second = (device(profile, *FAULTS) for _ in range(2))
    assert [first.body(m, NOW_MS) for m in first.messages] == [second.body(m, NOW_MS) for m in second.messages]
    assert first.truth == second.truth


def test_two_devices_of_a_seed_differ() -> None:
    first, second = device(number=1), device(number=2)
    assert first.body(first.messages[0], NOW_MS) != second.body(second.messages[0], NOW_MS)


def test_without_faults_every_number_is_there_once_and_in_order() -> None:
    assert kept(device()) == [(1, sequence) for sequence in range(1, 201)]


def test_a_gap_is_a_number_that_is_never_sent() -> None:
    one = device("greenhouse", "gap", "reboot")
    numbers = kept(one)
    assert one.truth.lost
    assert not set(one.truth.lost) & set(numbers)
    assert len(numbers) + len(one.truth.lost) == one.truth.tracked == 200
    assert one.truth.boots == 4 == len({boot for boot, _ in numbers})


def test_a_device_without_a_clock_sends_uptimes_and_only_the_last_boot_says_when_it_sent() -> None:
    one = device("greenhouse", "reboot")
    for message in one.messages:
        for event in orjson.loads(one.body(message, NOW_MS))["data"]:
            assert int(event["dtm"]) < 86_400_000 * 10
            assert ("stm" in event) == (message.boot == one.last_boot)


def test_a_device_with_a_clock_dates_its_events_before_it_sends_them() -> None:
    one = device("fleet", "reboot")
    dates = [int(event["dtm"]) for m in one.messages for event in orjson.loads(one.body(m, NOW_MS))["data"]]
    assert dates == sorted(dates)
    assert dates[-1] == NOW_MS


def test_a_wrong_clock_is_wrong_by_years() -> None:
    one = device("fleet", "clock")
    (event, *_) = orjson.loads(one.body(one.messages[0], NOW_MS))["data"]
    assert NOW_MS - int(event["dtm"]) > 19 * 365 * 86_400_000
