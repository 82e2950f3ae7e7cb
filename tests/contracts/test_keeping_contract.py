"""Every target that can erase and let expire: the person is gone, nobody else is, and the totals say so."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from protocol.persons import Person
from protocol.schemas import bundled
from protocol.seams import Event, FailedEvent, Position, RawPayload, Reason
from storage import removal
from storage.targets import Batch, Counts, Erasure, FailedStore, Keeper, Removed, Rule, Target, memory, sqlite
from tests.contracts import opensearch_bench, postgres_bench, redshift_bench, s3_keeping
from tests.peers.postgres_server import PostgresServer
from tests.peers.redshift_double import RedshiftDouble

RECEIVED = 1_700_000_000_000
DAY = 86_400_000
CLOCK = "iglu:io.spoorway/device_time/jsonschema/1-0-0"


class Store(Target, FailedStore, Keeper, Protocol): ...


class Bench(Protocol):
    """How the suite treats one kind of target. open(): again after a restart; what was durable is there."""

    def open(self) -> Store: ...
    def ids(self) -> list[str]: ...


class SqliteBench:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.db"
        self.target: sqlite.Plugin | None = None

    def open(self) -> sqlite.Plugin:
        if self.target:
            self.target.close()
        self.target = sqlite.Plugin(sqlite.Config(str(self.path)), bundled)
        return self.target

    def ids(self) -> list[str]:
        with sqlite3.connect(self.path) as db:
            found = [row[0] for row in db.execute("SELECT event_id FROM events")]
        db.close()
        return found


class MemoryBench:
    def __init__(self, folder: Path) -> None:
        self.target = memory.Plugin(memory.Config(), bundled)

    def open(self) -> memory.Plugin:
        return self.target

    def ids(self) -> list[str]:
        return [event.get("event_id", "") for event in self.target.events]


BENCHES: dict[str, Callable[[Path, pytest.FixtureRequest], Bench]] = {
    "sqlite": lambda folder, _: SqliteBench(folder),
    "memory": lambda folder, _: MemoryBench(folder),
    "postgres": postgres_bench.plain,
    "postgres_months": postgres_bench.by_month,
    "s3_both": s3_keeping.both,
    "s3_tsv": s3_keeping.tsv,
    "redshift": redshift_bench.tables,
    "opensearch": opensearch_bench.in_opensearch,
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def redshift(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with (
        RedshiftDouble(tmp_path_factory.mktemp("redshift"), postgres=postgres) as double,
        double.s3.in_environment(),
    ):
        double.s3.bucket(redshift_bench.BUCKET)
        yield double


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = BENCHES[request.param](tmp_path, request)
    yield made
    made.open().close()


def id_of(number: int) -> str:
    return str(uuid.UUID(int=number))


def event_of(number: int, at_ms: int = RECEIVED, **columns: Any) -> Event:
    event: Event = {
        "app_id": "shop",
        "event": "page_view",
        "event_vendor": "com.snowplowanalytics.snowplow",
        "event_name": "page_view",
        "event_format": "jsonschema",
        "event_version": "1-0-0",
        "collector_tstamp": at_ms,
        "event_id": id_of(number),
        "event_fingerprint": "f",
        "v_collector": "c",
        "v_etl": "e",
    }
    return event | columns  # type: ignore[return-value, operator]


def device_of(name: str) -> list[dict[str, Any]]:
    data = {"device": name, "proven": True, "boot_id": 1, "sequence": 1, "method": "received", "transport": "http"}
    return [{"schema": CLOCK, "data": data}]


def failed_of(
    number: int, payload: RawPayload | None = None, index: int = 0, parameters: dict[str, str] | None = None, **columns: Any
) -> FailedEvent:
    source = payload or RawPayload(f"{number:032x}", RECEIVED, "http", "/i", query=f"number={number}")
    why = Reason("atomic", "eid", "is not a UUID")
    event = {"app_id": "shop", "event_name": "page_view", **columns}
    return FailedEvent(f"failed-{number}", "schema_violations", (why,), source, RECEIVED, index, parameters or {}, event)  # type: ignore[arg-type]


def load(target: Store, *events: Event, failed: tuple[FailedEvent, ...] = (), end: int = 1, erased: int = 0) -> Counts:
    return target.commit(Batch(events, failed, {"lane": Position(1, end, end)}, len(events) + len(failed), erased=erased))


def erased(target: Store, who: Person, erasure_id: str = "one", **more: Any) -> Removed:
    return run(target, Erasure(erasure_id, who, RECEIVED + DAY, **more))


def run(target: Store, erasure: Erasure) -> Removed:
    removed, after = target.erase(erasure, None)
    while after is not None:
        removed, after = target.erase(erasure, after)
    return removed


def expired(target: Store, rule: Rule, now_ms: int) -> Removed:
    events = failed = 0
    after = None
    while True:
        removed, after = target.expire(rule, now_ms, after)
        events, failed = events + removed.events, failed + removed.failed
        if after is None:
            return Removed(events, failed)


@pytest.mark.parametrize(
    ("who", "columns"),
    [
        (Person(user=frozenset({"u1"})), {"user_id": "u1"}),
        (Person(domain_user=frozenset({"d1"})), {"domain_userid": "d1"}),
        (Person(domain_user=frozenset({"d1"})), {"refr_domain_userid": "d1"}),
        (Person(network_user=frozenset({"n1"})), {"network_userid": "n1"}),
        (Person(device=frozenset({"kitchen"})), {"derived_contexts": device_of("kitchen")}),
        (Person(user=frozenset({"x", "u'1"})), {"user_id": "u'1"}),
    ],
    ids=["user", "domain_user", "referring_domain_user", "network_user", "device", "one_of_two"],
)
def test_what_names_the_person_is_gone_and_nothing_else(bench: Bench, who: Person, columns: dict[str, Any]) -> None:
    target = bench.open()
    others = [
        event_of(2),
        event_of(3, user_id="u2", domain_userid="d2", network_userid="n2", derived_contexts=device_of("cellar")),
    ]
    # The same text in a place that names nobody.
    others.append(event_of(4, page_title="u1 d1 n1 kitchen u'1", se_label="kitchen", user_id="u11", domain_userid="u1"))
    load(target, event_of(1, **columns), *others)
    assert erased(target, who) == Removed(1, 0)
    target = bench.open()
    assert sorted(bench.ids()) == [id_of(number) for number in (2, 3, 4)]
    assert target.totals() == Counts(payloads=4, stored=3, erased=1)


def test_what_came_later_stays(bench: Bench) -> None:
    target = bench.open()
    load(
        target,
        event_of(1, user_id="u1"),
        event_of(2, RECEIVED + DAY, user_id="u1"),
        event_of(3, RECEIVED + DAY + 1, user_id="u1"),
    )
    assert erased(target, Person(user=frozenset({"u1"}))) == Removed(2, 0)
    assert bench.ids() == [id_of(3)]


def test_a_row_that_names_nobody_goes_by_its_id_and_time(bench: Bench) -> None:
    target = bench.open()
    load(target, event_of(1), event_of(2), event_of(3))
    known = {(id_of(1), RECEIVED), (id_of(2), RECEIVED + 7), ("nobody", RECEIVED)}
    assert erased(target, Person(user=frozenset({"u1"})), events=known) == Removed(1, 0)
    assert sorted(bench.ids()) == [id_of(2), id_of(3)]


def test_the_cursor_and_the_last_batch_are_what_they_were(bench: Bench) -> None:
    target = bench.open()
    batch = Batch([event_of(1, user_id="u1"), event_of(2)], [], {"lane": Position(1, 10, 2)}, 2)
    counts = target.commit(batch)
    erased(target, Person(user=frozenset({"u1"})))
    target = bench.open()
    assert target.cursor() == {"lane": Position(1, 10, 2)}
    assert target.commit(batch) == counts
    assert target.totals() == Counts(payloads=2, stored=1, erased=1)


def test_done_again_after_a_crash_it_tells_all_it_removed(bench: Bench) -> None:
    target = bench.open()
    load(target, event_of(1, user_id="u1"), failed=(failed_of(2, user_id="u1"),))
    assert erased(target, Person(user=frozenset({"u1"}))) == Removed(1, 1)
    load(target, event_of(3, user_id="u1"), end=2)
    target = bench.open()
    assert erased(target, Person(user=frozenset({"u1"}))) == Removed(2, 1)
    assert erased(target, Person(user=frozenset({"u1"})), "another") == Removed(0, 0)
    assert target.totals() == Counts(payloads=3, erased=3)


def test_failed_events_go_by_what_was_sent_or_understood_or_by_their_id(bench: Bench) -> None:
    target = bench.open()
    failed = (
        failed_of(1, parameters={"uid": "u1"}),
        failed_of(2, user_id="u1"),
        failed_of(3),
        failed_of(4, parameters={"uid": "u2", "aid": "u1"}),
    )
    load(target, failed=failed)
    assert erased(target, Person(user=frozenset({"u1"})), failed={"failed-3"}) == Removed(0, 3)
    assert target.failed_ids() == ["failed-4"]
    assert target.show_failed("failed-1") is None
    assert target.totals() == Counts(payloads=4, failed=1, erased=3)


def test_a_payload_that_others_failed_in_is_kept_without_the_person(bench: Bench) -> None:
    target = bench.open()
    shared = RawPayload("a" * 32, RECEIVED, "http", "/i", body=b"theirs and mine")
    left = replace(shared, body=b"mine", erased=(0,))
    load(target, failed=(failed_of(1, shared, 0), failed_of(2, shared, 1)))

    def cut(payload: RawPayload) -> RawPayload | None:
        return left if payload.id == shared.id else None

    assert erased(target, Person(user=frozenset({"u1"})), cut=cut) == Removed(0, 1)
    assert target.failed_ids() == ["failed-2"]
    assert (target.show_failed("failed-2") or (None, None))[1] == left


def test_a_failed_event_that_was_solved_goes_and_counts_no_more(bench: Bench) -> None:
    target = bench.open()
    load(target, failed=(failed_of(1, parameters={"uid": "u1"}),))
    target.resolve("failed-1", [event_of(1, user_id="u1")], [], RECEIVED)
    assert erased(target, Person(user=frozenset({"u1"}))) == Removed(1, 0)
    assert target.list_failed(replayed=True) == []
    assert target.totals() == Counts(payloads=1, erased=1)


def test_a_dry_run_counts_and_changes_nothing(bench: Bench) -> None:
    target = bench.open()
    load(target, event_of(1, user_id="u1"), event_of(2), event_of(3), failed=(failed_of(4, user_id="u1"),))
    before = target.totals(), sorted(bench.ids()), target.failed_ids()
    known = {(id_of(1), RECEIVED), (id_of(2), RECEIVED)}
    erasure = Erasure("one", Person(user=frozenset({"u1"})), RECEIVED + DAY, known)
    events = failed = 0
    after = None
    while True:
        removed, after = target.erase(erasure, after, dry=True)
        events, failed = events + removed.events, failed + removed.failed
        if after is None:
            break
    assert (events, failed) == (2, 1)
    assert target.expire(Rule(DAY), RECEIVED + 10 * DAY, None, dry=True)[0].events == 3
    target = bench.open()
    assert (target.totals(), sorted(bench.ids()), target.failed_ids()) == before


def test_events_that_were_erased_from_the_journal_before_they_came_are_counted(bench: Bench) -> None:
    target = bench.open()
    assert load(target, event_of(1), erased=4) == Counts(payloads=1, stored=1, erased=4)
    assert load(target, event_of(1), erased=4) == Counts(payloads=1, stored=1, erased=4)  # the same batch again
    assert bench.open().totals() == Counts(payloads=1, stored=1, erased=4)


# Retention -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (Rule(5 * DAY), [4]),
        (Rule(5 * DAY, app_id="shop"), [3, 4]),
        (Rule(5 * DAY, event="page_ping"), [1, 3, 4]),
        (Rule(5 * DAY, schema="iglu:com.acme/*"), [1, 2, 4]),
        (Rule(5 * DAY, app_id="shop", event="page_ping"), [1, 3, 4]),
        (Rule(5 * DAY, schema="iglu:com.acme/?oor/*"), [1, 2, 3, 4]),
        (Rule(50 * DAY), [1, 2, 3, 4]),
    ],
    ids=["age", "app", "event", "schema", "both", "a_question_mark_is_itself", "older"],
)
def test_what_fits_a_rule_and_is_older_goes(bench: Bench, rule: Rule, left: list[int]) -> None:
    target = bench.open()
    acme = {"event_vendor": "com.acme", "event_name": "door", "event": "unstruct", "app_id": "house"}
    load(
        target,
        event_of(1, RECEIVED),
        event_of(2, RECEIVED + 1, event_name="page_ping"),
        event_of(3, RECEIVED + 2, **acme),
        event_of(4, RECEIVED + 5 * DAY, event_name="page_ping"),
    )
    assert expired(target, rule, RECEIVED + 10 * DAY) == Removed(4 - len(left), 0)
    target = bench.open()
    assert sorted(bench.ids()) == [id_of(number) for number in left]
    assert target.totals() == Counts(payloads=4, stored=len(left), expired=4 - len(left))


def test_old_failed_events_go_by_the_same_rule(bench: Bench) -> None:
    target = bench.open()
    load(target, failed=(failed_of(1), failed_of(2, app_id="house")))
    assert expired(target, Rule(DAY, schema="iglu:*"), RECEIVED + 2 * DAY) == Removed(0, 0)
    assert expired(target, Rule(DAY, app_id="house"), RECEIVED + 2 * DAY) == Removed(0, 1)
    assert target.failed_ids() == ["failed-1"]
    assert target.totals() == Counts(payloads=2, failed=1, expired=1)


def test_an_event_that_is_gone_and_comes_again_is_a_duplicate(bench: Bench) -> None:
    target = bench.open()
    load(target, event_of(1), event_of(2, RECEIVED, user_id="u1"))
    erased(target, Person(user=frozenset({"u1"})))
    expired(target, Rule(DAY), RECEIVED + 2 * DAY)
    target = bench.open()
    again = RECEIVED + 2 * DAY + 1
    assert load(target, event_of(1, again), event_of(2, again, user_id="u1"), event_of(3, again), end=2) == Counts(3, 1, 0, 2)
    assert bench.ids() == [id_of(3)]


# SQLite alone --------------------------------------------------------------------------------------------------------


def test_what_is_gone_is_forgotten_after_a_while(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path)
    target = bench.open()
    load(target, event_of(1))
    expired(target, Rule(DAY), RECEIVED + 2 * DAY)
    expired(target, Rule(DAY), RECEIVED + 10 * DAY)
    assert load(target, event_of(1, RECEIVED + 10 * DAY), end=2).stored == 1
    target.close()


def test_work_is_done_in_pieces_and_each_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ROWS", "_OLD_ROWS", "_FAILED_ROWS", "_IDS"):
        monkeypatch.setattr(removal, name, 3)
    bench = SqliteBench(tmp_path)
    target = bench.open()
    events = [event_of(number, RECEIVED + number // 4, user_id=f"u{number % 2}") for number in range(20)]
    load(target, *events, failed=tuple(failed_of(number, user_id=f"u{number % 2}") for number in range(20, 30)))
    known = {(id_of(number), RECEIVED + number // 4) for number in (0, 2, 4, 6, 8)}
    erasure = Erasure("one", Person(user=frozenset({"u1"})), RECEIVED + DAY, known)
    removed, after = target.erase(erasure, None)
    pieces = 1
    while after is not None:
        assert removed.events + removed.failed == target.totals().erased
        removed, after = target.erase(erasure, after)
        pieces += 1
    assert removed == Removed(15, 5)
    assert pieces > 8
    assert target.totals() == Counts(payloads=30, stored=5, failed=5, erased=20)
    assert expired(target, Rule(DAY), RECEIVED + 2 * DAY) == Removed(5, 5)
    assert target.totals() == Counts(payloads=30, erased=20, expired=10)
    target.close()


def test_of_the_erased_nothing_is_left_in_the_files(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path)
    target = bench.open()
    load(target, *(event_of(number, user_id="somebody-special" if number % 3 else "u") for number in range(100)))
    target.close()
    target = bench.open()
    assert b"somebody-special" in bench.path.read_bytes()
    erased(target, Person(user=frozenset({"somebody-special"})))
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"somebody-special" not in held
    target.close()


def test_the_ledger_of_an_erased_device_goes(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path)
    target = bench.open()
    load(target, event_of(1, derived_contexts=device_of("kitchen")), event_of(2, derived_contexts=device_of("cellar")))
    erased(target, Person(device=frozenset({"kitchen"})))
    with sqlite3.connect(bench.path) as db:
        for table in ("device_boots", "device_runs"):
            assert db.execute(f"SELECT device FROM {table}").fetchall() == [("cellar",)]
    db.close()
    target.close()
