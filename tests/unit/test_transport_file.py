from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.journal.disk import DISK
from gateway.journal.files import FileReader, FileWriter, Keeper, Options
from gateway.journal.lines import encode
from gateway.journal.sealing import seal
from gateway.transports.file import Config, Plugin
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, PermanentError, RawPayload, TransientError

GIVEN = [RawPayload(f"{n:032x}", n, "http", "/i", body=bytes([n, 255])) for n in range(1, 6)]


def plugin(path: Path | str, **options: object) -> Plugin:
    ids = iter(f"{n:032x}" for n in range(1_000, 2_000))
    return Plugin(Config(str(path), **options), now_ms=lambda: 77, new_id=lambda: next(ids))


def run(plugin: Plugin, accept: Callable[[RawPayload], Awaitable[None]] | None = None) -> list[RawPayload]:
    taken: list[RawPayload] = []

    async def keep(payload: RawPayload) -> None:
        taken.append(payload)

    async def main() -> None:
        await plugin.start(accept or keep)
        count = await plugin.finished()
        assert accept is not None or count == len(taken)
        await plugin.stop()

    asyncio.run(main())
    return taken


def lines(payloads: list[RawPayload] = GIVEN) -> bytes:
    return b"".join(to_json(payload) + b"\n" for payload in payloads)


def test_a_plain_file_is_passed_on_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(lines())
    assert run(plugin(tmp_path / "a.ndjson")) == GIVEN


def test_a_compressed_file_and_a_last_line_without_line_feed(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(lines() + b"\n" + to_json(GIVEN[0])))
    assert run(plugin(tmp_path / "a.ndjson.gz")) == [*GIVEN, GIVEN[0]]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "2.ndjson").write_bytes(lines(GIVEN[3:]))
    (tmp_path / "1.ndjson.gz").write_bytes(gzip.compress(lines(GIVEN[:3])))
    (tmp_path / "lock").write_bytes(b"not mine")
    assert run(plugin(tmp_path)) == GIVEN


def test_the_journals_own_segments_can_be_read(tmp_path: Path) -> None:
    async def main() -> Path:
        writer = FileWriter.open(tmp_path, Options(segment_bytes=300, min_free_bytes=0))
        for payload in GIVEN:
            await writer.append(payload)
        Keeper(writer).housekeep(now_ms=0, stored=[], pause=lambda _: False)
        await writer.close()
        return writer.lane

    lane = asyncio.run(main())
    assert {path.suffix for path in lane.iterdir()} >= {".gz", ".ndjson"}
    assert run(plugin(lane)) == GIVEN


def test_a_bad_line_becomes_a_payload_of_its_bytes(tmp_path: Path) -> None:
    damaged = encode(GIVEN[0], 1).replace(b"/i", b"/j")
    (tmp_path / "a").write_bytes(b"not json\n" + lines(GIVEN[:1]) + b"[1]\n" + damaged + b'{"at":1}\n\xff\n')
    found = run(plugin(tmp_path / "a"))
    assert found[1] == GIVEN[0]
    bad = [one for one in found if one is not found[1]]
    assert [one.body for one in bad] == [b"not json", b"[1]", damaged[:-1], b'{"at":1}', b"\xff"]
    assert {(one.transport, one.path, one.received_ms) for one in bad} == {("file", "/invalid", 77)}
    assert len({one.id for one in bad}) == 5


def test_a_damaged_line_feed_between_journal_lines_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encode(GIVEN[0], 1)[:-1] + b"*" + encode(GIVEN[1], 2))
    assert run(plugin(tmp_path / "a")) == GIVEN[:2]


def test_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"path":"/i","query":"e=pv"}\n')
    assert run(plugin(tmp_path / "a")) == [RawPayload(f"{1_000:032x}", 77, "file", "/i", "e=pv")]


def test_the_time_can_be_now(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lines())
    found = run(plugin(tmp_path / "a", keep_time=False))
    assert [(one.id, one.received_ms) for one in found] == [(one.id, 77) for one in GIVEN]


def test_what_cannot_be_taken_now_is_offered_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lines())
    taken: list[RawPayload] = []
    refused = [2]

    async def accept(payload: RawPayload) -> None:
        if payload is not GIVEN[0] and refused[0]:
            refused[0] -= 1
            raise TransientError("full")
        taken.append(payload)

    run(plugin(tmp_path / "a", retry_seconds=0.0), accept)
    assert sorted(taken, key=lambda one: one.id) == GIVEN


def test_many_are_in_flight_but_no_more_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lines() * 20)
    now, most = 0, 0

    async def accept(_: RawPayload) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _turn in range(10):
            await asyncio.sleep(0)
        now -= 1

    run(plugin(tmp_path / "a", in_flight=7), accept)
    assert most == 7


def test_a_file_that_breaks_off_says_so_after_passing_on_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(lines(), 0) + gzip.compress(os.urandom(9_000))[:-4_000])
    taken: list[RawPayload] = []

    async def accept(payload: RawPayload) -> None:
        taken.append(payload)

    with pytest.raises(PermanentError, match="cannot be read to its end"):
        run(plugin(tmp_path / "a.gz"), accept)
    assert taken[:5] == GIVEN


def test_a_damaged_block_of_a_sealed_segment_costs_that_block_only(tmp_path: Path) -> None:
    path = tmp_path / "1.ndjson"
    path.write_bytes(b"".join(encode(payload, n) for n, payload in enumerate(GIVEN, 1)))
    assert seal(path, DISK, block_bytes=1, level=1, pause=lambda _: False)
    packed = bytearray((tmp_path / "1.ndjson.gz").read_bytes())
    packed[len(packed) // 2] ^= 1
    (tmp_path / "1.ndjson.gz").write_bytes(packed)
    found = run(plugin(tmp_path))
    assert len(found) == 5
    assert [one.path for one in found].count("/invalid") == 1
    [bad] = [one for one in found if one.path == "/invalid"]
    assert bad.body is not None
    assert bad.body in packed


def test_a_refusal_for_good_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lines())

    async def accept(_: RawPayload) -> None:
        raise PermanentError("no")

    with pytest.raises(PermanentError, match="no"):
        run(plugin(tmp_path / "a"), accept)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a readable file"):
        run(plugin(tmp_path / "nothing"))


def test_stopping_takes_nothing_new(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lines() * 20)
    taken: list[RawPayload] = []

    async def main() -> None:
        source = plugin(tmp_path / "a", in_flight=1)

        async def accept(payload: RawPayload) -> None:
            taken.append(payload)
            if len(taken) == 3:
                stopping.append(asyncio.create_task(source.stop()))
            await asyncio.sleep(0)

        stopping: list[asyncio.Task[None]] = []
        await source.start(accept)
        assert await source.finished() == len(taken)
        await stopping[0]

    asyncio.run(main())
    assert 3 <= len(taken) < 10


@pytest.mark.slow
def test_standard_input_is_read_to_its_end(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from gateway.journal.files import FileWriter
from gateway.transports.file import Config, Plugin
async def main():
    writer = FileWriter.open(Path(sys.argv[1]))
    source = Plugin(Config("-"))
    await source.start(writer.append)
    print(await source.finished())
    await writer.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "journal")],
        input=lines(),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"5\n", b"")
    reader = FileReader(tmp_path / "journal")
    assert list(reader.read({}).items) == GIVEN
    reader.close()
