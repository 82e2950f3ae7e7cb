"""What is handed to Kinesis: within its limits, in order by key, sent again when refused, and given up in time."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.journal import Damage, TooLarge
from gateway.journal.kinesis import Config
from gateway.journal.kinesis.reader import KinesisReader
from gateway.journal.kinesis.writer import KinesisWriter
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, PermanentError, Position, RawPayload, TransientError
from tests.contracts.kinesis_bench import Refusing, a_name, answering, credentials, everything, once, payload
from tests.peers.kinesis_server import Kinesalite

THROTTLED = "ProvisionedThroughputExceededException"


@pytest.fixture(scope="module")
def kinesis() -> Iterator[Kinesalite]:
    with credentials(), Kinesalite() as server:
        yield server


@pytest.fixture
def config(kinesis: Kinesalite) -> Config:
    name = a_name()
    kinesis.stream(name, 2)
    return Config(stream=name, endpoint=kinesis.endpoint, poll_ms=10)


def sending(
    config: Config, work: Callable[[KinesisWriter], Awaitable[None]], clock: Callable[[], float] = time.monotonic
) -> None:
    async def run() -> None:
        remote = KinesisWriter(config, chance=lambda: 0.0, clock=clock)
        try:
            await remote.reach()
            await work(remote)
        finally:
            await asyncio.wait_for(remote.close(), 60)

    asyncio.run(run())


def sent(remote: KinesisWriter, items: Sequence[RawPayload | Damage]) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    remote.send(items, lambda error: future.set_result(None) if error is None else future.set_exception(error))
    return future


def there(config: Config) -> list[RawPayload | Damage]:
    reader = KinesisReader.open(config)
    try:
        return everything(reader)[0]
    finally:
        reader.close()


def of(device: str, items: Sequence[object]) -> list[object]:
    return [item for item in items if isinstance(item, RawPayload) and item.device == device]


def test_requests_stay_within_500_records_and_5_mib_with_no_key_twice(config: Config) -> None:
    many = [payload(number, f"device-{number % 700}") for number in range(800)]
    large = [payload(number, body=b"x" * 900_000) for number in range(2_000, 2_008)]

    async def work(remote: KinesisWriter) -> None:
        seen = Refusing(remote)
        await asyncio.gather(*[sent(remote, [item]) for item in many + large])
        assert sum(len(keys) for keys, _ in seen.records) == len(many) + len(large)
        assert max(len(keys) for keys, _ in seen.records) == 500
        assert 4 << 20 < max(size for _, size in seen.records) <= 5 << 20
        assert all(len(set(keys)) == len(keys) for keys, _ in seen.records)

    sending(config, work)
    found = there(config)
    assert len(found) == len(many) + len(large)
    assert set(found) == {*many, *large}
    assert all(of(f"device-{number}", found) == of(f"device-{number}", many) for number in range(700))


def test_a_record_of_1_mib_is_taken_and_one_byte_more_is_too_large(config: Config) -> None:
    room = (1 << 20) - len(to_json(payload(1, body=b""))) - 32

    async def work(remote: KinesisWriter) -> None:
        largest = payload(1, body=b"x" * room)
        await sent(remote, [largest])
        with pytest.raises(TooLarge, match="1048577 bytes; the journal takes 1048576"):
            await sent(remote, [payload(2), payload(1, body=b"x" * (room + 1))])
        with pytest.raises(TooLarge):
            remote.check(payload(1, body=b"x" * (room + 1)))
        assert remote.requests == 1  # nothing of the refused ones was sent

    sending(config, work)
    assert [len(item.body or b"") for item in there(config) if isinstance(item, RawPayload)] == [room]


def test_larger_records_are_for_streams_that_take_them_and_go_alone(config: Config) -> None:
    async def run() -> None:
        remote = KinesisWriter(replace(config, max_record_bytes=10 << 20))
        with pytest.raises(PermanentError, match=f"{10 << 20}: the stream '{config.stream}' takes 1048576"):
            await remote.reach()
        seen = Refusing(remote, whole=lambda number: "AccessDeniedException")  # this server would take none of that size
        futures = [sent(remote, [payload(number, body=b"x" * (9 << 20))]) for number in range(2)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, TransientError) for result in results)
        assert {len(keys) for keys, _ in seen.records} == {1}  # whether the second was sent yet when the first was refused
        await remote.close()

    asyncio.run(run())


def test_the_order_of_a_key_holds_whatever_is_refused(config: Config) -> None:
    chance = random.Random(1)
    given = [payload(number, f"device-{number % 7}") for number in range(70)]

    async def work(remote: KinesisWriter) -> None:
        Refusing(remote, refuse=lambda number, key, nth: THROTTLED if nth < 3 and chance.random() < 0.4 else "")
        await asyncio.gather(*[sent(remote, [item]) for item in given])
        assert remote.retries > 10

    sending(config, work)
    found = there(config)
    assert len(found) == len(given)  # what was refused was not taken: there are no copies
    assert all(of(f"device-{number}", found) == of(f"device-{number}", given) for number in range(7))


def test_an_answer_that_is_lost_leaves_copies_and_the_order(config: Config) -> None:
    given = [payload(number, f"device-{number % 3}") for number in range(15)]

    async def work(remote: KinesisWriter) -> None:
        Refusing(remote, whole=lambda number: "lost" if number % 3 == 0 else "InternalFailure" if number % 3 == 1 else "")
        await asyncio.gather(*[sent(remote, [item]) for item in given])

    sending(config, work)
    found = there(config)
    assert len(found) > len(given)
    assert all(once(of(f"device-{number}", found)) == of(f"device-{number}", given) for number in range(3))


def test_a_hot_key_does_not_stop_the_others(config: Config) -> None:
    async def work(remote: KinesisWriter) -> None:
        Refusing(remote, refuse=lambda number, key, nth: THROTTLED if key == "hot" and nth < 4 else "")
        hot = sent(remote, [payload(1, "hot")])
        for number in range(2, 12):
            await sent(remote, [payload(number)])
        assert not hot.done()
        await hot

    sending(config, work)


class Time:
    """A clock that each refusal moves by a second: no test depends on how busy this machine is."""

    now = 0.0

    def refusing(self, refused: Callable[[str, int], bool]) -> Callable[[int, str, int], str]:
        def refuse(number: int, key: str, nth: int) -> str:
            if refused(key, nth):
                self.now += 1
                return THROTTLED
            return ""

        return refuse


def test_throughput_errors_are_waited_out_until_the_time_is_over_and_then_all_that_waits_is_given_up(config: Config) -> None:
    told, time = list[int](), Time()

    async def work(remote: KinesisWriter) -> None:
        seen = Refusing(remote, refuse=time.refusing(lambda key, nth: key == "a"))
        futures = list[asyncio.Future[None]]()
        for number in range(4):
            futures.append(sent(remote, [payload(number, "a")]))
            futures[-1].add_done_callback(lambda _, number=number: told.append(number))
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, TransientError) for result in results)
        assert f"not acknowledged a record within 5 s: {THROTTLED}" in str(results[0])
        assert told == [0, 1, 2, 3]
        assert [keys for keys, _ in seen.records] == [["a"]] * 5
        assert remote.retries == 4
        await sent(remote, [payload(9, "b")])  # and it takes what comes next
        assert [keys for keys, _ in seen.records[5:]] == [["b"]]

    sending(config, work, lambda: time.now)
    assert there(config) == [payload(9, "b")]


def test_what_waits_its_turn_behind_its_key_is_not_late(config: Config) -> None:
    time = Time()

    async def work(remote: KinesisWriter) -> None:
        Refusing(remote, refuse=time.refusing(lambda key, nth: nth < 3))
        await sent(remote, [payload(number, "a") for number in range(6)])  # two seconds each, and it has five

    sending(config, work, lambda: time.now)
    assert there(config) == [payload(number, "a") for number in range(6)]


def test_what_will_not_get_better_is_told_at_once(config: Config) -> None:
    async def work(remote: KinesisWriter) -> None:
        Refusing(remote, whole=lambda number: "AccessDeniedException" if number == 0 else "")
        with pytest.raises(TransientError, match="AccessDeniedException"):
            await asyncio.wait_for(sent(remote, [payload(1)]), 5)
        assert remote.retries == 0

    sending(config, work)


@pytest.mark.parametrize("answered", [True, False], ids=["after its refusal", "while it is under way"])
def test_what_was_abandoned_is_neither_sent_again_nor_told(config: Config, answered: bool) -> None:
    asked, go_on, refused = threading.Event(), threading.Event(), asyncio.Event()

    def refuse(number: int, key: str, nth: int) -> str:
        if number:
            return ""
        asked.set()
        go_on.wait(60)
        return THROTTLED

    async def work(remote: KinesisWriter) -> None:
        remote._chance = lambda: float(refused.set() or 0)  # asked for the pause after a refusal
        seen = Refusing(remote, refuse=refuse)
        first, second = sent(remote, [payload(1, "a")]), sent(remote, [payload(2, "a")])
        await asyncio.to_thread(asked.wait, 60)
        if answered:
            go_on.set()
            await refused.wait()
        remote.abandon()
        third = sent(remote, [payload(3, "a")])
        go_on.set()
        await third
        while remote._under_way:
            await sent(remote, [payload(4, "b")])
        assert not remote._held
        assert not first.done()
        assert not second.done()
        assert [keys for keys, _ in seen.records].count(["a"]) == 2

    sending(config, work)
    assert of("a", there(config)) == [payload(3, "a")]


def test_what_waits_has_a_limit(config: Config) -> None:
    small = Config(stream=config.stream, endpoint=config.endpoint, waiting_bytes=3_000)

    async def work(remote: KinesisWriter) -> None:
        first = sent(remote, [payload(1, body=b"x" * 2_900)])
        with pytest.raises(TransientError, match="slower than what arrives"):
            await sent(remote, [payload(2, body=b"x" * 2_900)])
        await first
        await sent(remote, [payload(2, body=b"x" * 2_900)])
        await sent(remote, [])

    sending(small, work)
    assert there(config) == [payload(1, body=b"x" * 2_900), payload(2, body=b"x" * 2_900)]


def test_text_that_is_no_unicode_is_refused_and_harms_no_other(config: Config) -> None:
    async def work(remote: KinesisWriter) -> None:
        good = sent(remote, [payload(1)])
        with pytest.raises(PermanentError, match="cannot be written down"):
            await sent(remote, [RawPayload("0" * 32, 1, "http", "/\udcff")])
        await good

    sending(config, work)
    assert there(config) == [payload(1)]


def test_damage_is_handed_over_as_it_is_and_read_as_damage(config: Config) -> None:
    async def work(remote: KinesisWriter) -> None:
        await sent(remote, [payload(1, "a"), Damage("lane", Position(1, 2, 3), b"no payload"), payload(2, "a")])

    sending(config, work)
    found = there(config)
    assert of("a", found) == [payload(1, "a"), payload(2, "a")]
    (damage,) = [item for item in found if isinstance(item, Damage)]
    assert damage.data == b"no payload"
    assert "is no payload" in damage.what


def test_closing_waits_for_what_is_under_way(config: Config) -> None:
    async def run() -> None:
        remote = KinesisWriter(config)
        futures = [sent(remote, [payload(number, "a")]) for number in range(20)]
        await asyncio.wait_for(remote.close(), 60)
        assert all(future.done() and future.exception() is None for future in futures)

    asyncio.run(run())
    assert there(config) == [payload(number, "a") for number in range(20)]


def test_a_stream_that_is_missing_is_named_or_made(kinesis: Kinesalite) -> None:
    name = a_name()

    async def run(create: int) -> None:
        remote = KinesisWriter(Config(stream=name, endpoint=kinesis.endpoint, create=create))
        try:
            await remote.reach()
            await sent(remote, [payload(1)])
        finally:
            await remote.close()

    with pytest.raises(PermanentError, match=f"there is no '{name}' in us-east-1; make it, or set create"):
        asyncio.run(run(0))
    asyncio.run(run(3))
    assert there(Config(stream=name, endpoint=kinesis.endpoint, poll_ms=10)) == [payload(1)]


def test_a_stream_that_spreads_records_as_it_likes_is_refused(config: Config, kinesis: Kinesalite) -> None:
    def spreading(asked: Any) -> Any:
        arn = f"arn:aws:kinesis:us-east-1:000000000000:stream/{config.stream}"
        about = {"StreamARN": arn, "StreamStatus": "ACTIVE", "RecordDistributionStrategy": "AUTO", "RetentionPeriodHours": 24}
        return 200, {"StreamDescriptionSummary": about | {"StreamCreationTimestamp": 1_700_000_000.0}}

    async def run() -> None:
        remote = KinesisWriter(config)
        answering(remote.service.kinesis, "DescribeStreamSummary", spreading)
        try:
            await remote.reach()
        finally:
            await remote.close()

    with pytest.raises(PermanentError, match="USER_PARTITION_KEY"):
        asyncio.run(run())


def test_a_server_that_is_gone_is_out_of_reach_and_not_a_fault() -> None:
    async def run() -> None:
        remote = KinesisWriter(Config(stream="s", endpoint="http://127.0.0.1:9", delivery_ms=200))
        with pytest.raises(TransientError):
            await remote.reach()
        with pytest.raises(TransientError, match="not acknowledged"):
            await sent(remote, [payload(1)])
        await remote.close()

    with credentials():
        asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "no stream is named"),
        ({"stream": "s", "lease_ms": 100}, "lease_ms = 100: it must be at least 500"),
        ({"stream": "s", "max_record_bytes": 11 << 20}, "Kinesis has at most 10485760"),
    ],
    ids=["no stream", "short lease", "large record"],
)
def test_options_are_checked(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        KinesisWriter(Config(**options))
