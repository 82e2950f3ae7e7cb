"""What erasing and expiring mean in Redshift alone: rows of entities, SUPER columns, objects that a kill left, bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from protocol.persons import Person
from protocol.schemas import bundled
from protocol.seams import Position, TransientError
from storage.objects import open_objects
from storage.redshift import ddl, removal
from storage.targets import Batch, Counts, Erasure, Removed, Rule, redshift
from tests.contracts.redshift_bench import BUCKET, RedshiftBench
from tests.contracts.test_keeping_contract import (
    CLOCK,
    DAY,
    RECEIVED,
    device_of,
    erased,
    event_of,
    expired,
    failed_of,
    id_of,
    load,
    run,
)
from tests.peers.redshift_double import Cut, RedshiftDouble

DEVICES = "io_spoorway_device_time_1"


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedshiftDouble]:
    with RedshiftDouble(tmp_path_factory.mktemp("redshift")) as made, made.s3.in_environment():
        made.s3.bucket(BUCKET)
        yield made


@pytest.fixture
def bench(double: RedshiftDouble) -> Iterator[RedshiftBench]:
    made = RedshiftBench(double)
    yield made
    made.open().close()


def test_rows_of_entities_go_with_their_events_and_what_a_kill_left_in_the_bucket(bench: RedshiftBench) -> None:
    target = bench.open()
    load(
        target,
        event_of(1, user_id="u1", derived_contexts=device_of("kitchen")),
        event_of(2, derived_contexts=device_of("kitchen")),
        event_of(3, derived_contexts=device_of("cellar")),
    )
    objects = open_objects(bench.config.url, endpoint=bench.config.endpoint)
    left = [f"{'0a' * 12}/0.tsv.gz", f"{'0a' * 12}/0.manifest"]
    for name in (*left, "notes/0.tsv.gz"):
        objects.put(name, b"x")
    assert target.erase(Erasure("one", Person(), RECEIVED), None, dry=True)[0] == Removed()
    assert {found.name for found in objects.list()} == {*left, "notes/0.tsv.gz"}
    assert erased(target, Person(user=frozenset({"u1"}))) == Removed(1, 0)
    assert [found.name for found in objects.list()] == ["notes/0.tsv.gz"]
    objects.delete(["notes/0.tsv.gz"])
    assert bench.rows(f"SELECT root_id, device FROM {DEVICES} ORDER BY 1") == [(id_of(2), "kitchen"), (id_of(3), "cellar")]
    assert erased(target, Person(device=frozenset({"kitchen"})), "two") == Removed(1, 0)
    assert expired(target, Rule(DAY), RECEIVED + 2 * DAY) == Removed(1, 0)
    assert bench.rows(f"SELECT * FROM {DEVICES}") == []


def test_a_device_is_found_in_super_columns(double: RedshiftDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_LOOKED", 2)
    bench = RedshiftBench(double, entities="super")
    target = bench.open()
    other: list[dict[str, Any]] = [{"schema": "iglu:com.acme/thing/jsonschema/1-0-0", "data": {"device": "kitchen"}}]
    events = [event_of(number, RECEIVED + number // 2, derived_contexts=device_of("kitchen")) for number in range(5)]
    load(target, *events, event_of(5, derived_contexts=device_of("cellar")), event_of(6, contexts=other), event_of(7))
    erasure = Erasure("one", Person(device=frozenset({"kitchen"})), RECEIVED + DAY, {(id_of(0), RECEIVED), (id_of(7), RECEIVED)})
    seen, after = 0, None
    while True:
        removed, after = target.erase(erasure, after, dry=True)
        seen += removed.events
        if after is None:
            break
    assert seen == 6
    assert run(target, erasure) == Removed(6, 0)
    assert sorted(bench.ids()) == [id_of(5), id_of(6)]
    target.close()


def test_a_device_is_found_where_nobody_knew_the_schema(bench: RedshiftBench) -> None:
    unknown = redshift.Plugin(bench.config, lambda uri: None if uri == CLOCK else bundled(uri))
    load(unknown, event_of(1, derived_contexts=device_of('"ki\\tchen"')), event_of(2, derived_contexts=device_of("kitchen")))
    assert erased(unknown, Person(device=frozenset({'"ki\\tchen"'}))) == Removed(1, 0)
    assert bench.rows(f"SELECT root_id FROM {DEVICES}") == [(id_of(2),)]
    unknown.close()


def test_work_is_done_in_pieces_and_each_counts_once(bench: RedshiftBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ROWS", "_FAILED_ROWS", "_IDS"):
        monkeypatch.setattr(removal, name, 3)
    target = bench.open()
    events = [event_of(number, RECEIVED + number // 4, user_id=f"u{number % 2}") for number in range(12)]
    load(target, *events, failed=tuple(failed_of(number, user_id=f"u{number % 2}") for number in range(20, 28)))
    known = {(id_of(number), RECEIVED + number // 4) for number in (0, 2, 4, 6)}
    erasure = Erasure("one", Person(user=frozenset({"u1"})), RECEIVED + DAY, known)
    removed, after = target.erase(erasure, None)
    pieces = 1
    while after is not None:
        assert removed.events + removed.failed == target.totals().erased
        removed, after = target.erase(erasure, after)
        pieces += 1
    assert (removed, pieces) == (Removed(10, 4), 8)
    assert expired(target, Rule(DAY), RECEIVED + 2 * DAY) == Removed(2, 4)
    assert target.totals() == Counts(payloads=20, erased=14, expired=6)


def test_an_event_that_did_not_fit_goes_by_all_that_it_was(bench: RedshiftBench) -> None:
    target = bench.open()
    long = "x" * 40_000
    # Their JSON is too long for a row of failed events, which keeps the first half of it.
    load(
        target,
        event_of(1, page_title=long, page_url=long, user_id="u1"),
        event_of(2, page_title=long, page_url=long),
        event_of(3, page_title=long, page_url=long, derived_contexts=device_of("kitchen")),
        event_of(4, page_title=long, page_url=long),
    )
    assert target.totals() == Counts(4, 0, 4)
    who = Person(user=frozenset({"u1"}), device=frozenset({"kitchen"}))
    assert erased(target, who, events={(id_of(2), RECEIVED)}) == Removed(0, 3)
    (left,) = target.failed_ids()
    _, payload = target.show_failed(left) or ({}, None)
    assert payload and payload.body and id_of(4).encode() in payload.body
    assert bench.rows("SELECT count(DISTINCT payload_id) FROM failed_payloads") == [(1,)]


def test_a_schema_of_version_1_gets_what_it_lacks(bench: RedshiftBench) -> None:
    load(bench.open(), event_of(1))
    with bench.double.query() as db:
        db.execute("SELECT set_config('search_path', quote_ident(%s), false)", (bench.config.schema,))
        db.execute(
            "DROP TABLE spoorway_gone; DROP TABLE spoorway_erasures; ALTER TABLE spoorway_state DROP COLUMN expired;"
            " UPDATE spoorway_state SET version = 1"
        )
    target = bench.open()
    assert target.totals() == Counts(1, 1)
    assert expired(target, Rule(DAY), RECEIVED + 2 * DAY) == Removed(1, 0)
    assert bench.open().totals() == Counts(1, 0, expired=1)
    assert bench.rows("SELECT version FROM spoorway_state") == [(ddl.VERSION,)]


def test_what_is_gone_is_forgotten_after_a_while_and_by_wiping(bench: RedshiftBench) -> None:
    target = bench.open()
    load(target, event_of(1))
    expired(target, Rule(DAY), RECEIVED + 2 * DAY)
    expired(target, Rule(DAY), RECEIVED + 10 * DAY)
    assert load(target, event_of(1, RECEIVED + 10 * DAY), end=2).stored == 1
    expired(target, Rule(DAY), RECEIVED + 12 * DAY)
    target.wipe()
    assert target.totals() == Counts()
    assert target.commit(Batch([event_of(1)], [], {"lane": Position(1, 3, 3)}, 1)).stored == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the driver leaves a lost socket to the collector
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_piece_whose_answer_is_lost_counts_once(bench: RedshiftBench, after: bool) -> None:
    target = bench.open()
    load(target, event_of(1, user_id="u1"), event_of(2))
    bench.double.cuts = [Cut("^commit", after=after, nth=2)]
    who = Person(user=frozenset({"u1"}))
    with pytest.raises(TransientError):
        erased(target, who)
    assert bench.ids() == ([id_of(2)] if after else [id_of(1), id_of(2)])
    assert erased(target, who) == Removed(1, 0)
    assert target.totals() == Counts(2, 1, erased=1)
