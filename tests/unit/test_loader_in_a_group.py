"""The loader's loop where several load one target: lanes come and go, and another loader may have been there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gateway.journal import Chunk, Joining, Reassigned
from protocol.schemas import bundled
from protocol.seams import START, Cursor, Position, RawPayload, TransientError
from spoorway.loader import Loader
from storage.targets import Counts, memory

LANES = ("a", "b")


class Shared:
    """A journal of two lanes in memory, and who has which."""

    def __init__(self, payloads: int) -> None:
        self.lanes = {
            lane: [RawPayload(f"{place * 1000 + n:032x}", n, "http", "/i") for n in range(payloads)]
            for place, lane in enumerate(LANES)
        }
        self.members: list[Member] = []

    def member(self, *lanes: str) -> Member:
        self.members.append(Member(self, lanes))
        return self.members[-1]


class Member:
    """A `gateway.journal.GroupReader`. between: called after each read, which is when another may step in."""

    def __init__(self, shared: Shared, lanes: tuple[str, ...]) -> None:
        self._shared, self._lanes, self._new = shared, lanes, True
        self.told: Cursor = {}
        self.asked, self.closed = 0, False
        self.between: Any = lambda: None

    def give(self, *lanes: str) -> None:
        self._lanes, self._new = lanes, True

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        if self._new:
            self._new = False
            raise Reassigned("other lanes")
        items: list[RawPayload] = []
        after = dict(cursor)
        for lane in self._lanes:
            place = cursor.get(lane, START).sequence
            found = self._shared.lanes[lane][place : place + 3]
            items += found
            if found:
                after[lane] = Position(0, place + len(found), place + len(found))
        self.between()
        return Chunk(tuple(items), after, False)

    def pending(self, cursor: Cursor) -> int:
        self.asked += 1
        return sum(self._waiting(lane, cursor) for lane in self._lanes)

    def lag(self) -> Mapping[str, int]:
        return {lane: self._waiting(lane, self.told) for lane in self._lanes}

    def loaded(self, cursor: Cursor) -> None:
        self.told = dict(cursor)

    def close(self) -> None:
        self.closed = True

    def _waiting(self, lane: str, cursor: Cursor) -> int:
        return len(self._shared.lanes[lane]) - cursor.get(lane, START).sequence


class Pipeline:
    def outcomes(self, payload: RawPayload, now_ms: int) -> Iterator[Any]:
        yield {"event_id": payload.id, "collector_tstamp": payload.received_ms, "event_fingerprint": "f"}


def loader(reader: Member, target: memory.Plugin) -> Loader:
    return Loader("memory", reader, Pipeline(), target, lambda: 7)  # type: ignore[arg-type]


def test_lanes_that_change_hands_are_gone_on_with_where_the_target_stands() -> None:
    shared, target = Shared(9), memory.Plugin(memory.Config(), bundled)
    one, other = shared.member("a"), shared.member("b")
    first, second = loader(one, target), loader(other, target)
    assert [made.step() for made in (first, second) * 3] == [True] * 6
    assert target.cursor() == {"a": Position(0, 6, 6), "b": Position(0, 6, 6)}
    one.give("b")
    other.give("a")
    while first.step() | second.step():
        pass
    assert target.totals() == Counts(18, 18, 0, 0)
    assert (first.status.reassigned, second.status.reassigned, first.status.overtaken) == (2, 2, 0)
    assert first.status.own == second.status.own == {"payloads": 9, "stored": 9, "failed": 0, "duplicate": 0}


def test_who_was_overtaken_between_reading_and_committing_reads_again_and_doubles_nothing() -> None:
    shared, target = Shared(9), memory.Plugin(memory.Config(), bundled)
    stalled, other = shared.member("a"), shared.member()
    first, second = loader(stalled, target), loader(other, target)
    assert first.step() and first.step()

    def lose() -> None:  # the group holds it for dead, and gives its lane away, while it is busy with what it read
        stalled.between = lambda: None
        other.give("a")
        while second.step():
            pass

    stalled.between = lose
    while first.step():
        pass
    assert (first.status.overtaken, target.totals()) == (1, Counts(9, 9, 0, 0))
    assert first.cursor == second.cursor == {"a": Position(0, 9, 9)}


def test_what_it_tells_of_its_lanes_follows_each_commit() -> None:
    shared, target = Shared(5), memory.Plugin(memory.Config(), bundled)
    reader = shared.member("a", "b")
    made = loader(reader, target)
    made.step()
    assert (made.status.lag, made.status.pending) == ({"a": 5, "b": 5}, 10)
    made.step()
    assert (made.status.lag, made.status.pending, reader.told) == ({"a": 2, "b": 2}, 4, target.cursor())


def test_who_has_nothing_to_load_tells_what_the_others_did() -> None:
    shared, target, times = Shared(9), memory.Plugin(memory.Config(), bundled), iter(range(0, 10**9, 4_000))
    stop = threading.Event()
    idle = Loader("memory", shared.member(), Pipeline(), target, lambda: next(times))  # type: ignore[arg-type]
    busy = loader(shared.member("a"), target)
    while busy.step():
        pass
    assert idle.status.stored == 0
    shared.members[0].between = lambda: stop.set() if idle.status.stored == 9 else None
    idle.run(stop, threading.Event())
    assert (idle.status.state, idle.status.own["stored"]) == ("waiting", 0)


def test_it_keeps_its_place_in_the_group_while_the_target_is_down() -> None:
    class Down(memory.Plugin):
        def cursor(self) -> Cursor:
            stop.set() if self.tried else None
            self.tried += 1
            raise TransientError("out of reach")

        tried = 0

    stop = threading.Event()
    reader = Shared(1).member("a")
    made = loader(reader, Down(memory.Config(), bundled))
    made.run(stop, threading.Event())
    assert reader.asked
    assert made.status.state == "retrying"


def test_asked_to_end_at_once_it_leaves_the_rest_to_the_others() -> None:
    shared, target = Shared(9), memory.Plugin(memory.Config(), bundled)
    reader, stop = shared.member("a"), threading.Event()
    made = loader(reader, target)
    reader.between = lambda: stop.set()
    made.run(stop, threading.Event())
    assert target.totals() == Counts(3, 3, 0, 0)


def test_waiting_for_the_group_is_no_error_and_after_a_while_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared(2)
    member = shared.member(*LANES)
    now = [0]
    made = Loader("memory", member, Pipeline(), memory.Plugin(memory.Config(), bundled), lambda: now[0])  # type: ignore[arg-type]
    ready, read = threading.Event(), member.read
    left = [3]

    def joining(cursor: Cursor, **limits: int) -> Chunk:
        if not left[0]:
            ready.set()
            return read(cursor, **limits)
        left[0] -= 1
        now[0] += 20_000
        raise Joining("waiting for the group")

    member.read = joining  # type: ignore[method-assign]
    stop = threading.Event()
    states: list[str] = []
    stop.wait = lambda timeout=None: bool(states.append(made.status.state))  # type: ignore[method-assign, func-returns-value]
    made.run(stop, ready)
    assert states[:3] == ["starting", "starting", "retrying"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records if record.levelname != "INFO"] == [
        ("WARNING", "target memory is retrying: waiting for the group")
    ]
    assert (made.status.state, made.status.stored) == ("finished", 4)
