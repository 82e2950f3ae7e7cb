"""Every storage target: an event that was offered is kept once, whatever fails in between."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytest

from protocol.schemas import bundled
from protocol.seams import START, Cursor, Event, FailedEvent, PermanentError, Position, RawPayload, Reason, TransientError
from storage import ddl
from storage.duplicates import DUPLICATE, synthetic_id
from storage.targets import Batch, Counts, Overtaken, Target, WaitingStore, memory, sqlite
from tests.contracts import kafka_bench, opensearch_bench, postgres_bench, redshift_bench, s3_bench
from tests.peers.kafka_server import KafkaServer
from tests.peers.postgres_server import PostgresServer
from tests.peers.redshift_double import RedshiftDouble
from tests.peers.s3_server import S3Server

RECEIVED = 1_700_000_000_000


class Store(Target, WaitingStore, Protocol): ...


@runtime_checkable
class Wipeable(Protocol):
    def wipe(self) -> None: ...


class Bench(Protocol):
    """How the suite treats one kind of target. open() again after a crash finds what was durable."""

    def open(self) -> Target: ...
    def another(self) -> Target:
        """Another loader's, on another machine."""
        ...

    def failed_ids(self) -> list[str]: ...
    def ids(self) -> list[str]: ...
    def event(self, event_id: str) -> dict[str, Any]: ...
    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        """Offer the batch with trouble at that moment; raises TransientError (or, "inside", may come through)."""
        ...


class StoreBench(Bench, Protocol):
    """Of a target whose failed events can be looked at and solved."""

    def open(self) -> Store: ...


class SqliteBench:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.db"
        self.target: sqlite.Plugin | None = None

    def open(self) -> sqlite.Plugin:
        if self.target:
            self.target.close()
        self.target = sqlite.Plugin(sqlite.Config(str(self.path), busy_ms=20), bundled)
        return self.target

    def another(self) -> sqlite.Plugin:
        return sqlite.Plugin(sqlite.Config(str(self.path)), bundled)

    def rows(self, sql: str, *values: object) -> list[Any]:
        db = sqlite3.connect(self.path)
        db.row_factory = sqlite3.Row
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def ids(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT event_id FROM events")]

    def failed_ids(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT failed_id FROM failed_events WHERE replayed_tstamp IS NULL")]

    def event(self, event_id: str) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM events WHERE event_id = ?", event_id)
        return dict(row)

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        assert self.target
        if moment == "before":
            other = sqlite3.connect(self.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                self.target.commit(batch)
            finally:
                other.close()
        elif moment == "inside":
            connection = self.target._db
            steps = chance.randrange(1, 4_000)
            connection.set_progress_handler(lambda: 1, steps)  # interrupts the statement that runs then
            try:
                self.target.commit(batch)
            finally:
                connection.set_progress_handler(None, 0)
        else:
            self.target.commit(batch)
            raise TransientError("the answer was lost")


class MemoryBench:
    def __init__(self, folder: Path) -> None:
        self.target = memory.Plugin(memory.Config(), bundled)

    def open(self) -> memory.Plugin:
        return self.target

    def another(self) -> memory.Plugin:
        return self.target

    def ids(self) -> list[str]:
        return [event["event_id"] for event in self.target.events]

    def failed_ids(self) -> list[str]:
        return self.target.failed_ids(limit=1_000)

    def event(self, event_id: str) -> dict[str, Any]:
        (event,) = [e for e in self.target.events if e["event_id"] == event_id]
        return {**event, "derived_contexts": str(event.get("derived_contexts"))}

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        healthy = self.target._config
        self.target._config = memory.Config(fail=moment)  # type: ignore[arg-type]
        try:
            self.target.commit(batch)
        finally:
            self.target._config = healthy


# Targets whose failed events can be looked at and solved, and all targets.
STORES: dict[str, Callable[[Path, pytest.FixtureRequest], StoreBench]] = {
    "sqlite": lambda folder, _: SqliteBench(folder),
    "memory": lambda folder, _: MemoryBench(folder),
    "postgres": postgres_bench.plain,
    "postgres_months": postgres_bench.by_month,
    "redshift": redshift_bench.tables,
    "opensearch": opensearch_bench.in_opensearch,
    "s3_folder": s3_bench.in_folder,
    "s3_bucket": s3_bench.in_bucket,
}
BENCHES: dict[str, Callable[[Path, pytest.FixtureRequest], Bench]] = {
    **STORES,
    "kafka": kafka_bench.in_kafka,
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server, server.in_environment():
        yield server


@pytest.fixture(scope="module")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def redshift(postgres: PostgresServer, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    s3.bucket(redshift_bench.BUCKET)
    with RedshiftDouble(tmp_path_factory.mktemp("redshift"), postgres=postgres, s3=s3) as double:
        yield double


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = BENCHES[request.param](tmp_path, request)
    yield made
    made.open().close()


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreBench]:
    made = STORES[request.param](tmp_path, request)
    yield made
    made.open().close()


def event_of(number: int, fingerprint: str | None = "f", **columns: Any) -> Event:
    event: Event = {
        "app_id": "shop",
        "event": "page_view",
        "collector_tstamp": RECEIVED + number,
        "event_id": str(uuid.UUID(int=number)),
        "v_collector": "c",
        "v_etl": "e",
    }
    if fingerprint is not None:
        event["event_fingerprint"] = fingerprint
    return event | columns  # type: ignore[return-value, operator]


def payload_of(number: int) -> RawPayload:
    return RawPayload(f"{number:032x}", RECEIVED + number, "http", "/i", query="e=pv", body=b"\xff\x00")


def failed_of(number: int, index: int | None = 0, payload: int | None = None) -> FailedEvent:
    reason = Reason("atomic", "eid", "is not a UUID", value="x", keyword="atomic_field_parse_error")
    source = payload_of(number if payload is None else payload)
    return FailedEvent(
        f"failed-{number}", "schema_violations", (reason,), source, RECEIVED + number, index, {"eid": "x", "aid": "shop"}
    )


def at(number: int, lane: str = "lane") -> Cursor:
    return {lane: Position(1, number * 100, number)}


def batch_of(*events: Event, failed: tuple[FailedEvent, ...] = (), end: int = 1) -> Batch:
    return Batch(events, failed, at(end), len(events) + len(failed))


def test_a_new_target_has_no_cursor_and_no_totals(bench: Bench) -> None:
    target = bench.open()
    assert (target.cursor(), target.totals()) == ({}, Counts())


def test_rows_totals_and_cursor_are_there_after_a_restart(bench: Bench) -> None:
    counts = bench.open().commit(batch_of(event_of(1), event_of(2), failed=(failed_of(3),), end=3))
    assert counts == Counts(payloads=3, stored=2, failed=1, duplicate=0)
    target = bench.open()
    assert target.cursor() == at(3)
    assert target.totals() == counts
    assert sorted(bench.ids()) == [str(uuid.UUID(int=n)) for n in (1, 2)]


def test_each_lane_has_its_own_position(bench: Bench) -> None:
    target = bench.open()
    target.commit(Batch([], [], at(1, "one"), 0))
    target.commit(Batch([], [], at(2, "two"), 0))
    assert bench.open().cursor() == at(1, "one") | at(2, "two")


def test_the_same_batch_again_changes_nothing_and_counts_the_same(bench: Bench) -> None:
    batch = batch_of(event_of(1), event_of(1), failed=(failed_of(2),), end=3)
    first = bench.open().commit(batch)
    target = bench.open()
    assert target.commit(batch) == first == Counts(3, 1, 1, 1)
    assert target.totals() == first


def test_a_batch_that_only_ends_where_the_last_one_did_is_not_mistaken_for_it(bench: Bench) -> None:
    # A journal begun anew may come to the same place with other events.
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    assert target.commit(batch_of(event_of(2), end=1)).stored == 1
    assert len(bench.ids()) == 2


@pytest.mark.parametrize("fingerprint", ["f", None])
@pytest.mark.parametrize("across", [False, True])
def test_a_natural_duplicate_is_dropped_and_counted(bench: Bench, across: bool, fingerprint: str | None) -> None:
    first, again = event_of(1, fingerprint), event_of(1, fingerprint, app_id="other")
    target = bench.open()
    if across:
        target.commit(batch_of(first, end=1))
        target = bench.open()
        target.commit(batch_of(again, end=2))
    else:
        target.commit(batch_of(first, again, end=2))
    assert target.totals() == Counts(2, 1, 0, 1)
    assert bench.event(first["event_id"])["app_id"] == "shop"


@pytest.mark.parametrize("other", ["g", None])
@pytest.mark.parametrize("across", [False, True])
def test_a_synthetic_duplicate_is_kept_under_an_id_of_its_own(bench: Bench, across: bool, other: str | None) -> None:
    first, second = event_of(1, "f"), event_of(1, other, app_id="other")
    target = bench.open()
    if across:
        target.commit(batch_of(first, end=1))
        target.commit(batch_of(second, end=2))
    else:
        target.commit(batch_of(first, second, end=2))
    assert target.totals() == Counts(2, 2, 0, 0)
    new_id = synthetic_id(first["event_id"], other)
    stored = bench.event(new_id)
    assert stored["app_id"] == "other"
    assert DUPLICATE in stored["derived_contexts"] and first["event_id"] in stored["derived_contexts"]
    # Sent again it is a natural duplicate, in the same batch and in a later one.
    target.commit(batch_of(second, second, end=4))
    assert target.totals() == Counts(4, 2, 0, 2)


def test_an_event_that_took_a_derived_id_before_drives_nobody_out(bench: Bench) -> None:
    taken = synthetic_id(event_of(1)["event_id"], "g")
    target = bench.open()
    target.commit(batch_of(event_of(1, "f"), event_of(2, "thief", event_id=taken), end=1))
    target.commit(batch_of(event_of(1, "g"), end=2))
    assert target.totals().stored == 3
    target.commit(batch_of(event_of(1, "g"), end=3))
    assert target.totals() == Counts(4, 3, 0, 1)


def test_failed_events_are_kept_once_by_their_id(bench: Bench) -> None:
    target = bench.open()
    target.commit(batch_of(failed=(failed_of(1), failed_of(1)), end=1))
    target.commit(batch_of(failed=(failed_of(1), failed_of(2)), end=2))
    assert target.totals() == Counts(4, 0, 2, 2)
    assert sorted(bench.failed_ids()) == ["failed-1", "failed-2"]


def test_a_failed_event_can_be_listed_and_shown_with_its_payload_byte_for_byte(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(failed=(failed_of(1), failed_of(2, None)), end=1))
    assert [f["failed_id"] for f in target.list_failed(limit=1)] == ["failed-2"]
    assert [f["failed_id"] for f in target.list_failed(since_ms=RECEIVED + 2)] == ["failed-2"]
    assert target.failed_ids() == ["failed-2", "failed-1"]
    assert target.failed_ids(limit=1) == target.failed_ids(since_ms=RECEIVED + 2) == ["failed-2"]
    assert target.failed_ids(kind="size_violation") == []
    assert target.list_failed(kind="size_violation") == []
    shown = target.show_failed("failed-1")
    assert shown is not None
    row, payload = shown
    assert payload == payload_of(1)
    assert row["first_reason"] == "eid: is not a UUID"
    assert row["parameters"] == {"eid": "x", "aid": "shop"}
    assert row["app_id"] == "shop"
    assert row["event_index"] == 0
    expected = {"step": "atomic", "field": "eid", "message": "is not a UUID", "value": "x", "keyword": "atomic_field_parse_error"}
    assert row["reasons"] == [expected]
    assert target.show_failed("nobody") is None


def test_a_solved_failed_event_moves_from_failed_to_stored(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(event_of(9), failed=(failed_of(1, payload=1), failed_of(2, payload=1)), end=1))
    assert target.resolve("failed-1", [event_of(1)], [], RECEIVED + 5) == Counts(0, 1, 0, 0)
    assert target.totals() == Counts(3, 2, 1, 0)
    assert [f["failed_id"] for f in target.list_failed()] == target.failed_ids() == ["failed-2"]
    assert len(target.list_failed(replayed=True)) == 2
    assert target.resolve("failed-1", [event_of(1)], [], RECEIVED + 6) is None
    # Solved by an event that came by itself meanwhile: a duplicate. Then nobody needs the payload any more.
    assert (target.show_failed("failed-1") or (None, None))[1] == payload_of(1)
    assert target.resolve("failed-2", [event_of(1)], [], RECEIVED + 7) == Counts(0, 0, 0, 1)
    assert (target.show_failed("failed-1") or (None, payload_of(1)))[1] is None
    assert target.totals() == Counts(3, 2, 0, 1)
    assert target.cursor() == at(1)


def test_a_failed_event_that_fails_again_stays_with_its_new_reasons(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(failed=(failed_of(1, None),), end=1))
    again = FailedEvent("failed-1", "adapter_failures", (Reason("adapter", "", "no such path"),), payload_of(1), RECEIVED + 50)
    assert target.resolve("failed-1", [], [again, failed_of(7, 1, payload=1)], RECEIVED + 51) == Counts(0, 0, 1, 0)
    assert target.totals() == Counts(1, 0, 2, 0)
    reasons = {f["failed_id"]: (f["kind"], f["first_reason"]) for f in target.list_failed()}
    assert reasons["failed-1"] == ("adapter_failures", "no such path")


def test_a_dropped_failed_event_is_counted_and_not_taken_again(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(failed=(failed_of(1), failed_of(2)), end=1))
    assert target.drop(["failed-1", "unknown", "failed-1"], RECEIVED + 5) == 1
    assert target.totals() == Counts(2, 0, 1, 0, 1)
    assert [row["failed_id"] for row in target.list_failed(replayed=True)] == ["failed-2"]
    assert target.show_failed("failed-1") is None
    assert target.resolve("failed-1", [event_of(1)], [], RECEIVED + 6) is None
    assert target.drop(["failed-1"], RECEIVED + 7) == 0
    target = store.open()
    assert target.commit(batch_of(failed=(failed_of(1),), end=2)) == Counts(1, 0, 0, 1)
    assert target.totals() == Counts(3, 0, 1, 1, 1)


def waiting_of(number: int, payload: int, *unknown: str) -> FailedEvent:
    reasons = [Reason("contexts", "co", "nobody knows it", keyword="ResolutionError", schema=uri) for uri in unknown]
    return replace(failed_of(number, number, payload), reasons=(*failed_of(number).reasons, *reasons))


def walked(target: Store, rows: int) -> list[tuple[str, str, int | None, frozenset[str]]]:
    """Every event that waits, looked for in pieces of so many rows."""
    found, after = [], None
    for _ in range(20):
        some, after = target.waiting(after, rows)
        found += [tuple(one) for one in some]
        if after is None:
            return found
    raise AssertionError("the walk does not end")


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_failed_events_that_wait_for_a_schema_are_found_by_payload(store: StoreBench, rows: int) -> None:
    target = store.open()
    failed = (waiting_of(3, 2, "iglu:a/b/jsonschema/1-0-0"), waiting_of(1, 1, "iglu:a/b/jsonschema/1-0-0", "x"), failed_of(9))
    target.commit(batch_of(failed=(*failed, waiting_of(2, 2, "y"), waiting_of(4, 2, "y")), end=1))
    assert target.resolve("failed-4", [event_of(4)], [], RECEIVED)
    first, second = payload_of(1).id, payload_of(2).id
    found = walked(target, rows)
    assert [one[1] for one in found] == [first, second, second]
    assert {one[0]: one[2:] for one in found} == {
        "failed-1": (1, frozenset({"iglu:a/b/jsonschema/1-0-0", "x"})),
        "failed-3": (3, frozenset({"iglu:a/b/jsonschema/1-0-0"})),
        "failed-2": (2, frozenset({"y"})),
    }


def test_several_failed_events_are_solved_in_one_transaction(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(failed=tuple(waiting_of(n, 1, "y") for n in range(1, 5)), end=1))
    again = waiting_of(2, 1, "z")
    target.see_schemas(["iglu:a/b/jsonschema/1-0-0"])
    resolutions = [("failed-1", [event_of(1)], []), ("failed-2", [], [again]), ("nobody", [event_of(7)], [])]
    assert target.resolve_all(resolutions, RECEIVED + 5) == 1
    assert target.totals() == Counts(4, 1, 3, 0)
    assert {one[0]: one[3] for one in walked(target, 10)}["failed-2"] == {"z"}

    def broken() -> Iterator[tuple[str, list[Event], list[FailedEvent]]]:
        yield "failed-3", [event_of(3)], []
        raise RuntimeError("in the middle of it")

    with pytest.raises(RuntimeError):
        target.resolve_all(broken(), RECEIVED + 6)
    assert target.totals() == Counts(4, 1, 3, 0)
    assert "failed-3" in {one[0] for one in walked(target, 10)}


def test_a_payload_is_kept_as_long_as_an_event_of_it_waits(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(failed=(failed_of(1, payload=1), failed_of(2, payload=1)), end=1))
    target.drop(["failed-1"], RECEIVED)
    assert (target.show_failed("failed-2") or (None, None))[1] == payload_of(1)
    target.drop(["failed-2"], RECEIVED)
    if isinstance(store, SqliteBench):
        assert store.rows("SELECT * FROM failed_payloads") == []
        dropped = store.rows("SELECT failed_id, kind FROM dropped_events ORDER BY 1")
        assert [tuple(row) for row in dropped] == [("failed-1", "schema_violations"), ("failed-2", "schema_violations")]


def test_a_solved_failed_event_cannot_be_dropped(store: StoreBench) -> None:
    target = store.open()
    target.commit(batch_of(failed=(failed_of(1),), end=1))
    target.resolve("failed-1", [event_of(1)], [], RECEIVED)
    assert target.drop(["failed-1"], RECEIVED) == 0
    assert target.totals() == Counts(1, 1, 0, 0, 0)


def test_wiped_a_target_begins_again(bench: Bench) -> None:
    target = bench.open()
    assert isinstance(target, Wipeable)
    batch = batch_of(event_of(1), failed=(failed_of(2),), end=2)
    target.commit(batch)
    target.wipe()
    assert (target.cursor(), target.totals(), bench.ids(), bench.failed_ids()) == ({}, Counts(), [], [])
    assert target.commit(batch) == Counts(2, 1, 1, 0)


@pytest.mark.parametrize("moment", ["before", "inside"])
def test_a_commit_that_fails_has_taken_nothing(bench: Bench, moment: str) -> None:
    target = bench.open()
    target.commit(batch_of(event_of(1), end=1))
    before = target.totals()
    batch = batch_of(*(event_of(n) for n in range(2, 400)), failed=(failed_of(3),), end=2)
    with pytest.raises(TransientError):
        bench.failing_commit(moment, batch, random.Random(3))
    assert (target.cursor(), target.totals(), len(bench.ids()), bench.failed_ids()) == (at(1), before, 1, [])
    assert target.commit(batch).stored == 398


def test_a_commit_whose_answer_was_lost_is_known_when_offered_again(bench: Bench) -> None:
    target = bench.open()
    batch = batch_of(event_of(1), event_of(1), end=2)
    with pytest.raises(TransientError):
        bench.failing_commit("after", batch, random.Random(0))
    assert target.commit(batch) == target.totals() == Counts(2, 1, 0, 1)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_fails_every_event_is_kept_exactly_once(bench: Bench, seed: int) -> None:
    """A loader's life: read from the cursor, offer, meet trouble, offer again or start again."""
    chance = random.Random(seed)
    # Resends, stolen ids and failures among them; what the identity must hold for is the number of offered outcomes.
    journal: list[Event | FailedEvent] = []
    for number in range(300):
        kind = chance.random()
        old = chance.randrange(number) if number else 0
        if kind < 0.1:
            journal.append(failed_of(number if kind < 0.07 else old))
        elif kind < 0.25:
            journal.append(event_of(old, chance.choice(["f", "g", None])))
        else:
            journal.append(event_of(number))
    target = bench.open()
    position = target.cursor().get("lane", START).sequence
    while position < len(journal):
        part = journal[position : position + chance.randrange(1, 40)]
        events = [one for one in part if not isinstance(one, FailedEvent)]
        failed = [one for one in part if isinstance(one, FailedEvent)]
        batch = Batch(events, failed, at(position + len(part)), len(part))
        for _ in range(20):
            try:
                if chance.random() < 0.6:
                    bench.failing_commit(chance.choice(["before", "inside", "after"]), batch, chance)
                else:
                    target.commit(batch)
                break
            except TransientError:
                if chance.random() < 0.3:
                    target = bench.open()
                    break
        position = target.cursor().get("lane", START).sequence
    totals = target.totals()
    assert totals.stored + totals.failed + totals.duplicate == len(journal) == totals.payloads
    identities = {(e["event_id"], e.get("event_fingerprint")) for e in journal if not isinstance(e, FailedEvent)}
    assert len(bench.ids()) == len(set(bench.ids())) == totals.stored == len(identities)
    assert totals.failed == len({f.id for f in journal if isinstance(f, FailedEvent)}) == len(bench.failed_ids())


# Several loaders of one target -------------------------------------------------------------------------------------------


def stretch(since: Cursor, *outcomes: Event | FailedEvent, lane: str = "lane") -> Batch:
    """The next so many payloads of a lane, one outcome each; read after `since`, of which a reader copies every lane."""
    end = since.get(lane, START).sequence + len(outcomes)
    events = [one for one in outcomes if not isinstance(one, FailedEvent)]
    failed = [one for one in outcomes if isinstance(one, FailedEvent)]
    return Batch(events, failed, {**since, **at(end, lane)}, len(outcomes), since=since)


@pytest.fixture
def pair(bench: Bench) -> Iterator[tuple[Target, Target]]:
    one, other = bench.open(), bench.another()
    yield one, other
    other.close()


def test_loaders_with_lanes_of_their_own_do_not_hinder_each_other(bench: Bench, pair: tuple[Target, Target]) -> None:
    one, other = pair
    cursors = [one.cursor(), other.cursor()]
    for number in range(1, 7):
        who = number % 2
        batch = stretch(cursors[who], event_of(number), event_of(number + 100), lane=f"lane{who}")
        assert pair[who].commit(batch) == Counts(2, 2, 0, 0)
        cursors[who] = batch.cursor if number != 2 else one.cursor()  # of the other's lane it knows nothing, or an old place
    assert one.cursor() == other.cursor() == at(6, "lane0") | at(6, "lane1")
    assert one.totals() == other.totals() == Counts(12, 12, 0, 0)
    assert len(bench.ids()) == 12


def test_loaders_that_begin_at_the_same_time_find_one_target(bench: Bench) -> None:
    ready, failed = threading.Barrier(3), list[Exception]()

    def begin() -> None:
        target: Target | None = None
        ready.wait()
        for _ in range(20):  # as a loader does; what passes may happen
            try:
                target = target or bench.another()
                assert (target.cursor(), target.totals()) == ({}, Counts())
                break
            except TransientError as error:
                last = error
                time.sleep(0.05)
            except Exception as error:
                failed.append(error)
                break
        else:
            failed.append(last)
        if target is not None:
            target.close()

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_what_another_loader_stored_is_known(bench: Bench, pair: tuple[Target, Target]) -> None:
    one, other = pair
    one.commit(stretch(one.cursor(), event_of(1), failed_of(2), lane="a"))
    assert other.commit(stretch({}, event_of(1), failed_of(2), event_of(3), lane="b")) == Counts(3, 1, 0, 2)
    assert one.commit(stretch(at(2, "a"), event_of(3), event_of(3, "g"), lane="a")) == Counts(2, 1, 0, 1)
    assert one.totals() == Counts(7, 3, 1, 3)


def test_a_loader_that_was_overtaken_is_refused_and_nothing_is_doubled(bench: Bench, pair: tuple[Target, Target]) -> None:
    stalled, other = pair
    stalled.commit(stretch(stalled.cursor(), event_of(1)))
    late = stretch(at(1), event_of(2), event_of(3))
    other.commit(stretch(other.cursor(), event_of(2), event_of(3), failed_of(4)))
    for _ in range(2):
        with pytest.raises(Overtaken, match="another loader is at"):
            stalled.commit(late)
    assert (stalled.cursor(), stalled.totals()) == (at(4), Counts(4, 3, 1, 0))
    assert stalled.commit(stretch(stalled.cursor(), event_of(5))).stored == 1
    assert sorted(bench.ids()) == [event_of(n)["event_id"] for n in (1, 2, 3, 5)]


def test_a_cursor_never_goes_back(bench: Bench, pair: tuple[Target, Target]) -> None:
    stalled, other = pair
    other.commit(stretch(other.cursor(), *map(event_of, range(1, 9))))
    with pytest.raises(Overtaken):
        stalled.commit(stretch({}, event_of(1)))  # shorter than what is there already
    # Of a batch that moves two lanes one was moved by another loader: neither is taken.
    both = Batch([event_of(20)], [], at(9) | at(1, "own"), 2, since=at(8) | {})
    other.commit(stretch(other.cursor(), event_of(9), event_of(10)))
    with pytest.raises(Overtaken):
        stalled.commit(both)
    assert (stalled.cursor(), len(bench.ids())) == (at(10), 10)


def test_a_lost_answer_is_told_even_when_another_loader_committed_since(bench: Bench, pair: tuple[Target, Target]) -> None:
    one, other = pair
    batch = stretch(one.cursor(), event_of(1), event_of(1), lane="a")
    with pytest.raises(TransientError):
        bench.failing_commit("after", batch, random.Random(0))
    other.commit(stretch(other.cursor(), event_of(2), lane="b"))
    with pytest.raises(Overtaken):  # by itself, as it learns when it asks
        one.commit(batch)
    assert (one.cursor(), one.totals()) == (at(2, "a") | at(1, "b"), Counts(3, 2, 0, 1))


def test_whatever_fails_and_whoever_has_a_lane_every_event_is_kept_exactly_once(bench: Bench) -> None:
    """The life of a group: lanes change hands, also in the middle of a batch that its loader then commits too late."""
    chance = random.Random(5)
    journal = {
        lane: [failed_of(n) if n % 9 == 4 else event_of(n // 2 if n % 10 == 7 else n) for n in range(start, start + 30)]
        for start, lane in ((0, "a"), (30, "b"), (60, "c"))
    }
    loaders = [bench.open(), bench.another()]
    known: list[Cursor] = [{}, {}]
    refused = 0
    for _ in range(400):
        who, lane = chance.randrange(2), chance.choice("abc")
        if chance.random() < 0.3:
            known[who] = loaders[who].cursor()
        place = known[who].get(lane, START).sequence
        batch = stretch(known[who], *journal[lane][place : place + chance.randrange(2, 14)], lane=lane)
        if batch.payloads == 0:
            known[who] = loaders[who].cursor()
            if all(known[who].get(name, START).sequence == len(part) for name, part in journal.items()):
                break
            continue
        try:
            if who == 0 and chance.random() < 0.2:
                bench.failing_commit(chance.choice(["before", "inside", "after"]), batch, chance)
            else:
                loaders[who].commit(batch)
            known[who] = batch.cursor
        except TransientError as error:
            refused += isinstance(error, Overtaken)
            known[who] = loaders[who].cursor()
    assert loaders[0].cursor() == loaders[1].cursor() == at(30, "a") | at(30, "b") | at(30, "c")
    totals = loaders[0].totals()
    assert totals == loaders[1].totals()
    assert totals.stored + totals.failed + totals.duplicate == totals.payloads == 90
    offered = [one for part in journal.values() for one in part]
    assert len(bench.ids()) == len(set(bench.ids())) == totals.stored
    assert totals.stored == len({one["event_id"] for one in offered if not isinstance(one, FailedEvent)})
    assert sorted(bench.failed_ids()) == sorted(one.id for one in offered if isinstance(one, FailedEvent))
    assert refused, "nobody was overtaken"
    loaders[1].close()


def test_the_memory_target_fails_as_its_configuration_says() -> None:
    target = memory.Plugin(memory.Config(fail="any", probability=0.5, seed=4), bundled)
    failures = 0
    for number in range(1, 101):
        while True:
            try:
                target.commit(batch_of(event_of(number), end=number))
                break
            except TransientError:
                failures += 1
    assert target.totals() == Counts(100, 100, 0, 0)
    assert 50 < failures < 200
    every = memory.Plugin(memory.Config(fail="before", every=3), bundled)
    outcomes: list[bool] = []
    for number in range(6):
        try:
            every.commit(batch_of(event_of(number), end=number))
            outcomes.append(True)
        except TransientError:
            outcomes.append(False)
    assert outcomes == [True, True, False, True, True, False]


# SQLite's own trouble --------------------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[SqliteBench]:
    made = SqliteBench(tmp_path)
    yield made
    if made.target:
        made.target.close()


CHILD = """
    import sys, uuid
    from protocol.schemas import bundled
    from protocol.seams import START, Position
    from storage.targets import Batch
    from storage.targets.sqlite import Config, Plugin

    target = Plugin(Config(sys.argv[1]), bundled)
    print("open", flush=True)
    done = target.cursor().get("lane", START).sequence
    while True:
        numbers = range(done, done + 37)
        events = [{"event_id": str(uuid.UUID(int=n)), "event": "unstruct", "collector_tstamp": 1700000000000 + n,
                   "page_title": "x" * (n % 3000), "event_fingerprint": "f",
                   "contexts": [{"schema": f"iglu:com.acme/thing/jsonschema/{n // 300 + 1}-0-0", "data": {"n": n}}]}
                  for n in numbers]
        done += 37
        target.commit(Batch(events, [], {"lane": Position(1, done, done)}, 37))
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_commits_the_file_is_whole_and_nothing_is_lost_or_doubled(on_disk: SqliteBench) -> None:
    chance = random.Random(11)
    reached = 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(on_disk.path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert child.stdout and child.stdout.readline() == b"open\n"
        time.sleep(chance.uniform(0.02, 0.3))  # where the knife falls; the child would run for ever
        assert child.poll() is None, "the child ended by itself"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        target = on_disk.open()
        totals, cursor = target.totals(), target.cursor()
        target.close()
        done = cursor["lane"].sequence
        assert totals == Counts(done, done, 0, 0)
        assert on_disk.rows("SELECT count(*), count(DISTINCT event_id) FROM events")[0][0:2] == (done, done)
        assert on_disk.rows("PRAGMA integrity_check")[0][0] == "ok"
        views = on_disk.rows("SELECT count(*) FROM sqlite_master WHERE type = 'view' AND name LIKE 'com_acme_%'")[0][0]
        assert views == (done + 299) // 300
        assert done >= reached
        reached = done
    assert reached > 0


def test_another_process_may_store_a_replay_between_two_commits(on_disk: SqliteBench) -> None:
    loader = on_disk.open()
    loader.commit(batch_of(event_of(1), failed=(failed_of(5),), end=1))
    other = sqlite.Plugin(sqlite.Config(str(on_disk.path)), bundled)
    assert other.resolve("failed-5", [event_of(5)], [], RECEIVED) == Counts(0, 1, 0, 0)
    other.close()
    loader.commit(batch_of(event_of(2), event_of(5), end=2))
    assert loader.totals() == Counts(4, 3, 0, 1)


def test_readers_see_whole_commits_only(on_disk: SqliteBench) -> None:
    target = on_disk.open()
    target.commit(batch_of(event_of(1), end=1))
    reader = sqlite3.connect(on_disk.path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    target.commit(batch_of(event_of(2), end=2))
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    reader.rollback()
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (2,)
    reader.close()


def test_events_of_any_shape_and_order_are_stored_in_their_columns(on_disk: SqliteBench) -> None:
    chance = random.Random(9)
    optional: dict[str, Any] = {
        name: name for name in ("app_id", "user_id", "page_url", "page_title", "br_name", "se_label", "ti_sku")
    }
    events: list[Any] = []
    for number in range(400):  # a few shapes often, many shapes once
        columns = dict(chance.sample(sorted(optional.items()), chance.randrange(7) if number % 4 else 3))
        items = [("event_id", f"{number:04d}"), ("unknown column", "x"), *columns.items()]
        chance.shuffle(items)
        events.append(dict(items))
    on_disk.open().commit(batch_of(*events, end=400))
    stored = on_disk.rows("SELECT * FROM events ORDER BY event_id")
    assert len(stored) == 400
    for event, row in zip(events, stored, strict=True):
        assert {k: v for k, v in dict(row).items() if v is not None} == {k: v for k, v in event.items() if k != "unknown column"}


def test_a_locked_database_is_passing_trouble(on_disk: SqliteBench) -> None:
    on_disk.open()
    with pytest.raises(TransientError, match=r"events\.db: database is locked"):
        on_disk.failing_commit("before", batch_of(event_of(1)), random.Random(0))


def fill(on_disk: SqliteBench) -> int:
    """Commits until it is refused; how many were taken."""
    target = on_disk.open()
    for number in range(1, 200):
        try:
            target.commit(batch_of(*(event_of(number * 1000 + n, page_title="x" * 1500) for n in range(50)), end=number))
        except TransientError as error:
            assert "full" in str(error)
            return number - 1
    raise AssertionError("never full")


def test_a_full_file_is_passing_trouble_and_goes_on_when_there_is_room(on_disk: SqliteBench) -> None:
    target = on_disk.open()
    target._db.execute("PRAGMA max_page_count = 300")
    opened, on_disk.open = on_disk.open, lambda: target  # type: ignore[method-assign]
    taken = fill(on_disk)
    on_disk.open = opened  # type: ignore[method-assign]
    assert target.totals() == Counts(taken * 50, taken * 50, 0, 0)
    target._db.execute("PRAGMA max_page_count = 1000000")
    assert target.commit(batch_of(event_of(1), end=taken + 1)).stored == 1


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"may not mount a small disk: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk; the full file is tested above for everybody")
def test_a_full_disk_is_passing_trouble_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        bench = SqliteBench(tmp_path / "disk")
        ballast = tmp_path / "disk" / "ballast"
        ballast.write_bytes(b"x" * 900_000)
        taken = fill(bench)
        assert bench.target and bench.target.totals().stored == taken * 50
        with pytest.raises(TransientError):
            bench.target.commit(batch_of(*(event_of(n, page_title="y" * 1500) for n in range(500)), end=taken + 1))
        ballast.unlink()
        assert bench.target.commit(batch_of(event_of(7), end=taken + 1)).stored == 1
        bench.target.close()
        assert bench.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_text("this is a diary, not a database\n" * 100)
    with pytest.raises(PermanentError) as refused:
        sqlite.Plugin(sqlite.Config(str(path)), bundled)
    assert str(refused.value) == f"{path}: file is not a database"
    assert path.read_text().startswith("this is a diary")


def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE events (mine)")
    db.close()
    with pytest.raises(PermanentError, match="a database of another program"):
        sqlite.Plugin(sqlite.Config(str(path)), bundled)


def test_a_file_of_a_newer_version_is_refused_untouched(on_disk: SqliteBench) -> None:
    on_disk.open().close()
    db = sqlite3.connect(on_disk.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(PermanentError, match="written by a newer Spoorway: file version 99"):
        on_disk.open()


def test_a_file_of_the_first_version_is_brought_up(on_disk: SqliteBench) -> None:
    with sqlite3.connect(on_disk.path) as db:
        for statement in ddl.STEPS[0]:
            db.execute(statement)
        db.execute("UPDATE totals SET payloads = 3, stored = 1, failed = 2")
        db.execute(f"PRAGMA application_id = {ddl.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert on_disk.open().totals() == Counts(3, 1, 2, 0, 0)


def test_a_file_that_was_removed_while_in_use_stops_the_target(on_disk: SqliteBench) -> None:
    target = on_disk.open()
    on_disk.path.unlink()
    with pytest.raises(PermanentError, match="removed or replaced"):
        target.commit(batch_of(event_of(1)))


def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match=r"Not a directory|File exists"):
        sqlite.Plugin(sqlite.Config(str(tmp_path / "file" / "events.db")), bundled)
