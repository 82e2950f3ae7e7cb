"""What the OpenSearch target does to older documents, on a real server: cut off anywhere it is done once, beside loaders too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from protocol.persons import Person
from protocol.seams import TransientError
from storage.opensearch import removal
from storage.targets import Counts, Erasure, Removed, Rule
from storage.targets.opensearch import Plugin
from tests.contracts.opensearch_bench import Refusing, SearchBench
from tests.contracts.test_target_contract import RECEIVED, batch_of, event_of, failed_of, payload_of
from tests.peers.opensearch_server import OpenSearchServer

pytestmark = pytest.mark.slow

THEIRS = Person(user=frozenset({"u1"}))


@pytest.fixture
def bench(opensearch_server: OpenSearchServer) -> Iterator[SearchBench]:
    made = SearchBench(opensearch_server)
    yield made
    made.open().close()


def erase(target: Plugin) -> Removed:
    erasure = Erasure("one", THEIRS, RECEIVED + 1_000)
    removed, after = target.erase(erasure, None)
    while after is not None:
        removed, after = target.erase(erasure, after)
    return removed


def drop(target: Plugin) -> None:
    target.drop(["failed-8"], RECEIVED)


def solve(target: Plugin) -> None:
    target.resolve("failed-8", [event_of(8)], [], RECEIVED)


@pytest.mark.parametrize(
    ("do", "left", "waiting", "totals"),
    [
        (solve, [1, 2, 3, 4, 5, 8], 1, Counts(7, 6, 1)),
        (drop, [1, 2, 3, 4, 5], 1, Counts(7, 5, 1, 0, 1)),
        (erase, [3, 4, 5], 2, Counts(7, 3, 2, erased=2)),
    ],
    ids=["solve", "drop", "erase"],
)
def test_cut_off_anywhere_it_is_done_once(
    bench: SearchBench, do: Callable[[Plugin], Any], left: list[int], waiting: int, totals: Counts
) -> None:
    """Each call in turn fails before it is done, and the next attempt fails one call later after it was done."""
    target = bench.open()
    events = [event_of(n, **({"user_id": "u1"} if n < 3 else {})) for n in range(1, 6)]
    target.commit(batch_of(*events, failed=(failed_of(8), failed_of(9)), end=7))
    fail_at = 0
    while True:
        fail_at += 1
        assert fail_at < 60
        target = bench.open()
        refusing = Refusing(target._store.server)
        refusing.fail_at, refusing.done = fail_at, fail_at % 2 == 0
        target._store.server = refusing  # type: ignore[assignment]
        try:
            do(target)
        except TransientError:
            continue
        break
    assert fail_at > 4
    target = bench.open()
    do(target)
    assert target.totals() == totals
    assert sorted(bench.ids()) == [str(event_of(n)["event_id"]) for n in left]  # type: ignore[typeddict-item]
    assert len(target.failed_ids()) == len(bench.failed_ids()) == waiting
    assert target.commit(batch_of(*events, failed=(failed_of(8), failed_of(9)), end=9)) == Counts(7, 0, 0, 7)
    assert target.cursor() == batch_of(end=9).cursor


def test_what_a_stalled_loader_wrote_too_late_is_no_part_of_anybodys_commit(bench: SearchBench) -> None:
    first, second = bench.open(), bench.another()
    first.commit(batch_of(event_of(1), end=1))
    server = first._store.server

    class Late(Refusing):
        """Its documents arrive when another loader has put all in order, and committed."""

        def call(self, method: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
            if path.endswith("-events/_bulk"):
                first._store.server = server
                second.commit(batch_of(event_of(7), end=2))
            return super().call(method, path, *arguments, **options)

    first._store.server = Late(server)  # type: ignore[assignment]
    with pytest.raises(TransientError, match="another loader committed at the same time"):
        first.commit(batch_of(event_of(2), event_of(3), failed=(failed_of(4),), end=4))
    # The other loader meets them when it loads the same: nothing of them counts as stored, and they go before they do.
    for _ in range(3):
        try:
            counts = second.commit(batch_of(event_of(2), event_of(3), failed=(failed_of(4),), end=5))
            break
        except TransientError:
            continue
    assert counts == Counts(3, 2, 1)
    assert second.totals() == Counts(5, 4, 1)
    assert len(bench.ids()) == 4
    second.close()


def test_solving_and_dropping_win_against_a_loader_and_it_goes_on(bench: SearchBench) -> None:
    loader, person = bench.open(), bench.another()
    loader.commit(batch_of(failed=(failed_of(1), failed_of(2)), end=2))
    server, number = person._store.server, iter(range(10, 20))

    class Crossed(Refusing):
        """A commit of the loader comes before each of its attempts at the state, twice."""

        def call(self, method: str, path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
            if "_doc/state?" in path and (n := next(number)) < 12:
                loader.commit(batch_of(event_of(n), end=n))
            return super().call(method, path, *arguments, **options)

    person._store.server = Crossed(server)  # type: ignore[assignment]
    assert person.resolve("failed-1", [event_of(1)], [], RECEIVED) == Counts(0, 1, 0, 0)
    person._store.server = server
    assert person.drop(["failed-2"], RECEIVED) == 1
    assert loader.commit(batch_of(event_of(30), end=30)).stored == 1
    assert loader.totals() == Counts(5, 4, 0, 0, 1)
    person.close()


def test_pieces_are_bounded_and_each_counts_once(bench: SearchBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ROWS", "_FAILED_ROWS", "_IDS"):
        monkeypatch.setattr(removal, name, 3)
    target = bench.open()
    events = [event_of(n, **({"user_id": "u1"} if n % 2 else {})) for n in range(10)]
    failed = [failed_of(n, payload=n % 2) for n in range(20, 27)]
    target.commit(batch_of(*events, failed=tuple(failed), end=17))
    removed, after = target.erase(Erasure("one", THEIRS, RECEIVED + 1_000), None)
    pieces = 1
    while after is not None:
        assert sum(removed) == target.totals().erased
        removed, after = target.erase(
            Erasure("one", THEIRS, RECEIVED + 1_000, cut=lambda p: p if p == payload_of(1) else None), after
        )
        pieces += 1
    assert (removed, pieces) == (Removed(5, 0), 6)
    removed, after = target.expire(Rule(1), RECEIVED + 10_000, None)
    assert removed == Removed(3, 0)
    while after is not None:
        removed, after = target.expire(Rule(1), RECEIVED + 10_000, after)
    assert target.totals() == Counts(17, 0, 0, erased=5, expired=12)
    assert (bench.ids(), bench.failed_ids()) == ([], [])


def test_a_failed_event_is_told_as_a_sql_store_tells_it(bench: SearchBench) -> None:
    target = bench.open()
    target.commit(batch_of(failed=(failed_of(1),), end=1))
    (row,) = target.list_failed()
    assert row["collector_tstamp"] == "2023-11-14 22:13:20.001"
    assert row["replayed_tstamp"] is None
    assert "payload" not in row
