"""Every target that takes payloads: the contract of targets for what applies, and why the rest does not."""

from __future__ import annotations

import contextlib
import inspect
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.seams import FailedEvent, PermanentError, Position, Reason, TransientError
from storage.targets import Counts, RawBatch
from tests.contracts import test_target_contract as events
from tests.unit.relay_bench import Bench, at, batch_of, benched, payload_of, said, taken

# Tests of the contract of event targets -> why there is nothing like it here.
UPSTREAM = "events are not looked at here; the upstream's store does that"
SENT_AGAIN = "a refused payload is sent again, not enriched: tests/unit/test_relay_sending.py"
HARMLESS = "the worst is that payloads are sent again, which the upstream's store drops"
MACHINE = "one SQLite file and the same translation of its errors as the sqlite target's"
NOT_HERE = {
    "test_a_natural_duplicate_is_dropped_and_counted": UPSTREAM,
    "test_a_synthetic_duplicate_is_kept_under_an_id_of_its_own": UPSTREAM,
    "test_an_event_that_took_a_derived_id_before_drives_nobody_out": UPSTREAM,
    "test_events_of_any_shape_and_order_are_stored_in_their_columns": UPSTREAM,
    "test_a_solved_failed_event_moves_from_failed_to_stored": SENT_AGAIN,
    "test_a_failed_event_that_fails_again_stays_with_its_new_reasons": SENT_AGAIN,
    "test_a_solved_failed_event_cannot_be_dropped": SENT_AGAIN,
    "test_a_payload_is_kept_as_long_as_an_event_of_it_waits": "a refused payload is one failed event",
    "test_failed_events_that_wait_for_a_schema_are_found_by_payload": "no schema is looked for",
    "test_several_failed_events_are_solved_in_one_transaction": SENT_AGAIN,
    "test_another_process_may_store_a_replay_between_two_commits": SENT_AGAIN,
    "test_wiped_a_target_begins_again": "there is nothing to build anew; without its state file it sends everything again",
    "test_a_commit_whose_answer_was_lost_is_known_when_offered_again": "the upstream's: tests/unit/test_http_relay.py",
    "test_whatever_fails_every_event_is_kept_exactly_once": "with a real upstream: tests/end_to_end/test_relay.py, tests/faults",
    "test_killed_in_the_middle_of_commits_the_file_is_whole_and_nothing_is_lost_or_doubled": "as above",
    "test_the_memory_target_fails_as_its_configuration_says": "of the memory target",
    **dict.fromkeys(
        (
            "test_loaders_with_lanes_of_their_own_do_not_hinder_each_other",
            "test_loaders_that_begin_at_the_same_time_find_one_target",
            "test_what_another_loader_stored_is_known",
            "test_a_loader_that_was_overtaken_is_refused_and_nothing_is_doubled",
            "test_a_cursor_never_goes_back",
            "test_a_lost_answer_is_told_even_when_another_loader_committed_since",
            "test_whatever_fails_and_whoever_has_a_lane_every_event_is_kept_exactly_once",
        ),
        "one process has the state file; `spoorway worker` refuses such a target: tests/end_to_end/test_worker.py",
    ),
    "test_a_file_that_was_removed_while_in_use_stops_the_target": HARMLESS,
    "test_readers_see_whole_commits_only": MACHINE,
    "test_a_locked_database_is_passing_trouble": MACHINE,
    "test_a_full_file_is_passing_trouble_and_goes_on_when_there_is_room": MACHINE,
    "test_a_full_disk_is_passing_trouble_and_goes_on_when_there_is_room": MACHINE,
    "test_a_file_of_a_newer_version_is_refused_untouched": MACHINE,
    "test_a_file_of_the_first_version_is_brought_up": "there is one version",
    "test_a_path_that_cannot_be_is_refused": MACHINE,
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with benched(tmp_path) as made:
        yield made


def failed_of(number: int) -> FailedEvent:
    reason = Reason("payload", "journal", "3 damaged bytes", keyword="Damaged")
    return FailedEvent(
        f"failed-{number}", "journal_damage", (reason,), replace(payload_of(number), transport="journal"), 5 + number
    )


def test_each_test_of_the_other_contract_is_here_or_has_a_reason() -> None:
    theirs = {name for name, _ in inspect.getmembers(events, inspect.isfunction) if name.startswith("test_")}
    ours = {name for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)}
    assert theirs - ours == NOT_HERE.keys()


def test_a_new_target_has_no_cursor_and_no_totals(bench: Bench) -> None:
    target = bench.open()
    assert (target.cursor(), target.totals()) == ({}, Counts())


def test_rows_totals_and_cursor_are_there_after_a_restart(bench: Bench) -> None:
    counts = bench.open().commit(RawBatch([payload_of(1), payload_of(2)], [failed_of(3)], at(3)))
    assert counts == Counts(payloads=3, failed=1, forwarded=2)
    target = bench.open()
    assert (target.cursor(), target.totals()) == (at(3), counts)


def test_each_lane_has_its_own_position(bench: Bench) -> None:
    target = bench.open()
    target.commit(RawBatch([], [], at(1, "one")))
    target.commit(RawBatch([], [], at(2, "two")))
    assert bench.open().cursor() == at(1, "one") | at(2, "two")


def test_the_same_batch_again_changes_nothing_and_counts_the_same(bench: Bench) -> None:
    batch = RawBatch([payload_of(1), payload_of(1)], [failed_of(2)], at(3))
    first = bench.open().commit(batch)
    target = bench.open()
    assert target.commit(batch) == first == Counts(payloads=3, failed=1, forwarded=2)
    assert target.totals() == first


def test_a_batch_that_only_ends_where_the_last_one_did_is_not_mistaken_for_it(bench: Bench) -> None:
    target = bench.open()
    target.commit(batch_of(payload_of(1)))
    target.commit(batch_of(payload_of(2)))
    assert target.totals().forwarded == 2


def test_failed_events_are_kept_once_by_their_id(bench: Bench) -> None:
    target = bench.open()
    target.commit(RawBatch([], [failed_of(1)], at(1)))
    target.commit(RawBatch([], [failed_of(1), failed_of(2)], at(2)))
    assert target.totals() == Counts(payloads=3, failed=2, duplicate=1)
    assert target.failed_ids() == ["failed-2", "failed-1"]
    assert target.failed_ids(kind="relay_refused") == []


def test_a_failed_event_can_be_listed_and_shown_with_its_payload_byte_for_byte(bench: Bench) -> None:
    target = bench.open()
    target.commit(RawBatch([], [failed_of(1)], at(1)))
    shown = target.show_failed("failed-1")
    assert shown is not None and shown[1] == failed_of(1).payload
    assert shown[0]["first_reason"] == "journal: 3 damaged bytes"
    assert target.show_failed("nobody") is None


def test_a_dropped_failed_event_is_counted_and_not_taken_again(bench: Bench) -> None:
    target = bench.open()
    target.commit(RawBatch([], [failed_of(1), failed_of(2)], at(1)))
    assert target.drop(["failed-1", "unknown", "failed-1"], 5) == 1
    assert target.totals() == Counts(payloads=2, failed=1, dropped=1)
    assert bench.open().commit(RawBatch([], [failed_of(1)], at(2))) == Counts(payloads=1, duplicate=1)


def test_a_commit_that_fails_has_taken_nothing(bench: Bench) -> None:
    target = bench.open()
    target.commit(batch_of(payload_of(1), end=1))
    before = target.totals()
    bench.upstream.answer = lambda request: said(503)
    with pytest.raises(TransientError):
        target.commit(RawBatch([payload_of(2)], [failed_of(3)], at(2)))
    assert (target.cursor(), target.totals(), target.list_failed()) == (at(1), before, [])
    bench.upstream.answer = taken
    assert target.commit(RawBatch([payload_of(2)], [failed_of(3)], at(2))) == Counts(payloads=2, failed=1, forwarded=1)


def test_a_file_that_is_no_database_is_refused_in_one_line(bench: Bench) -> None:
    other = bench.folder / "other.db"
    other.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    with pytest.raises(PermanentError, match=r"other\.db") as caught:
        bench.open(state=str(other))
    assert "\n" not in str(caught.value)


def test_a_database_of_another_program_is_refused_untouched(bench: Bench) -> None:
    other = bench.folder / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(PermanentError, match="not a relay's file"):
        bench.open(state=str(other))
    with contextlib.closing(sqlite3.connect(other)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]


def test_the_place_in_the_journal_is_a_position(bench: Bench) -> None:
    bench.open().commit(batch_of(payload_of(1), end=7))
    (position,) = bench.open().cursor().values()
    assert position == Position(1, 700, 7)
