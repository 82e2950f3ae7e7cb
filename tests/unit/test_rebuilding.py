"""The archive and what the journal still holds are one journal: every payload once, in order, checked before it is used."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import threading
from pathlib import Path

import pytest

from gateway.journal import Damage
from gateway.journal.keeping import Keeper
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import Cursor, PermanentError, RawPayload
from spoorway.archiving import Archiving
from spoorway.files import journal_folder
from spoorway.rebuilding import Rebuilding
from storage.archive import Archive, Entry
from storage.objects import open_objects

NOON = 1_768_478_400_000
OPTIONS = Options(min_free_bytes=0, segment_bytes=3_000, block_bytes=1_000)
EVERYTHING = {"max_payloads": 100_000, "max_bytes": 1 << 30}


def payload(number: int) -> RawPayload:
    return RawPayload(f"{number:032x}", NOON + number, "http", "/i", query=f"e=pv&n={number}&x=" + "x" * 200)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.data, self.store, self.room = folder / "data", folder / "store", folder / "room"
        self.archive = Archive(open_objects(str(self.store)))
        self.told: list[str] = []

    @property
    def journal(self) -> Path:
        return journal_folder(self.data)

    def fill(self, first: int, payloads: int, *lanes: str) -> None:
        """Into one lane, or by turns into several; sealed but for the newest segment."""

        async def run() -> None:
            writers = [FileWriter.open(self.journal, OPTIONS) for _ in range(max(1, len(lanes)))]
            for start in range(first, first + payloads, 8):
                writer = writers[start // 8 % len(writers)]
                await writer.append_all([payload(n) for n in range(start, min(start + 8, first + payloads))])
            for writer in writers:
                Keeper(writer).housekeep(now_ms=0, stored=[{}], pause=lambda _: False)
            for writer in writers:
                await writer.close()

        asyncio.run(run())

    def copy(self) -> None:
        Archiving(self.data, self.archive, str(self.store), lambda: NOON).step(threading.Event())

    def retire(self, keep: int = 0) -> None:
        """Deletes all but the newest sealed segments of each lane."""
        for lane in self.journal.iterdir():
            every = sorted(lane.glob("*.gz"))
            for path in every[: len(every) - keep]:
                path.unlink()

    def reader(self, *, partial: bool = False) -> Rebuilding:
        shutil.rmtree(self.room, ignore_errors=True)
        self.room.mkdir()
        return Rebuilding(self.archive, self.journal, self.room, self.told.append, partial=partial)

    def entries(self) -> list[Entry]:
        return list(self.archive.entries())

    def damage(self, name: str) -> None:
        body = bytearray((self.store / name).read_bytes())
        body[len(body) // 2] ^= 1
        (self.store / name).write_bytes(body)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def everything(reader: Rebuilding, step: int = 7) -> tuple[list[int | None], Cursor]:
    """Numbers of the payloads, None for a damaged place; and where reading ended."""
    found: list[int | None] = []
    cursor: Cursor = {}
    while True:
        chunk = reader.read(cursor, max_payloads=step)
        if not chunk.items and chunk.cursor == cursor:
            return found, cursor
        assert chunk.items
        found += [None if isinstance(item, Damage) else int(item.id, 16) for item in chunk.items]
        cursor = chunk.cursor


@pytest.mark.parametrize("keep", [0, 2, 100])
@pytest.mark.parametrize("step", [3, 1_000])
def test_every_payload_comes_once_wherever_it_is(bench: Bench, keep: int, step: int) -> None:
    bench.fill(0, 50)
    whole = FileReader(bench.journal).read({}, **EVERYTHING).cursor
    bench.copy()
    bench.retire(keep)
    reader = bench.reader()
    assert reader.missing() == []
    assert set(reader.damaged()) <= {""}
    assert reader.pending({}) == 50
    found, cursor = everything(reader, step)
    assert found == list(range(50))
    assert cursor == whole
    assert (reader.read(cursor).items, reader.pending(cursor)) == ((), 0)
    assert list(bench.room.iterdir()) == []


def test_what_is_sealed_and_plain_at_once_comes_once_and_in_order(bench: Bench) -> None:
    bench.fill(0, 40)
    second = sorted(bench.journal.rglob("*.gz"))[1]
    second.with_suffix("").write_bytes(gzip.decompress(second.read_bytes()))
    second.unlink()  # as before it was sealed, when a later one is
    assert everything(bench.reader())[0] == list(range(40))


def test_one_segment_at_a_time_lies_on_the_disk(bench: Bench) -> None:
    bench.fill(0, 50)
    bench.copy()
    shutil.rmtree(bench.journal)
    reader, cursor, most = bench.reader(), {}, 0  # type: ignore[var-annotated]
    while (chunk := reader.read(cursor, max_payloads=3)).items:
        cursor = chunk.cursor  # type: ignore[assignment]
        most = max(most, sum(path.is_file() for path in bench.room.rglob("*")))
    assert most == 1
    assert sum(position.sequence for position in cursor.values()) >= 40


def test_segments_of_several_lanes_come_in_the_order_of_their_time(bench: Bench) -> None:
    bench.fill(0, 160, "a", "b")
    bench.copy()
    bench.retire()
    found, _ = everything(bench.reader())
    assert sorted(found, key=lambda n: n or 0) == list(range(160))
    # A segment holds eight or sixteen; of two lanes that were written by turns none runs away.
    assert max(abs(number - place) for place, number in enumerate(found[:140]) if number is not None) < 40


def test_what_comes_later_is_read_where_the_rebuild_ended(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    bench.retire(1)
    _, cursor = everything(bench.reader())
    bench.fill(40, 16)
    later = FileReader(bench.journal).read(cursor, **EVERYTHING)
    assert [int(item.id, 16) for item in later.items if isinstance(item, RawPayload)] == list(range(40, 56))


def test_a_damaged_object_is_refused_by_name_before_anything_of_it_is_used(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    bench.retire()
    second = bench.entries()[1]
    bench.damage(second.object)
    reader = bench.reader()
    assert [wrong for wrong in reader.damaged() if wrong] == [bench.archive.wrong(second)]
    assert second.object in bench.archive.wrong(second)
    with pytest.raises(PermanentError, match=second.object):
        everything(reader)


def test_with_partial_what_is_damaged_is_told_as_the_journal_tells_it(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    bench.retire()
    second = bench.entries()[1]
    bench.damage(second.object)
    found, _ = everything(bench.reader(partial=True))
    assert found.count(None) == 1
    lost = set(range(40)) - set(found)
    assert lost <= set(range(second.contents.first_number - 1, second.contents.last_number))
    assert len(bench.told) == 1 and second.object in bench.told[0]


def test_where_the_journal_has_it_whole_nothing_is_fetched(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    for entry in bench.entries():
        (bench.store / entry.object).unlink()
    reader = bench.reader()
    assert reader.archived() == 0
    assert everything(reader)[0] == list(range(40))


def test_where_the_journal_is_damaged_the_archive_has_it_whole(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    path = sorted(bench.journal.rglob("*.gz"))[1]
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    reader = bench.reader()
    assert reader.archived() == 1
    assert everything(reader)[0] == list(range(40))


def test_what_is_gone_on_both_sides_is_told_with_its_numbers(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    bench.retire()
    third = bench.entries()[2]
    lane = third.lane
    (bench.store / f"manifest/{lane}/{third.segment:08d}.json").unlink()
    gone = f"payloads {third.contents.first_number} to {third.contents.last_number} of lane {lane}"
    reader = bench.reader()
    assert [each.partition(" are")[0] for each in reader.missing()] == [gone]
    found, _ = everything(reader)
    assert len(found) == 40 - third.contents.payloads


def test_an_archive_that_ends_too_early_is_told(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    last = bench.entries()[-1]
    bench.retire()
    (bench.store / f"manifest/{last.lane}/{last.segment:08d}.json").unlink()
    (only,) = bench.reader().missing()
    assert only.startswith(f"payloads {last.contents.first_number} to {last.contents.last_number} of lane")
    shutil.rmtree(bench.store)
    (only,) = bench.reader().missing()
    assert only.startswith(f"payloads 1 to {last.contents.last_number} of lane")


def test_an_object_that_is_gone_is_left_out_with_partial_only(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    bench.retire()
    first = bench.entries()[0]
    (bench.store / first.object).unlink()
    assert [wrong for wrong in bench.reader().damaged() if wrong] == [bench.archive.wrong(first)]
    with pytest.raises(PermanentError, match="no such object"):
        everything(bench.reader())
    assert everything(bench.reader(partial=True))[0] == list(range(first.contents.last_number, 40))
    assert len(bench.told) == 1


def test_there_may_be_no_journal_at_all(bench: Bench) -> None:
    bench.fill(0, 40)
    bench.copy()
    last = bench.entries()[-1].contents.last_number
    shutil.rmtree(bench.data)
    reader = bench.reader()
    assert not reader.empty()
    assert reader.pending({}) == last
    assert everything(reader)[0] == list(range(last))
    shutil.rmtree(bench.store)
    assert bench.reader().empty()
