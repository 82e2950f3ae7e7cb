"""The journal in Kinesis in bad weather: records refused, answers lost, nobody there, shards split and merged, readers stalled.

Senders write through an overflow to a server that numbers and closes shards as Amazon does, and readers of one group store what
they read in one target, which compares the place as real ones do. Every payload that was acknowledged is in it exactly once,
those of a device in the order in which they were sent.

    python -m tests.faults.kinesis_storm --rounds 20 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gateway.journal import Reassigned
from gateway.journal.files import FileWriter, Options
from gateway.journal.kinesis import Config
from gateway.journal.kinesis.reader import KinesisReader
from gateway.journal.kinesis.writer import KinesisWriter
from gateway.journal.overflow import OverflowWriter
from protocol.seams import Position, RawPayload, TransientError
from storage.targets import Batch, Overtaken
from tests.contracts.kinesis_bench import Refusing, payload
from tests.peers.kinesis_server import KEYS, Kinesalite, Moto, active

READERS, DEVICES, LEASE_MS = 3, 6, 2_000
DRAIN_S = 240.0


@dataclass
class Store:
    """A target in memory. taken: the payloads in the order in which they were stored; copies: those that came again."""

    cursor: dict[str, Position] = field(default_factory=dict[str, Position])
    taken: dict[str, RawPayload] = field(default_factory=dict[str, RawPayload])
    copies: int = 0
    overtaken: int = 0
    damages: list[Any] = field(default_factory=list[Any])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def commit(self, since: dict[str, Position], cursor: Any, items: Any) -> None:
        with self.lock:
            try:
                moved = Batch((), (), cursor, len(items), since=since).moved(self.cursor)
            except Overtaken:
                self.overtaken += 1
                raise
            for item in items:
                if not isinstance(item, RawPayload):
                    self.damages.append(item)
                elif item.id in self.taken:
                    self.copies += 1
                else:
                    self.taken[item.id] = item
            self.cursor |= moved


@dataclass
class Report:
    sent: int = 0
    overflowed: int = 0
    retries: int = 0
    copies: int = 0
    overtaken: int = 0
    reassigned: int = 0
    stalls: int = 0
    shards: int = 0
    wrong: list[str] = field(default_factory=list[str])


class Loading(threading.Thread):
    """A reader and its loop, as spoorway.loader has it; stalls and ends as it is told."""

    def __init__(self, config: Config, store: Store, report: Report, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._config, self._store, self._report, self._chance = config, store, report, chance
        self.ending, self.error = threading.Event(), ""

    def run(self) -> None:
        try:
            reader = KinesisReader.open(self._config, "store")
            cursor = self._ask()
            while not self.ending.is_set():
                try:
                    chunk = reader.read(cursor, max_payloads=self._chance.choice((1, 7, 100)))
                    if chunk.items and self._chance.random() < 0.05:
                        self._report.stalls += 1
                        self.ending.wait(LEASE_MS / 1000 * 1.5)  # between what it read and what it stores
                    self._store.commit(cursor, chunk.cursor, chunk.items)
                    cursor = dict(chunk.cursor)
                    reader.loaded(cursor)
                except Reassigned:
                    self._report.reassigned += 1
                    cursor = self._ask()
                except TransientError:
                    cursor = self._ask()
                    self.ending.wait(0.05)
            reader.close()
        except BaseException as error:
            self.error = repr(error)
            raise

    def _ask(self) -> dict[str, Position]:
        with self._store.lock:
            return dict(self._store.cursor)


def storm(folder: Path, kinesis: Kinesalite, moto: Moto, seed: int, rounds: int) -> Report:
    chance, report, store = random.Random(seed), Report(), Store()
    name = f"storm-{seed}"
    client = kinesis.stream(name, 2)
    config = Config(stream=name, create=1, leases=name, lease_ms=LEASE_MS, poll_ms=50, delivery_ms=400, max_record_bytes=200_000)
    readers = [Loading(config, store, report, random.Random(chance.random())) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    given = asyncio.run(_sending(folder, config, client, chance, report, rounds))
    end = time.monotonic() + DRAIN_S
    while len(store.taken) < len(given) and time.monotonic() < end and not any(reader.error for reader in readers):
        time.sleep(0.05)
    for reader in readers:
        reader.ending.set()
        reader.join(60)
        if reader.error:
            report.wrong.append(reader.error)
    report.copies, report.overtaken, report.shards = store.copies, store.overtaken, len(store.cursor)
    if missing := {each.id for each in given} - store.taken.keys():
        report.wrong.append(f"{len(missing)} of {len(given)} are missing")
    if store.damages:
        report.wrong.append(f"damages: {store.damages[:3]}")
    for number in range(DEVICES):
        sent = [each.id for each in given if each.device == f"device-{number}"]
        if [each.id for each in store.taken.values() if each.device == f"device-{number}"] != sent:
            report.wrong.append(f"device-{number} is out of order")
    return report


class Weather:
    """How probable it is that a record is refused, that an answer is lost, that nobody is there."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.calm()

    def calm(self) -> None:
        self.refused = self.lost = self.away = 0.0

    def change(self) -> None:
        self.refused, self.lost, self.away = (self._chance.choice(each) for each in ((0, 0.3), (0, 0.2), (0, 0, 0, 1)))

    def record(self, number: int, key: str, nth: int) -> str:
        return "ProvisionedThroughputExceededException" if self._chance.random() < self.refused else ""

    def request(self, number: int) -> str:
        if self._chance.random() < self.away:
            return "InternalFailure"
        return "lost" if self._chance.random() < self.lost else ""


async def _sending(
    folder: Path, config: Config, client: Any, chance: random.Random, report: Report, rounds: int
) -> list[RawPayload]:
    """What was acknowledged, in the order in which it was sent."""
    given, weather = list[RawPayload](), Weather(chance)
    for turn in range(rounds):
        remote = KinesisWriter(config)
        Refusing(remote, refuse=weather.record, whole=weather.request)
        writer = OverflowWriter(remote, FileWriter.open(folder / "journal", Options(min_free_bytes=0)))
        writer.start()
        for step in range(4):
            weather.calm()
            await _until(lambda writer=writer: not writer.trouble)
            weather.change()
            futures = list[asyncio.Future[None]]()
            for _ in range(chance.randrange(10, 60)):
                number = len(given)
                device = f"device-{number % DEVICES}" if chance.random() < 0.8 else None
                given.append(payload(number, device, b"x" * chance.randrange(0, 2_000)))
                futures.append(writer.append(given[-1]))
                if chance.random() < 0.1:
                    await asyncio.sleep(0.01)
            if step == 1:
                await asyncio.to_thread(_reshard, client, config.stream, chance)
            await asyncio.gather(*futures)
        if turn == rounds - 1:
            weather.calm()
            await _until(lambda writer=writer: not writer.waiting())
        await writer.close()  # what is on disk then is handed over by the next one
        report.overflowed += writer.counts.local
        report.retries += remote.retries
    report.sent = len(given)
    return given


async def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DRAIN_S
    while not await asyncio.to_thread(true):
        assert time.monotonic() < end, "it is not handed over"
        await asyncio.sleep(0.05)


def _reshard(client: Any, name: str, chance: random.Random) -> None:
    """One open shard becomes two, or two beside each other one."""
    shards = client.list_shards(StreamName=name)["Shards"]
    shards = [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
    shards.sort(key=lambda each: int(each["HashKeyRange"]["StartingHashKey"]))
    at = chance.randrange(len(shards))
    if len(shards) > 3 and at:
        pair = {"ShardToMerge": shards[at - 1]["ShardId"], "AdjacentShardToMerge": shards[at]["ShardId"]}
        client.merge_shards(StreamName=name, **pair)
    else:
        first, last = (int(shards[at]["HashKeyRange"][f"{side}HashKey"]) for side in ("Starting", "Ending"))
        client.split_shard(StreamName=name, ShardToSplit=shards[at]["ShardId"], NewStartingHashKey=str((first + last) // 2))
    active(client, name)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--seed", type=int, default=1)
    found = options.parse_args()
    with Kinesalite() as kinesis, Moto() as moto, tempfile.TemporaryDirectory() as folder:
        places = {"AWS_ENDPOINT_URL_KINESIS": kinesis.endpoint, "AWS_ENDPOINT_URL_DYNAMODB": moto.endpoint}
        with patch.dict(os.environ, KEYS | places):
            report = storm(Path(folder), kinesis, moto, found.seed, found.rounds)
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
