"""What the gateway's journal may let go of: what every configured target and the archive have, and nothing that one lacks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.journal.keeping import Keeper
from gateway.journal.lanes import segments
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import START, Cursor, RawPayload
from spoorway.config import load
from spoorway.files import archive_file, cursor_file, journal_folder, write_archived, write_cursor
from spoorway.intake import Intake

SMALL = Options(segment_bytes=2_000, min_free_bytes=0, block_bytes=500)
TARGETS = ("sqlite", "lake", "spare")


class Bench:
    """A data folder with three targets and an archive, and a journal of several segments, all of them loaded by nobody."""

    def __init__(self, folder: Path) -> None:
        self.data, self.store = folder / "data", str(folder / "store")
        file = folder / "spoorway.toml"
        more = "".join(f'[storage.targets.{name}]\nuse = "s3"\nurl = "{folder / name}"\n' for name in TARGETS[1:])
        file.write_text(
            f'data = "{self.data}"\n[archive]\nurl = "{self.store}"\n[gateway.transports.http]\nenabled = false\n'
            f"[storage.targets.sqlite]\nenabled = true\n{more}"
        )
        self.intake = Intake(load(file, {}, {}))

    def knows(self, who: str, cursor: Cursor) -> None:
        if who == "archive":
            write_archived(archive_file(self.data), self.store, cursor)
        else:
            write_cursor(cursor_file(self.data, who), cursor)

    def round(self) -> list[int]:
        """Housekeeps once by what `_stored` says; the numbers of the segments that it deleted."""

        async def run() -> list[int]:
            writer = FileWriter.open(journal_folder(self.data), SMALL)
            try:
                stored = self.intake._stored()
                kept = Keeper(writer).housekeep(now_ms=0, stored=stored, keep_bytes=1, pause=lambda _: False)
                return sorted(int(path.name.split(".")[0]) for path in kept.deleted)
            finally:
                await writer.close()

        return asyncio.run(run())

    def fill(self) -> tuple[Cursor, Cursor, list[int]]:
        """(nearly at the end of the first segment, the end of the journal, the numbers of the segments)."""

        async def run() -> Path:
            writer = FileWriter.open(journal_folder(self.data), SMALL)
            for number in range(20):
                await writer.append(RawPayload(f"{number:032x}", number, "http", "/i", body=b"%06d" % number * 50))
            await writer.close()
            return writer.lane

        lane = asyncio.run(run())
        reader = FileReader(journal_folder(self.data))
        behind = reader.read({}, max_payloads=1).cursor
        level = reader.read({}, max_payloads=1_000, max_bytes=1 << 30).cursor
        open_numbers, sealed_numbers = segments(lane)
        assert behind[lane.name].segment == 1 and behind[lane.name] != START
        return behind, level, sorted({*open_numbers, *sealed_numbers})


@pytest.mark.parametrize("last", [*TARGETS, "archive"])
def test_a_segment_goes_when_the_last_of_all_has_it(tmp_path: Path, last: str) -> None:
    """last: who is without a cursor, then behind, then level, while all the others are level."""
    bench = Bench(tmp_path)
    behind, level, numbers = bench.fill()
    everybody = [*TARGETS, "archive"]
    for who in everybody:
        if who != last:
            bench.knows(who, level)
    assert bench.intake._stored() == [{} if who == last else level for who in everybody]
    assert bench.round() == []
    bench.knows(last, behind)
    assert bench.intake._stored() == [behind if who == last else level for who in everybody]
    assert bench.round() == []
    bench.knows(last, level)
    assert bench.intake._stored() == [level] * len(everybody)
    assert bench.round()[:2] == numbers[:2]


def test_an_archive_somewhere_else_has_nothing_of_this_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    _, level, _ = bench.fill()
    for who in TARGETS:
        bench.knows(who, level)
    write_archived(archive_file(bench.data), f"{bench.store}-before", level)
    assert bench.intake._stored() == [level, level, level, {}]
    assert bench.round() == []
