"""kill -9 at full speed: what the writer's process reported as acknowledged is in the journal, once."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.journal import Damage
from gateway.journal.files import FileReader, FileWriter
from protocol.seams import Cursor, RawPayload

WRITER = """
import asyncio, os, sys, threading, time
from pathlib import Path
from gateway.journal.files import FileWriter, Keeper, Options
from protocol.seams import RawPayload

folder, round_ = Path(sys.argv[1]), int(sys.argv[2])

async def main():
    writer = FileWriter.open(folder, Options(segment_bytes=300_000, min_free_bytes=0, block_bytes=20_000))
    keeper = Keeper(writer)
    def keep():
        while True:
            keeper.housekeep(now_ms=0, stored=[], pause=lambda _: False)
            time.sleep(0.001)
    threading.Thread(target=keep, daemon=True).start()
    acked = []
    async def client(lane):
        for number in range(10**9):
            id_ = f"{round_:08x}{lane:08x}{number:016x}"
            await writer.append(RawPayload(id_, number, "http", "/i", body=id_.encode() * (number % 90)))
            acked.append(id_)
            if len(acked) > 50:
                os.write(1, ("\\n".join(acked) + "\\n").encode())
                acked.clear()
    await asyncio.gather(*(client(lane) for lane in range(64)))

asyncio.run(main())
"""


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there_once(tmp_path: Path) -> None:
    chance = random.Random(11)
    folder, acked, read = tmp_path / "journal", set[str](), list[str]()
    reader = FileReader(folder)
    cursor: Cursor = {}

    def take() -> bool:
        nonlocal cursor
        chunk = reader.read(cursor)
        assert not [item for item in chunk.items if isinstance(item, Damage)]
        read.extend(item.id for item in chunk.items if isinstance(item, RawPayload))
        cursor = chunk.cursor
        return bool(chunk.items)

    for number in range(6):
        command = [sys.executable, "-c", WRITER, str(folder), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            fd, told, ends = process.stdout.fileno(), b"", None
            while True:
                assert select.select([fd], [], [], 30)[0], "the writer says nothing"
                if not (data := os.read(fd, 1 << 16)):
                    break
                told += data
                take()
                ends = ends or time.monotonic() + chance.uniform(0.05, 0.6)
                if time.monotonic() > ends:
                    process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        acked.update(told.rpartition(b"\n")[0].decode().split())
    asyncio.run(FileWriter.open(folder).close())
    while take():
        pass
    reader.close()
    assert len(acked) > 1_000
    assert len(read) == len(set(read))
    assert acked <= set(read)
    assert len(list(folder.iterdir())) == 1  # every round took the lane the last one left
    assert list(folder.glob("*/*.gz"))
