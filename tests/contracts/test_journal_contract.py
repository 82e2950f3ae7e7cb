"""What every journal promises, whatever it is made of. An implementation is one line in IMPLEMENTATIONS.

Kafka's are on librdkafka's mock cluster and on a real broker; their topics have one partition in use, so that there is one order.
Kinesis' are on two servers that speak as it does; all payloads have one key, which is what has an order there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from gateway.journal import Chunk, JournalBroken, Reader, TooLarge, Writer, kinesis
from gateway.journal.files import FileReader, FileWriter, Options
from gateway.journal.kafka import Config
from gateway.journal.kafka.reader import KafkaReader
from gateway.journal.kafka.writer import KafkaWriter
from gateway.journal.kinesis.reader import KinesisReader
from gateway.journal.kinesis.writer import KinesisWriter
from protocol.seams import Cursor, RawPayload
from tests.contracts.kinesis_bench import credentials
from tests.peers.kafka_server import KafkaServer
from tests.peers.kinesis_server import Kinesalite, Moto


class Journal(Protocol):
    """lane_per_writer: each writer has a lane, counts what is in it, and is not behind another's.

    counts: it knows how many payloads there are. largest: bytes of a body that it takes.
    """

    lane_per_writer: bool
    counts: bool
    largest: int

    def writer(self) -> Writer: ...
    def reader(self) -> Reader: ...


class FilesJournal:
    lane_per_writer, counts, largest = True, True, 1 << 30

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self.folder = folder / "journal"

    def writer(self) -> Writer:
        return FileWriter.open(self.folder, Options(min_free_bytes=0, segment_bytes=20_000))

    def reader(self) -> Reader:
        return FileReader(self.folder)


_topics = itertools.count()


class KafkaJournal:
    lane_per_writer, counts, largest = False, True, 6_000_000

    def __init__(self, brokers: str) -> None:
        # What has no key goes to one partition; 3 MB are more than librdkafka's default.
        options = {"partitioner": "consistent"}
        self.config = Config((brokers,), f"raw{next(_topics)}", max_record_bytes=7_000_000, delivery_ms=60_000, options=options)

    def writer(self) -> Writer:
        return KafkaWriter(self.config)

    def reader(self) -> Reader:
        return KafkaReader(self.config)


class KinesisJournal:
    lane_per_writer, counts, largest = False, False, 1_000_000

    def __init__(self, server: Kinesalite | Moto) -> None:
        self.config = kinesis.Config(stream=f"raw{next(_topics)}", endpoint=server.endpoint, create=1, poll_ms=10)

    def writer(self) -> Writer:
        KinesisReader.open(self.config).close()  # makes the stream
        return KinesisWriter(self.config)

    def reader(self) -> Reader:
        return KinesisReader.open(self.config)


@pytest.fixture(scope="module")
def kinesalite() -> Iterator[Kinesalite]:
    with credentials(), Kinesalite() as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with credentials(), Moto() as server:
        yield server


@pytest.fixture(scope="module")
def mock_brokers() -> Iterator[str]:
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 0})
    (broker,) = cluster.list_topics(timeout=20).brokers.values()
    yield f"{broker.host}:{broker.port}"


@pytest.fixture(scope="module")
def real_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with KafkaServer(tmp_path_factory.mktemp("kafka"), properties={"message.max.bytes": "8000000"}) as kafka:
        yield kafka.bootstrap


def mock_kafka(folder: Path, request: pytest.FixtureRequest) -> KafkaJournal:
    journal = KafkaJournal(request.getfixturevalue("mock_brokers"))
    Producer({"bootstrap.servers": journal.config.brokers[0]}).list_topics(journal.config.topic, timeout=20)  # which makes it
    return journal


def real_kafka(folder: Path, request: pytest.FixtureRequest) -> KafkaJournal:
    journal = KafkaJournal(request.getfixturevalue("real_broker"))
    admin: Any = AdminClient({"bootstrap.servers": journal.config.brokers[0], "log_level": 0})
    admin.create_topics([NewTopic(journal.config.topic, 1, 1)])[journal.config.topic].result(30)
    return journal


IMPLEMENTATIONS: dict[str, Callable[[Path, pytest.FixtureRequest], Journal]] = {
    "files": FilesJournal,
    "kafka": real_kafka,
    "kafka_mock": mock_kafka,
    "kinesis": lambda folder, request: KinesisJournal(request.getfixturevalue("kinesalite")),
    "kinesis_moto": lambda folder, request: KinesisJournal(request.getfixturevalue("moto")),
}


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return IMPLEMENTATIONS[request.param](tmp_path, request)


def payload(number: int, body: bytes | None = b"{}") -> RawPayload:
    path = "/com.snowplowanalytics.snowplow/tp2"
    return RawPayload(f"{number:032x}", 1_700_000_000_000 + number, "http", path, body=body, network_userid="n")


def writing(journal: Journal, work: Callable[[Writer], Awaitable[None]]) -> None:
    async def run() -> None:
        writer = journal.writer()
        try:
            await work(writer)
        finally:
            await writer.close()

    asyncio.run(run())


def write(journal: Journal, payloads: list[RawPayload]) -> None:
    async def work(writer: Writer) -> None:
        await asyncio.gather(*map(writer.append, payloads))

    writing(journal, work)


def everything(reader: Reader, cursor: Cursor | None = None, **limits: int) -> list[object]:
    chunk, found = Chunk((), cursor or {}, True), list[object]()
    while True:
        chunk = reader.read(chunk.cursor, **limits)
        found.extend(chunk.items)
        if not chunk.items:
            return found


def test_a_payload_can_be_read_as_soon_as_its_future_is_done(journal: Journal) -> None:
    async def work(writer: Writer) -> None:
        reader, cursor = journal.reader(), dict[str, object]()
        for number in range(5):
            await writer.append(payload(number))
            chunk = reader.read(cursor)
            assert chunk.items == (payload(number),)
            cursor = chunk.cursor

    writing(journal, work)


@pytest.mark.parametrize(
    "given",
    [
        payload(1, None),
        payload(1, b""),
        payload(1, bytes(range(256))),
        payload(1, b'{"crc":"00000000","n":1,"id":"x"}\n{"crc":"'),
        payload(1, '\N{SNOWMAN}\u2028\x00\\"\n\r'.encode()),
        payload(1, b"x" * 3_000_000),
        RawPayload(
            "f" * 32, 0, "mqtt", "/i", "e=pv&x=%00", b"b", "text/plain", (("A", "1"), ("A", "2")), "::1", "h:80", "u", "dev"
        ),
    ],
    ids=["no body", "empty body", "every byte", "looks like a line", "odd text", "3 MB", "every field"],
)
def test_a_payload_comes_back_as_it_was(journal: Journal, given: RawPayload) -> None:
    if len(given.body or b"") > journal.largest:
        with pytest.raises(TooLarge):
            write(journal, [given])
        return
    write(journal, [given, payload(2)])
    found = everything(journal.reader())
    assert len(found) == 2
    assert set(found) == {given, payload(2)}  # of several keys there is no order


def test_one_writers_payloads_come_in_the_order_they_were_appended(journal: Journal) -> None:
    given = [payload(number, b"x" * (number % 700)) for number in range(500 if journal.lane_per_writer else 100)]
    write(journal, given)
    assert everything(journal.reader()) == given


def test_reading_goes_on_after_the_cursor(journal: Journal) -> None:
    write(journal, [payload(1), payload(2)])
    chunk = journal.reader().read({})
    write(journal, [payload(3)])
    assert journal.reader().read(chunk.cursor).items == (payload(3),)


def test_small_steps_read_the_same_as_one_big_one(journal: Journal) -> None:
    given = [payload(number, b"x" * (97 * number % 5_000)) for number in range(60)]
    write(journal, given)
    assert everything(journal.reader(), max_payloads=1) == given
    assert everything(journal.reader(), max_bytes=1) == given
    assert everything(journal.reader(), max_payloads=7, max_bytes=9_000) == given


def test_more_says_whether_there_is_more_at_once(journal: Journal) -> None:
    write(journal, [payload(1), payload(2)])
    reader = journal.reader()
    first = reader.read({}, max_payloads=1)
    second = reader.read(first.cursor, max_payloads=1)
    assert (first.more, second.more) == (True, False)
    assert second.items == (payload(2),)


def test_a_read_stops_after_the_payload_that_crosses_max_bytes(journal: Journal) -> None:
    write(journal, [payload(number, b"x" * 1_000) for number in range(20)])
    chunk = journal.reader().read({}, max_bytes=5_000)
    assert len(chunk.items) <= 5
    assert len(chunk.items) >= 4 or not journal.lane_per_writer  # what comes over a network may come bit by bit
    assert chunk.more


def test_a_journal_that_does_not_exist_yet_is_empty(journal: Journal) -> None:
    chunk = journal.reader().read({})
    assert (chunk.items, dict(chunk.cursor), chunk.more) == ((), {}, False)
    assert journal.reader().pending({}) == 0


def test_nothing_new_leaves_the_cursor_as_it_is(journal: Journal) -> None:
    write(journal, [payload(1)])
    reader = journal.reader()
    cursor = reader.read({}).cursor
    assert reader.read(cursor) == Chunk((), cursor, False)


def test_pending_counts_what_follows_the_cursor(journal: Journal) -> None:
    write(journal, [payload(number) for number in range(10)])
    reader = journal.reader()
    if not journal.counts:  # then what was fetched is counted
        reader.read({}, max_payloads=1)
        assert 0 <= reader.pending({}) <= 10
        return
    assert reader.pending({}) == 10
    chunk = reader.read({}, max_payloads=4)
    assert 0 < len(chunk.items) <= 4
    assert reader.pending(chunk.cursor) == 10 - len(chunk.items)
    while chunk.items:
        chunk = reader.read(chunk.cursor)
    assert reader.pending(chunk.cursor) == 0


def test_accepted_goes_on_counting_after_a_restart(journal: Journal) -> None:
    write(journal, [payload(1), payload(2)])

    async def work(writer: Writer) -> None:
        if not journal.lane_per_writer:
            assert writer.accepted() == 0
            await asyncio.gather(writer.append(payload(4)), writer.append(payload(5)))
        assert writer.accepted() == 2
        await writer.append(payload(3))
        assert writer.accepted() == 3

    writing(journal, work)


def test_a_closed_writer_takes_nothing(journal: Journal) -> None:
    async def run() -> None:
        writer = journal.writer()
        await writer.close()
        with pytest.raises(JournalBroken):
            await writer.append(payload(1))
        await writer.close()

    asyncio.run(run())
    assert everything(journal.reader()) == []


def test_closing_finishes_what_is_under_way(journal: Journal) -> None:
    async def run() -> None:
        writer = journal.writer()
        futures = [writer.append(payload(number)) for number in range(100)]
        await writer.close()
        assert all(future.done() and future.exception() is None for future in futures)

    asyncio.run(run())
    assert len(everything(journal.reader())) == 100


def test_cancelling_the_future_does_not_take_the_payload_back(journal: Journal) -> None:
    async def work(writer: Writer) -> None:
        given_up = writer.append(payload(1))
        given_up.cancel()
        await writer.append(payload(2))

    writing(journal, work)
    assert everything(journal.reader()) == [payload(1), payload(2)]


def test_several_writers_and_readers_share_one_journal(journal: Journal) -> None:
    async def run() -> None:
        writers = [journal.writer() for _ in range(3)]
        try:
            for number in range(30):
                await writers[number % 3].append(payload(number))
        finally:
            for writer in writers:
                await writer.close()

    asyncio.run(run())
    given = {payload(number) for number in range(30)}
    for limits in ({}, {"max_payloads": 1}, {"max_payloads": 4}):
        found = everything(journal.reader(), **limits)
        assert len(found) == 30
        assert set(found) == given
    assert journal.reader().pending({}) == (30 if journal.counts else 0)


def test_no_writer_waits_behind_anothers_backlog(journal: Journal) -> None:
    if not journal.lane_per_writer:
        return  # they share the lanes, and the order of a lane is the order of arrival

    async def run() -> None:
        busy, calm = journal.writer(), journal.writer()
        await asyncio.gather(*(busy.append(payload(number)) for number in range(200)))
        await calm.append(payload(1_000))
        await busy.close()
        await calm.close()

    asyncio.run(run())
    reader, cursor, found = journal.reader(), dict[str, object](), list[object]()
    for _ in range(2):
        chunk = reader.read(cursor, max_payloads=10)
        cursor, found = chunk.cursor, found + list(chunk.items)
    assert payload(1_000) in found


def test_a_payload_that_cannot_be_written_down_harms_no_other(journal: Journal) -> None:
    async def work(writer: Writer) -> None:
        bad = RawPayload("0" * 32, 1, "http", "/\udcff")
        results = await asyncio.gather(
            writer.append(payload(1)), writer.append(bad), writer.append(payload(2)), return_exceptions=True
        )
        assert [result is None for result in results] == [True, False, True]

    writing(journal, work)
    assert everything(journal.reader()) == [payload(1), payload(2)]
    assert journal.reader().pending({}) == (2 if journal.counts else 0)
