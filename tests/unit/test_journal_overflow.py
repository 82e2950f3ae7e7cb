"""The journal in files before a remote one that fails at once, every time: how often it is asked, and what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.journal import Damage
from gateway.journal.files import FileWriter, Options
from gateway.journal.overflow import Done, OverflowWriter
from protocol.seams import RawPayload, TransientError


class Failing:
    """A `Remote` that cannot be reached, or takes nothing."""

    def __init__(self, *, within_reach: bool) -> None:
        self.within_reach, self.asked, self.offered = within_reach, 0, list[str]()
        self.lost: Callable[[TransientError], None] = lambda error: None

    async def reach(self) -> None:
        self.asked += 1
        if not self.within_reach:
            raise TransientError("out of reach")

    def check(self, payload: RawPayload) -> None: ...

    def send(self, items: Sequence[RawPayload | Damage], done: Done) -> None:
        self.offered += [item.id for item in items if isinstance(item, RawPayload)]
        done(TransientError("it takes nothing"))

    def abandon(self) -> None: ...

    async def close(self) -> None: ...


def run(folder: Path, remote: Failing, wait_s: float) -> OverflowWriter:
    async def work() -> OverflowWriter:
        writer = OverflowWriter(remote, FileWriter.open(folder / "journal", Options(min_free_bytes=0)))
        writer.start()
        await asyncio.gather(*(writer.append(RawPayload(f"{n:032x}", n, "http", "/x")) for n in range(5)))
        await asyncio.sleep(wait_s)
        async with asyncio.timeout(30):
            while remote.within_reach and not remote.offered:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.01)
        await writer.close()
        return writer

    return asyncio.run(work())


def test_a_remote_out_of_reach_is_asked_seldom(tmp_path: Path) -> None:
    remote = Failing(within_reach=False)
    writer = run(tmp_path, remote, 0.5)
    assert 1 <= remote.asked <= 3  # after 0, 0.25 and 0.75 s
    assert (writer.counts.local, writer.waiting(), writer.trouble) == (5, 5, "out of reach")


def test_a_remote_that_takes_nothing_is_offered_the_oldest_first_and_nothing_is_given_up(tmp_path: Path) -> None:
    remote = Failing(within_reach=True)
    writer = run(tmp_path, remote, 0.5)
    assert (writer.counts.local, writer.counts.drained, writer.waiting()) == (5, 0, 5)
    assert remote.offered[0] == f"{0:032x}"
