"""How fast a device may send, and how often codes may be guessed, by a clock that is moved by hand."""

import pytest

from gateway.devices.limits import Guesses, Limits, Pace
from gateway.devices.options import Options


def test_burst_passes_then_the_rate_holds() -> None:
    pace = Pace(Limits(2, 0, 0), burst_s=5, now_s=0)
    assert [pace.delay_s(1, 0) for _ in range(10)] == [0] * 10
    assert pace.delay_s(1, 0) == 0.5
    assert pace.delay_s(1, 0.4) == pytest.approx(0.1)
    assert pace.delay_s(1, 0.5) == 0
    assert pace.delay_s(1, 0.5) == 0.5


def test_what_has_to_wait_is_not_counted() -> None:
    pace = Pace(Limits(1, 0, 0), burst_s=1, now_s=0)
    assert pace.delay_s(1, 0) == 0
    for _ in range(100):
        assert pace.delay_s(1, 0.5) == 0.5
    assert pace.delay_s(1, 1.0) == 0


def test_payload_larger_than_the_bucket_passes_when_that_is_full_and_is_paid_for() -> None:
    pace = Pace(Limits(0, 100, 0), burst_s=1, now_s=0)
    assert pace.delay_s(1_000, 0) == 0
    assert pace.delay_s(1, 0) == pytest.approx(9.01)
    assert pace.delay_s(100, 9) == pytest.approx(1)
    assert pace.delay_s(100, 10) == 0


def test_day_may_come_at_once_and_every_limit_must_agree() -> None:
    pace = Pace(Limits(0, 1_000, 3), burst_s=1, now_s=0)
    assert [pace.delay_s(10, 0) for _ in range(3)] == [0, 0, 0]
    assert pace.delay_s(10, 0) == pytest.approx(86_400 / 3)
    assert pace.delay_s(10, 86_400 / 3) == 0


def test_own_limit_beats_the_configuration_and_zero_is_none() -> None:
    options = Options(payloads_per_s=5, bytes_per_s=7)
    assert Limits(0, None, 9).over(options) == Limits(0, 7, 9)


def test_guesses_are_limited_for_a_source_and_for_all() -> None:
    guesses = Guesses(per_source=2, together=3)
    assert [guesses.wait_s("a", 0), guesses.wait_s("a", 0)] == [0, 0]
    assert guesses.wait_s("a", 0) == 30
    assert guesses.wait_s("b", 0) == 0
    assert guesses.wait_s("c", 0) == 20  # all together
    assert guesses.wait_s("a", 60) == 0


def test_right_code_costs_nothing() -> None:
    guesses = Guesses(per_source=1, together=1)
    for _ in range(50):
        assert guesses.wait_s("installer", 0) == 0
        guesses.right("installer")


def test_sources_are_bounded_and_forgotten_when_they_were_quiet() -> None:
    guesses = Guesses(per_source=1, together=1_000_000, sources=10)
    assert [guesses.wait_s(str(n), 0) for n in range(11)] == [0] * 10 + [1]
    assert guesses.wait_s("11", 61) == 0
