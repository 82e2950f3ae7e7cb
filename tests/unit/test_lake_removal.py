"""Rows that go from the files of an S3 target: cut off anywhere, merged before or after, they are gone once and stay gone."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from protocol.persons import Person
from protocol.seams import Event, FailedEvent, Position, RawPayload, Reason, TransientError
from spoorway.cli import main
from spoorway.commands import compact
from storage import lake
from storage.lake import commits, merging, removal
from storage.objects import Objects
from storage.targets import Batch, Counts, Erasure, Removed, Rule, s3
from tests.contracts.s3_bench import LakeBench, Refusing
from tests.peers.s3_server import S3Server

NOON = 1_768_478_400_000  # 2026-01-15 12:00
DAY_MS = 86_400_000
THEM = "somebody-special"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves is not asked here."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LakeBench]:
    made = LakeBench(tmp_path, form="both")
    yield made
    if made.target:
        made.target.close()


@pytest.fixture
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server, server.in_environment():
        yield server


def event_of(number: int, user: str = "", day: int = 0, **columns: Any) -> Event:
    event: Any = {
        "app_id": "shop",
        "event": "page_view",
        "event_name": "page_view",
        "event_id": f"00000000-0000-4000-8000-{number:012d}",
        "event_fingerprint": "f",
        "collector_tstamp": NOON + day * DAY_MS + number,
        "v_collector": "c",
        "v_etl": "e",
    }
    return event | ({"user_id": user} if user else {}) | columns


def failed_of(number: int, user: str = "") -> FailedEvent:
    payload = RawPayload(f"{number:032x}", NOON, "http", "/i", query=f"e=pv&uid={user}")
    why = Reason("atomic", "eid", "is no UUID", "x")
    return FailedEvent(f"failed-{number}", "schema_violations", (why,), payload, NOON, 0, {"uid": user})


def batch(end: int, *events: Event, failed: tuple[FailedEvent, ...] = ()) -> Batch:
    return Batch(events, failed, {"lane": Position(1, end, end)}, len(events) + len(failed))


def filled(target: s3.Plugin, commits_made: int = 3) -> None:
    """Of each commit: two events of theirs, one of them alone in its file, two of others, and a failed event of both."""
    numbers = count(1)
    for end in range(1, commits_made + 1):
        made = [event_of(next(numbers), THEM), event_of(next(numbers), "u"), event_of(next(numbers), "u", 1)]
        made.append(event_of(next(numbers), THEM, 2))
        target.commit(batch(end, *made, failed=(failed_of(2 * end, THEM), failed_of(2 * end + 1, "u"))))


def erasure(name: str = "one") -> Erasure:
    return Erasure(name, Person(user=frozenset({THEM})), NOON + 5 * DAY_MS)


def erased(target: s3.Plugin, asked: Erasure | None = None) -> Removed:
    removed, after = target.erase(asked or erasure(), None)
    while after is not None:
        removed, after = target.erase(asked or erasure(), after)
    return removed


def expired(target: s3.Plugin, rule: Rule, now_ms: int) -> Removed:
    events = failed = 0
    after = None
    while True:
        removed, after = target.expire(rule, now_ms, after)
        events, failed = events + removed.events, failed + removed.failed
        if after is None:
            return Removed(events, failed)


def texts(bench: LakeBench) -> list[str]:
    """Everything that lies in the folder, files that count no more included, as text."""
    found: list[str] = []
    for one in bench.objects().list():
        body = bench.objects().get(one.name)
        if one.name.endswith(".gz"):
            found.append(gzip.decompress(body).decode())
        elif one.name.endswith(".parquet"):
            found.append(str(pq.read_table(io.BytesIO(body)).to_pylist()))
        else:
            found.append(body.decode(errors="replace"))
    return found


def in_tsv(bench: LakeBench) -> list[str]:
    live, _ = lake.sorted_out(bench.objects().list("tsv/"))
    lines = [line for piece in live for line in gzip.decompress(bench.objects().get(piece.name)).decode().splitlines()]
    return sorted(line.split("\t")[6] for line in lines)


def compacted(bench: LakeBench) -> int:
    objects = bench.objects()
    newest, _ = commits.newest(objects)
    plan = merging.plan(objects, lake.SUFFIXES, "9999-12-31", 1 << 20, newest.number)
    objects.delete(plan.tidy)
    for members in plan.merges:
        merging.merge(objects, members)
    return len(plan.merges)


def test_of_three_files_of_the_same_commits_the_last_revision_counts() -> None:
    names = ["1-1", "1-2", "1-2-5", "1-2-7", "3-3-7"]
    numbers = ["-".join(f"{int(number):010d}" for number in name.split("-")) for name in names]
    listed = [lake.Found(f"events/day=2026-01-15/name=a/{name}.parquet", 1, "") for name in sorted(numbers)]
    live, superseded = lake.sorted_out(listed)
    assert [(one.first, one.last, one.revision) for one in live] == [(1, 2, 7), (3, 3, 7)]
    assert len(superseded) == 3
    assert lake.piece_name("events", "day=2026-01-15/name=a", 1, 2, 7) == live[0].name


def test_nothing_of_them_is_left_in_any_object_and_the_rest_is_as_it_was(bench: LakeBench) -> None:
    target = bench.open()
    filled(target)
    assert THEM in "".join(texts(bench))
    others = [row for row in bench.rows() if row["user_id"] != THEM]
    assert erased(target) == Removed(6, 3)
    assert THEM not in "".join(texts(bench))
    assert list(bench.rows()) == others
    assert in_tsv(bench) == sorted(bench.ids())
    assert target.totals() == Counts(18, 6, 3, erased=9)


def test_cut_off_at_each_call_it_is_done_once_by_the_next_life(tmp_path: Path) -> None:
    for number in count(1):
        for done in (False, True):
            bench = LakeBench(tmp_path / f"{number}-{done}", form="both")
            target = bench.open()
            filled(target, 1)
            target.cursor()
            refusing = Refusing(target._objects)
            refusing.fail_at, refusing.done = number, done
            target._objects = refusing  # type: ignore[assignment]
            try:
                assert erased(target) == Removed(2, 1)
                assert refusing.calls < number
                target.close()
                assert number > 6
                return
            except TransientError:
                pass
            if number % 2:  # in this life, or in the next
                target._objects = refusing.objects
            else:
                target = bench.open()
            assert erased(target) == Removed(2, 1)
            assert target.totals() == Counts(6, 2, 1, erased=3)
            assert THEM not in "".join(texts(bench))
            assert len(bench.ids()) == 2 == len(in_tsv(bench))
            assert target.commit(batch(3, event_of(1), event_of(50))) == Counts(2, 1, 0, 1)
            target.close()


@pytest.mark.parametrize("erased_first", [False, True], ids=["merged_first", "erased_first"])
def test_merging_before_or_after_brings_nothing_back(bench: LakeBench, erased_first: bool) -> None:
    target = bench.open()
    filled(target)
    if not erased_first:
        assert compacted(bench)
    assert erased(target) == Removed(6, 3)
    compacted(bench)
    assert THEM not in "".join(texts(bench))
    target.commit(batch(9, event_of(90)))
    compacted(bench)
    assert len(bench.ids()) == 7 == len(in_tsv(bench))
    assert target.totals() == Counts(19, 7, 3, erased=9)


def test_a_file_that_was_superseded_does_not_come_back_when_its_heir_is_empty(bench: LakeBench) -> None:
    target = bench.open()
    for end in (1, 2):
        target.commit(batch(end, event_of(end, THEM)))
    objects = bench.objects()
    old = {one.name: objects.get(one.name) for kind in lake.SUFFIXES for one in objects.list(f"{kind}/")}
    assert compacted(bench) == 2
    for name, body in old.items():  # as a merge leaves it that was killed before it deleted them
        objects.put(name, body)
    assert erased(target) == Removed(2, 0)
    assert bench.ids() == in_tsv(bench) == []
    assert THEM not in "".join(texts(bench))


def test_a_writer_that_was_stopped_for_long_does_not_bring_a_file_back(bench: LakeBench) -> None:
    target = bench.open()
    target.commit(batch(1, event_of(1, THEM), event_of(2)))
    objects = bench.objects()
    old = {one.name: objects.get(one.name) for kind in ("events", "tsv") for one in objects.list(f"{kind}/")}
    erased(target)
    for name, body in old.items():  # puts its files only now
        objects.put(name, body)
    live, superseded = lake.sorted_out(objects.list("events/"))
    assert (len(live), len(superseded)) == (1, 1)
    assert len(in_tsv(bench)) == 1
    assert erased(target, erasure("again")) == Removed(0, 0)
    assert THEM not in "".join(texts(bench))


def test_an_index_that_is_lost_does_not_bring_them_back_and_the_rest_stays_known(bench: LakeBench) -> None:
    target = bench.open()
    filled(target)
    erased(target)
    target.close()
    for path in Path(bench.config.state).parent.glob("s3.db*"):
        path.unlink()
    target = bench.open()
    assert target.commit(batch(9, event_of(2), event_of(3, day=1))) == Counts(2, 0, 0, 2)
    assert THEM not in "".join(texts(bench))


def test_events_of_a_time_with_another_format_are_counted_once(tmp_path: Path) -> None:
    forms: list[Any] = ["tsv", "both", "parquet"]
    for end, form in enumerate(forms, 1):
        bench = LakeBench(tmp_path, form=form)
        target = bench.open()
        target.commit(batch(end, event_of(end, THEM), event_of(10 + end)))
        compacted(bench)
        target.close()
    bench = LakeBench(tmp_path, form="both")
    target = bench.open()
    assert target.erase(erasure(), None, dry=True)[0] == Removed(3, 0)
    assert erased(target) == Removed(3, 0)
    assert target.totals() == Counts(6, 3, erased=3)
    assert expired(target, Rule(DAY_MS), NOON + 9 * DAY_MS) == Removed(3, 0)
    assert target.totals() == Counts(6, erased=3, expired=3)
    target.close()


@pytest.mark.parametrize("merging_between", [False, True], ids=["alone", "merging_between"])
def test_work_is_done_in_pieces_and_each_counts_once(
    bench: LakeBench, monkeypatch: pytest.MonkeyPatch, merging_between: bool
) -> None:
    monkeypatch.setattr(removal, "_FILES", 2)
    target = bench.open()
    filled(target)
    removed, after = target.erase(erasure(), None)
    pieces = 1
    while after is not None:
        if merging_between:
            compacted(bench)  # what the next piece finds are other files
        assert removed.events + removed.failed == target.totals().erased
        removed, after = target.erase(erasure(), after)
        pieces += 1
        assert pieces < 20
    assert (removed, pieces > 3) == (Removed(6, 3), True)
    assert target.totals() == Counts(18, 6, 3, erased=9)
    assert THEM not in "".join(texts(bench))


def test_in_a_bucket_it_is_as_in_a_folder(tmp_path: Path, s3_server: S3Server) -> None:
    bench = LakeBench(tmp_path, f"{s3_server.bucket('removal')}/site", s3_server.endpoint, "both")
    target = bench.open()
    filled(target, 2)
    assert erased(target) == Removed(4, 2)
    assert expired(target, Rule(DAY_MS), NOON + 2 * DAY_MS) == Removed(2, 2)
    target = bench.open()
    assert bench.ids() == in_tsv(bench) == [event_of(number)["event_id"] for number in (3, 7)]
    assert target.totals() == Counts(12, 2, erased=6, expired=4)
    assert THEM not in "".join(texts(bench))
    target.close()


def test_a_rule_reads_only_the_files_of_its_days_and_its_event(bench: LakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.open()
    target.commit(batch(1, event_of(1), event_of(2, event_name="page_ping"), event_of(3, event_name="page_ping", day=3)))
    read: list[str] = []
    objects = target._objects
    get = objects.get

    def noted(name: str) -> bytes:
        if not name.startswith("_"):
            read.append(name)
        return get(name)

    monkeypatch.setattr(objects, "get", noted)
    assert expired(target, Rule(DAY_MS, event="page_ping"), NOON + 2 * DAY_MS) == Removed(1, 0)
    assert {name.split("/", 1)[1].rpartition("/")[0] for name in read} == {"day=2026-01-15/name=page_ping"}


def is_alone(bench: LakeBench) -> bool:
    with Path(f"{bench.config.state}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_rows_are_taken_out_while_nobody_merges(bench: LakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.open()
    filled(target, 1)
    seen: list[bool] = []
    objects = target._objects

    def watched(call: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            seen.append(is_alone(bench))
            return call(*arguments)

        return noted

    for name in ("get", "put_new", "put", "delete"):
        monkeypatch.setattr(objects, name, watched(getattr(objects, name)))
    erased(target)
    assert len(seen) > 8 and all(seen)
    assert not is_alone(bench)


def test_files_are_merged_while_nobody_takes_rows_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spoorway.toml").write_text(f'data = "{tmp_path}"\n[storage.targets.s3]\nurl = "{tmp_path / "lake"}"\n')
    bench = LakeBench(tmp_path)
    bench.config = replace(bench.config, state=str(tmp_path / "s3.s3.db"))
    filled(bench.open())
    seen: list[bool] = []
    merge = merging.merge

    def noted(objects: Objects, members: Sequence[lake.Piece]) -> str:
        seen.append(is_alone(bench))
        return merge(objects, members)

    monkeypatch.setattr(merging, "merge", noted)
    assert main(["compact", "--config", str(tmp_path / "spoorway.toml")]) == 0
    assert seen == [True] * 4
    assert bench.target
    bench.target.close()


def test_what_was_cut_off_is_not_merged(bench: LakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.open()
    filled(target)
    refusing = Refusing(target._objects)
    refusing.fail_at = 2  # the commit is made, its files are not in their places
    target._objects = refusing  # type: ignore[assignment]
    with pytest.raises(TransientError):
        erased(target)
    members = [piece for piece in lake.sorted_out(bench.objects().list("events/"))[0] if piece.day == "2026-01-15"]
    with pytest.raises(TransientError, match="is finished when the target is loaded again"):
        compact.merge(bench.objects(), members)
    bench.open()
    assert len(bench.ids()) == 6


def test_a_commit_of_ours_whose_first_answer_was_lost_is_known(bench: LakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.open()
    filled(target, 1)
    target.cursor()
    put_new = target._objects.put_new
    # As a client answers that asked again by itself.
    monkeypatch.setattr(target._objects, "put_new", lambda *arguments: put_new(*arguments) and False)
    assert erased(target) == Removed(2, 1)
    assert target.totals() == Counts(6, 2, 1, erased=3)
    monkeypatch.undo()
    assert target.commit(batch(2, event_of(50))).stored == 1


def test_removing_while_another_loads_is_one_commit_among_its(tmp_path: Path) -> None:
    first = LakeBench(tmp_path)
    second = LakeBench(tmp_path / "second", url=first.config.url)
    one, other = first.open(), second.open()
    one.cursor(), other.cursor()
    one.commit(batch(1, event_of(1, THEM)))
    with pytest.raises(TransientError, match="another loader committed at the same time"):
        erased(other)
    assert len(first.ids()) == 1
    assert erased(other) == Removed(1)
    assert one.commit(batch(2, event_of(2), event_of(1, THEM))) == Counts(2, 1, 0, 1)
    assert one.totals() == Counts(3, 1, 0, 1, erased=1)
    one.close(), other.close()
