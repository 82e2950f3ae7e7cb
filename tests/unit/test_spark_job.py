"""The Spark job's own work equals one machine's, row for row, and is seen whole or not at all. Spark itself: `make spark`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from protocol.seams import ConfigurationError, Position, TransientError
from spoorway.spark import notes, staging
from spoorway.spark.staging import PREFIX
from storage.lake import commits
from storage.objects import Objects
from storage.objects.folder import FolderObjects
from storage.targets import Batch, s3
from tests.unit.spark_site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("spark"), events=1_200, segments=6)
    site.replay()
    return site


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """With the result in "whole"."""
    site = Site(tmp_path_factory.mktemp("small"), events=60, segments=2)
    site.run("whole")
    return site


_numbers = count()


@pytest.fixture
def many() -> str:
    """A place where nothing is."""
    return f"many-{next(_numbers)}"


@pytest.mark.parametrize("stretch_bytes", [1, 300_000])
def test_the_result_is_that_of_one_machine(site: Site, many: str, stretch_bytes: int) -> None:
    site.run(name := many, stretch_bytes=stretch_bytes)
    assert site.content(name) == site.content("one")
    events, failed, totals, _ = site.content("one")
    # The archive has it all, or equality says little.
    kinds = {row["kind"] for row in failed}
    assert {"journal_damage", "schema_violations", "adapter_failures"} <= kinds
    assert totals.duplicate > 20 and totals.erased > 5
    derived = " ".join(row["derived_contexts"] or "" for row in events)
    for part in ("anchored", '"difference"', "originalEventId", '"burst"', "honeypot_nearby"):
        assert part in derived, part


def test_what_was_learned_in_other_stretches_is_needed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison would notice: a job that forgets it has other rows."""
    monkeypatch.setattr(notes, "by_stretch", lambda batches: [(number, []) for number, _ in _by_stretch(batches)])
    site.run("forgetful", stretch_bytes=1)
    assert site.content("forgetful")[0] != site.content("one")[0]


_by_stretch = notes.by_stretch


def test_a_second_run_changes_nothing(small: Site, many: str) -> None:
    counts = small.run(many)
    before = list(small.objects(many).list())
    told: list[str] = []
    assert small.run(many, told.append) == counts
    assert told == ["everything is there already"]
    assert list(small.objects(many).list()) == before
    assert not [found for found in before if found.name.startswith(PREFIX)]


class _Cut(BaseException):
    """The machine is gone: nothing is tidied up."""


def _cut(
    monkeypatch: pytest.MonkeyPatch, at: Callable[[str, str], bool], *, after: bool, error: type[BaseException] = _Cut
) -> None:
    """From the first write that `at` (call, name) is true of nothing is written any more. after: that one still is."""
    gone: list[str] = []

    def cutting(call: str) -> Any:
        whole = getattr(FolderObjects, call)

        def write(self: Objects, name: Any, *rest: Any) -> Any:
            if gone:
                raise _Cut
            if at(call, rest[0] if call == "copy" else str(name)):
                gone.append(call)
                if after:
                    whole(self, name, *rest)
                raise _Cut
            return whole(self, name, *rest)

        return write

    for call in ("put", "put_new", "copy", "delete"):
        monkeypatch.setattr(FolderObjects, call, cutting(call))


@pytest.mark.parametrize(
    ("kind", "after"),
    [("notes", True), ("events", False), ("claims", True), ("verdicts", False), ("commits", False), ("commits", True)],
)
def test_a_job_that_dies_before_its_commit_leaves_nothing_to_see(small: Site, many: str, kind: str, after: bool) -> None:
    place = "_spoorway/commits/" if kind == "commits" else f"/{kind}/"
    with pytest.MonkeyPatch.context() as patch:
        _cut(patch, lambda call, name: place in name and (kind == "commits" or name.startswith(PREFIX)), after=after)
        with pytest.raises(_Cut):
            small.run(many)
    seen = [found.name for found in small.objects(many).list() if not found.name.startswith(PREFIX)]
    committed = kind == "commits" and after
    assert seen == (["_spoorway/commits/0000000001"] if committed else []) + ["_spoorway/probe"]
    told: list[str] = []
    small.run(many, told.append)
    assert (told == ["everything is there already"]) is committed
    assert small.content(many) == small.content("whole")
    if committed:  # what others left goes once the place is filled
        assert not list(small.objects(many).list(PREFIX))


@pytest.mark.parametrize(("who", "file"), [("job", 3), ("loader", 0)])
def test_what_was_committed_gets_into_its_places_by_whoever_comes_next(small: Site, many: str, who: str, file: int) -> None:
    copied: list[str] = []

    def at(call: str, name: str) -> bool:
        copied.extend([name] if call == "copy" else [])
        return len(copied) > file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "_AT_ONCE", 1)
        _cut(patch, at, after=True)
        with pytest.raises(_Cut):
            small.run(many)
    assert not small.newest(many).settled
    if who == "job":
        small.run(many)
    else:
        _target(small, many).cursor()
    assert small.content(many) == small.content("whole")
    small.run(many)  # tidies up
    assert not list(small.objects(many).list(PREFIX))


@pytest.mark.parametrize("step", ["add", "settle"])
def test_an_answer_that_was_lost_costs_nothing(small: Site, many: str, step: str) -> None:
    """The commit was made, but nobody knows: what the job staged must stay, although it is alive to tidy up."""
    whole = getattr(commits, step)

    def lost(*args: Any) -> None:
        if step == "add":
            whole(*args)
        raise TransientError("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, step, lost)
        with pytest.raises(TransientError, match="no answer"):
            small.run(many)
    assert small.run(many) == small.newest("whole").totals
    assert small.content(many) == small.content("whole")


def test_of_two_jobs_one_wins(small: Site, many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small.bundle(many)
    whole, inner = commits.add, []

    def add(*args: Any) -> bool:
        if not inner:
            inner.append("another job, while the first is about to commit")
            small.run(many)
        return whole(*args)

    monkeypatch.setattr(commits, "add", add)
    with pytest.raises(Exception, match="another job or loader filled it meanwhile; of this one nothing was kept"):
        small.run(many)
    monkeypatch.undo()
    assert small.content(many) == small.content("whole")
    assert not list(small.objects(many).list(PREFIX))


def test_a_loader_that_commits_meanwhile_wins(small: Site, many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, inner = commits.add, []

    def add(*args: Any) -> bool:
        if not inner:
            inner.append("a loader, while the job is about to commit")
            target = _target(small, many)
            target.commit(Batch([{"event_id": "a", "collector_tstamp": 0}], [], {"lane": Position(1, 1, 1)}, 1))
            target.close()
        return whole(*args)

    monkeypatch.setattr(commits, "add", add)
    with pytest.raises(Exception, match="another job or loader filled it meanwhile"):
        small.run(many)
    assert [row["event_id"] for row in small.content(many)[0]] == ["a"]
    assert not list(small.objects(many).list(PREFIX))


def test_nothing_is_merged_of_what_is_not_in_its_place(small: Site, many: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "_AT_ONCE", 1)
        _cut(patch, lambda call, name: call == "put" and "commits" in name, after=False)
        with pytest.raises(_Cut):
            small.run(many)
    newest = small.newest(many)
    assert (newest.first, newest.number, newest.settled, newest.placed) == (1, 2, False, 0)
    small.run(many)
    assert small.newest(many).placed == 2


def test_a_job_whose_staging_the_winner_deleted_says_who_won(small: Site, many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small.bundle(many)
    whole, inner = staging.tables, []

    def tables(*args: Any) -> Any:
        if not inner:
            inner.append("another job, while the first is between two steps")
            small.run(many)
        return whole(*args)

    monkeypatch.setattr(staging, "tables", tables)
    with pytest.raises(Exception, match="filled it meanwhile"):
        small.run(many)
    assert small.newest(many).settled


def test_the_place_is_loaded_onwards(small: Site, many: str) -> None:
    """It is an S3 target's: its cursor, its totals, and its duplicates are known."""
    counts = small.run(many)
    rows = small.content(many)[0]
    target = _target(small, many)
    assert target.cursor() == small.newest(many).cursor
    again = {name: rows[0][name] for name in ("event_id", "event_fingerprint", "event_name")}
    again |= {"collector_tstamp": 1_795_300_000_000}
    new = {**again, "event_id": "22222222-0000-4000-8000-000000000000"}
    cursor = {**target.cursor(), "ffffffff": Position(1, 10, 1)}
    counted = target.commit(Batch([again, new], [], cursor, 2))  # type: ignore[list-item]
    assert (counted.stored, counted.duplicate) == (1, 1)
    assert target.totals().stored == counts.stored + 1
    assert len(small.content(many)[0]) == len(rows) + 1
    target.close()
    assert small.run(many).stored == counts.stored + 1  # all of the archive is there still


def test_a_place_with_other_events_is_left_alone(small: Site, many: str) -> None:
    target = _target(small, many)
    target.commit(Batch([{"event_id": "a", "collector_tstamp": 0}], [], {"lane": Position(1, 1, 1)}, 1))
    target.close()
    before = list(small.objects(many).list())
    with pytest.raises(Exception, match="lacks 2 segments of the archive, but is not empty"):
        small.run(many)
    assert list(small.objects(many).list()) == before


def test_an_emptied_place_is_filled(small: Site, many: str) -> None:
    target = _target(small, many)
    target.commit(Batch([{"event_id": "a", "collector_tstamp": 0}], [], {"lane": Position(1, 1, 1)}, 1))
    target.wipe()
    target.close()
    small.run(many)
    assert small.content(many) == small.content("whole")


def test_a_damaged_object_is_told_and_refused_or_read_as_far_as_it_goes(tmp_path: Path, many: str) -> None:
    small = Site(tmp_path, events=30, segments=1)
    entry = next(iter(small.folder.glob("archive/raw/*/*.gz")))
    body = bytearray(entry.read_bytes())
    body[len(body) // 2] ^= 1
    entry.write_bytes(body)
    with pytest.raises(Exception, match="is damaged: its SHA-256 begins"):
        small.run(many)
    assert not list(small.objects(many).list("events/"))
    small.bundle("partly", partial=True)
    told: list[str] = []
    small.run("partly", told.append)
    assert any("is damaged" in each for each in told)
    assert "journal_damage" in {row["kind"] for row in small.content("partly")[1]}


def test_a_gap_in_the_archive_is_told_and_refused(tmp_path: Path, many: str) -> None:
    small = Site(tmp_path, events=30, segments=2)
    lost = small.folder / "archive/manifest/1a1b1c1d/00000001.json"
    lost.write_text(lost.read_text().replace('"first_number": 1,', '"first_number": 5,'))
    told: list[str] = []
    with pytest.raises(Exception, match="what is missing would be missing in the result"):
        small.run(many, told.append)
    assert any("payloads 1 to 4 of lane 1a1b1c1d" in each for each in told)
    small.bundle("partly", partial=True)
    small.run("partly")


def test_where_there_is_no_archive_nothing_is_made(tmp_path: Path) -> None:
    site = Site.__new__(Site)
    site.folder, site.file = tmp_path, tmp_path / "spoorway.toml"
    site.file.write_text(f'data = "{tmp_path / "data"}"\n[archive]\nurl = "{tmp_path / "archive"}"\n')
    with pytest.raises(ConfigurationError, match="there is no archive in"):
        site.run("many")


def _target(site: Site, name: str) -> s3.Plugin:
    state = str(site.folder / f"{name}.db")
    return s3.Plugin(s3.Config(str(site.folder / name), state=state), lambda uri: None)
