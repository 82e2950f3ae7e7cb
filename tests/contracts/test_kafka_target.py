"""The Kafka target on a real broker: what its records are, what it remembers, and that no kill and no rival doubles an event."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from protocol.devices import DEVICE_TIME
from protocol.schemas import bundled
from protocol.seams import (
    START,
    ConfigurationError,
    Event,
    FailedEvent,
    PermanentError,
    Position,
    RawPayload,
    Reason,
    TransientError,
)
from storage.kafka.memory import Memory
from storage.targets import Batch, Counts, Overtaken, kafka
from tests.contracts.kafka_bench import KafkaBench
from tests.peers.kafka_server import KafkaServer

RECEIVED = 1_795_000_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as found:
        yield found


def event_of(number: int, **columns: Any) -> Event:
    event: Any = {"event_id": str(uuid.UUID(int=number)), "event_fingerprint": "f", "collector_tstamp": RECEIVED + number}
    return {**event, **columns}


def failed_of(number: int, body: bytes = b"x") -> FailedEvent:
    payload = RawPayload(f"{number:032x}", RECEIVED, "http", "/i", body=body)
    return FailedEvent(
        f"failed-{number}", "schema_violations", (Reason("atomic", "eid", "no UUID", "x" * 1000),), payload, RECEIVED
    )


def batch_of(first: int, *events: Event, failed: tuple[FailedEvent, ...] = (), lane: str = "lane") -> Batch:
    """Payloads from `first` on, one event each."""
    count = len(events) + len(failed)
    return Batch(
        events, failed, {lane: Position(0, first + count, first + count)}, count, since={lane: Position(0, first, first)}
    )


def test_a_record_of_an_event_has_its_columns_and_the_key_of_device_or_user(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap)
    seen: Any = {"schema": DEVICE_TIME, "data": {"device": "pump-7"}}
    events = [event_of(1, app_id="ä", derived_contexts=[seen]), event_of(2, network_userid="n", user_id="u"), event_of(3)]
    bench.open().commit(batch_of(0, *events, failed=(failed_of(4),)))
    found = {key: json.loads(value) for key, value in bench.records(bench.config.topic)}
    assert sorted(found) == [str(uuid.UUID(int=3)).encode(), b"n", b"pump-7"]
    assert found[b"pump-7"]["app_id"] == "ä"
    assert found[b"n"] == {
        "event_id": str(uuid.UUID(int=2)), "event_fingerprint": "f", "collector_tstamp": "2026-11-18 11:06:40.002",
        "network_userid": "n", "user_id": "u",
    }  # fmt: skip
    ((key, value),) = bench.records(bench.config.failed_topic)
    failed = json.loads(value)
    assert key.decode() == failed["payload_id"] == f"{4:032x}"
    assert (failed["failed_id"], failed["payload"]["body"]) == ("failed-4", "x")
    bench.open().close()


def test_events_of_a_device_stay_in_order_in_one_partition(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap)
    target = bench.open()
    for start in range(0, 60, 20):
        target.commit(batch_of(start, *(event_of(n, network_userid=f"user-{n % 4}") for n in range(start, start + 20))))
    by_user: dict[bytes, list[str]] = {}
    for key, value in bench.records(bench.config.topic):  # of a partition in order
        by_user.setdefault(key, []).append(json.loads(value)["event_id"])
    assert [ids == sorted(ids) and len(ids) for ids in by_user.values()] == [15] * 4
    target.close()


def test_tsv_is_the_canonical_line(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap, format="tsv")
    bench.open().commit(batch_of(0, event_of(1, page_title="a\tb")))
    ((_, value),) = bench.records(bench.config.topic)
    assert value.count(b"\t") == 130 and b"a    b" in value and not value.endswith(b"\n")
    assert value.split(b"\t")[6].decode() == str(uuid.UUID(int=1))
    bench.open().close()


def test_what_no_record_holds_is_a_failed_event_and_a_failed_one_is_shortened(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap, max_record_bytes=20_000)
    target = bench.open()
    batch = batch_of(0, event_of(1, page_title="x" * 20_000), event_of(2), failed=(failed_of(3, b"x" * 30_000),))
    assert target.commit(batch) == Counts(3, 1, 2, 0)
    assert bench.ids() == [str(uuid.UUID(int=2))]
    large, whole = sorted(
        (json.loads(value) for _, value in bench.records(bench.config.failed_topic)), key=lambda one: one["kind"]
    )[::-1]
    assert (large["kind"], whole["kind"]) == ("size_violation", "schema_violations")
    assert large["reasons"][0]["keyword"] == "max_record_bytes" and "a record holds 20000" in large["first_reason"]
    assert large["shortened"] and whole["shortened"] and "payload" not in whole
    # The same event again is the same failed event.
    assert target.commit(batch_of(3, event_of(1, page_title="x" * 20_000))) == Counts(1, 0, 0, 1)
    target.close()


def test_copies_are_known_so_far_back_and_no_further_and_what_is_forgotten_is_deleted(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap, remember=10)
    target = bench.open()
    for start in range(0, 40, 5):
        target.commit(batch_of(start, *map(event_of, range(start, start + 5))))
    state = dict(bench.records(bench.config.state))
    assert len([key for key, value in state.items() if value is not None and key != b"state"]) == 2  # parts of five
    target = bench.open()  # knows it from the topic
    assert target.commit(batch_of(40, event_of(39), event_of(30), event_of(2))) == Counts(3, 1, 0, 2)
    assert bench.ids().count(str(uuid.UUID(int=2))) == 2
    target.close()


def test_a_memory_forgets_its_oldest_parts() -> None:
    memory = Memory(4)
    for number in range(3):
        for key, value in memory.parts(f"c{number}", [(f"e{number}{n}", "f") for n in range(2)], [f"x{number}"]):
            for gone in memory.outdated(3):
                memory.learn(gone, None)
            memory.learn(key, value)
    assert (memory.count, sorted(memory.events), memory.failed) == (6, ["e10", "e11", "e20", "e21"], {"x1", "x2"})
    assert memory.stored(["e00", "e10"]) == {"e10": "f"}
    assert list(Memory(0).parts("c", [("e", None)], [])) == []


def test_a_stalled_loader_that_wakes_up_in_the_middle_of_a_commit_stores_nothing(server: KafkaServer) -> None:
    """It has read the place, its records are on the broker; the commit comes after another loader has done the same."""
    bench = KafkaBench(server.bootstrap)
    stalled, other = bench.open(), bench.another()
    batch = batch_of(0, event_of(1), event_of(2))
    assert stalled.cursor() == {}
    real = stalled._producer
    overtaken = threading.Event()

    class Stalls:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def commit_transaction(self, timeout: float) -> None:
            real.flush(30)
            assert other.commit(batch) == Counts(2, 2, 0, 0)
            overtaken.set()
            real.commit_transaction(timeout)

    stalled._producer = Stalls()
    # Fenced, it takes its turn again, and finds that this very batch is there.
    assert stalled.commit(batch) == Counts(2, 2, 0, 0)
    assert overtaken.is_set()
    with pytest.raises(Overtaken):
        stalled.commit(batch_of(0, event_of(1), event_of(2), event_of(3)))
    assert sorted(bench.ids()) == [str(uuid.UUID(int=n)) for n in (1, 2)]
    assert stalled.totals() == other.totals() == Counts(2, 2, 0, 0)
    other.close()
    stalled.close()


def test_loaders_at_the_same_time_take_turns_and_all_come_to_their_end(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap)
    trouble: list[BaseException] = []

    def load(lane: str, first: int) -> None:
        target = bench.another()
        try:
            for start in range(0, 40, 10):
                while True:
                    try:
                        target.commit(batch_of(start, *(event_of(first + n) for n in range(start, start + 10)), lane=lane))
                        break
                    except TransientError:
                        with suppress(TransientError):
                            target.cursor()
        except BaseException as error:
            trouble.append(error)
        finally:
            target.close()

    threads = [threading.Thread(target=load, args=(f"lane{n}", n * 1_000)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not trouble
    assert bench.open().totals() == Counts(120, 120, 0, 0)
    assert len(bench.ids()) == len(set(bench.ids())) == 120
    bench.open().close()


CHILD = """
    import sys, uuid
    from protocol.schemas import bundled
    from protocol.seams import START, Position
    from storage.targets import Batch
    from storage.targets.kafka import Config, Plugin

    target = Plugin(Config((sys.argv[1],), sys.argv[2], sys.argv[3], timeout_s=20), bundled)
    done = target.cursor().get("lane", START).sequence
    print("open", flush=True)
    while True:
        numbers = range(done, done + 50)
        events = [{"event_id": str(uuid.UUID(int=n)), "collector_tstamp": 1, "page_title": "x" * 200} for n in numbers]
        since = {"lane": Position(0, done, done)}
        done += len(events)
        target.commit(Batch(events, [], {"lane": Position(0, done, done)}, len(events), since=since))
        print(done, flush=True)
"""


def test_killed_in_the_middle_of_its_commits_a_loader_doubles_and_loses_nothing(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap)
    chance = random.Random(7)
    promised = 0
    source = "\n".join(line.removeprefix("    ") for line in CHILD.splitlines())
    for _ in range(4):
        command = [sys.executable, "-c", source, server.bootstrap, bench.config.topic, bench.config.failed_topic]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            for _ in range(chance.randrange(1, 4)):
                promised = int(child.stdout.readline())
            timer = threading.Timer(chance.uniform(0, 0.05), child.send_signal, [signal.SIGKILL])
            timer.start()
            for line in child.stdout:
                promised = int(line)
            timer.join()
    target = bench.open()
    done = target.cursor()["lane"].sequence
    assert done >= promised > 0
    assert target.totals() == Counts(done, done, 0, 0)
    assert sorted(bench.ids()) == sorted(str(uuid.UUID(int=n)) for n in range(done))
    target.close()


def test_a_broker_that_is_killed_in_between_is_waited_for(tmp_path: Path) -> None:
    with KafkaServer(tmp_path / "own") as own:
        bench = KafkaBench(own.bootstrap, timeout_s=5.0)
        target = bench.open()
        target.commit(batch_of(0, event_of(0)))
        own.kill()
        with pytest.raises(TransientError, match=r"kafka 127\.0\.0\.1"):
            target.commit(batch_of(1, event_of(1)))
        own.start()
        done = 1
        while done < 3:
            try:
                target.commit(batch_of(done, event_of(done)))
                done += 1
            except TransientError:
                with suppress(TransientError):
                    done = target.cursor().get("lane", START).sequence
        assert sorted(bench.ids()) == [str(uuid.UUID(int=n)) for n in range(3)]
        target.close()


class Last(random.Random):
    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is not None
        return stop - 1  # the commit itself, when everything is on the broker


def test_who_reads_uncommitted_sees_what_was_given_up(server: KafkaServer) -> None:
    """The reason for isolation.level=read_committed, as the page says."""
    bench = KafkaBench(server.bootstrap)
    target = bench.open()
    with pytest.raises(TransientError):
        bench.failing_commit("inside", batch_of(0, *map(event_of, range(50))), Last())
    target.commit(batch_of(0, event_of(1)))
    settings = {"isolation.level": "read_uncommitted", "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "careless", **settings})
    consumer.assign([TopicPartition(bench.config.topic, number, 0) for number in range(2)])
    seen, left = 0, 2
    while left:
        for message in consumer.consume(100, 1):
            error = message.error()
            seen += error is None
            left -= error is not None and error.code() == KafkaError._PARTITION_EOF
    consumer.close()
    assert seen > len(bench.ids()) == 1
    target.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topic": "failed"}, "three topics with names of their own"),
        ({"brokers": ()}, "must be given"),
        ({"max_record_bytes": 1}, "at least 10000"),
        ({"sasl": "PLAIN"}, "go together"),
        ({"options": {"nonsense": "1"}}, "nonsense"),
        ({"sasl": "PLAIN", "username": "u", "password_file": "/nowhere"}, "/nowhere: No such file"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "".join(value),
)
def test_options_that_cannot_be_are_answered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        target = kafka.Plugin(replace(kafka.Config(("127.0.0.1:1",)), **options), bundled)
        target._clients.admin()


def test_topics_that_must_exist_are_named(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap, create=False)
    with pytest.raises(TransientError, match=f"no topic {bench.config.topic}.*create = true"):
        bench.open().cursor()


def test_a_topic_that_takes_less_than_we_send_stops_the_target(server: KafkaServer) -> None:
    bench = KafkaBench(server.bootstrap, max_record_bytes=1_500_000, compression="none")
    target = bench.open()
    with pytest.raises(PermanentError, match=r"max\.message\.bytes of a topic is less than max_record_bytes"):
        target.commit(batch_of(0, event_of(1, page_title="x" * 1_400_000)))
    target.close()
