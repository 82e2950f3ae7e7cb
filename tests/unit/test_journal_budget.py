"""The budget of the journal: the oldest segments that all have are deleted in time; what somebody still needs is kept, and
then nothing more is taken."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.journal import JournalFull
from gateway.journal.keeping import Keeper
from gateway.journal.lanes import segments
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import Cursor, RawPayload

BUDGET = 40_000
OPTIONS = Options(min_free_bytes=0, max_bytes=BUDGET)


def payload(number: int) -> RawPayload:
    query = "".join(sha256(b"%d %d" % (number, part)).hexdigest() for part in range(14))  # what gzip makes half as long at most
    return RawPayload(f"{number:032x}", 1_700_000_000_000 + number, "http", "/i", query=query)


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def everything(folder: Path) -> Cursor:
    return FileReader(folder).read({}, max_payloads=1_000_000, max_bytes=1 << 30).cursor


def fill(folder: Path, payloads: int, archived: Cursor | None) -> list[int]:
    """Appends so many, with a round of housekeeping before each five; the journal's size after each round.

    archived: None = always up to date, as the target is.
    """
    sizes: list[int] = []

    async def run() -> None:
        writer = FileWriter.open(folder, OPTIONS)
        keeper = Keeper(writer)
        try:
            for number in range(0, payloads, 5):
                stored = everything(folder)
                keeper.housekeep(now_ms=0, stored=[stored, stored if archived is None else archived], pause=lambda _: False)
                sizes.append(used(folder))
                await writer.append_all([payload(each) for each in range(number, number + 5)])
        finally:
            await writer.close()

    asyncio.run(run())
    return sizes


def test_what_all_have_makes_room_before_anything_is_refused(tmp_path: Path) -> None:
    sizes = fill(tmp_path, 200, None)  # several times the budget
    assert max(sizes) <= BUDGET
    assert len(FileReader(tmp_path).read({}).items) > 5
    assert FileReader(tmp_path).pending({}) == 200


def test_an_archive_that_is_down_keeps_the_journal_and_fills_it(tmp_path: Path) -> None:
    with pytest.raises(JournalFull, match="not everybody has stored"):
        fill(tmp_path, 400, {})
    (lane,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert min(segments(lane)[1]) == 1
    assert used(tmp_path) <= BUDGET
    chunk = FileReader(tmp_path).read({}, max_payloads=10_000)
    assert len(chunk.items) == FileReader(tmp_path).pending({})
    taken = len(chunk.items)
    fill(tmp_path, 50, None)  # it is back
    assert FileReader(tmp_path).pending({}) == taken + 50


def test_segments_are_no_larger_than_a_quarter_of_the_budget(tmp_path: Path) -> None:
    fill(tmp_path, 60, None)
    assert all(path.stat().st_size <= BUDGET // 4 for path in tmp_path.rglob("*.ndjson*"))
