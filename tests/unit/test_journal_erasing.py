"""Single payloads taken out of the journal: what is left reads as before, at the same places."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal import Chunk, Damage
from gateway.journal.disk import Disk
from gateway.journal.erasing import Cut, Rewritten, ask_to_seal, checksum, ends, rewrite, sealed_segments
from gateway.journal.files import FileReader, FileWriter, Keeper, Options
from gateway.journal.lanes import FINISH, lanes, sealed, segments
from gateway.journal.lines import decode, encode, encode_within
from protocol.seams import Cursor, PermanentError, RawPayload

SMALL = Options(segment_bytes=4_000, min_free_bytes=0, block_bytes=900)


def payload(number: int) -> RawPayload:
    return RawPayload(
        f"{number:032x}", number, "http", "/i", query=f"e=pv&uid=u{number % 3}", ip="10.0.0.1", body=b"x" * (number % 50)
    )


def write(folder: Path, count: int = 60) -> None:
    async def run() -> None:
        writer = FileWriter.open(folder, SMALL)
        for number in range(count):
            await writer.append(payload(number))
        await writer.close()

    asyncio.run(run())


def everything(folder: Path) -> list[tuple[RawPayload | Damage, Cursor]]:
    """Each item and the cursor after it."""
    reader, found = FileReader(folder), list[tuple[RawPayload | Damage, Cursor]]()
    chunk = Chunk((), {}, True)
    while True:
        chunk = reader.read(chunk.cursor, max_payloads=1)
        if not chunk.items:
            return found
        found.append((chunk.items[0], chunk.cursor))


def hers(line: bytes) -> bool:
    return b"uid=u1" in line


def cut_hers(found: RawPayload) -> Cut | None:
    if not found.query.endswith("uid=u1"):
        return None
    return Cut(
        RawPayload(found.id, found.received_ms, found.transport, found.path, erased=(0,)), 1, 0, ((found.id, found.received_ms),)
    )


def erase(folder: Path, disk: Disk | None = None) -> list[Rewritten]:
    until = ends(folder)
    assert ask_to_seal(folder, until, SMALL) == []
    done = [rewrite(lane, n, hers, cut_hers, lambda _: None, SMALL, disk or Disk()) for lane, n in sealed_segments(folder, until)]
    return [one for one in done if one is not None]


def test_every_other_payload_and_every_place_is_what_it_was(tmp_path: Path) -> None:
    write(tmp_path)
    before = everything(tmp_path)
    done = erase(tmp_path)
    after = everything(tmp_path)
    assert len(done) > 1 and sum(one.payloads for one in done) == 20
    assert [cursor for _, cursor in after] == [cursor for _, cursor in before]
    for number, (found, _) in enumerate(after):
        whole = payload(number)
        gone = RawPayload(whole.id, whole.received_ms, "http", "/i", erased=(0,))
        assert found == (gone if number % 3 == 1 else whole)


def test_the_files_are_ordinary_gzip_and_hold_nothing_of_what_was_erased(tmp_path: Path) -> None:
    write(tmp_path)
    done = erase(tmp_path)
    for one in done:
        path = sealed(tmp_path / one.lane, one.segment)
        assert b"uid=u1" not in gzip.decompress(path.read_bytes())
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one.after != one.before
    (lane,) = lanes(tmp_path)
    assert not [path for path in lane.iterdir() if path.suffix == ".tmp"]


def test_done_again_there_is_nothing_to_do(tmp_path: Path) -> None:
    write(tmp_path)
    erase(tmp_path)
    (lane,) = lanes(tmp_path)
    before = {number: checksum(lane, number) for number in segments(lane)[1]}
    assert erase(tmp_path) == []
    assert {number: checksum(lane, number) for number in segments(lane)[1]} == before


def test_the_writer_and_recovery_go_on_behind_it(tmp_path: Path) -> None:
    write(tmp_path, 30)
    erase(tmp_path)
    write(tmp_path, 3)
    assert [found.id for found, _ in everything(tmp_path) if isinstance(found, RawPayload)][-3:] == [
        payload(n).id for n in range(3)
    ]
    assert ends(tmp_path)[lanes(tmp_path)[0].name].sequence == 33


def test_damage_stays_where_it_was_and_is_told(tmp_path: Path) -> None:
    write(tmp_path)
    assert ask_to_seal(tmp_path, ends(tmp_path), SMALL) == []
    (lane,) = lanes(tmp_path)
    path = sealed(lane, segments(lane)[1][0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    before = everything(tmp_path)
    assert any(isinstance(found, Damage) for found, _ in before)
    done = erase(tmp_path)
    assert done[0].damaged == 1
    after = everything(tmp_path)
    assert [cursor for _, cursor in after] == [cursor for _, cursor in before]
    assert [found for found, _ in after if isinstance(found, Damage)] == [
        found for found, _ in before if isinstance(found, Damage)
    ]


class _Stops(Disk):
    """Dies at the n-th call that changes anything."""

    def __init__(self, after: int) -> None:
        self.left = after

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._count()
        return super().write(fd, data, offset)

    def sync_data(self, fd: int) -> None:
        self._count()
        super().sync_data(fd)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:
        self._count()
        super().sync_folder(path)


@pytest.mark.parametrize("after", range(0, 24, 2))
def test_stopped_at_any_moment_it_is_done_or_not_done_and_can_be_done_again(tmp_path: Path, after: int) -> None:
    write(tmp_path)
    before = everything(tmp_path)
    try:
        erase(tmp_path, _Stops(after))
    except KeyboardInterrupt:
        halfway = everything(tmp_path)
        assert [cursor for _, cursor in halfway] == [cursor for _, cursor in before]
        assert not any(isinstance(found, Damage) for found, _ in halfway)
    write(tmp_path, 0)  # recovery clears what was left
    erase(tmp_path)
    after_it = everything(tmp_path)
    assert [cursor for _, cursor in after_it] == [cursor for _, cursor in before]
    assert sum(bool(found.erased) for found, _ in after_it if isinstance(found, RawPayload)) == 20
    (lane,) = lanes(tmp_path)
    assert not list(lane.glob("*.tmp"))


def test_a_running_writer_is_asked_to_finish_its_segment(tmp_path: Path) -> None:
    async def run() -> None:
        writer = FileWriter.open(tmp_path, SMALL)
        keeper = Keeper(writer)
        for number in range(5):
            await writer.append(payload(number))
        until = ends(tmp_path)
        assert ask_to_seal(tmp_path, until, SMALL) == [writer.lane.name]
        assert (writer.lane / FINISH).exists()
        await asyncio.to_thread(keeper.housekeep, now_ms=0, stored=(), pause=lambda _: False)
        assert ask_to_seal(tmp_path, until, SMALL) == []
        assert not (writer.lane / FINISH).exists()
        assert segments(writer.lane) == ([], [1])
        await writer.append(payload(5))
        await writer.close()

    asyncio.run(run())
    assert len(everything(tmp_path)) == 6


@given(st.integers(0, 300), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_line_of_a_given_length_reads_like_any_other(room: int, text: str) -> None:
    whole = RawPayload("a" * 32, 1, "http", "/i", query=text, erased=(0, 3))
    short = len(encode(whole, 7))
    line = encode_within(whole, 7, short + room)
    assert line is not None and len(line) == short + room and line.endswith(b"}\n")
    assert decode(line) == (7, whole)
    assert encode_within(whole, 7, short - 1) is None


def test_where_there_is_no_room_for_what_is_left_the_rest_of_the_request_goes_too(tmp_path: Path) -> None:
    write(tmp_path, 3)
    until = ends(tmp_path)
    ask_to_seal(tmp_path, until, SMALL)
    ((lane, number),) = sealed_segments(tmp_path, until)

    def grown(found: RawPayload) -> Cut | None:
        longer = replace(found, query=found.query + "x" * 5, erased=(0,))
        return Cut(longer, 1) if found.received_ms == 1 else None

    assert rewrite(lane, number, lambda line: True, grown, lambda _: None, SMALL) is not None
    found = everything(tmp_path)[1][0]
    assert isinstance(found, RawPayload) and found.erased == (0,) and found.ip is None

    def much_too_long(found: RawPayload) -> Cut | None:
        return Cut(replace(found, query="x" * 1_000, erased=(0,)), 1)

    with pytest.raises(PermanentError, match="longer than it was"):
        rewrite(lane, number, lambda line: True, much_too_long, lambda _: None, SMALL)
    assert len(everything(tmp_path)) == 3
