"""The ledger of devices: every induced loss is a gap, and nothing else is."""

from __future__ import annotations

import itertools
import random
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.devices import DEVICE_TIME, QUEUE_HEALTH, device_event_id
from protocol.schemas import bundled
from protocol.seams import FailedEvent, Position, RawPayload, Reason
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin

PAGE = Path(__file__).parents[2].joinpath("docs", "device-time.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
NOON = 1_768_478_400_000  # 2026-01-15 12:00


def event_of(device: str, boot: int, sequence: int, health: Any = None, method: str = "difference", **columns: Any) -> Any:
    data: Any = {"device": device, "proven": True, "boot_id": boot, "sequence": sequence, "method": method, "transport": "http"}
    if method == "difference":
        data |= {"not_before": "2026-01-15T11:59:00Z", "not_after": "2026-01-15T12:00:00Z", "uncertainty_ms": 60_000 + sequence}
    event: Any = {
        "event_id": device_event_id(device, boot, sequence),
        "event_fingerprint": f"{device} {boot} {sequence}",
        "collector_tstamp": NOON + 1_000 * sequence + 500,
        "derived_tstamp": NOON + 1_000 * sequence,
        "derived_contexts": [{"schema": DEVICE_TIME, "data": data}],
    }
    if health is not None:
        event["contexts"] = [{"schema": QUEUE_HEALTH, "data": health}]
    return event | columns


def failed_of(event: Any) -> FailedEvent:
    reason = Reason("contexts", "", "is not valid")
    payload = RawPayload("0" * 32, NOON, "http", "/i")
    return FailedEvent(f"failed-{event['event_id']}", "schema_violations", (reason,), payload, NOON, 0, {}, event)


class Store:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.db"
        self.target = Plugin(Config(str(self.path)), bundled)
        self._batches = 0

    def commit(self, *events: Any, failed: tuple[FailedEvent, ...] = ()) -> None:
        self._batches += 1
        self.target.commit(Batch(events, failed, {"lane": Position(1, self._batches, self._batches)}, len(events)))

    def ask(self, query: str) -> list[Any]:
        db = sqlite3.connect(self.path)
        rows = db.execute(query).fetchall()
        db.close()
        return rows

    def gaps(self) -> list[Any]:
        return self.ask("SELECT device, boot_id, first_missing, last_missing, missing FROM device_gaps ORDER BY 1, 2, 3")

    def health(self, *columns: str) -> Any:
        return self.ask(f"SELECT {', '.join(columns)} FROM device_health ORDER BY device")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.target.close()


@pytest.mark.parametrize("seed", range(8))
def test_every_loss_is_found_and_no_other(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    sent: list[Any] = []
    lost: list[tuple[str, int, int, int, int]] = []
    for device in ("a", "b:1", "c"):
        for boot in (7, 8, 4_294_967_200):
            last = chance.choice((chance.randint(0, 300), 4_294_967_295 - 20))
            sequences = [n for n in range(1, last + 1)[-300:] if chance.random() > 0.1]
            for sequence in sequences:
                sent += [event_of(device, boot, sequence)] * chance.choice((1, 1, 1, 2))
            ends = [0, *sequences, last + 1]
            lost += [(device, boot, a + 1, b - 1, b - a - 1) for a, b in itertools.pairwise(ends) if b > a + 1]
            # A later start tells how far this one had counted; without that its last events are missed by nobody.
            sent.append(event_of(device, boot + 50, 1, {"boot_id": boot, "last_sequence": last}))
    chance.shuffle(sent)
    while sent:
        size = chance.randint(1, 200)
        batch, sent = sent[:size], sent[size:]
        failed = [failed_of(event) for event in batch if event["event_id"] < "2"]
        store.commit(*(event for event in batch if event["event_id"] >= "2"), failed=tuple(failed))
    assert store.gaps() == sorted(lost)
    assert sum(row[4] for row in lost) == sum(missing for (missing,) in store.health("missing"))
    assert store.ask("SELECT count(*) FROM device_runs")[0][0] <= len(lost) + 18


def test_a_gap_says_between_which_times(store: Store) -> None:
    store.commit(*(event_of("a", 1, n) for n in (1, 2, 5, 6)))
    (row,) = store.ask("SELECT * FROM device_gaps")
    assert row == ("a", 1, 3, 4, 2, "2026-01-15 12:00:02.000", "2026-01-15 12:00:05.000")
    store.commit(event_of("a", 1, 3))
    assert store.ask("SELECT first_missing, after_tstamp FROM device_gaps") == [(4, "2026-01-15 12:00:03.000")]
    store.commit(event_of("a", 1, 4))
    assert store.gaps() == []
    assert store.ask("SELECT * FROM device_runs") == [("a", 1, 1, 6, "2026-01-15 12:00:01.000", "2026-01-15 12:00:06.000")]


def test_the_start_of_a_start_is_missed_too(store: Store) -> None:
    store.commit(event_of("a", 1, 3))
    assert store.gaps() == [("a", 1, 1, 2, 2)]


def test_the_end_of_a_start_is_missed_once_it_is_told(store: Store) -> None:
    store.commit(*(event_of("a", 1, n) for n in (1, 2)))
    assert store.gaps() == []
    store.commit(event_of("a", 2, 1, {"boot_id": 1, "last_sequence": 5, "dropped_full": 3}))
    assert store.gaps() == [("a", 1, 3, 5, 3)]
    store.commit(event_of("a", 2, 2, {"boot_id": 0, "last_sequence": 2}))
    assert store.gaps()[0] == ("a", 0, 1, 2, 2)
    assert store.health("boots", "missing", "dropped") == [(3, 5, 3)]


def test_failed_events_are_not_missing(store: Store) -> None:
    store.commit(event_of("a", 1, 1), event_of("a", 1, 3), failed=(failed_of(event_of("a", 1, 2)),))
    assert store.gaps() == []
    assert store.health("events", "failed") == [(2, 1)]


def test_health_counts_copies_methods_and_bounds_and_keeps_the_newest_word(store: Store) -> None:
    first = event_of("a", 1, 1, {"queued": 9, "resent": 2, "dropped_old": 1})
    late = event_of("a", 1, 2, {"queued": 4, "resent": 1, "dropped_full": 5}, derived_tstamp=NOON)
    store.commit(first, first, event_of("a", 2, 1, method="received"))
    store.commit(late, first)
    columns = ("boots", "events", "duplicates", "resent", "dropped", "queued", "by_difference", "by_received", "unbounded")
    assert store.health(*columns) == [(2, 3, 2, 2, 6, 9, 2, 1, 1)]
    assert store.health("widest_ms", "first_tstamp", "last_tstamp", "seen_tstamp") == [
        (60_002, "2026-01-15 12:00:00.000", "2026-01-15 12:00:01.000", "2026-01-15 12:00:02.500")
    ]


def test_the_same_batch_again_and_a_wipe(store: Store) -> None:
    batch = Batch([event_of("a", 1, 1)], [], {"lane": Position(1, 1, 1)}, 1)
    store.target.commit(batch)
    store.target.commit(batch)
    assert store.health("events", "duplicates") == [(1, 0)]
    store.target.wipe()
    assert store.health("events") == store.ask("SELECT * FROM device_runs") == []


def test_events_of_others_cost_no_row(store: Store) -> None:
    event = event_of("a", 1, 1)
    store.commit({k: v for k, v in event.items() if k != "derived_contexts"})
    assert store.ask("SELECT * FROM device_boots") == []


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_page_finds_something(store: Store, query: str) -> None:
    store.commit(event_of("pump-7", 1, 1), event_of("pump-7", 1, 3, {"queued": 0}))
    assert store.ask(query)


def test_the_page_names_every_column() -> None:
    assert len(QUERIES) == 3
    db = sqlite3.connect(":memory:")
    from storage.ddl import migrate

    migrate(db)
    columns = {row[1] for row in db.execute("PRAGMA table_info(device_health)")} - {"device"}
    db.close()
    named = set(re.findall(r"`(\w+)`", "".join(line for line in PAGE.splitlines() if line.startswith("| `"))))
    assert columns <= named
