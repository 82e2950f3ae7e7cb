"""What is read from Kinesis: every record once and in order, through splits, expired iterators and what Kinesis forgot."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from gateway.journal import Damage
from gateway.journal.kinesis import Config
from gateway.journal.kinesis.positions import key_of
from gateway.journal.kinesis.reader import KinesisReader
from gateway.journal.kinesis.service import Service
from gateway.journal.kinesis.writer import KinesisWriter
from protocol.payloads import to_json
from protocol.seams import PermanentError, RawPayload, TransientError
from tests.contracts.kinesis_bench import a_name, answering, credentials, everything, payload
from tests.peers.kinesis_server import Kinesalite, active

HALF, QUARTER = 1 << 127, 1 << 126


@pytest.fixture(scope="module")
def kinesis() -> Iterator[Kinesalite]:
    with credentials(), Kinesalite() as server:
        yield server


class Stream:
    def __init__(self, server: Kinesalite, shards: int) -> None:
        self.name = a_name()
        self.client = server.stream(self.name, shards)
        self.config = Config(stream=self.name, endpoint=server.endpoint, poll_ms=10)

    def put(self, items: Sequence[RawPayload | bytes]) -> None:
        records = [
            {"Data": item, "PartitionKey": "k"}
            if isinstance(item, bytes)
            else {"Data": to_json(item), "PartitionKey": key_of(item)}
            for item in items
        ]
        assert not self.client.put_records(StreamName=self.name, Records=records)["FailedRecordCount"]

    def split(self, shard: int, at: int) -> None:
        self.client.split_shard(StreamName=self.name, ShardToSplit=f"shardId-{shard:012}", NewStartingHashKey=str(at))
        active(self.client, self.name)

    def merge(self, one: int, other: int) -> None:
        one_id, other_id = f"shardId-{one:012}", f"shardId-{other:012}"
        self.client.merge_shards(StreamName=self.name, ShardToMerge=one_id, AdjacentShardToMerge=other_id)
        active(self.client, self.name)

    def reader(self, **options: Any) -> KinesisReader:
        return KinesisReader(Service(self.config), **options)


@pytest.fixture
def stream(kinesis: Kinesalite) -> Stream:
    return Stream(kinesis, 1)


def by_device(items: Sequence[object]) -> dict[str | None, list[object]]:
    found = dict[str | None, list[object]]()
    for item in items:
        found.setdefault(item.device if isinstance(item, RawPayload) else "damage", []).append(item)
    return found


def test_order_by_key_survives_a_split_and_a_merge(stream: Stream) -> None:
    given = [payload(number, f"device-{number % 5}") for number in range(90)]
    stream.put(given[:30])
    stream.split(0, HALF)
    stream.put(given[30:60])
    stream.merge(1, 2)
    stream.put(given[60:])
    for limits in ({}, {"max_payloads": 3}):
        found, cursor = everything(stream.reader(), **limits)
        assert len(found) == len(given)
        assert by_device(found) == by_device(given)
        assert len(cursor) == 4  # every shard there has been
    assert everything(stream.reader(), cursor) == ([], cursor)


def test_children_wait_until_the_target_has_all_of_their_parent(stream: Stream) -> None:
    stream.put([payload(1)])
    stream.split(0, HALF)
    stream.put([payload(number) for number in range(10, 30)])
    reader = stream.reader()
    for _ in range(3):  # the target does not get further
        assert reader.read({}).items == (payload(1),)
    chunk = reader.read({})
    assert len(everything(reader, chunk.cursor)[0]) == 20


def test_a_split_while_reading_loses_and_repeats_nothing(stream: Stream) -> None:
    reader, cursor, found = stream.reader(), dict[str, Any](), list[object]()
    numbers = iter(range(1_000))
    given = list[RawPayload]()
    for step in range(6):
        batch = [payload(next(numbers), f"device-{each % 4}") for each in range(12)]
        stream.put(batch)
        given += batch
        if step == 1:
            stream.split(0, HALF)
        if step == 3:
            stream.split(2, HALF + QUARTER)
        chunk = reader.read(cursor, max_payloads=7)
        found += chunk.items
        cursor = dict(chunk.cursor)
    found += everything(reader, cursor)[0]
    assert len(found) == len(given)
    assert by_device(found) == by_device(given)


def test_an_iterator_that_has_expired_is_asked_for_anew(kinesis: Kinesalite, stream: Stream) -> None:
    reader = stream.reader()
    stream.put([payload(1), payload(2)])
    cursor = reader.read({}).cursor
    kinesis.advance(301)
    stream.put([payload(3)])
    assert reader.read(cursor).items == (payload(3),)


def test_what_kinesis_forgot_before_it_was_read_is_told_once_and_in_its_place(kinesis: Kinesalite, stream: Stream) -> None:
    stream.put([payload(number) for number in range(5)])
    cursor = stream.reader().read({}, max_payloads=2).cursor
    kinesis.advance(25 * 3600)
    stream.put([payload(5), payload(6)])
    reader = stream.reader()
    chunk = reader.read(cursor, max_payloads=1)
    damage, first = chunk.items
    assert isinstance(damage, Damage)
    assert "may be lost: Kinesis does not have it any more" in damage.what
    assert first == payload(5)
    assert chunk.cursor == {damage.lane: damage.position}
    assert reader.read(chunk.cursor).items == (payload(6),)
    assert stream.reader().read(chunk.cursor).items == (payload(6),)


def test_a_place_that_kinesis_refuses_is_told_like_one_it_forgot(stream: Stream) -> None:
    stream.put([payload(1), payload(2)])
    cursor = stream.reader().read({}, max_payloads=1).cursor
    reader = stream.reader()
    refused = (400, {"__type": "InvalidArgumentException", "message": "StartingSequenceNumber is invalid"})
    answering(reader._service.kinesis, "GetShardIterator", lambda asked: refused if "StartingSequenceNumber" in asked else None)
    damage, *rest = reader.read(cursor).items
    assert isinstance(damage, Damage)
    assert "StartingSequenceNumber is invalid" in damage.what
    assert rest == [payload(1), payload(2)]


def test_a_closed_shard_of_which_everything_was_forgotten_is_told_and_left(kinesis: Kinesalite, stream: Stream) -> None:
    stream.put([payload(1), payload(2)])
    cursor = stream.reader().read({}, max_payloads=1).cursor
    stream.split(0, HALF)
    kinesis.advance(25 * 3600)
    stream.put([payload(3)])
    found, end = everything(stream.reader(), cursor)
    damage, *rest = found
    assert isinstance(damage, Damage)
    assert "the shard is closed" in damage.what
    assert rest == [payload(3)]
    assert set(cursor) < set(end)


def test_what_is_no_payload_is_damage_in_its_place(stream: Stream) -> None:
    stream.put([payload(1), b"\x80 not ours", payload(2), b'{"id":1}', payload(3)])
    found, _ = everything(stream.reader(), max_payloads=1)
    assert [item for item in found if isinstance(item, RawPayload)] == [payload(1), payload(2), payload(3)]
    damages = [item for item in found if isinstance(item, Damage)]
    assert [found.index(damage) for damage in damages] == [1, 3]
    assert [damage.data for damage in damages] == [b"\x80 not ours", b'{"id":1}']
    assert damages[0].what != damages[1].what


def test_a_reader_goes_back_where_the_cursor_does(stream: Stream) -> None:
    stream.put([payload(number) for number in range(6)])
    reader = stream.reader()
    first = reader.read({}, max_payloads=2)
    assert first.more
    reader.read(first.cursor, max_payloads=2)
    again = reader.read(first.cursor, max_payloads=2)
    assert again.items == (payload(2), payload(3))
    assert everything(reader)[0] == [payload(number) for number in range(6)]


def test_lanes_of_a_stream_made_anew_are_others(kinesis: Kinesalite, stream: Stream) -> None:
    stream.put([payload(1)])
    cursor = stream.reader().read({}).cursor
    stream.client.delete_stream(StreamName=stream.name)
    kinesis.advance(5)
    gone = stream.client.exceptions.ResourceNotFoundException
    while True:
        try:
            stream.client.describe_stream_summary(StreamName=stream.name)
        except gone:
            break
    stream.client.create_stream(StreamName=stream.name, ShardCount=1)
    active(stream.client, stream.name)
    stream.put([payload(2)])
    chunk = stream.reader().read(cursor)
    assert chunk.items == (payload(2),)
    assert len(chunk.cursor) == 2


def test_a_stream_that_is_deleted_while_it_is_read_is_told_and_no_loss_of_shards(kinesis: Kinesalite, stream: Stream) -> None:
    stream.put([payload(1)])
    reader = stream.reader()
    cursor = reader.read({}).cursor
    missing = (400, {"__type": "ResourceNotFoundException", "message": "there is no such stream"})
    for operation in ("GetRecords", "ListShards"):
        answering(reader._service.kinesis, operation, lambda asked: missing)
    with pytest.raises(PermanentError, match="no such stream"):
        reader.read(cursor)


def test_a_stream_that_is_missing_is_told(stream: Stream) -> None:
    with pytest.raises(PermanentError, match="there is no 'no-such-stream' in us-east-1"):
        KinesisReader(Service(Config(stream="no-such-stream", endpoint=stream.config.endpoint))).read({})


def test_lag_is_in_milliseconds_and_pending_counts_what_is_known(stream: Stream) -> None:
    reader = stream.reader()
    assert reader.pending({}) == 0
    stream.put([payload(number) for number in range(5)])
    cursor = reader.read({}, max_payloads=2).cursor
    assert reader.pending(cursor) == 3
    assert list(reader.lag()) == list(cursor)
    assert everything(reader, cursor)[0] == [payload(2), payload(3), payload(4)]
    assert reader.pending(cursor) == 0


class Time:
    """A clock that moves when somebody waits, and by a hundredth of a second with each look."""

    def __init__(self, least: float = 0.0) -> None:
        """least: nobody is woken before so many seconds."""
        self.now, self._least = 0.0, least

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += max(seconds, self._least)


def counted(reader: KinesisReader, time: Time) -> list[float]:
    """When GetRecords was called."""
    calls = list[float]()
    answering(reader._service.kinesis, "GetRecords", lambda asked: calls.append(time.now))
    return calls


def test_a_shard_is_asked_no_more_than_five_times_a_second_and_seldom_when_there_is_nothing(kinesis: Kinesalite) -> None:
    time, stream = Time(), Stream(kinesis, 1)
    config = Config(stream=stream.name, endpoint=kinesis.endpoint)
    reader = KinesisReader(Service(config), clock=time.clock, wait=time.wait)
    calls = counted(reader, time)
    for _ in range(5):
        reader.read({})
    assert [late - early >= 0.99 for early, late in pairwise(calls)] == [True] * 4
    del calls[:]
    stream.put([payload(number, body=b"x" * 100_000) for number in range(40)])
    behind, direct = {"MillisBehindLatest": 1000}, stream.client

    def some(asked: Any) -> Any:
        """As a busy stream: a few records, and more to come."""
        calls.append(time.now)
        answer = direct.get_records(ShardIterator=asked["ShardIterator"], Limit=10)
        kept = ("SequenceNumber", "PartitionKey")
        records = [{name: each[name] for name in kept} | {"Data": b64encode(each["Data"]).decode()} for each in answer["Records"]]
        return 200, {"Records": records, "NextShardIterator": answer["NextShardIterator"]} | (behind if records else {})

    reader = KinesisReader(Service(config), clock=time.clock, wait=time.wait)
    answering(reader._service.kinesis, "GetRecords", some)
    found, _ = everything(reader)
    assert len(found) == 40
    assert all(late - early >= 0.2 for early, late in pairwise(calls))
    assert (calls[4] - calls[0]) * (2 << 20) > 3_900_000  # 2 MiB a second


def test_throttled_reads_wait_and_lose_nothing(kinesis: Kinesalite) -> None:
    time, stream = Time(), Stream(kinesis, 1)
    reader = KinesisReader(Service(stream.config), clock=time.clock, wait=time.wait)
    throttled = (400, {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"})
    answers = iter([throttled, throttled, None, throttled])
    calls = list[float]()

    def refuse(asked: Any) -> Any:
        calls.append(time.now)
        return next(answers, None)

    answering(reader._service.kinesis, "GetRecords", refuse)
    stream.put([payload(1)])
    assert everything(reader)[0] == [payload(1)]
    assert [late - early >= 1 for early, late in pairwise(calls[:3])] == [True, True]


def test_an_empty_answer_is_not_the_end_while_kinesis_says_there_is_more(kinesis: Kinesalite) -> None:
    time, stream = Time(5.0), Stream(kinesis, 2)
    reader = KinesisReader(Service(stream.config), clock=time.clock, wait=time.wait)
    left = [3]

    def sparse(asked: Any) -> Any:
        left[0] -= 1
        empty = {"Records": [], "NextShardIterator": asked["ShardIterator"], "MillisBehindLatest": 7_000}
        return (200, empty) if left[0] >= 0 else None

    answering(reader._service.kinesis, "GetRecords", sparse)
    stream.put([payload(1)])
    assert reader.read({}).items == (payload(1),)
    left[0] = 1_000_000
    with pytest.raises(TransientError, match="has not said whether there is more"):
        reader.read(everything(stream.reader())[1])


def test_what_a_remote_hands_over_a_reader_gets(stream: Stream) -> None:
    given = payload(1, "device", bytes(range(256)))

    async def run() -> None:
        remote = KinesisWriter(stream.config)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        remote.send([given], lambda error: future.set_result(None))
        await future
        await remote.close()

    asyncio.run(run())
    assert everything(stream.reader())[0] == [given]
