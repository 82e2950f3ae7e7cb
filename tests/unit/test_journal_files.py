"""The journal in files: lanes, rotation, recovery, tailing, sealing while it is read, retention."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.journal import Chunk, Damage, JournalFull
from gateway.journal.disk import Disk
from gateway.journal.files import FileReader, FileWriter, Keeper, Kept, Options, retire
from gateway.journal.lanes import plain, segments
from gateway.journal.lines import encode
from protocol.seams import Cursor, PermanentError, Position, RawPayload

SMALL = Options(segment_bytes=2_000, min_free_bytes=0, block_bytes=500)


def payload(number: int, size: int = 300) -> RawPayload:
    return RawPayload(f"{number:032x}", number, "http", "/i", body=b"%06d" % number * (size // 6))


def write(folder: Path, numbers: range, options: Options = SMALL, disk: Disk | None = None) -> Path:
    """Appends one by one; the lane."""

    async def run() -> Path:
        writer = FileWriter.open(folder, options, disk or Disk())
        for number in numbers:
            await writer.append(payload(number))
        await writer.close()
        return writer.lane

    return asyncio.run(run())


def with_writer(folder: Path, work: Callable[[FileWriter, Keeper], Awaitable[None]], options: Options = SMALL) -> None:
    async def run() -> None:
        writer = FileWriter.open(folder, options)
        try:
            await work(writer, Keeper(writer))
        finally:
            await writer.close()

    asyncio.run(run())


def keep(keeper: Keeper, now_ms: int = 0, stored: tuple[Cursor, ...] = (), **limits: int) -> Kept:
    return keeper.housekeep(now_ms=now_ms, stored=stored, pause=lambda _: False, **limits)


def everything(folder: Path, cursor: Cursor | None = None) -> tuple[list[RawPayload | Damage], Cursor]:
    reader, chunk, found = FileReader(folder), Chunk((), cursor or {}, True), list[RawPayload | Damage]()
    while True:
        chunk = reader.read(chunk.cursor, max_payloads=7)
        found.extend(chunk.items)
        if not chunk.items:
            reader.close()
            return found, chunk.cursor


def names(lane: Path) -> list[str]:
    return sorted(path.name for path in lane.iterdir())


# Lanes.


def test_a_lane_has_a_random_name_of_eight_hex_digits(tmp_path: Path) -> None:
    lanes = {write(tmp_path / str(n), range(1)).name for n in range(5)}
    assert len(lanes) == 5
    assert all(re.fullmatch("[0-9a-f]{8}", lane) for lane in lanes)


def test_a_free_lane_is_taken_again_and_a_held_one_is_not(tmp_path: Path) -> None:
    async def run() -> None:
        first = FileWriter.open(tmp_path)
        second = FileWriter.open(tmp_path)
        assert first.lane != second.lane
        await first.close()
        third = FileWriter.open(tmp_path)
        assert third.lane == first.lane
        await second.close()
        await third.close()

    asyncio.run(run())


def test_opening_creates_the_folders_on_the_way(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "journal", range(1))
    assert everything(tmp_path / "a" / "b" / "journal")[0] == [payload(0)]


def test_a_folder_that_cannot_be_made_is_a_permanent_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PermanentError, match="cannot be opened"):
        FileWriter.open(tmp_path / "file" / "journal")


def test_a_failed_open_leaves_the_lane_free(tmp_path: Path) -> None:
    lane = write(tmp_path, range(1))
    (lane / "durable").rename(lane / "kept")
    (lane / "durable").mkdir()
    with pytest.raises(PermanentError):
        FileWriter.open(tmp_path)
    (lane / "durable").rmdir()
    (lane / "kept").rename(lane / "durable")
    assert write(tmp_path, range(1, 2)) == lane


# Segments.


def test_opening_without_appending_makes_no_segment(tmp_path: Path) -> None:
    for _ in range(3):
        lane = write(tmp_path, range(0))
    assert names(lane) == ["durable", "lock"]


def test_a_restart_begins_a_new_segment(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    lane = write(tmp_path, range(1, 2))
    assert segments(lane) == ([1, 2], [])
    assert everything(tmp_path)[0] == [payload(0), payload(1)]


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    lane = write(tmp_path, range(20))
    assert segments(lane)[0] == [1, 2, 3, 4, 5]
    assert all(plain(lane, number).stat().st_size <= SMALL.segment_bytes for number in segments(lane)[0])
    assert everything(tmp_path)[0] == [payload(number) for number in range(20)]


def test_a_payload_bigger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    big = RawPayload("b" * 32, 1, "http", "/i", body=b"x" * 9_000)

    async def work(writer: FileWriter, _: Keeper) -> None:
        for one in (payload(1), big, payload(2)):
            await writer.append(one)

    with_writer(tmp_path, work)
    assert everything(tmp_path)[0] == [payload(1), big, payload(2)]


def test_one_sync_covers_what_arrived_during_the_last(tmp_path: Path) -> None:
    class Counting(Disk):
        syncs = 0

        def sync_data(self, fd: int) -> None:
            self.syncs += 1
            super().sync_data(fd)

    async def run() -> None:
        disk = Counting()
        writer = FileWriter.open(tmp_path, Options(min_free_bytes=0), disk)
        before = disk.syncs
        await asyncio.gather(*(writer.append(payload(number)) for number in range(1_000)))
        assert disk.syncs - before == 1
        await writer.close()

    asyncio.run(run())


def test_the_future_is_done_only_after_the_sync(tmp_path: Path) -> None:
    class Slow(Disk):
        written, gate = threading.Event(), threading.Event()
        armed = False

        def sync_data(self, fd: int) -> None:
            if self.armed:
                self.written.set()
                assert self.gate.wait(10)
            super().sync_data(fd)

    async def run() -> None:
        disk = Slow()
        writer = FileWriter.open(tmp_path, SMALL, disk)
        await writer.append(payload(0))
        disk.armed = True
        future = writer.append(payload(1))
        await asyncio.to_thread(disk.written.wait, 10)
        assert not future.done()
        assert everything(tmp_path)[0] == [payload(0)]
        disk.gate.set()
        await future
        assert everything(tmp_path)[0] == [payload(0), payload(1)]
        await writer.close()

    asyncio.run(run())


def test_more_than_may_wait_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        writer = FileWriter.open(tmp_path, Options(min_free_bytes=0, waiting_bytes=1_000))
        results = await asyncio.gather(*(writer.append(payload(number)) for number in range(9)), return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 2 + [JournalFull] * 7
        await writer.append(payload(9))
        assert writer.accepted() == 3
        await writer.close()

    asyncio.run(run())
    assert everything(tmp_path)[0] == [payload(0), payload(1), payload(9)]


# Recovery.


def line(number: int, sequence: int) -> bytes:
    return encode(payload(number), sequence)


@pytest.mark.parametrize("record", [True, False], ids=["with the record", "without the record"])
@pytest.mark.parametrize("tail", [line(9, 4)[:-30], line(9, 4)[:-1], bytes(5_000), b"\n", b'{"crc":"'])
def test_a_torn_tail_is_cut_and_its_number_given_again(tmp_path: Path, tail: bytes, record: bool) -> None:
    lane = write(tmp_path, range(3))
    with plain(lane, 1).open("ab") as file:
        file.write(tail)
    if not record:
        (lane / "durable").unlink()
    size = plain(lane, 1).stat().st_size
    write(tmp_path, range(3, 5))
    assert plain(lane, 1).stat().st_size == size - len(tail)
    assert everything(tmp_path)[0] == [payload(number) for number in range(5)]
    assert FileReader(tmp_path).pending({}) == 5


def test_lines_that_were_not_published_yet_are_kept_when_they_are_whole(tmp_path: Path) -> None:
    lane = write(tmp_path, range(3))
    with plain(lane, 1).open("ab") as file:
        file.write(line(3, 4) + line(4, 5)[:-9])
    assert len(everything(tmp_path)[0]) == 3
    write(tmp_path, range(5, 6))
    assert everything(tmp_path)[0] == [payload(number) for number in (0, 1, 2, 3, 5)]


def test_a_damaged_last_line_that_was_acknowledged_is_reported_not_cut(tmp_path: Path) -> None:
    lane = write(tmp_path, range(3))
    data = bytearray(plain(lane, 1).read_bytes())
    data[-20] ^= 1
    plain(lane, 1).write_bytes(data)
    write(tmp_path, range(3, 4))
    found, _ = everything(tmp_path)
    assert [type(item) for item in found] == [RawPayload, RawPayload, Damage, RawPayload]
    assert FileReader(tmp_path).pending({}) == 4


def test_numbers_go_on_when_the_record_is_lost_and_all_is_sealed(tmp_path: Path) -> None:
    async def work(writer: FileWriter, keeper: Keeper) -> None:
        for number in range(20):
            await writer.append(payload(number))
        writer.finish_segment()
        keep(keeper)

    with_writer(tmp_path, work)
    [lane] = tmp_path.iterdir()
    assert segments(lane)[0] == []
    (lane / "durable").unlink()
    assert len(everything(tmp_path)[0]) == 20

    async def look(writer: FileWriter, _: Keeper) -> None:
        assert writer.accepted() == 20

    with_writer(tmp_path, look)


@pytest.mark.parametrize("position", range(0, 59, 4))
def test_a_damaged_record_hides_nothing_after_recovery(tmp_path: Path, position: int) -> None:
    lane = write(tmp_path, range(3))
    record = bytearray((lane / "durable").read_bytes())
    record[position] ^= 1
    (lane / "durable").write_bytes(record)
    assert everything(tmp_path)[0] == []
    write(tmp_path, range(3, 4))
    assert everything(tmp_path)[0] == [payload(number) for number in range(4)]


def test_a_cursor_beyond_a_cut_tail_means_the_end_of_that_segment(tmp_path: Path) -> None:
    lane = write(tmp_path, range(3))
    write(tmp_path, range(3, 5))
    found, _ = everything(tmp_path, {lane.name: Position(1, 1_000_000, 3)})
    assert found == [payload(3), payload(4)]


# Reading.


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_flipped_byte_anywhere_in_a_segment_costs_one_payload_at_most(tmp_path: Path, mask: int) -> None:
    async def work(writer: FileWriter, _: Keeper) -> None:
        for number in range(3):
            await writer.append(payload(number, 60))
        await writer.append(payload(3, 60))

    with_writer(tmp_path, work, Options(min_free_bytes=0))
    [lane] = tmp_path.iterdir()
    path = plain(lane, 1)
    data = path.read_bytes()
    given = [payload(number, 60) for number in range(4)]
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        found, cursor = everything(tmp_path)
        left = [item for item in found if isinstance(item, RawPayload)]
        lost = [item.data for item in found if isinstance(item, Damage)]
        assert left == [one for one in given if one in left], position
        assert (len(left), len(lost)) == (4, 0) if data[position : position + 1] == b"\n" else (3, 1), position
        assert all(piece in damaged for piece in lost)
        assert FileReader(tmp_path).pending(cursor) == 0
        assert everything(tmp_path, cursor)[0] == []


def test_a_damage_stands_in_its_place_and_is_reported_once(tmp_path: Path) -> None:
    lane = write(tmp_path, range(5))
    data = plain(lane, 1).read_bytes()
    starts = [match.start() for match in re.finditer(rb'\{"crc"', data)]
    plain(lane, 1).write_bytes(data[: starts[2]] + b"#" * (starts[3] - starts[2]) + data[starts[3] :])
    reader = FileReader(tmp_path)
    first = reader.read({}, max_payloads=3)
    assert [type(item) for item in first.items] == [RawPayload, RawPayload, Damage]
    damage = first.items[2]
    assert isinstance(damage, Damage)
    assert damage.data == b"#" * (starts[3] - starts[2])
    assert (damage.lane, damage.position) == (lane.name, first.cursor[lane.name])
    assert reader.read(first.cursor).items == (payload(3), payload(4))
    reader.close()


def test_a_long_damage_comes_in_pieces_and_ends_at_the_next_line(tmp_path: Path) -> None:
    lane = write(tmp_path, range(2), Options(min_free_bytes=0))
    data = plain(lane, 1).read_bytes()
    hole = bytes(3_000_000)
    first = len(data) // 2
    plain(lane, 1).write_bytes(data[:100] + hole + data[100:])
    (lane / "durable").unlink()
    write(tmp_path, range(2, 3))
    found, cursor = everything(tmp_path)
    damages = [item for item in found if isinstance(item, Damage)]
    assert [item for item in found if isinstance(item, RawPayload)] == [payload(1), payload(2)]
    assert b"".join(damage.data for damage in damages) == data[:100] + hole + data[100:first]
    assert max(len(damage.data) for damage in damages) <= 1 << 20
    assert cursor[lane.name].sequence == 3


def test_a_sector_that_cannot_be_read_costs_what_lies_on_it(tmp_path: Path) -> None:
    write(tmp_path, range(60), Options(min_free_bytes=0))

    class BadSector(Disk):
        def read(self, fd: int, size: int, offset: int) -> bytes:
            if offset < 8_192 + 4_096 and offset + size > 8_192:
                raise OSError(5, "input/output error")
            return super().read(fd, size, offset)

    reader = FileReader(tmp_path, BadSector())
    found = reader.read({}).items
    reader.close()
    left = [item for item in found if isinstance(item, RawPayload)]
    assert len(found) - len(left) == 1
    assert 60 - 4_096 // 400 - 3 <= len(left) < 60
    assert left == [payload(number) for number in range(60) if payload(number) in left]


def test_asking_again_for_nothing_new_touches_the_disk_once_a_lane(tmp_path: Path) -> None:
    write(tmp_path, range(3))

    class Counting(Disk):
        calls = 0

        def open(self, path: Path, flags: int) -> int:
            self.calls += 1
            return super().open(path, flags)

        def read(self, fd: int, size: int, offset: int) -> bytes:
            self.calls += 1
            return super().read(fd, size, offset)

    disk = Counting()
    reader = FileReader(tmp_path, disk)
    cursor = reader.read({}).cursor
    before = disk.calls
    for _ in range(10):
        assert reader.read(cursor).items == ()
    assert disk.calls - before == 10
    reader.close()


def test_a_reader_follows_rotation_sealing_and_retention_while_it_reads(tmp_path: Path) -> None:
    async def work(writer: FileWriter, keeper: Keeper) -> None:
        reader, cursor, found = FileReader(tmp_path), dict[str, Position](), list[object]()
        for number in range(100):
            await writer.append(payload(number))
            if number % 3 == 0:
                chunk = reader.read(cursor, max_payloads=2 + number % 4)
                found += chunk.items
                cursor = dict(chunk.cursor)
            if number % 10 == 0:
                keep(keeper, stored=(cursor,), keep_bytes=3_000)
        while chunk.items:
            chunk = reader.read(cursor)
            found += chunk.items
            cursor = dict(chunk.cursor)
        reader.close()
        assert found == [payload(number) for number in range(100)]
        assert segments(writer.lane)[1][0] > 1

    with_writer(tmp_path, work)


@pytest.mark.parametrize("gone", [(1,), (1, 2), (2,)])
def test_segments_that_are_gone_are_passed_over(tmp_path: Path, gone: tuple[int, ...]) -> None:
    lane = write(tmp_path, range(12))
    first = FileReader(tmp_path).read({}, max_payloads=1)
    kept = [n for n in segments(lane)[0] if n not in gone]
    for number in gone:
        plain(lane, number).unlink()
    found = [item.received_ms for item in everything(tmp_path, first.cursor)[0] if isinstance(item, RawPayload)]
    assert found == [number for number in range(1, 12) if 1 + number // 4 in kept]


def test_many_readers_read_the_same(tmp_path: Path) -> None:
    write(tmp_path, range(50))
    readers = [FileReader(tmp_path) for _ in range(20)]
    cursors: list[Cursor] = [{} for _ in readers]
    found: list[list[object]] = [[] for _ in readers]
    for turn in range(60):
        for index, reader in enumerate(readers):
            chunk = reader.read(cursors[index], max_payloads=1 + (index + turn) % 5)
            found[index] += chunk.items
            cursors[index] = chunk.cursor
    assert found == [[payload(number) for number in range(50)]] * 20
    for reader in readers:
        reader.close()


# Keeping.


def test_finished_segments_are_sealed_and_the_open_one_is_not(tmp_path: Path) -> None:
    async def work(writer: FileWriter, keeper: Keeper) -> None:
        for number in range(10):
            await writer.append(payload(number))
        assert [path.name for path in keep(keeper).sealed] == ["00000001.ndjson.gz", "00000002.ndjson.gz"]
        assert segments(writer.lane) == ([3], [1, 2])
        assert everything(tmp_path)[0] == [payload(number) for number in range(10)]
        assert keep(keeper) == Kept((), ())

    with_writer(tmp_path, work)


def test_an_idle_segment_is_finished_when_it_is_old_enough(tmp_path: Path) -> None:
    async def work(writer: FileWriter, keeper: Keeper) -> None:
        await writer.append(payload(0))
        assert keep(keeper, now_ms=1_000).sealed == ()
        assert keep(keeper, now_ms=1_000 + SMALL.segment_age_ms - 1).sealed == ()
        assert len(keep(keeper, now_ms=1_000 + SMALL.segment_age_ms).sealed) == 1
        await writer.append(payload(1))
        assert segments(writer.lane) == ([2], [1])
        assert everything(tmp_path)[0] == [payload(0), payload(1)]

    with_writer(tmp_path, work)


def test_a_lane_whose_writer_is_gone_is_recovered_at_once_and_sealed_when_nobody_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = FileWriter.open(tmp_path), FileWriter.open(tmp_path, SMALL)
        await first.append(payload(1))
        with plain(first.lane, 1).open("ab") as file:
            file.write(line(2, 2) + b"torn")
        keep(Keeper(second), now_ms=10**13)
        assert everything(tmp_path)[0] == [payload(1)]  # its writer is there
        await first.close()
        assert keep(Keeper(second), now_ms=0).sealed == ()
        assert everything(tmp_path)[0] == [payload(1), payload(2)]
        assert len(keep(Keeper(second), now_ms=10**13).sealed) == 1
        assert keep(Keeper(second), now_ms=10**13) == Kept((), ())
        assert everything(tmp_path)[0] == [payload(1), payload(2)]
        await second.close()

    asyncio.run(run())


def test_a_lane_in_good_order_is_left_to_the_writer_that_comes_back(tmp_path: Path) -> None:
    class NoLock(Disk):
        def open(self, path: Path, flags: int) -> int:
            assert path != first.lane / "lock"
            return super().open(path, flags)

    async def run() -> None:
        nonlocal first
        first, second = FileWriter.open(tmp_path), FileWriter.open(tmp_path, SMALL)
        await first.append(payload(1))
        await first.close()
        second.disk = NoLock()
        keep(Keeper(second), now_ms=0)
        await second.close()

    first: FileWriter
    asyncio.run(run())


def test_sealing_that_was_stopped_is_done_later(tmp_path: Path) -> None:
    async def work(writer: FileWriter, keeper: Keeper) -> None:
        for number in range(10):
            await writer.append(payload(number))
        assert keeper.housekeep(now_ms=0, stored=[], pause=lambda _: True).sealed == ()
        assert len(keep(keeper).sealed) == 2

    with_writer(tmp_path, work)


def test_closing_stops_the_sealing_and_waits_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        writer = FileWriter.open(tmp_path, SMALL)
        for number in range(40):
            await writer.append(payload(number))
        sealing, results = threading.Event(), list[Kept]()

        def pause(_: float) -> bool:
            sealing.set()
            while not writer.closing:
                os.sched_yield()
            return False

        keeper = Keeper(writer)
        thread = threading.Thread(target=lambda: results.append(keeper.housekeep(now_ms=0, stored=[], pause=pause)))
        thread.start()
        await asyncio.to_thread(sealing.wait)
        await writer.close()
        thread.join()
        assert results[0].sealed == ()
        assert not list(writer.lane.glob("*.tmp"))

    asyncio.run(run())
    assert len(everything(tmp_path)[0]) == 40


def sealed_journal(folder: Path, lanes: int = 1) -> list[Path]:
    """Lanes with the segments 1 to 4 sealed and 5 open, four payloads each."""

    async def run() -> list[Path]:
        writers = [FileWriter.open(folder, SMALL) for _ in range(lanes)]
        for writer in writers:
            for number in range(18):
                await writer.append(payload(number))
            keep(Keeper(writer))
        for writer in writers:
            await writer.close()
        return [writer.lane for writer in writers]

    return asyncio.run(run())


def deleted(folder: Path, stored: list[Cursor], **limits: int | None) -> list[int]:
    given = {"older_than_ms": None, "max_bytes": None, "now_ms": 0} | limits
    return [int(path.name[:8]) for path in retire(folder, stored=stored, **given)]


def test_retention_deletes_by_size_the_oldest_first(tmp_path: Path) -> None:
    [lane] = sealed_journal(tmp_path)
    total = sum(path.stat().st_size for path in lane.glob("*.ndjson*"))
    assert deleted(tmp_path, [], max_bytes=total) == []
    assert deleted(tmp_path, [], max_bytes=total - 1) == [1]
    assert deleted(tmp_path, [], max_bytes=0) == [2, 3, 4]
    assert segments(lane) == ([5], [])


def test_retention_deletes_by_age(tmp_path: Path) -> None:
    [lane] = sealed_journal(tmp_path)
    for number in range(1, 5):
        os.utime(lane / f"{number:08d}.ndjson.gz", ns=(number * 10**12, number * 10**12))
    assert deleted(tmp_path, [], older_than_ms=1_000_000, now_ms=3_500_000) == [1, 2]
    assert deleted(tmp_path, []) == []


def test_retention_waits_for_every_cursor(tmp_path: Path) -> None:
    [lane] = sealed_journal(tmp_path)
    reader = FileReader(tmp_path)
    nine, twelve = reader.read({}, max_payloads=9).cursor, reader.read({}, max_payloads=12).cursor
    reader.close()
    assert deleted(tmp_path, [{}, twelve], max_bytes=0) == []
    assert deleted(tmp_path, [twelve, nine], max_bytes=0) == [1, 2]
    assert deleted(tmp_path, [twelve], max_bytes=0) == [3]  # it stands at the end of the third
    assert everything(tmp_path, twelve)[0] == [payload(number) for number in range(12, 18)]
    assert lane.exists()


def test_retention_keeps_the_newest_filled_segment_of_a_lane(tmp_path: Path) -> None:
    async def work(writer: FileWriter, keeper: Keeper) -> None:
        for number in range(8):
            await writer.append(payload(number))
        writer.finish_segment()
        (plain(writer.lane, 9)).touch()  # as a crash before the first sync leaves it
        assert [path.name for path in keep(keeper, keep_bytes=0).deleted] == ["00000001.ndjson.gz"]

    with_writer(tmp_path, work)
    [lane] = tmp_path.iterdir()
    (lane / "durable").unlink()

    async def look(writer: FileWriter, _: Keeper) -> None:
        assert writer.accepted() == 8
        await writer.append(payload(8))
        assert segments(writer.lane) == ([9, 10], [2])

    with_writer(tmp_path, look)
    assert everything(tmp_path)[0] == [payload(number) for number in range(4, 9)]


def test_one_lane_that_is_needed_does_not_keep_another(tmp_path: Path) -> None:
    first, second = sealed_journal(tmp_path, lanes=2)
    ahead = {second.name: Position(5, 0, 16)}
    assert deleted(tmp_path, [ahead], max_bytes=0) == [1, 2, 3, 4]
    assert segments(first)[1] == [1, 2, 3, 4]


def test_readers_and_writers_give_every_descriptor_back(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/dev/fd"))

    sealed_journal(tmp_path, lanes=2)
    before = count()
    for _ in range(3):
        write(tmp_path, range(2))
        everything(tmp_path)
        FileReader(tmp_path).read({})
    assert count() == before
