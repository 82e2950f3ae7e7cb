"""Who claims an id first, over any number of stretches: what `sort_out` says of all events one after the other."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.seams import Event
from spoorway.spark import claims, staging
from spoorway.spark.claims import CLAIMS, VERDICTS, Claim, Verdict
from spoorway.spark.engine import Here
from spoorway.spark.job import decided
from spoorway.spark.staging import Job
from storage.duplicates import sort_out, synthetic_id
from storage.lake.parquet import pa, pq, to_parquet, to_table

A, B, C = "aaaa", "bbbb", "cccc"
# An id, those that its copies get, and those that the copies of these get.
_IDS = [A, B, synthetic_id(A, B), synthetic_id(A, C), synthetic_id(synthetic_id(A, B), C), synthetic_id(synthetic_id(A, B), A)]
_events = st.lists(st.tuples(st.sampled_from(_IDS), st.sampled_from([A, B, C, None])), max_size=14)


class _Shelf:
    """`Objects`, as far as staging goes: a folder's fsyncs would be nearly all that a thousand of them take."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def put(self, name: str, body: bytes) -> None:
        self._bodies[name] = body

    def get(self, name: str) -> bytes:
        return self._bodies[name]


@dataclass(frozen=True, slots=True)
class _Job(Job):
    """Finds its staging without a bundle."""

    shelf: Any = field(default_factory=_Shelf)

    def objects(self) -> Any:
        return self.shelf


def _job() -> _Job:
    return _Job("job", Path, 0, (1, 1))


@given(_events, st.integers(1, 5), st.integers(1, 3))
@example([(A, A), (A, B), (synthetic_id(A, B), C), (synthetic_id(A, B), B)], 1, 2)
@example([(A, A), (synthetic_id(A, B), C), (A, B), (synthetic_id(A, B), C)], 2, 1)
@example([(synthetic_id(A, B), C), (A, A), (A, B), (A, B), (A, None)], 1, 3)
@example([(A, None), (synthetic_id(synthetic_id(A, B), C), None), (A, B), (synthetic_id(A, B), C)], 3, 1)  # a third round
@settings(max_examples=80, deadline=None)
def test_the_verdicts_are_those_of_one_machine(events: list[tuple[str, str | None]], a_stretch: int, parts: int) -> None:
    job = _job()
    stretches = [events[start : start + a_stretch] for start in range(0, len(events), a_stretch)]
    for stretch, some in enumerate(stretches):
        rows = [Claim(f"e/{one}", print_, stretch << 32 | row, 0, row) for row, (one, print_) in enumerate(some)]
        table = pa.Table.from_pylist([row._asdict() for row in rows], CLAIMS)
        staging.write(job.objects(), job.name("claims", stretch), table)
    found = decided(Here(), job, range(len(stretches)), parts, lambda _: None)
    verdicts = [Verdict(**row) for part in found for table in claims.verdicts(job, part) for row in table.to_pylist()]
    last = {(one.stretch, one.row): one for one in sorted(verdicts, key=lambda one: one.late)}
    kept: list[str] = []
    for stretch, some in enumerate(stretches):
        for row, (one, _) in enumerate(some):
            verdict = last.get((stretch, row))
            if verdict is None or verdict.stays:
                kept.append(one if verdict is None else verdict.name[2:])
    assert kept == [event["event_id"] for event in one_machine(events)]


def one_machine(events: Sequence[tuple[str, str | None]]) -> list[Event]:
    every = [Event(event_id=one) if print_ is None else Event(event_id=one, event_fingerprint=print_) for one, print_ in events]
    return sort_out(every, lambda ids: {})[0]


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_batches_may_end_anywhere(rows: int) -> None:
    claimed = [(A, B), (A, B), (A, C), (A, B), (A, C), (B, None), (C, A), (C, A), (C, None), (C, None)]
    every = [Claim(f"e/{one}", print_, place, 0, place) for place, (one, print_) in enumerate(claimed)]
    table = pa.Table.from_pylist([one._asdict() for one in every], CLAIMS)
    found = {one.row: one.stays for one in claims.judged(table.to_batches(rows))}
    assert found == {1: False, 2: True, 3: False, 4: False, 7: False, 8: True, 9: False}


def test_files_lose_their_copies_and_events_get_their_own_ids() -> None:
    job = _job()
    note: Any = [{"schema": "iglu:a/b/jsonschema/1-0-0", "data": {"x": 'é"]}'}}]
    events: list[Any] = [
        {"event_id": str(n), "event_fingerprint": A, "derived_contexts": note if n % 2 else []} for n in range(5)
    ]
    job.objects().put(job.name("events", 3, 0), to_parquet(events))
    job.objects().put(
        job.name("failed", 3, 1), gzip.compress(b'{"failed_id":"0"}\n{"failed_id":"1\\u2028"}\n{"failed_id":"2"}\n')
    )
    said = [
        Verdict(3, 0, 0, "e/0", "", False),
        Verdict(3, 0, 1, "e/1", f"e/{synthetic_id('1', A)}", True),
        Verdict(3, 0, 2, "e/2", f"e/{synthetic_id('2', A)}", True),
        Verdict(3, 0, 3, "e/3", "", False),
        Verdict(3, 0, 3, "e/3", "e/3", True, True),  # it stays, after all
        Verdict(3, 1, 1, "f/1", "", False),
    ]
    table = pa.Table.from_pylist([one._asdict() for one in said], VERDICTS)
    told = list(claims.carried_out(job, 0, iter(table.to_batches(2))))
    assert [(one["stretch"], one["file"], one["gone"]) for one in told] == [(3, 0, 1), (3, 1, 1)]
    got = pq.read_table(pa.BufferReader(job.objects().get(told[0]["name"])))
    renamed, _ = sort_out(events[1:3], lambda ids: dict.fromkeys(ids, "another") if ids[0] in ("1", "2") else {})
    assert got.equals(to_table([*renamed, *events[3:]]))
    assert gzip.decompress(job.objects().get(told[1]["name"])) == b'{"failed_id":"0"}\n{"failed_id":"2"}\n'


def test_only_those_who_claim_these_ids_are_found() -> None:
    job = _job()
    rows = [Claim(f"e/{one}", A, place, 0, place) for place, one in enumerate([A, B, A])]
    staging.write(job.objects(), job.name("claims", 0), pa.Table.from_pylist([row._asdict() for row in rows], CLAIMS))
    (told,) = Here().map(partial(claims.among, job, ["e/aaaa", "e/zzzz"]), [0])
    assert told == {"claims": [["e/aaaa", A, 0, 0, 0], ["e/aaaa", A, 2, 0, 2]]}
