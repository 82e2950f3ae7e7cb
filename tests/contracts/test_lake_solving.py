"""Failed events in the S3 target's files, in a folder: cut off anywhere they are solved and dropped once, beside loaders too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.persons import Person
from protocol.seams import TransientError
from storage import lake
from storage.lake import commits, merging
from storage.targets import Counts, Erasure, Removed
from storage.targets.s3 import Plugin
from tests.contracts.s3_bench import LakeBench, Refusing
from tests.contracts.test_target_contract import RECEIVED, at, batch_of, event_of, failed_of, payload_of, waiting_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LakeBench]:
    made = LakeBench(tmp_path)
    yield made
    made.open().close()


def solve(target: Plugin) -> None:
    target.resolve("failed-8", [event_of(8)], [], RECEIVED)


def drop(target: Plugin) -> None:
    target.drop(["failed-8"], RECEIVED)


def solve_the_only_one(target: Plugin) -> None:
    target.resolve("failed-7", [event_of(7)], [failed_of(20)], RECEIVED)


@pytest.mark.parametrize(
    ("do", "stored", "waiting", "totals"),
    [
        (solve, [1, 8], ["failed-7", "failed-9"], Counts(4, 2, 2)),
        (drop, [1], ["failed-7", "failed-9"], Counts(4, 1, 2, 0, 1)),
        (solve_the_only_one, [1, 7], ["failed-20", "failed-8", "failed-9"], Counts(4, 2, 3)),
    ],
    ids=["solve", "drop", "solve_and_fail_anew"],
)
@pytest.mark.parametrize("done", [False, True], ids=["not_done", "answer_lost"])
def test_cut_off_anywhere_it_is_done_once(
    bench: LakeBench, do: Callable[[Plugin], Any], stored: list[int], waiting: list[str], totals: Counts, done: bool
) -> None:
    target = bench.open()
    first = batch_of(event_of(1), failed=(failed_of(7),), end=2)
    target.commit(first)
    target.commit(batch_of(failed=(failed_of(8), failed_of(9)), end=4))
    for fail_at in range(1, 40):
        target = bench.open()
        refusing = Refusing(target._objects)
        refusing.fail_at, refusing.done = fail_at, done
        target._objects = refusing  # type: ignore[assignment]
        try:
            do(target)
        except TransientError:
            continue
        finally:
            target._objects = refusing.objects
        break
    else:
        raise AssertionError("it never comes through")
    target = bench.open()
    do(target)
    assert target.totals() == totals
    assert sorted(bench.ids()) == [event_of(n)["event_id"] for n in stored]  # type: ignore[typeddict-item]
    assert sorted(target.failed_ids()) == sorted(bench.failed_ids()) == waiting
    assert target.cursor() == at(4)
    assert target.commit(batch_of(event_of(1), failed=(failed_of(7), failed_of(8), failed_of(9)), end=5)) == Counts(4, 0, 0, 4)


def test_of_two_that_solve_the_same_at_the_same_time_one_counts(bench: LakeBench) -> None:
    target, other = bench.open(), bench.another()
    target.commit(batch_of(failed=(failed_of(1), failed_of(2)), end=2))
    objects, meanwhile = target._objects, [True]

    class Slow(Refusing):
        """The other one commits when this one is about to."""

        def __getattr__(self, name: str) -> Any:
            if name == "put_new" and meanwhile:
                meanwhile.clear()
                other.resolve("failed-1", [event_of(1)], [], RECEIVED)
                other.drop(["failed-2"], RECEIVED)
            return super().__getattr__(name)

    target._checked = True  # not the check of the store, the commit
    target._objects = Slow(objects)  # type: ignore[assignment]
    assert target.resolve("failed-1", [event_of(1)], [], RECEIVED) is None
    target._objects = objects
    assert target.drop(["failed-2", "failed-1"], RECEIVED) == 0
    assert target.totals() == other.totals() == Counts(2, 1, 0, 0, 1)
    other.close()


def test_a_loader_goes_on_beside_whoever_solves(bench: LakeBench) -> None:
    loader, person = bench.open(), bench.another()
    loader.commit(batch_of(event_of(1), failed=(failed_of(8), failed_of(9)), end=3))
    assert person.resolve("failed-8", [event_of(8)], [], RECEIVED) == Counts(0, 1, 0, 0)
    assert loader.commit(batch_of(event_of(2), event_of(8), end=5)) == Counts(2, 1, 0, 1)
    assert person.drop(["failed-9"], RECEIVED) == 1
    assert loader.commit(batch_of(event_of(3), failed=(failed_of(9),), end=7)) == Counts(2, 1, 0, 1)
    person.cursor()  # asks anew
    assert loader.totals() == person.totals() == Counts(7, 4, 0, 2, 1)
    person.close()


def test_what_was_dropped_is_known_when_the_index_is_lost_and_files_are_merged(bench: LakeBench) -> None:
    target = bench.open()
    for number in (1, 2, 3):
        target.commit(batch_of(failed=(failed_of(number), failed_of(number + 10)), end=number))
        target.drop([f"failed-{number}"], RECEIVED)
    target.resolve("failed-11", [event_of(11)], [], RECEIVED)
    objects = bench.objects()
    plan = merging.plan(objects, lake.SUFFIXES, "9999-12-31", 1 << 20, commits.newest(objects)[0].placed)
    for members in plan.merges:
        merging.merge(objects, members)
    assert {members[0].kind for members in plan.merges} == {lake.FAILED, lake.DROPPED}
    target.close()
    for path in Path(bench.config.state).parent.glob("s3.db*"):
        path.unlink()
    bench.target = None
    target = bench.open()
    again = tuple(failed_of(number) for number in (1, 2, 3, 11, 12, 13))
    assert target.commit(batch_of(failed=again, end=9)) == Counts(6, 0, 0, 6)
    assert target.failed_ids() == ["failed-13", "failed-12"]
    assert (target.show_failed("failed-13") or (None, None))[1] == payload_of(13)
    assert target.drop(["failed-13", "failed-12"], RECEIVED) == 2
    assert target.list_failed(replayed=True)[0]["replayed_tstamp"] == "2023-11-14 22:13:20.000"


def test_a_walk_over_many_files_ends_and_finds_each(bench: LakeBench) -> None:
    target = bench.open()
    for number in range(6):
        target.commit(batch_of(failed=(waiting_of(number, number, "x"), waiting_of(number + 10, number, "y")), end=number + 1))
    found, after, calls = [], None, 0
    while True:
        some, after = target.waiting(after, 30)
        found += [one.failed_id for one in some]
        calls += 1
        if after is None:
            break
    assert sorted(found) == sorted([f"failed-{number + more}" for number in range(6) for more in (0, 10)])
    assert 3 <= calls <= 4


def test_an_erasure_counts_those_that_wait_and_takes_the_solved_ones_too(bench: LakeBench) -> None:
    target = bench.open()
    target.commit(batch_of(failed=(failed_of(1), failed_of(2)), end=2))
    target.resolve("failed-1", [event_of(1, user_id="u1")], [], RECEIVED)
    erasure = Erasure("one", Person(user=frozenset({"u1"})), RECEIVED + 1_000, failed=("failed-1", "failed-2"))
    removed, after = target.erase(erasure, None)
    while after is not None:
        removed, after = target.erase(erasure, after)
    assert removed == Removed(1, 1)
    assert target.list_failed(replayed=True) == []
    assert target.totals() == Counts(2, erased=2)
