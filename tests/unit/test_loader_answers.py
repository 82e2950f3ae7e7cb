"""The loader's loop when a commit's answer is lost: the target has the batch, and meanwhile the journal has grown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.journal import Chunk
from protocol.seams import START, Cursor, Position, RawPayload, TransientError
from spoorway.loader import Loader
from storage.targets import Batch, Counts, memory


class Journal:
    """A `gateway.journal.Reader` of one lane in memory."""

    def __init__(self) -> None:
        self.payloads: list[RawPayload] = []

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        place = cursor.get("lane", START).sequence
        found = tuple(self.payloads[place : place + max_payloads])
        return Chunk(found, {"lane": Position(1, place + len(found), place + len(found))} if found else dict(cursor), False)

    def pending(self, cursor: Cursor) -> int:
        return len(self.payloads) - cursor.get("lane", START).sequence

    def add(self, *numbers: int) -> None:
        self.payloads += [RawPayload(f"{number:032x}", number, "http", "/i") for number in numbers]


class Pipeline:
    def outcomes(self, payload: RawPayload, now_ms: int) -> Iterator[Any]:
        yield {"event_id": payload.id, "collector_tstamp": payload.received_ms, "event_fingerprint": "f"}


class Strict(memory.Plugin):
    """As every store behind a network: a batch that begins elsewhere than where the last one ended is another loader's."""

    asked = 0
    told: Cursor = {}  # noqa: RUF012
    lose = 0

    def cursor(self) -> Cursor:
        self.asked += 1
        self.told = super().cursor()
        return self.told

    def commit(self, batch: Batch) -> Counts:
        assert dict(super().cursor()) == dict(self.told), "another process moved the cursor"
        counts = super().commit(batch)
        if self.lose:
            self.lose -= 1
            raise TransientError("the answer was lost")
        self.told = super().cursor()
        return counts


def test_it_asks_where_it_stands_after_trouble_and_only_then() -> None:
    journal, target = Journal(), Strict(memory.Config(), lambda uri: None)
    loader = Loader("memory", journal, Pipeline(), target, lambda: 7)  # type: ignore[arg-type]
    journal.add(1, 2)
    assert loader.step()
    assert not loader.step()
    assert target.asked == 1
    journal.add(3, 4)
    target.lose = 1
    with pytest.raises(TransientError):
        loader.step()
    journal.add(5)  # so the next batch would be another one
    assert loader.step()
    assert target.totals() == Counts(5, 5, 0, 0)
    assert target.asked == 2
    journal.add(6)
    assert loader.step()
    assert target.asked == 2
    assert (loader.cursor["lane"].sequence, loader.status.stored) == (6, 6)
