"""Failed events that waited for a schema: replayed once, in pieces, by the loader's own thread, in a real store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enrich.pipeline import Options, Pipeline
from protocol.iglu import parse
from protocol.seams import FailedEvent, Position, RawPayload, TransientError
from spoorway.registry import layout
from spoorway.registry.comeback import ComeBack, picked
from spoorway.registry.lookup import Lookup
from storage.targets import Batch, memory
from storage.targets.sqlite import Config, Plugin

A, B = (f"iglu:com.acme/{name}/jsonschema/1-0-0" for name in "ab")
NUMBER: Any = {"properties": {"v": {"type": "number"}}, "additionalProperties": False}
PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"


class Kept:
    """A store, its pipeline and what comes back in it. now: seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.taken = folder, 1_000.0, 0
        self.lookup = Lookup([folder / "schemas"], None, lambda: self.now)
        self.pipeline = Pipeline(Options(), self.lookup, [])
        self.target = Plugin(Config(str(folder / "events.db")), self.lookup)
        self.come_back = self.fresh()

    def fresh(self, **options: Any) -> ComeBack:
        """As after a restart."""
        return ComeBack(
            self.lookup,
            self.pipeline,
            options.pop("target", self.target),
            lambda: int(self.now * 1000),
            lambda: self.now,
            **options,
        )

    def take(self, *events: tuple[Any, ...]) -> None:
        """One payload; each event is (schema, data, entity's schema…)."""
        self.taken += 1
        data = []
        for number, (schema, value, *entities) in enumerate(events):
            event = {"e": "ue", "p": "srv", "tv": "t", "eid": f"00000000-0000-4000-8000-{self.taken:06}{number:06}"}
            event["ue_pr"] = json.dumps({"schema": UNSTRUCT, "data": {"schema": schema, "data": value}})
            if entities:
                event["co"] = json.dumps({"schema": CONTEXTS, "data": [{"schema": uri, "data": {"v": 1}} for uri in entities]})
            data.append(event)
        body = json.dumps({"schema": PAYLOAD_DATA, "data": data}).encode()
        path = "/com.snowplowanalytics.snowplow/tp2"
        payload = RawPayload(f"{self.taken:032x}", 1_700_000_000_000, "http", path, "", body, "application/json")
        outcomes = list(self.pipeline.outcomes(payload, 1_700_000_000_000))
        failed = [outcome for outcome in outcomes if isinstance(outcome, FailedEvent)]
        good = [outcome for outcome in outcomes if not isinstance(outcome, FailedEvent)]
        self.target.commit(Batch(good, failed, {"lane": Position(1, self.taken, self.taken)}, 1))

    def publish(self, uri: str, document: Any = NUMBER) -> None:
        layout.write(layout.place(self.folder / "schemas", parse(uri)), document)
        self.now += 2
        self.lookup.look()

    def run(self, most: int = 1_000) -> int:
        """Pieces of work until there is none."""
        for pieces in range(most):
            if not self.come_back.step():
                return pieces
        raise AssertionError("it does not end")

    def totals(self) -> tuple[int, int, int]:
        totals = self.target.totals()
        return totals.stored, totals.failed, totals.duplicate

    def rows(self, sql: str) -> list[Any]:
        db = sqlite3.connect(self.folder / "events.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.target.close()


def test_nothing_to_do_is_nothing_done(kept: Kept) -> None:
    assert kept.run() == 1  # the first look, at what waited from before
    assert kept.run() == 0


def test_event_comes_back_with_its_view_and_another_stays(kept: Kept) -> None:
    kept.take((A, {"v": 1}), (A, {"v": "x"}), (B, {"v": 1}))
    kept.run()
    assert kept.totals() == (0, 3, 0)
    kept.publish(A)
    kept.run()
    assert kept.totals() == (1, 2, 0)
    assert kept.rows("select v from com_acme_a_1") == [(1,)]
    (first, second) = kept.rows("select first_reason from failed_events where replayed_tstamp is null order by event_index")
    assert "number" in first[0]
    assert "no registry" in second[0]


def test_event_waits_for_all_its_schemas(kept: Kept) -> None:
    kept.take((A, {"v": 1}, B))
    kept.publish(A)
    tried = kept.rows("select failed_tstamp from failed_events")
    kept.run()
    assert kept.totals() == (0, 1, 0)
    assert kept.rows("select failed_tstamp from failed_events") == tried
    kept.publish(B)
    kept.run()
    assert kept.totals() == (1, 0, 0)
    assert kept.rows("select count(*) from failed_payloads") == [(0,)]
    assert kept.target.waiting(None, 10) == ([], None)


def test_what_appeared_while_nothing_ran_is_found_at_start(kept: Kept) -> None:
    kept.take((A, {"v": 1}))
    kept.lookup = Lookup([kept.folder / "schemas"], None, lambda: kept.now)
    kept.pipeline = Pipeline(Options(), kept.lookup, [])
    layout.write(layout.place(kept.folder / "schemas", parse(A)), NUMBER)
    kept.come_back = kept.fresh()
    kept.run()
    assert kept.totals() == (1, 0, 0)


def test_start_makes_known_what_is_waited_for(kept: Kept) -> None:
    kept.take((A, {"v": 1}))
    lookup = Lookup([kept.folder / "schemas"], None, lambda: kept.now)
    assert lookup.unknown() == []
    ComeBack(lookup, kept.pipeline, kept.target, lambda: 0, lambda: kept.now).step()
    assert [key.uri for key in lookup.unknown()] == [A]


def test_schema_that_is_no_schema_is_not_tried_for_ever(kept: Kept) -> None:
    kept.take((A, {"v": 1}))
    kept.publish(A, {"type": "strin"})
    kept.run()
    assert "not valid" in kept.rows("select first_reason from failed_events")[0][0]
    assert kept.lookup(B) is None
    kept.publish(B)
    tried = kept.rows("select failed_tstamp from failed_events")
    assert kept.run() > 0
    assert kept.rows("select failed_tstamp from failed_events") == tried
    kept.publish(A)
    kept.run()
    assert kept.totals() == (1, 0, 0)


def test_changed_schema_is_in_force_and_its_view_anew(kept: Kept) -> None:
    kept.publish(A)
    kept.take((A, {"v": 1}), (A, {"v": 2, "w": 3}))
    assert kept.totals() == (1, 1, 0)
    kept.publish(A, {"properties": {"v": {"type": "number"}, "w": {"type": "number"}}})
    kept.run()
    kept.take((A, {"v": 2, "w": 3}))
    assert kept.rows("select v, w from com_acme_a_1 order by v") == [(1, None), (2, 3)]


def test_work_is_done_in_pieces(kept: Kept) -> None:
    for _ in range(30):
        kept.take(*[(A, {"v": n}) for n in range(100)])
    kept.run()
    kept.publish(A)
    stored = []
    while kept.come_back.step():
        stored.append(kept.target.totals().stored)
    assert stored[-1] == 3_000
    assert max(after - before for before, after in zip([0, *stored], stored, strict=False)) <= 1_100
    assert kept.totals() == (3_000, 0, 0)


def test_large_payloads_are_few_in_a_piece(kept: Kept) -> None:
    for _ in range(6):
        kept.take((A, {"v": 1, "w": "x" * 400_000}))
    kept.publish(A, {})
    stored = []
    while kept.come_back.step():
        stored.append(kept.target.totals().stored)
    assert [after - before for before, after in zip([0, *stored], stored, strict=False) if after > before] == [3, 3]


def test_trouble_of_the_store_is_tried_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.take(*[(A, {"v": n}) for n in range(5)])
    kept.run()
    kept.publish(A)
    for method in ("see_schemas", "waiting", "resolve_all"):
        with monkeypatch.context() as broken:
            broken.setattr(kept.target, method, _raise(TransientError("disk full")))
            with pytest.raises(TransientError):
                kept.run()
    kept.run()
    assert kept.totals() == (5, 0, 0)


def _raise(error: Exception) -> Callable[..., Any]:
    def broken(*_: Any) -> Any:
        raise error

    return broken


def test_event_solved_by_hand_meanwhile_is_not_stored_twice(kept: Kept) -> None:
    kept.take((A, {"v": 1}), (A, {"v": 2}))
    kept.run()
    kept.publish(A)
    kept.come_back.step()  # has seen what waits, has not replayed it
    (failed_id,) = kept.rows("select failed_id from failed_events where event_index = 0")[0]
    _, payload = kept.target.show_failed(failed_id) or ({}, None)
    assert payload is not None
    events, failed = picked(list(kept.pipeline.outcomes(payload, 0)), 0)
    kept.target.resolve(failed_id, events, failed, 1)
    kept.run()
    assert kept.totals() == (2, 0, 0)


def test_fault_in_the_enrichment_leaves_that_payload_only(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.take((A, {"v": 1}))
    kept.take((A, {"v": 2}))
    kept.run()
    kept.publish(A)
    real = kept.pipeline.outcomes

    def broken(payload: RawPayload, now_ms: int) -> Any:
        if payload.id.endswith("1"):
            raise ZeroDivisionError
        return real(payload, now_ms)

    monkeypatch.setattr(kept.pipeline, "outcomes", broken)
    kept.run()
    assert kept.totals() == (1, 1, 0)


def test_missed_change_is_made_up_for_within_the_hour(kept: Kept) -> None:
    kept.take((A, {"v": 1}))
    kept.run()
    for number in range(1_100):  # so many are unknown that the first is not looked for any more
        kept.lookup(f"iglu:com.acme/n{number}/jsonschema/1-0-0")
    kept.publish(A)
    assert kept.run() == 0
    kept.now += 3_700
    kept.run()
    assert kept.totals() == (1, 0, 0)


def test_without_come_back_the_schema_is_known_and_events_stay(kept: Kept) -> None:
    kept.take((A, {"v": 1}))
    kept.come_back = kept.fresh(replays=False)
    kept.publish(A)
    kept.run()
    assert kept.totals() == (0, 1, 0)
    kept.take((A, {"v": 2}))
    assert kept.totals() == (1, 1, 0)


def test_target_that_offers_nothing_hears_nothing(kept: Kept) -> None:
    kept.come_back = kept.fresh(target=object())
    kept.lookup(A)
    kept.publish(A)
    assert kept.run() == 0


def test_events_come_back_in_the_memory_target(kept: Kept) -> None:
    kept.take((A, {"v": 1}), (A, {"v": "none"}))
    found = [shown[1] for failed_id in kept.target.failed_ids() if (shown := kept.target.show_failed(failed_id))]
    outcomes = list(kept.pipeline.outcomes(found[0], 1)) if found[0] else []
    target = memory.Plugin(memory.Config(), kept.lookup)
    target.commit(Batch([], [one for one in outcomes if isinstance(one, FailedEvent)], {"lane": Position(1, 1, 1)}, 1))
    assert target.totals().failed == 2
    kept.come_back = kept.fresh(target=target)
    kept.publish(A)
    kept.run()
    assert (target.totals().stored, target.totals().failed) == (1, 1)
    assert [row["first_reason"] for row in target.list_failed()] != []
    assert target.waiting(None, 10) == ([], None)


def test_event_stays_when_its_payload_is_now_refused_as_a_whole() -> None:
    payload = RawPayload("0" * 32, 0, "http", "/i")
    whole = FailedEvent("w", "adapter_failures", (), payload, 0, None)
    own = FailedEvent("o", "schema_violations", (), payload, 0, 1)
    assert picked([whole], 0) == ([], [])
    assert picked([whole], None) == ([], [whole])
    assert picked([{"event_id": "a"}, own], 1) == ([], [own])
    assert picked([{"event_id": "a"}, own], 0) == ([{"event_id": "a"}], [])
