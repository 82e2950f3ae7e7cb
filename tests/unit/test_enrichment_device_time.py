"""device_time: which time an event of a device gets, what is remembered for the next, and its id."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from enrich.device_facts import WRAP, Boot, Contact, Facts, Limits, read, written
from enrich.enrichments import Remembered, Step, World, defaults
from enrich.enrichments.device_time import Config, Plugin
from enrich.pipeline import Options, Pipeline
from protocol.devices import DEVICE_CLOCK, QUEUE_HEALTH, TP2_PATH, device_event_id
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, RawPayload
from spoorway.memory import Memory
from spoorway.world import World as RealWorld

NOON = 1_768_478_400_000
HOUR = 3_600_000
LIMITS = Limits(1e-4, 60_000, 8)
_numbers = itertools.count(1)


def pipeline(world: World | None = None, **options: Any) -> Pipeline:
    world = world or RealWorld()
    steps = [step for step in defaults(world) if step.name != "device_time"]
    return Pipeline(Options(), bundled, [*steps, Step("device_time", Plugin(Config(**options), world))])


def event_of(boot: int, sequence: int, uptime: int, stm: int | None = None, dtm: int | None = None, **clock: Any) -> Any:
    data = {"boot_id": boot, "sequence": sequence, "uptime_ms": uptime, "device_id": "pump-7", **clock}
    contexts = {
        "schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1",
        "data": [{"schema": DEVICE_CLOCK, "data": data}],
    }
    event = {"e": "pv", "p": "iot", "tv": "t", "dtm": str(uptime if dtm is None else dtm), "co": json.dumps(contexts)}
    return event if stm is None else event | {"stm": str(stm)}


def payload_of(received: int, *events: Any, **fields: Any) -> RawPayload:
    body = {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": events}
    fields = {"transport": "http", "path": TP2_PATH, **fields}
    return RawPayload(
        f"{next(_numbers):032x}", received, body=json.dumps(body).encode(), content_type="application/json", **fields
    )


def one(made: Pipeline, received: int, event: Any, **fields: Any) -> Any:
    (outcome,) = made.outcomes(payload_of(received, event, **fields), received)
    assert isinstance(outcome, dict), outcome
    return outcome


def told(made: Pipeline, received: int, event: Any, **fields: Any) -> tuple[str, int]:
    """Method, and derived_tstamp as milliseconds after noon."""
    outcome = one(made, received, event, **fields)
    data: Any = outcome["derived_contexts"][0]["data"]
    return data["method"], outcome["derived_tstamp"] - NOON


def test_uptimes_give_the_time_that_the_event_waited() -> None:
    assert told(pipeline(), NOON, event_of(1, 1, 5_000, 65_000)) == ("difference", -60_000)


def test_a_counter_that_wrapped_while_the_event_waited() -> None:
    assert told(pipeline(), NOON, event_of(1, 1, WRAP - 4_000, 6_000)) == ("difference", -10_000)


def test_an_event_of_the_start_before_is_reckoned_by_what_that_one_said() -> None:
    made = pipeline()
    told(made, NOON, event_of(1, 1, 10_000, 10_000))
    assert told(made, NOON + 5 * HOUR, event_of(1, 2, 70_000)) == ("anchored", 60_000)


def test_a_start_that_never_met_us_lies_between_its_neighbours() -> None:
    made = pipeline()
    told(made, NOON, event_of(1, 1, 10_000, 10_000))
    told(made, NOON + 5 * HOUR, event_of(3, 1, HOUR, HOUR))
    outcome = one(made, NOON + 5 * HOUR + 1_000, event_of(2, 1, 600_000))
    data = outcome["derived_contexts"][0]["data"]
    # It began after 11:59, when the one before was last heard of, and was over when the next began, at 16:00.
    assert (data["method"], data["not_before"][:16], data["not_after"][:19]) == (
        "bounded", "2026-01-15T12:08", "2026-01-15T16:00:00"
    )  # fmt: skip
    assert data["uncertainty_ms"] == pytest.approx(4 * HOUR - 540_000, abs=2_000)


def test_boot_ids_drawn_at_random_put_no_start_before_another() -> None:
    made = pipeline()
    told(made, NOON, event_of(3_000_000_000, 1, 10_000, 10_000))
    assert told(made, NOON + HOUR, event_of(3_100_000_000, 1, 600_000)) == ("received", HOUR)


@pytest.mark.parametrize("wrong", [-20 * 365 * 24 * HOUR, -HOUR, 10 * 365 * 24 * HOUR])
def test_a_wrong_clock_is_not_believed_where_contacts_tell(wrong: int) -> None:
    made = pipeline()
    at = NOON + wrong
    assert told(made, NOON, event_of(1, 1, 10_000, at + 50, at, clock="rtc")) == ("difference", -50)
    # The next event waited for a minute, and the clock was set right meanwhile.
    assert told(made, NOON + 120_000, event_of(1, 2, 70_000, NOON + 120_000, at + 60_000, clock="rtc")) == ("anchored", 59_950)


def test_a_right_clock_is_believed_across_a_restart() -> None:
    made = pipeline()
    told(made, NOON, event_of(1, 1, 10_000, 10_000))
    assert told(made, NOON + HOUR, event_of(1, 2, 70_000, dtm=NOON + 60_007, clock="ntp")) == ("wall_clock", 60_007)


@pytest.mark.parametrize("clock", ["none", "rtc", "ntp", "gateway"])
def test_an_uptime_is_never_a_date(clock: str) -> None:
    assert told(pipeline(), NOON, event_of(1, 1, 5_000, clock=clock)) == ("received", 0)
    assert told(pipeline(), NOON, event_of(1, 1, 5_000, NOON, clock=clock)) == ("received", 0)
    assert told(pipeline(), NOON, event_of(1, 1, 5_000, dtm=946_684_800_000, clock=clock)) == ("received", 0)


def test_an_old_trackers_name_does_not_make_seconds_of_long_uptimes() -> None:
    event = event_of(1, 1, 1_300_000_000, 1_300_060_000) | {"tv": "arduino-1.0"}
    assert told(pipeline(), NOON, event) == ("difference", -60_000)


def test_a_true_time_is_left_alone() -> None:
    assert told(pipeline(), NOON, event_of(1, 1, 5_000, 65_000) | {"ttm": "1700000000000"})[0] == "true"


def test_a_message_that_is_sent_again_hours_later_is_known_by_quicker_ones() -> None:
    made = pipeline()
    told(made, NOON, event_of(1, 1, 10_000, 10_000))
    method, at = told(made, NOON + HOUR // 2, event_of(1, 2, 20_000, 20_000))
    assert (method, at) == ("anchored", pytest.approx(10_000, abs=5))


def test_a_boot_id_used_twice_makes_no_event_a_year_old() -> None:
    made = pipeline()
    told(made, NOON, event_of(0, 1, 10_000, 10_000))
    year = 365 * 24 * HOUR
    assert told(made, NOON + year, event_of(0, 1, 10_000, 12_000)) == ("difference", year - 2_000)


def test_messages_that_waited_in_a_broker_bound_nothing_from_below() -> None:
    data = one(pipeline(), NOON, event_of(1, 1, 5_000, 65_000), transport="mqtt_bridge")["derived_contexts"][0]["data"]
    assert "not_before" not in data and data["not_after"].startswith("2026-01-15T11:59:00")


def test_nobody_spoils_what_a_proven_device_is_known_by() -> None:
    made = pipeline()
    told(made, NOON - 1_000 * HOUR, event_of(1, 1, 900 * HOUR, 900 * HOUR))
    event = event_of(1, 2, 5_000)
    data = one(made, NOON, event, device="pump-7")["derived_contexts"][0]["data"]
    assert (data["method"], data["proven"], "not_before" in data) == ("received", True, False)
    assert told(made, NOON, event)[0] == "anchored"


def test_drift_widens_with_the_time_between() -> None:
    data = one(pipeline(drift_ppm=1000.0), NOON, event_of(1, 1, 0, 1_000_000))["derived_contexts"][0]["data"]
    assert data["uncertainty_ms"] == pytest.approx(60_000 + 2_000, abs=10)


def test_an_event_without_device_clock_is_left_alone() -> None:
    (outcome,) = pipeline().outcomes(payload_of(NOON, {"e": "pv", "p": "web", "tv": "t"}), NOON)
    assert isinstance(outcome, dict) and "derived_contexts" not in outcome


@pytest.mark.parametrize("option", [{"drift_ppm": -1.0}, {"delivery_s": -1.0}, {"boots": 0}, {"devices": 0}])
def test_options_are_checked(option: Any) -> None:
    with pytest.raises(ConfigurationError, match="device_time"):
        Config(**option)


# The id and the fingerprint -----------------------------------------------------------------------------------------


def test_the_id_follows_from_device_boot_and_sequence_however_the_event_comes() -> None:
    made = pipeline()
    event = event_of(4, 9, 5_000, 6_000)
    assert one(made, NOON, event)["event_id"] == device_event_id("pump-7", 4, 9)
    assert one(made, NOON, event, device="other")["event_id"] == device_event_id("other", 4, 9)
    assert one(made, NOON, event, headers=(("spoorway-device", "named"),))["event_id"] == device_event_id("named", 4, 9)
    eid = "6de9024e-17b9-4026-bd4d-efec50ae84cb"
    assert one(made, NOON, event | {"eid": eid})["event_id"] == eid
    nameless = event_of(4, 9, 5_000, 6_000, device_id=None)
    assert one(made, NOON, nameless)["event_id"] != one(made, NOON, nameless)["event_id"]


def test_two_sendings_of_one_event_have_one_fingerprint_and_two_events_two() -> None:
    made = pipeline()
    event = event_of(4, 9, 5_000, 6_000) | {"ttm": "1700000000000", "page": "x"}
    entities = json.loads(event["co"])
    health = {"schema": QUEUE_HEALTH, "data": {"queued": 3}}
    other_way = {**event, "stm": "99000", "tv": "compact-1", "aid": "farm", "p": "srv"}
    other_way["co"] = json.dumps({"data": [*entities["data"], health], "schema": entities["schema"]}, indent=1)
    first = one(made, NOON, event)["event_fingerprint"]
    assert one(made, NOON + 5, other_way, transport="serial")["event_fingerprint"] == first
    assert one(made, NOON, event | {"page": "y"})["event_fingerprint"] != first
    assert one(made, NOON, event_of(4, 9, 5_001, 6_000) | {"page": "x"})["event_fingerprint"] != first


def test_numbers_are_the_same_however_they_are_spelled() -> None:
    made = pipeline()

    def reading(text: str) -> Any:
        data = '{"schema": "iglu:io.spoorway/weather_reading/jsonschema/1-0-0", "data": ' + text + "}"
        wrapper = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
        return event_of(4, 9, 5_000) | {"e": "ue", "ue_pr": f'{{"schema": "{wrapper}", "data": {data}}}'}

    ways = ['{"station_id": "s", "period_seconds": 0, "wind_metres_per_second": 5}']
    ways.append('{"wind_metres_per_second": 5.0, "period_seconds":0,"station_id":"s"}')
    assert len({one(made, NOON, reading(text))["event_fingerprint"] for text in ways}) == 1


# What is remembered -------------------------------------------------------------------------------------------------


def test_facts_do_not_care_for_order_repetition_or_who_learned_them() -> None:
    chance = random.Random(1)
    learned = []
    for _ in range(300):
        uptime = chance.uniform(0, 40 * 24 * HOUR)
        learned.append((chance.choice((1, 2)), Contact(uptime, NOON + uptime * (1 + 5e-5) + chance.uniform(0, 800))))

    def facts_of(some: list[tuple[int, Contact]]) -> Facts:
        facts = Facts()
        for boot_id, contact in some:
            facts = facts.measured(boot_id, contact, contact.uptime, LIMITS).seen(boot_id, contact.uptime, contact.at, LIMITS)
        return facts

    expected = facts_of(learned)
    for _ in range(5):
        chance.shuffle(learned)
        assert facts_of(learned + learned[:50]) == expected
        half = len(learned) // 2
        assert facts_of(learned[:half]).merged(facts_of(learned[half:]), LIMITS) == expected
    assert read(written(expected)) == expected
    assert all(len(boot.measured) <= 25 and len(boot.seen) <= 25 for boot in expected.boots.values())


def test_the_newest_starts_are_kept() -> None:
    facts = Facts()
    for boot in range(20):
        facts = facts.seen(boot, 1.0, NOON + boot, LIMITS)
    assert sorted(facts.boots) == list(range(12, 20))
    assert facts.merged(Facts({1: Boot((), (Contact(1, NOON - 1),), 1.0)}), LIMITS) == facts


KEPT = Remembered[frozenset[int]](
    lambda value: json.dumps(sorted(value)).encode(), lambda text: frozenset(json.loads(text)), frozenset.union
)


def memory(path: Path | None, most: int = 100) -> Memory[frozenset[int]]:
    return Memory(path, "test", KEPT, most, itertools.count(1).__next__)


def test_two_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "data" / "memory.db"
    one_memory, other = memory(path), memory(path)
    one_memory.put("a", frozenset({1}))
    other.put("a", frozenset({2}))
    one_memory.flush()
    other.flush()
    assert other.get("a") == memory(path).get("a") == frozenset({1, 2})
    one_memory.put("a", frozenset({3}))
    one_memory.close()
    assert memory(path).get("a") == frozenset({1, 2, 3})


def test_memory_is_bounded_and_makes_no_file_before_it_has_something(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    made = memory(path, 3)
    assert made.get("a") is None and not path.exists()
    for number in range(6):
        made.put(str(number), frozenset({number}))
        made.flush()
    assert [memory(path).get(str(number)) for number in range(6)] == [None, None, None, *(frozenset({n}) for n in (3, 4, 5))]
    in_ram = memory(None, 3)
    for number in range(6):
        in_ram.put(str(number), frozenset({number}))
    assert [in_ram.get(str(number)) is None for number in range(6)] == [True] * 3 + [False] * 3


def test_a_file_that_is_no_database_costs_the_memory_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(b"not a database at all" * 100)
    made = memory(path)
    made.put("a", frozenset({1}))
    made.flush()
    made.flush()
    assert made.get("a") == frozenset({1}) and made.get("b") is None
    assert len(caplog.records) == 1 and path.read_bytes().startswith(b"not")


def test_a_value_that_cannot_be_read_is_learned_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "memory.db"
    made = memory(path)
    made.put("a", frozenset({1}))
    made.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE memory SET value = x'ff'")
    db.commit()
    db.close()
    again = memory(path)
    assert again.get("a") is None
    again.put("a", frozenset({2}))
    again.close()
    assert memory(path).get("a") == frozenset({2})


def test_what_was_learned_outlives_a_restart(tmp_path: Path) -> None:
    world = RealWorld(memory=tmp_path / "memory.db")
    memories: list[Memory[Any]] = []
    handed = world.memory
    world.memory = lambda *args: memories.append(handed(*args)) or memories[-1]  # type: ignore[method-assign, func-returns-value]
    told(pipeline(world), NOON, event_of(1, 1, 10_000, 10_000))
    for each in memories:
        each.close()
    fresh = pipeline(RealWorld(memory=tmp_path / "memory.db"))
    assert told(fresh, NOON + 5 * HOUR, event_of(1, 2, 70_000)) == ("anchored", 60_000)
