"""What the test server remembers, and how it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from spoorway.micro.records import Record
from spoorway.micro.store import Bounds, Store


def record(number: int, good: bool = True, size: int = 10) -> Record:
    part = b"x" * size
    return Record(good, str(number), 0, "page_view", None, (), "v", "1", slice(0, 0) if good else b"", (part,), "")


def add(store: Store, namespace: str, *records: Record) -> list[Record]:
    return store.add(namespace, len(records), reversed(records))


def numbers(store: Store, namespace: str = "") -> list[int]:
    return [int(each.event_id or 0) for each in store.newest_first(namespace)]


def anything(record: Record) -> bool:
    return True


async def settled(task: asyncio.Task[None]) -> bool:
    """Whether it is done after every turn of the loop that it could make use of."""
    for _ in range(20):
        await asyncio.sleep(0)
    return task.done()


def test_bounds_hold_over_all_namespaces() -> None:
    store = Store(Bounds(max_events=100, max_bytes=35))
    for number in range(5):
        add(store, "ab"[number % 2], record(number))
    assert (numbers(store, "a"), numbers(store, "b")) == ([4, 2], [3])
    assert (len(store), store.bytes, store.dropped) == (3, 30, 2)


def test_of_a_batch_beyond_the_bounds_only_what_is_kept_is_made() -> None:
    store = Store(Bounds(max_events=100, max_bytes=35))
    add(store, "", record(1))
    made: list[int] = []

    def newest_first() -> Iterator[Record]:
        for number in range(1_000, 0, -1):
            made.append(number)
            yield record(number)

    kept = store.add("", 1_000, newest_first())
    assert [each.event_id for each in kept] == ["998", "999", "1000"]
    assert made == [1_000, 999, 998, 997], "the last of these showed that it is too much"
    assert (numbers(store), store.dropped) == ([1_000, 999, 998], 998)


def test_a_bad_record_counts_its_columns_too() -> None:
    bad = Record(False, None, 0, None, None, (), "v", "1", b"12345", (b"ab", b"c"), "")
    assert bad.size == 8
    store = Store(Bounds())
    add(store, "", bad, record(1))
    assert store.bytes == 18
    store.reset("", lambda record: record.good)
    assert store.bytes == 8


def test_waiting_counts_each_record_once() -> None:
    async def scenario() -> None:
        store = Store(Bounds())
        add(store, "", record(1))
        looked: list[str | None] = []

        def wanted(record: Record) -> bool:
            looked.append(record.event_id)
            return record.good

        waiting = asyncio.create_task(store.arrived("", wanted, 3, 60))
        assert not await settled(waiting)
        add(store, "", record(2), record(3, good=False))
        assert not await settled(waiting)
        add(store, "other", record(4))
        assert not await settled(waiting)
        add(store, "", record(5))
        assert await settled(waiting)
        assert sorted(looked, key=str) == ["1", "2", "3", "5"]

    asyncio.run(scenario())


def ends_it(act: Callable[[Store], None]) -> bool:
    async def scenario() -> bool:
        store = Store(Bounds())
        add(store, "", record(1))
        waiting = asyncio.create_task(store.arrived("", anything, 2, 60))
        assert not await settled(waiting)
        act(store)
        done = await settled(waiting)
        store.close()
        await waiting
        return done

    return asyncio.run(scenario())


def test_waiting_starts_anew_after_a_reset() -> None:
    def reset_and_one(store: Store) -> None:
        store.reset("", anything)
        add(store, "", record(2))

    def reset_and_two(store: Store) -> None:
        reset_and_one(store)
        add(store, "", record(3))

    assert ends_it(lambda store: add(store, "", record(2)))
    assert not ends_it(reset_and_one)
    assert ends_it(reset_and_two)
    assert ends_it(Store.close)
