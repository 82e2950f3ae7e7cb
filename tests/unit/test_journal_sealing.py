from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from gateway.journal.disk import DISK, Disk
from gateway.journal.lines import encode
from gateway.journal.sealing import SealedSegment, seal, sealed_size
from protocol.seams import RawPayload


def segment(folder: Path, lines: int = 40) -> tuple[Path, bytes]:
    data = b"".join(encode(RawPayload(f"{n:032x}", n, "http", "/i", body=b"%d" % n * 30), n) for n in range(1, lines + 1))
    path = folder / "00000001.ndjson"
    path.write_bytes(data)
    return path, data


def no_pause(_: float) -> bool:
    return False


def sealed(folder: Path, lines: int = 40, block_bytes: int = 1_000) -> tuple[Path, bytes]:
    path, data = segment(folder, lines)
    assert seal(path, DISK, block_bytes=block_bytes, level=4, pause=no_pause)
    return folder / "00000001.ndjson.gz", data


def blocks(path: Path) -> list[tuple[bytes, bool]]:
    source, at, found = SealedSegment(path, DISK), 0, list[tuple[bytes, bool]]()
    while at < source.size():
        data, at, whole = source.read(at, source.size())
        found.append((data, whole))
    source.close()
    return found


def test_zcat_gives_the_segment_back(tmp_path: Path) -> None:
    path, data = sealed(tmp_path)
    found = subprocess.run(["zcat", path], capture_output=True, check=True)
    assert found.stdout == data
    assert found.stderr == b""
    assert [json.loads(line)["n"] for line in found.stdout.splitlines()] == list(range(1, 41))


def test_pythons_gzip_gives_the_segment_back(tmp_path: Path) -> None:
    path, data = sealed(tmp_path)
    assert gzip.decompress(path.read_bytes()) == data


def test_the_plain_file_is_gone_and_nothing_else_is_left(tmp_path: Path) -> None:
    path, _ = sealed(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_sealed_file_keeps_the_time_of_the_last_write(tmp_path: Path) -> None:
    path, _ = segment(tmp_path)
    before = path.stat().st_mtime_ns
    seal(path, DISK, block_bytes=1_000, level=1, pause=no_pause)
    assert (tmp_path / "00000001.ndjson.gz").stat().st_mtime_ns == before


def test_any_offset_can_be_read(tmp_path: Path) -> None:
    path, data = sealed(tmp_path)
    source = SealedSegment(path, DISK)
    assert source.size() == len(data) == sealed_size(path, DISK)
    for offset in range(len(data)):
        block, end, whole = source.read(offset, len(data))
        assert whole
        assert block
        assert block == data[offset:end]
    source.close()


def test_reading_at_an_offset_inflates_one_block_only(tmp_path: Path) -> None:
    path, data = sealed(tmp_path, lines=400)

    class Counting(Disk):
        asked = 0

        def read(self, fd: int, size: int, offset: int) -> bytes:
            self.asked += size
            return super().read(fd, size, offset)

    disk = Counting()
    source = SealedSegment(path, disk)
    opened = disk.asked
    source.read(len(data) // 2, len(data))
    source.close()
    assert 0 < disk.asked - opened < 1_500


def test_blocks_end_where_lines_end(tmp_path: Path) -> None:
    path, data = sealed(tmp_path)
    found = blocks(path)
    assert len(found) > 5
    assert all(block.endswith(b"}\n") for block, _ in found)
    assert b"".join(block for block, _ in found) == data


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_flipped_byte_anywhere_costs_one_block_at_most(tmp_path: Path, mask: int) -> None:
    path, _ = sealed(tmp_path, lines=16)
    whole, good = path.read_bytes(), blocks(path)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        found = blocks(path)
        left = [block for block, ok in found if ok]
        assert [block for block, _ in good if block in left] == left, position
        assert len(left) >= len(good) - 1, position
        assert len(found) - len(left) <= 1, position


def test_a_file_that_was_cut_off_anywhere_says_so(tmp_path: Path) -> None:
    path, _ = sealed(tmp_path, lines=10)
    whole, good = path.read_bytes(), blocks(path)
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        found = blocks(path)
        left = [block for block, ok in found if ok]
        assert left == [block for block, _ in good][: len(left)]
        assert not all(ok for _, ok in found), size


def test_a_pause_that_says_stop_leaves_the_plain_file(tmp_path: Path) -> None:
    path, data = segment(tmp_path)
    assert not seal(path, DISK, block_bytes=1_000, level=1, pause=lambda _: True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == data


def test_sealing_asks_for_three_times_the_time_it_took(tmp_path: Path) -> None:
    path, _ = segment(tmp_path, lines=3_000)
    pauses: list[float] = []
    seal(path, DISK, block_bytes=10_000, level=9, pause=pauses.append)
    assert len(pauses) > 10
    assert sum(pauses) > 0


def test_a_damaged_segment_is_sealed_as_it_is(tmp_path: Path) -> None:
    path, data = segment(tmp_path)
    damaged = data[:1_500] + bytes(700) + data[2_200:]
    path.write_bytes(damaged)
    seal(path, DISK, block_bytes=500, level=1, pause=no_pause)
    assert gzip.decompress((tmp_path / "00000001.ndjson.gz").read_bytes()) == damaged
