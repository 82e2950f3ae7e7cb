"""The Python tracker against a real server that hangs, resets, lies and refuses. Time is the test's own, not slept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from spoorway_tracker import Refusal, Tracker
from tests.trackers.python.answering import HANG, OK, RESET, Answering, status

NOW = 1_768_471_200_000


class Times:
    """now_ms and seconds since start; the tests move both."""

    now_ms = NOW
    seconds = 1000.0


Make = Callable[..., Tracker]


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def told() -> list[tuple[str, int, str]]:
    return []


@pytest.fixture
def make(answering: Answering, times: Times, told: list[tuple[str, int, str]]) -> Iterator[Make]:
    """A tracker that sends when a test says step(), by the test's clock; chance is always 1."""
    made: list[Tracker] = []

    def new(**options: Any) -> Tracker:
        options = {"folder": None, "background": False, "timeout_s": 5.0, **options}
        tracker = Tracker(answering.url, "app", on_error=lambda *a: told.append(a), clock_ms=lambda: times.now_ms, **options)
        tracker.delivery.sender.monotonic = lambda: times.seconds
        tracker.delivery.sender.chance = lambda: 1.0
        made.append(tracker)
        return tracker

    yield new
    for tracker in made:
        tracker.delivery.sender.transport.close()


def step(tracker: Tracker) -> float | None:
    return tracker.delivery.sender.step()


def test_event_has_its_time_of_tracking_and_of_sending(make: Make, answering: Answering, times: Times) -> None:
    tracker = make()
    event_id = tracker.track_structured("a", "b", value=1.5)
    times.now_ms += 1234
    assert step(tracker) == 0.0 and step(tracker) is None
    (event,) = answering.asked[0].events
    assert (event["eid"], event["dtm"], event["stm"]) == (event_id, str(NOW), str(NOW + 1234))
    assert answering.asked[0].headers["content-type"] == "application/json; charset=utf-8"
    assert answering.asked[0].target == "/com.snowplowanalytics.snowplow/tp2"


def test_503_waits_at_least_as_long_as_it_is_told_even_when_in_a_hurry(make: Make, answering: Answering, times: Times) -> None:
    answering.answers = [status(503, "Retry-After: 120"), OK]
    tracker = make()
    event_id = tracker.track_structured("a", "b")
    assert step(tracker) == 120.0
    tracker.delivery.sender.hurry()
    times.seconds += 119
    assert step(tracker) == 1.0 and len(answering.asked) == 1
    times.seconds += 1
    times.now_ms += 120_000
    assert step(tracker) == 0.0
    first, second = (asked.events[0] for asked in answering.asked)
    assert first["eid"] == second["eid"] == event_id
    assert (first["stm"], second["stm"]) == (str(NOW), str(NOW + 120_000))
    assert (tracker.counters.sent, tracker.counters.resent) == (1, 1)


def test_retry_after_may_be_a_date(make: Make, answering: Answering) -> None:
    answering.answers = [status(429, f"Retry-After: {formatdate(time.time() + 300, usegmt=True)}")]
    tracker = make()
    tracker.track_structured("a", "b")
    assert 290 < (step(tracker) or 0) <= 300


@pytest.mark.parametrize("answer", [status(500), status(503), status(418), status(302), RESET], ids=repr)
def test_back_off_doubles_to_ten_minutes(make: Make, answering: Answering, times: Times, answer: bytes) -> None:
    answering.answers = [answer]
    tracker = make()
    tracker.track_structured("a", "b")
    waits: list[float | None] = []
    for _ in range(12):
        waits.append(step(tracker))
        times.seconds += 1000
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    assert tracker.delivery.queue.pending_bytes() > 0


def test_back_off_is_shortened_by_chance(make: Make, answering: Answering) -> None:
    answering.answers = [status(500)]
    tracker = make()
    tracker.delivery.sender.chance = lambda: 0.25
    tracker.track_structured("a", "b")
    assert step(tracker) == 0.25


def test_what_a_closed_tracker_leaves_is_the_next_ones_in_the_same_program(
    make: Make, answering: Answering, tmp_path: Path
) -> None:
    first = make(folder=tmp_path)
    event_id = first.track_structured("a", "b")
    assert not first.close(0)
    assert make(folder=tmp_path).flush(5)
    assert [event["eid"] for event in answering.asked[-1].events] == [event_id]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 422])
def test_refused_batch_is_dropped_counted_and_told(
    make: Make, answering: Answering, told: list[tuple[str, int, str]], code: int
) -> None:
    answering.answers = [status(code), OK]
    tracker = make()
    for _ in range(3):
        tracker.track_structured("a", "b")
    assert step(tracker) == 0.0 and step(tracker) is None
    assert tracker.counters.dropped == {"rejected": 3}
    assert told == [("rejected", 3, f"{code} Because")]


def test_401_is_tried_again_where_credentials_may_change(make: Make, answering: Answering, times: Times) -> None:
    answering.answers = [status(401), OK]
    tokens = iter(("old", "new"))
    tracker = make(headers=lambda: {"Authorization": next(tokens)})
    tracker.track_structured("a", "b")
    assert step(tracker) == 1.0
    times.seconds += 1
    assert step(tracker) == 0.0
    assert [asked.headers["authorization"] for asked in answering.asked] == ["old", "new"]


def test_413_halves_until_it_fits_and_drops_what_alone_is_too_large(
    make: Make, answering: Answering, told: list[tuple[str, int, str]]
) -> None:
    answering.largest_body = 2_000
    tracker = make()
    small = [tracker.track_structured("a", "b", label=str(n)) for n in range(40)]
    tracker.track_structured("a", "b", label="x" * 3_000)
    small += [tracker.track_structured("a", "b", label=str(n)) for n in range(40)]
    while step(tracker) is not None:
        pass
    arrived = [event["eid"] for asked in answering.asked for event in asked.events]
    assert arrived == small
    assert tracker.counters.dropped == {"large": 1}
    assert told == [("large", 1, "413 Because")]


def test_200_whose_body_breaks_off_is_no_acknowledgement(make: Make, answering: Answering, times: Times) -> None:
    answering.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nok", OK]
    tracker = make()
    tracker.track_structured("a", "b")
    assert step(tracker) == 1.0 and tracker.counters.sent == 0
    times.seconds += 1
    assert step(tracker) == 0.0 and tracker.counters.sent == 1


def test_hung_server_costs_its_time_limit_and_nothing_else(make: Make, answering: Answering) -> None:
    answering.answers = [HANG]
    tracker = make(timeout_s=0.2)
    tracker.track_structured("a", "b")
    assert step(tracker) == 1.0
    assert tracker.counters.failed_attempts == 1 and tracker.delivery.queue.pending_bytes() > 0


def test_connection_that_the_server_closed_while_idle_is_no_failure(make: Make, answering: Answering) -> None:
    answering.answers = [OK, RESET, OK]
    tracker = make()
    for _ in range(2):
        tracker.track_structured("a", "b")
        assert step(tracker) == 0.0
    assert (tracker.counters.sent, tracker.counters.failed_attempts) == (2, 0)


def test_connection_is_kept(make: Make, answering: Answering) -> None:
    tracker = make()
    for _ in range(5):
        tracker.track_structured("a", "b")
        step(tracker)
    assert answering.accepted == 1


def test_body_is_compressed_once_the_server_offers_it(make: Make, answering: Answering) -> None:
    answering.answers = [b"HTTP/1.1 200 OK\r\nAccept-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"]
    tracker = make()
    for _ in range(2):
        for _ in range(30):
            tracker.track_structured("a", "b")
        step(tracker)
    plain, packed = answering.asked
    assert "content-encoding" not in plain.headers and packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 3
    assert len(packed.events) == 30


def test_get_sends_one_at_a_time_and_a_refusal_costs_only_its_own(make: Make, answering: Answering) -> None:
    answering.answers = [OK, status(400), OK]
    tracker = make(method="get")
    ids = [tracker.track_structured("a", "b", label=f"é&{n}") for n in range(4)]
    while step(tracker) is not None:
        pass
    assert [asked.events[0]["eid"] for asked in answering.asked] == ids
    assert [asked.events[0]["se_la"] for asked in answering.asked] == [f"é&{n}" for n in range(4)]
    assert (tracker.counters.sent, tracker.counters.dropped) == (3, {"rejected": 1})


def test_body_keeps_to_the_configured_bytes(make: Make, answering: Answering) -> None:
    tracker = make(batch_bytes=3_000)
    for _ in range(100):
        tracker.track_self_describing("iglu:com.acme/x/jsonschema/1-0-0", {"s": "é" * 50})
    while step(tracker) is not None:
        pass
    assert max(len(asked.body) for asked in answering.asked) < 3_000 * 1.25
    assert sum(len(asked.events) for asked in answering.asked) == 100


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()], ids=["nan", "set", "object"])
def test_data_without_a_form_in_json_is_refused_by_name(make: Make, value: object) -> None:
    tracker = make()
    assert tracker.track_self_describing("iglu:com.acme/x/jsonschema/1-0-0", {"x": value}) is Refusal.NOT_JSON
    assert tracker.counters.refused == {"not_json": 1}


def test_circle_is_refused_and_half_a_character_is_replaced(make: Make, answering: Answering) -> None:
    tracker = make()
    circle: list[Any] = []
    circle.append(circle)
    assert tracker.track_self_describing("iglu:com.acme/x/jsonschema/1-0-0", {"x": circle}) is Refusal.NOT_JSON
    assert tracker.track_page_view("http://x/\ud800")
    step(tracker)
    assert answering.asked[0].events[0]["url"] == "http://x/?"


def test_nonsense_is_refused_and_never_thrown(make: Make, told: list[tuple[str, int, str]]) -> None:
    class Odd:
        def isoformat(self) -> str:
            raise KeyError("odd")

    tracker: Any = make()
    for verb, arguments, named in (
        ("structured", ("a", "b"), {"true_ms": float("inf")}),
        ("structured", ("a", "b"), {"subject": "ada"}),
        ("structured", ("a", "b"), {"entities": 5}),
        ("structured", ("a", "b", None, None, "x"), {"entities": [Odd()]}),
        ("self_describing", ("iglu:com.acme/x/jsonschema/1-0-0", {"at": Odd()}), {}),
        ("self_describing", (Odd(),), {}),
        ("page_view", (Odd(),), {}),
    ):
        assert getattr(tracker, f"track_{verb}")(*arguments, **named) is Refusal.NOT_JSON, (verb, arguments, named)
    assert [reason for reason, _, _ in told] == ["not_json"] * 7


def test_closed_opted_out_and_full_are_answered_by_name(make: Make) -> None:
    tracker = make(max_bytes=600)
    tracker.opt_out()
    assert tracker.track_page_view("http://x/") is Refusal.OPTED_OUT
    tracker.opt_in()
    done = [tracker.track_page_view("http://x/") for _ in range(20)]
    assert done[0] and done[-1] is Refusal.FULL
    assert tracker.track_page_view("x" * 1_000_001) is Refusal.LARGE
    tracker.close()
    assert tracker.track_page_view("http://x/") is Refusal.CLOSED
    assert tracker.counters.refused == {"opted_out": 1, "full": done.count(Refusal.FULL), "large": 1, "closed": 1}


def test_health_is_an_entity_of_the_known_schema(make: Make, answering: Answering) -> None:
    tracker = make()
    tracker.track_page_view("http://x/")
    step(tracker)
    tracker.track_self_describing(tracker.health())
    step(tracker)
    sent = json.loads(answering.asked[1].events[0]["ue_pr"])["data"]
    assert sent["schema"] == "iglu:io.spoorway/queue_health/jsonschema/1-0-0"
    assert (sent["data"]["sent"], sent["data"]["queued_bytes"]) == (1, 0)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:y", "mqtt://host", "https://user@x"])
def test_wrong_address_is_told_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="not"):
        Tracker(url, folder=None)
