"""Disks that are full, over quota or failing: what was acknowledged stays, what is refused leaves no trace, and it goes on."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal import JournalBroken, JournalFull
from gateway.journal.disk import Disk
from gateway.journal.files import FileReader, FileWriter, Keeper, Options
from gateway.journal.lanes import plain, segments
from protocol.seams import PermanentError, RawPayload

MEGABYTE = 1 << 20


def payload(number: int, size: int = 1_000) -> RawPayload:
    return RawPayload(f"{number:032x}", number, "http", "/i", body=b"x" * size)


def numbers(folder: Path) -> list[int]:
    reader = FileReader(folder)
    chunk, found = reader.read({}), list[int]()
    while chunk.items:
        found += [item.received_ms for item in chunk.items if isinstance(item, RawPayload)]
        chunk = reader.read(chunk.cursor)
    reader.close()
    return found


class FailingDisk(Disk):
    """Fails the named call, with the named error, as long as `failing` says so."""

    def __init__(self, call: str, error: int) -> None:
        self.call, self.error, self.failing = call, error, False
        self.partly = False

    def check(self, call: str) -> None:
        if self.failing and call in self.call.split():
            raise OSError(self.error, os.strerror(self.error))

    def open(self, path: Path, flags: int) -> int:
        self.check("open")
        return super().open(path, flags)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if self.failing and self.call == "write" and not self.partly and len(data) > 10:
            self.partly = True  # first a short write, then the error
            return super().write(fd, data[: len(data) // 2], offset)
        self.check("write")
        return super().write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        self.check("truncate")
        super().truncate(fd, size)

    def sync_data(self, fd: int) -> None:
        self.check("sync_data")
        super().sync_data(fd)

    def sync_folder(self, path: Path) -> None:
        self.check("sync_folder")
        super().sync_folder(path)


FAULTS = [
    ("sync_data", errno.EIO, JournalBroken, True),
    ("sync_data", errno.ENOSPC, JournalFull, True),
    ("sync_data truncate", errno.EIO, JournalBroken, True),
    ("write", errno.EIO, JournalBroken, True),
    ("write", errno.ENOSPC, JournalFull, False),
    ("write", errno.EDQUOT, JournalFull, False),
]
OPENING_FAULTS = [
    ("open", errno.EMFILE, JournalBroken, True),
    ("open", errno.ENOSPC, JournalFull, True),
    ("sync_folder", errno.EIO, JournalBroken, True),
]


@pytest.mark.parametrize(
    ("call", "error", "refusal", "given_up", "first"),
    [(*fault, True) for fault in FAULTS + OPENING_FAULTS] + [(*fault, False) for fault in FAULTS],
)
def test_a_failing_disk_refuses_what_waits_and_recovers(
    tmp_path: Path, call: str, error: int, refusal: type[Exception], given_up: bool, first: bool
) -> None:
    async def run() -> None:
        disk = FailingDisk(call, error)
        writer = FileWriter.open(tmp_path, Options(min_free_bytes=0), disk)
        if not first:
            await writer.append(payload(0))
        taken = 0 if first else plain(writer.lane, 1).stat().st_size
        for _ in range(3):  # it stays so for a while
            disk.failing, disk.partly = True, False
            results = await asyncio.gather(*(writer.append(payload(n)) for n in range(10, 15)), return_exceptions=True)
            assert [type(result) for result in results] == [refusal] * 5
            assert writer.accepted() == (0 if first else 1)
            assert numbers(tmp_path) == ([] if first else [0])
            if "truncate" not in call:  # nothing of what was refused is left
                sizes = [plain(writer.lane, number).stat().st_size for number in segments(writer.lane)[0]]
                assert sum(sizes) == taken
        disk.failing = False
        await asyncio.gather(*(writer.append(payload(number)) for number in range(1, 4)))
        assert writer.accepted() == (3 if first else 4)
        expected = [1, 2, 3] if first else [0, 1, 2, 3]
        assert numbers(tmp_path) == expected
        filled = [number for number in segments(writer.lane)[0] if plain(writer.lane, number).stat().st_size]
        assert len(filled) == (2 if given_up and not first else 1)
        assert len(segments(writer.lane)[0]) <= 2  # no pile of empty ones
        await writer.close()
        (writer.lane / "durable").unlink()
        again = FileWriter.open(tmp_path)
        assert again.accepted() == len(expected)
        await again.close()
        assert numbers(tmp_path) == expected

    asyncio.run(run())


def test_what_arrives_while_the_disk_fails_is_refused_too_so_that_no_number_is_missing(tmp_path: Path) -> None:
    class Once(FailingDisk):
        def sync_data(self, fd: int) -> None:
            if self.failing:
                self.failing = False
                late.append(asyncio.run_coroutine_threadsafe(append_late(), loop))
                late[0].result(10)
                raise OSError(errno.EIO, "input/output error")
            super().sync_data(fd)

    late: list[object] = []
    waiting: list[asyncio.Future[None]] = []

    async def append_late() -> None:
        waiting.append(writer.append(payload(2)))

    async def run() -> None:
        nonlocal loop, writer
        loop = asyncio.get_running_loop()
        disk = Once("sync_data", errno.EIO)
        writer = FileWriter.open(tmp_path, Options(min_free_bytes=0), disk)
        disk.failing = True
        results = await asyncio.gather(writer.append(payload(1)), return_exceptions=True)
        results += await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [JournalBroken, JournalBroken]
        await writer.append(payload(3))
        reader = FileReader(tmp_path)
        chunk = reader.read({})
        reader.close()
        assert [position.sequence for position in chunk.cursor.values()] == [1]
        await writer.close()

    loop: asyncio.AbstractEventLoop
    writer: FileWriter
    asyncio.run(run())
    assert numbers(tmp_path) == [3]


def test_under_the_free_space_to_keep_nothing_is_taken(tmp_path: Path) -> None:
    class Filling(Disk):
        free = 10 * MEGABYTE

        def free_bytes(self, path: Path) -> int:
            return self.free

    async def run() -> None:
        disk = Filling()
        writer = FileWriter.open(tmp_path, Options(min_free_bytes=5 * MEGABYTE), disk)
        await writer.append(payload(1))
        disk.free = 5 * MEGABYTE + 1_000
        with pytest.raises(JournalFull):
            await writer.append(payload(2))
        disk.free = 6 * MEGABYTE
        await writer.append(payload(3))
        await writer.close()

    asyncio.run(run())
    assert numbers(tmp_path) == [1, 3]


def test_over_the_quota_nothing_is_taken_until_retention_makes_room(tmp_path: Path) -> None:
    async def run() -> None:
        options = Options(min_free_bytes=0, max_bytes=20_000, segment_bytes=5_000)
        writer, taken = FileWriter.open(tmp_path, options), 0
        with pytest.raises(JournalFull, match="quota"):
            while True:
                await writer.append(payload(taken))
                taken += 1
        assert 15 <= taken <= 17
        assert numbers(tmp_path) == list(range(taken))
        Keeper(writer).housekeep(now_ms=0, stored=[], keep_bytes=0, pause=lambda _: False)
        await writer.append(payload(100))
        await writer.close()

    asyncio.run(run())
    assert numbers(tmp_path)[-1] == 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root; the file size limit below stands in for it")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.slow
def test_a_full_file_system_refuses_keeps_what_it_took_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    async def run() -> list[int]:
        journal, ballast = small_disk / "journal", small_disk / "ballast"
        ballast.write_bytes(bytes(MEGABYTE // 2))
        writer, taken, refused = FileWriter.open(journal, Options(min_free_bytes=0)), list[int](), 0
        for number in range(0, 1_000, 5):
            results = await asyncio.gather(*(writer.append(payload(number + i, 7_000)) for i in range(5)), return_exceptions=True)
            kinds = {type(result) for result in results}
            assert kinds in ({type(None)}, {JournalFull})
            if kinds == {JournalFull}:
                refused += 1
                assert numbers(journal) == taken
                if refused == 3:
                    ballast.unlink()  # room again
                if refused == 6:
                    break
            else:
                taken += range(number, number + 5)
        assert refused == 6
        await writer.close()
        again = FileWriter.open(journal, Options(min_free_bytes=0))  # on the full disk
        assert again.accepted() == len(taken)
        with pytest.raises(JournalFull):
            await again.append(payload(0, 200_000))
        await again.close()
        return taken

    taken = asyncio.run(run())
    assert 100 < len(taken) < 150
    assert numbers(small_disk / "journal") == taken


def test_a_file_that_may_not_grow_gives_way_to_the_next(tmp_path: Path) -> None:
    """The limit on file sizes is a full disk that any user can have (FAT's 4 GiB limit looks the same)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def run() -> list[int]:
        writer, taken = FileWriter.open(tmp_path, Options(min_free_bytes=0)), list[int]()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            for number in range(100):
                try:
                    await writer.append(payload(number))
                    taken.append(number)
                except JournalBroken:
                    pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(segments(writer.lane)[0]) > 4
        await writer.close()
        return taken

    taken = asyncio.run(run())
    assert 90 <= len(taken) < 100
    assert numbers(tmp_path) == taken


def test_a_journal_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(PermanentError, match="cannot be read"):
        FileReader(tmp_path / "journal").read({})


def test_a_failure_after_the_rename_costs_nothing_and_the_name_is_synced_before_the_plain_file_goes(tmp_path: Path) -> None:
    class FailsOnce(Disk):
        def __init__(self) -> None:
            self.calls: list[str] = []
            self.renamed = False

        def rename(self, old: Path, new: Path) -> None:
            super().rename(old, new)
            self.renamed = True

        def sync_folder(self, path: Path) -> None:
            if self.renamed:
                self.renamed = False
                raise OSError(errno.EIO, "input/output error")
            self.calls.append("sync_folder")
            super().sync_folder(path)

        def unlink(self, path: Path) -> None:
            self.calls.append("unlink")
            super().unlink(path)

    async def run() -> None:
        disk = FailsOnce()
        writer = FileWriter.open(tmp_path, Options(min_free_bytes=0), disk)
        await writer.append(payload(1))
        writer.finish_segment()
        keeper = Keeper(writer)
        with pytest.raises(OSError, match="input/output"):
            keeper.housekeep(now_ms=0, stored=[], pause=lambda _: False)
        assert segments(writer.lane) == ([1], [1])
        assert numbers(tmp_path) == [1]
        disk.calls.clear()
        keeper.housekeep(now_ms=0, stored=[], pause=lambda _: False)
        assert disk.calls == ["sync_folder", "unlink", "sync_folder"]
        assert segments(writer.lane) == ([], [1])
        assert numbers(tmp_path) == [1]
        await writer.close()

    asyncio.run(run())
