"""The journal in Kafka, on a real broker that is killed, frozen and started again, and its log altered behind its back."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from gateway.journal import Chunk, Damage, JournalFull, Reader, Reassigned, TooLarge
from gateway.journal.files import FileWriter, Options
from gateway.journal.kafka import Config
from gateway.journal.kafka.reader import KafkaReader
from gateway.journal.kafka.writer import KafkaWriter
from gateway.journal.lanes import plain
from gateway.journal.overflow import OverflowWriter
from protocol.seams import Cursor, Position, RawPayload, TransientError
from tests.peers.kafka_server import KafkaServer

_WAIT_S = 60.0
_topics = itertools.count()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def config(kafka: KafkaServer) -> Config:
    return Config((kafka.bootstrap,), f"raw{next(_topics)}", create=True, partitions=3, delivery_ms=1_500, session_ms=6_000)


def payload(number: int, key: str | None = None, size: int = 0) -> RawPayload:
    return RawPayload(f"{number:032x}", number, "http", "/x", body=b"x" * size, device=key)


def local(folder: Path, **options: Any) -> FileWriter:
    return FileWriter.open(folder / "journal", Options(**{"min_free_bytes": 0, **options}))


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_S
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def writing(config: Config, writer: FileWriter, work: Callable[[OverflowWriter], Awaitable[None]]) -> OverflowWriter:
    found = OverflowWriter(KafkaWriter(config), writer)
    found.start()
    try:
        await work(found)
    finally:
        await found.close()
    return found


def write(config: Config, payloads: list[RawPayload]) -> None:
    async def run() -> None:
        writer = KafkaWriter(replace(config, delivery_ms=60_000))
        await writer.reach()
        await asyncio.gather(*map(writer.append, payloads))
        await writer.close()

    asyncio.run(run())


def everything(reader: Reader, cursor: Cursor | None = None) -> tuple[list[RawPayload | Damage], Cursor]:
    chunk, found = Chunk((), cursor or {}, True), list[RawPayload | Damage]()
    while True:
        chunk = reader.read(chunk.cursor)
        found.extend(chunk.items)
        if not chunk.items:
            return found, chunk.cursor


def read(config: Config) -> list[RawPayload | Damage]:
    reader = KafkaReader(config)
    try:
        return everything(reader)[0]
    finally:
        reader.close()


def first_of_each(items: list[RawPayload | Damage]) -> list[RawPayload]:
    """Without the copies of a payload that a failure leaves."""
    return list({item.id: item for item in reversed(items) if isinstance(item, RawPayload)}.values())[::-1]


# Reading.


def test_a_lane_is_a_partition_of_one_topic_and_no_other(kafka: KafkaServer, config: Config) -> None:
    write(config, [payload(number, f"key{number}") for number in range(50)])
    reader = KafkaReader(config)
    items, cursor = everything(reader)
    reader.close()
    assert len(items) == 50
    (stem,) = {lane.rpartition(".")[0] for lane in cursor}
    assert len(stem) == 32
    assert {lane.rpartition(".")[2] for lane in cursor} == {"0", "1", "2"}
    admin: Any = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    admin.delete_topics([config.topic])[config.topic].result(30)
    write(config, [payload(1)])  # one of the same name is made
    again = KafkaReader(config)
    items, other = everything(again, cursor)
    again.close()
    assert items == [payload(1)]
    assert not {lane.rpartition(".")[0] for lane in other if lane not in cursor} & {stem}


def test_what_is_no_payload_is_a_damage_in_its_place(config: Config) -> None:
    write(config, [payload(1, "k")])
    producer = Producer({"bootstrap.servers": config.brokers[0], "partitioner": "murmur2_random", "log_level": 0})
    for value in (b"{}", b"\xff\x00", None):
        producer.produce(config.topic, value, b"k")
    producer.flush(30)
    write(config, [payload(2, "k")])
    items = read(config)
    assert items[0] == payload(1, "k")
    assert [item.data for item in items[1:4] if isinstance(item, Damage)] == [b"{}", b"\xff\x00", b""]
    assert items[4] == payload(2, "k")


def test_a_damaged_batch_costs_its_records_only_and_is_told(kafka: KafkaServer, config: Config) -> None:
    for some in ([0], [1, 2, 3, 4], [5]):
        write(config, [payload(number, "k", size=50) for number in some])  # a batch each
    (log,) = [log for log in (kafka.folder / "data").glob(f"{config.topic}-*/*.log") if log.stat().st_size]
    data = log.read_bytes()
    first = 12 + int.from_bytes(data[8:12])  # a batch: offset, length of the rest, the rest
    second = 12 + int.from_bytes(data[first + 8 : first + 12])
    with log.open("r+b") as file:
        file.seek(first + second - 20)
        file.write(bytes([data[first + second - 20] ^ 0x10]))
    items = read(config)
    assert [item.id for item in items if isinstance(item, RawPayload)] == [payload(0).id, payload(5).id]
    assert isinstance(items[1], Damage)
    assert items[1].position == Position(0, 5, 5)
    assert "damaged" in items[1].what


def test_records_that_expired_unread_are_told(kafka: KafkaServer, config: Config) -> None:
    write(config, [payload(number, "k") for number in range(10)])
    reader = KafkaReader(config)
    ((lane, _),) = reader.read({}).cursor.items()
    reader.close()
    cursor: Cursor = {lane: Position(0, 3, 3)}
    admin: Any = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    (deleted,) = admin.delete_records([TopicPartition(config.topic, int(lane.rpartition(".")[2]), 7)]).values()
    deleted.result(30)
    reader = KafkaReader(config)
    assert reader.pending(cursor) == 7
    items, cursor = everything(reader, cursor)
    reader.close()
    assert isinstance(items[0], Damage)
    assert items[0].position == Position(0, 7, 7)
    assert items[0].what.startswith("4 records from 3 on were deleted")
    assert items[1:] == [payload(number, "k") for number in range(7, 10)]
    assert cursor[lane] == Position(0, 10, 10)


def test_a_partition_that_ends_before_the_cursor_is_not_read_on(config: Config) -> None:
    write(config, [payload(number, "k") for number in range(3)])
    reader = KafkaReader(config)
    ((lane, _),) = reader.read({}).cursor.items()
    with pytest.raises(TransientError, match=r"ends at 3, but was read up to 9"):
        everything(reader, {lane: Position(0, 9, 9)})
    reader.close()


def test_readers_of_a_group_share_the_partitions(kafka: KafkaServer, config: Config) -> None:
    given = [payload(number, f"key{number}") for number in range(60)]
    write(config, given)
    one, two = KafkaReader(config, "store"), KafkaReader(config, "store")
    with pytest.raises(Reassigned):
        while True:
            try:
                one.read({})
            except Reassigned:
                raise
            except TransientError:
                pass
    found, cursor = everything(one)
    assert sorted(item.id for item in found if isinstance(item, RawPayload)) == sorted(item.id for item in given)
    assert len(one.lag()) == 3
    end, reassigned = time.monotonic() + _WAIT_S, 0
    while len(one.lag()) == 3 or not two.lag():
        assert time.monotonic() < end
        for reader in (two, one):
            try:
                assert not reader.read(cursor).items
            except Reassigned:
                reassigned += 1
            except TransientError:
                pass
    assert reassigned >= 2  # the one that lost, and the one that gained
    assert len(one.lag()) + len(two.lag()) == 3
    more = [payload(number, f"key{number}") for number in range(60, 120)]
    write(config, more)
    shares = [everything(one, cursor), everything(two, cursor)]
    assert all(items for items, _ in shares)
    assert sorted(i.id for items, _ in shares for i in items if isinstance(i, RawPayload)) == sorted(i.id for i in more)
    for reader, (_, at) in zip((one, two), shares, strict=True):
        reader.loaded(at)
        assert reader.pending(at) == sum(reader.lag().values()) == 0
        assert reader.pending(cursor) > 0
        reader.close()
    watching = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "spoorway.store", "log_level": 0})
    committed = watching.committed([TopicPartition(config.topic, number) for number in range(3)], timeout=30)
    watching.close()
    assert sum(place.offset for place in committed) == 120


def test_a_reader_goes_back_to_where_it_is_told(config: Config) -> None:
    write(config, [payload(number, "k") for number in range(9)])
    reader = KafkaReader(config)
    first = reader.read({}, max_payloads=4)
    following = (payload(len(first.items), "k"),)
    assert reader.read(first.cursor, max_payloads=1).items == following
    assert reader.read(first.cursor, max_payloads=1).items == following
    assert reader.read({}, max_payloads=1).items == (payload(0, "k"),)
    ((lane, _),) = first.cursor.items()
    assert reader.read({lane: Position(0, 8, 8)}).items == (payload(8, "k"),)
    reader.close()


def test_an_error_among_records_costs_none_of_them(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [payload(number, "k") for number in range(10)]
    write(config, given)
    reader, calls = KafkaReader(config), itertools.count()
    arrived = KafkaReader._arrived  # pyright: ignore[reportPrivateUsage]

    def troubled(self: KafkaReader, message: Message) -> None:
        if next(calls) == 4:
            raise TransientError("in the middle of a batch")
        arrived(self, message)

    monkeypatch.setattr(KafkaReader, "_arrived", troubled)
    items, cursor = list[RawPayload | Damage](), dict[str, Position]()
    failures = 0
    while len(items) < 10:
        try:
            chunk = reader.read(cursor)
        except TransientError:
            failures += 1
            assert failures == 1
            continue
        items, cursor = [*items, *chunk.items], dict(chunk.cursor)
    reader.close()
    assert items == given
    assert failures == 1


# Writing, and what happens when there is nobody to write to.


def test_a_payload_that_is_too_large_is_refused_in_and_out_of_reach(config: Config, tmp_path: Path) -> None:
    async def work(writer: OverflowWriter) -> None:
        for _ in range(2):
            with pytest.raises(TooLarge, match="max_record_bytes"):
                await writer.append(payload(1, size=1_000_001))
            await writer.append(payload(2))
            await until(lambda: not writer.trouble)

    asyncio.run(writing(config, local(tmp_path), work))
    assert first_of_each(read(config)) == [payload(2)]


def test_a_topic_that_takes_less_than_we_say_refuses_what_is_too_large_for_it(kafka: KafkaServer, config: Config) -> None:
    async def run() -> None:
        writer = KafkaWriter(Config(config.brokers, config.topic, create=True, max_record_bytes=3_000_000, compression="none"))
        await writer.reach()
        with pytest.raises(TooLarge, match="larger than the brokers take"):
            await writer.append(payload(1, size=2_000_000))
        await writer.append(payload(2))
        await writer.close()

    asyncio.run(run())
    assert read(config) == [payload(2)]


def test_what_comes_while_a_round_is_under_way_is_the_next_round_and_waits_for_it_a_moment_only() -> None:
    """Nobody answers, so that no round comes to its end."""

    def rounds(writer: KafkaWriter) -> tuple[int, int]:
        session = writer._session  # pyright: ignore[reportPrivateUsage]
        assert session is not None
        return session.under_way, len(session.held)

    async def run() -> None:
        writer = KafkaWriter(Config(("127.0.0.1:1",), delivery_ms=300_000))
        for number in range(3):
            writer.append(payload(number, "k"))
        assert rounds(writer) == (0, 3)
        await until(lambda: rounds(writer) == (3, 0))
        for number in range(10):
            writer.append(payload(number, "k"))
        await asyncio.sleep(0)
        assert rounds(writer) == (3, 10)
        await until(lambda: rounds(writer) == (13, 0))
        writer.abandon()
        await writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_outage_under_load_loses_nothing_and_keeps_the_order_of_a_key(
    kafka: KafkaServer, config: Config, tmp_path: Path, how: str
) -> None:
    """killed: with -9, and started again. frozen: it holds connections and says nothing, until it does."""
    keys, numbers, stop = [f"key{key}" for key in range(8)], itertools.count(), asyncio.Event()
    sent: dict[str, list[str]] = {key: [] for key in keys}

    async def work(writer: OverflowWriter) -> None:
        async def track(key: str) -> None:
            while not stop.is_set():
                given = payload(next(numbers), key, size=200)
                sent[key].append(given.id)
                await writer.append(given)
                await asyncio.sleep(0.001)

        async def weather() -> None:
            try:
                await until(lambda: writer.counts.remote > 200)
                before = writer.counts.local
                await (asyncio.to_thread(kafka.kill) if how == "killed" else _signal(kafka, signal.SIGSTOP))
                await until(lambda: writer.counts.local > before + 200)
                assert writer.trouble
                assert writer.counts.errors
                await (asyncio.to_thread(kafka.start) if how == "killed" else _signal(kafka, signal.SIGCONT))
                before = writer.counts.remote
                await until(lambda: writer.counts.remote > before + 200)  # although more has come all the time
            finally:
                stop.set()
                if how == "frozen":
                    await _signal(kafka, signal.SIGCONT)

        await asyncio.gather(weather(), *map(track, keys))
        assert not writer.trouble
        assert writer.waiting() == 0

    writer = asyncio.run(writing(config, local(tmp_path), work))
    assert writer.accepted() == sum(map(len, sent.values()))
    assert writer.counts.drained >= writer.counts.local
    found = first_of_each(read(config))
    for key in keys:
        assert [item.id for item in found if item.device == key] == sent[key]


async def _signal(kafka: KafkaServer, number: int) -> None:
    os.kill(kafka.pid, number)


def test_what_waited_at_the_end_is_handed_over_first_by_the_next_start(
    kafka: KafkaServer, config: Config, tmp_path: Path
) -> None:
    """One of two gateway processes does not come back: its lane is handed over as well."""
    nobody = Config(("127.0.0.1:1",), config.topic)

    async def alone(writer: OverflowWriter) -> None:
        await asyncio.gather(*(writer.append(payload(number, "k")) for number in range(100)))
        assert writer.waiting() == 101

    async def both() -> None:
        mine, other = local(tmp_path), local(tmp_path)  # the next start takes up one lane; which, does not matter
        await other.append(payload(1_000, "other"))
        await writing(nobody, mine, alone)
        await other.close()

    asyncio.run(both())

    async def again(writer: OverflowWriter) -> None:
        await writer.append(payload(100, "k"))
        await until(lambda: not writer.trouble)
        await writer.append(payload(101, "k"))
        assert writer.waiting() == 0
        assert writer.counts.drained + writer.counts.remote == 103

    asyncio.run(writing(config, local(tmp_path), again))
    found = read(config)
    assert [item for item in found if isinstance(item, RawPayload) and item.device == "k"] == [
        payload(number, "k") for number in range(102)
    ]
    assert payload(1_000, "other") in found

    async def nothing(writer: OverflowWriter) -> None:
        await until(lambda: not writer.trouble)
        assert writer.counts.drained == 0

    asyncio.run(writing(config, local(tmp_path), nothing))


def test_damage_on_this_machines_disk_arrives_as_damage(config: Config, tmp_path: Path) -> None:
    async def before() -> Path:
        writer = local(tmp_path)
        for number in range(3):
            await writer.append(payload(number, "k", size=100))
        await writer.close()
        return plain(writer.lane, 1)

    segment = asyncio.run(before())
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0x01
    segment.write_bytes(data)

    async def work(writer: OverflowWriter) -> None:
        await until(lambda: not writer.trouble)

    asyncio.run(writing(config, local(tmp_path), work))
    items = read(config)
    assert [item.id for item in items if isinstance(item, RawPayload)] == [payload(0).id, payload(2).id]
    (damage,) = [item for item in items if isinstance(item, Damage)]
    assert damage.data == bytes(data.splitlines(keepends=True)[1])


def test_when_the_disk_is_full_too_nothing_is_taken(tmp_path: Path) -> None:
    async def work(writer: OverflowWriter) -> None:
        taken = 0
        with pytest.raises(JournalFull):
            while True:
                await writer.append(payload(taken, size=1_000))
                taken += 1
        assert 0 < taken < 50
        assert writer.accepted() == writer.waiting() == taken

    asyncio.run(writing(Config(("127.0.0.1:1",)), local(tmp_path, max_bytes=40_000), work))
