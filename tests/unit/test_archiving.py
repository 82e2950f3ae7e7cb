"""The archiver: what is sealed is copied once, listed when it is there, and kept in the journal until then."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.journal.keeping import Keeper
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import Cursor, PermanentError, RawPayload, TransientError
from spoorway.archiving import Archiving, contents, waiting
from spoorway.cli import main
from spoorway.files import archive_file, journal_folder, read_archived
from storage.archive import Archive, DamagedObject
from storage.objects import open_objects
from tests.faults.faulty_objects import Faulty

DAY_MS = 86_400_000
NOON = 1_768_478_400_000  # 2026-01-15 12:00
OPTIONS = Options(min_free_bytes=0, segment_bytes=3_000, block_bytes=1_000)


def payload(number: int, at_ms: int = NOON) -> RawPayload:
    return RawPayload(f"{number:032x}", at_ms + number, "http", "/i", query=f"e=pv&n={number}&x=" + "x" * 200)


def fill(data: Path, payloads: int, *, first: int = 0, at_ms: int = NOON, stored: list[Cursor] | None = None) -> list[Path]:
    """Appends so many payloads in one start and seals all but the newest segment; what retention deleted."""
    deleted: list[Path] = []

    async def run() -> None:
        writer = FileWriter.open(journal_folder(data), OPTIONS)
        for start in range(first, first + payloads, 8):
            await writer.append_all([payload(number, at_ms) for number in range(start, min(start + 8, first + payloads))])
        keep = None if stored is None else 0
        kept = Keeper(writer).housekeep(now_ms=0, stored=stored or [{}], keep_bytes=keep, pause=lambda _: False)
        deleted.extend(kept.deleted)
        await writer.close()

    asyncio.run(run())
    return deleted


class Bench:
    def __init__(self, folder: Path) -> None:
        self.data, self.store = folder / "data", folder / "store"
        self.objects = Faulty(open_objects(str(self.store)))
        self.archive = Archive(self.objects)  # type: ignore[arg-type]

    def archiving(self) -> Archiving:
        return Archiving(self.data, self.archive, str(self.store), lambda: NOON)

    def step(self) -> int:
        return self.archiving().step(threading.Event())

    def archived(self) -> Cursor:
        return read_archived(archive_file(self.data), str(self.store)) or {}

    def sealed(self) -> list[Path]:
        return sorted(journal_folder(self.data).rglob("*.gz"))

    def listed(self) -> list[str]:
        return [entry.object for entry in self.archive.entries()]

    def stored(self) -> list[str]:
        return [found.name for found in open_objects(str(self.store)).list("raw/")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_sealed_segments_are_copied_listed_and_recorded(bench: Bench) -> None:
    fill(bench.data, 40)
    every = bench.sealed()
    assert len(every) > 3
    assert bench.step() == len(every)
    entries = list(bench.archive.entries())
    assert bench.stored() == bench.listed()
    assert [entry.segment for entry in entries] == list(range(1, len(every) + 1))
    for entry, path in zip(entries, every, strict=True):
        assert entry.object == f"raw/dt=2026-01-15/{path.parent.name}-{path.name}"
        assert (bench.store / entry.object).read_bytes() == path.read_bytes()
        assert bench.archive.wrong(entry) == ""
    assert sum(entry.contents.payloads for entry in entries) == entries[-1].contents.last_number
    assert (entries[0].contents.first_ms, entries[0].contents.first_number) == (NOON, 1)
    assert all(b.contents.first_number == a.contents.last_number + 1 for a, b in pairwise(entries))
    assert list(waiting(journal_folder(bench.data), bench.archived())) == []
    assert bench.step() == 0


def test_what_is_sealed_and_plain_at_once_waits_until_the_plain_file_is_gone(bench: Bench) -> None:
    fill(bench.data, 40)
    _, second, *rest = bench.sealed()
    plain = second.with_suffix("")
    plain.write_bytes(gzip.decompress(second.read_bytes()))
    assert bench.step() == 1
    assert [entry.segment for entry in bench.archive.entries()] == [1]
    plain.unlink()
    assert bench.step() == len(rest) + 1


def test_the_day_is_that_of_the_earliest_payload_of_the_segment(bench: Bench) -> None:
    fill(bench.data, 30)
    fill(bench.data, 30, first=30, at_ms=NOON + DAY_MS)
    bench.step()
    days = {name.split("/")[1] for name in bench.stored()}
    assert days == {"dt=2026-01-15", "dt=2026-01-16"}


def test_what_a_segment_holds_is_counted_around_its_damage(bench: Bench) -> None:
    fill(bench.data, 40)
    path = bench.sealed()[0]
    whole = contents(path)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0x40
    path.write_bytes(body)
    damaged = contents(path)
    assert damaged.damaged == 1
    assert 0 < damaged.payloads < whole.payloads
    assert (damaged.bytes, damaged.last_number) == (whole.bytes, whole.last_number)
    bench.step()
    assert next(bench.archive.entries()).contents == damaged


def test_retention_waits_for_an_archive_that_is_down(bench: Bench) -> None:
    fill(bench.data, 40)
    target = FileReader(journal_folder(bench.data)).read({}, max_payloads=1_000).cursor
    bench.objects.before = {"put_new"}
    with pytest.raises(TransientError):
        bench.step()
    assert fill(bench.data, 1, first=40, stored=[target, bench.archived()]) == []
    bench.objects.before = set()
    held = len(bench.sealed())
    assert bench.step() == held
    assert len(fill(bench.data, 1, first=41, stored=[target, bench.archived()])) >= held - 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["put_new", "sha256", "get_with_etag"])
def test_trouble_at_any_call_lists_nothing_that_is_not_there_and_nothing_twice(bench: Bench, call: str, when: str) -> None:
    fill(bench.data, 40)
    setattr(bench.objects, when, {call})
    for _ in range(3):
        with pytest.raises(TransientError):
            bench.step()
        assert set(bench.listed()) <= set(bench.stored())
    setattr(bench.objects, when, set())
    bench.step()
    assert bench.listed() == bench.stored()
    assert len(bench.listed()) == len(bench.sealed())
    assert [bench.archive.wrong(entry) for entry in bench.archive.entries()] == [""] * len(bench.sealed())


def test_a_lane_that_cannot_be_read_does_not_keep_the_others_waiting(bench: Bench) -> None:
    fill(bench.data, 40)
    (bad,) = journal_folder(bench.data).iterdir()
    lock = bad / "lock"
    good = bad.with_name("ffffffff" if bad.name != "ffffffff" else "fffffffe")
    shutil.copytree(bad, good)
    assert lock.exists()
    first = min(bad, good)
    listed_elsewhere = Archive(open_objects(str(bench.store)))
    other = sorted(max(bad, good).glob("*.gz"))[1]
    listed_elsewhere.add(first.name, 1, other, contents(other))
    with pytest.raises(PermanentError, match="lists another segment"):
        bench.step()
    lanes = {entry.lane for entry in bench.archive.entries()}
    assert lanes == {bad.name, good.name}
    assert set(bench.archived()) == {max(bad, good).name}


def test_two_archivers_at_once_list_everything_once(bench: Bench) -> None:
    fill(bench.data, 60)
    gate = threading.Barrier(4)
    failed: list[BaseException] = []

    def run() -> None:
        gate.wait(30)
        try:
            Archiving(bench.data, Archive(open_objects(str(bench.store))), str(bench.store), lambda: NOON).step(threading.Event())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert bench.listed() == bench.stored()
    assert len(bench.listed()) == len(bench.sealed())


def test_a_copy_that_was_damaged_on_the_way_is_not_listed(bench: Bench) -> None:
    fill(bench.data, 30)
    name = f"raw/dt=2026-01-15/{bench.sealed()[0].parent.name}-{bench.sealed()[0].name}"
    open_objects(str(bench.store)).put(name, b"half")
    bench.step()  # nobody lists that one: it is put right
    assert (bench.store / name).read_bytes() == bench.sealed()[0].read_bytes()
    assert [bench.archive.wrong(entry) for entry in bench.archive.entries()] == [""] * len(bench.sealed())


def test_what_is_listed_is_never_changed_by_adding(bench: Bench) -> None:
    fill(bench.data, 30)
    bench.step()
    first, second = bench.sealed()[:2]
    with pytest.raises(PermanentError, match=r"00000001\.json lists another segment"):
        bench.archive.add(first.parent.name, 1, second, contents(second))
    assert next(bench.archive.entries()).contents == contents(first)


def test_a_changed_segment_takes_the_place_of_the_listed_one(bench: Bench) -> None:
    fill(bench.data, 30)
    bench.step()
    first, second = bench.sealed()[:2]
    before = bench.listed()
    bench.archive.replace(first.parent.name, 1, second, contents(second))
    assert bench.listed() == before == bench.stored()
    assert (bench.store / before[0]).read_bytes() == second.read_bytes()
    with pytest.raises(PermanentError, match="no such segment"):
        bench.archive.replace("00000000", 1, second, contents(second))


def test_a_damaged_object_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    fill(bench.data, 30)
    bench.step()
    entry = next(bench.archive.entries())
    body = bytearray((bench.store / entry.object).read_bytes())
    body[100] ^= 1
    (bench.store / entry.object).write_bytes(body)
    assert entry.object in bench.archive.wrong(entry)
    with pytest.raises(DamagedObject, match=entry.object):
        bench.archive.fetch(entry, tmp_path / "out")
    (bench.store / entry.object).unlink()
    assert "is gone" in bench.archive.wrong(entry)


def test_an_archive_that_was_emptied_is_filled_again(bench: Bench) -> None:
    fill(bench.data, 40)
    every = bench.step()
    shutil.rmtree(bench.store)
    assert bench.step() == every
    assert bench.listed() == bench.stored()


def test_a_record_that_was_lost_costs_no_second_copy(bench: Bench) -> None:
    fill(bench.data, 40)
    bench.step()
    archive_file(bench.data).unlink()
    bench.objects.calls.clear()
    assert bench.step() == len(bench.sealed())
    assert "put_new" not in {call for call, _ in bench.objects.calls}


def test_another_archive_begins_from_the_start(bench: Bench, tmp_path: Path) -> None:
    fill(bench.data, 40)
    bench.step()
    bench.store = tmp_path / "other"
    assert bench.archived() == {}
    bench.archive = Archive(open_objects(str(bench.store)))
    assert bench.step() == len(bench.sealed())


def test_the_loop_says_what_is_wrong_and_goes_on_when_it_is_right(bench: Bench) -> None:
    fill(bench.data, 40)
    bench.objects.before = {"put_new"}
    archiving, stop, finish = bench.archiving(), threading.Event(), Soon()
    finish.then = lambda: setattr(bench.objects, "before", set())
    archiving.run(stop, finish)
    status = archiving.status
    assert (status.state, status.message, status.pending, status.oldest_ms) == ("finished", "", 0, 0)
    assert (status.segments, status.archived_ms) == (len(bench.sealed()), NOON)
    assert (status.error, status.error_ms, status.errors) == ("put_new failed", NOON, {"transient": 1})
    assert finish.waited[0] == 1.0
    bench.objects.before = {"get_with_etag"}
    again = bench.archiving()
    again.run(threading.Event(), threading.Event(), once=True)
    assert (again.status.state, again.status.message) == ("failed", "get_with_etag failed")


def test_what_nobody_foresaw_is_told_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bench.data, 40)
    monkeypatch.setattr(bench.archive, "add", lambda *_: 1 / 0)
    archiving, finish = bench.archiving(), Soon()
    finish.then = monkeypatch.undo
    archiving.run(threading.Event(), finish)
    assert (archiving.status.segments, archiving.status.errors) == (len(bench.sealed()), {"permanent": 1})
    assert "ZeroDivisionError" in archiving.status.error


class Soon(threading.Event):
    """Nobody waits: after the first wait something changes, after the third it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []
        self.then = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        self.then()
        if len(self.waited) == 3:
            self.set()
        return self.is_set()


def test_other_programs_read_the_files(bench: Bench) -> None:
    fill(bench.data, 40)
    bench.step()
    lines = [
        json.loads(line) for name in bench.stored() for line in gzip.decompress((bench.store / name).read_bytes()).splitlines()
    ]
    assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))
    manifest = [json.loads(path.read_bytes()) for path in sorted(bench.store.glob("manifest/*/*.json"))]
    assert sum(entry["payloads"] for entry in manifest) == len(lines)


def verified(data: Path, *more: str) -> int:
    config = data.parent / "archive.toml"
    config.write_text(f'[archive]\nurl = "{data.parent / "store"}"\n')
    return main(["archive", "verify", "--data", str(data), "--config", str(config), *more])


def test_verify_refuses_a_folder_that_is_gone_or_mistyped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path)
    fill(bench.data, 40)
    bench.archiving().step(threading.Event())
    assert verified(bench.data) == 0
    bench.store.rename(tmp_path / "store.gone")
    capsys.readouterr()
    assert verified(bench.data) == 1
    assert verified(bench.data, "--archive", str(tmp_path / "typo")) == 1
    said = capsys.readouterr()
    assert [line.split(";")[0] for line in said.err.splitlines()] == [
        f"spoorway: archive: there is no folder {tmp_path / name}" for name in ("store", "typo")
    ]
    assert said.out == "" and not (tmp_path / "typo").exists()


def test_verify_knows_what_was_archived_from_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path)
    fill(bench.data, 40)
    bench.archiving().step(threading.Event())
    whole = list(bench.archive.entries())
    (tmp_path / "store" / "manifest" / whole[-1].lane / f"{whole[-1].segment:08d}.json").unlink()
    assert verified(bench.data) == 1
    said = capsys.readouterr().out
    assert f"lane {whole[-1].lane}: archived up to segment {whole[-1].segment}" in said and "1 wrong" in said
    shutil.rmtree(bench.store)
    bench.store.mkdir()
    assert verified(bench.data, "--json") == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["segment"] for one in told[:-1]] == [whole[-1].segment]
    assert told[-1] == {"segments": 0, "payloads": 0, "wrong": 1, "unlisted": []}
