"""Events per second of one worker and of two, from Kafka into PostgreSQL; beside it one loader from the journal in files."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import mix
from benchmarks.measures import Effort
from benchmarks.measures.enrich import filled
from benchmarks.pinned import pinned
from benchmarks.result import Result, Row, Table
from protocol.seams import Cursor, TransientError
from spoorway import building
from spoorway.config import load
from spoorway.files import journal_folder
from spoorway.loader import Loader, collect_seldom
from tests.peers.kafka_server import KafkaServer
from tests.peers.postgres_server import PostgresServer

_SERVER = "shared_buffers = 256MB\nmax_wal_size = 4GB\n"
_LANES = 6
_LONGEST_S = 100.0


def measure(effort: Effort) -> Result:
    events = effort.events / 2
    rounds: dict[str, list[dict[str, Any]]] = {}
    with KafkaServer(effort.folder / "kafka") as kafka:
        sent = pinned(fill, effort.folder, kafka.bootstrap, events)
        filled(effort.folder / "data", events)
        ways: dict[str, Callable[[str, str], dict[str, Any]]] = {
            "one loader, journal in files": lambda dsn, _: _one(from_files, effort.folder, dsn),
            "one worker, Kafka": lambda dsn, name: _workers(effort.folder, kafka.bootstrap, dsn, name, sent["payloads"], [0]),
            "two workers, Kafka": lambda dsn, name: _workers(effort.folder, kafka.bootstrap, dsn, name, sent["payloads"], [0, 1]),
            "confluent_kafka alone: consume, nothing else": lambda _, name: _one(consume, effort.folder, kafka.bootstrap, name),
            "the reader alone: records to payloads": lambda _, __: _one(read, effort.folder, kafka.bootstrap),
        }
        for number in range(effort.rounds):
            for way, function in ways.items():
                with PostgresServer(effort.folder, fsync=True, settings=_SERVER) as server:
                    rounds.setdefault(way, []).append(function(server.dsn, f"round{number}-{len(rounds)}"))
    rates = {way: median(sent["events"] / one["seconds"] for one in found) for way, found in rounds.items()}
    first = next(iter(rates.values()))
    rows: list[Row] = [
        {
            "way": way,
            "events/s": rates[way],
            "processor µs/event": median(1e6 * one["processor_s"] / sent["events"] for one in found),
            "÷ one loader": rates[way] / first,
        }
        for way, found in rounds.items()
    ]
    return Result(
        "what workers load from Kafka",
        f"{sent['events']:,} events in {sent['payloads']:,} payloads, in a topic of {_LANES} partitions and in a journal in "
        f"files, into an empty schema of PostgreSQL; {effort.rounds} rounds, the ways taking turns; medians. A worker has a "
        "core, its lanes before the clock begins, and the enrichments that run by default.",
        mix.DESCRIPTION,
        [Table("Events per second", rows)],
        [
            "This machine has two cores. The broker (one node, Java) and PostgreSQL, with fsync, have none of their own: beside "
            "one worker they use the other core, beside two they take from both. Processor time is that of our processes alone, "
            "so it tells what another machine would scale by.",
            "The last two ways store nothing: what librdkafka hands to Python, and what the reader makes of it.",
        ],
        {"sent": sent, "rounds": rounds},
    )


def _one(function: Callable[..., dict[str, Any]], folder: Path, *arguments: str) -> dict[str, Any]:
    return pinned(function, folder, *arguments)


def _workers(folder: Path, bootstrap: str, dsn: str, name: str, payloads: int, cores: list[int]) -> dict[str, Any]:
    """As many at the same time as there are cores; from when the last one has its lanes to when the last one is done."""
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(pinned, work, folder, bootstrap, dsn, name, payloads, len(cores), core=core) for core in cores]
        found = [each.result() for each in running]
    if sum(one["payloads"] for one in found) != payloads:
        raise RuntimeError(f"{payloads} payloads were sent, the workers loaded {[one['payloads'] for one in found]}")
    began, ended = min(one["began"] for one in found), max(one["ended"] for one in found)
    return {"seconds": ended - began, "processor_s": sum(one["processor_s"] for one in found), "workers": found}


# In a process of its own, on one core -------------------------------------------------------------------------------


def fill(folder: str, bootstrap: str, events: float) -> dict[str, Any]:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    from protocol.payloads import to_json

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic("raw", _LANES, 1)]).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 20})
    payloads = count = 0
    for payload in mix.payloads(int(events)):
        producer.produce("raw", to_json(payload), partition=payloads % _LANES)
        producer.poll(0)
        payloads += 1
        count += (payload.body or b"").count(b'"eid"')
    if producer.flush(60):
        raise RuntimeError("Kafka did not acknowledge everything")
    return {"payloads": payloads, "events": count}


def from_files(folder: str, dsn: str) -> dict[str, Any]:
    from gateway.journal.reader import FileReader

    loader, target = _loader(folder, dsn, FileReader(journal_folder(Path(folder) / "data")))
    began, processor = time.time(), time.process_time()
    while loader.step():
        pass
    seconds, processor_s = time.time() - began, time.process_time() - processor
    pending = loader.status.pending
    target.close()
    if pending:
        raise RuntimeError(f"{pending} payloads were left")
    return {"seconds": seconds, "processor_s": processor_s}


def work(folder: str, bootstrap: str, dsn: str, name: str, payloads: float, workers: float) -> dict[str, Any]:
    """A worker's loop, from when it has its share of the lanes until the group has loaded everything."""
    from gateway.journal.kafka import Config
    from gateway.journal.kafka.reader import KafkaReader

    reader = KafkaReader(Config((bootstrap,), "raw", group=name), "postgres")
    loader, target = _loader(folder, dsn, reader)
    nothing: Cursor = {}
    end = time.time() + _LONGEST_S
    while len(reader.lag()) != _LANES / workers and time.time() < end:
        try:
            reader.read(nothing, max_payloads=1)
        except TransientError:
            time.sleep(0.01)
    began, processor = time.time(), time.process_time()
    ended = began
    while target.totals().payloads < payloads and time.time() < end:
        try:
            if loader.step():
                ended = time.time()
                continue
        except TransientError:
            pass
        time.sleep(0.01)
    processor_s, own = time.process_time() - processor, loader.status.own
    reader.close()
    target.close()
    return {"began": began, "ended": ended, "processor_s": processor_s, "payloads": own["payloads"]}


def _loader(folder: str, dsn: str, reader: Any) -> tuple[Loader, Any]:
    from storage.targets.postgres import Config, Plugin

    settings = load(None, {"data": f"{folder}/data"})
    target = Plugin(Config(dsn), lambda uri: None)
    pipeline = building.pipeline(settings, remember=False)
    loader = Loader("postgres", reader, pipeline, target, building.now_ms)
    collect_seldom()
    return loader, target


def read(folder: str, bootstrap: str) -> dict[str, Any]:
    from gateway.journal.kafka import Config
    from gateway.journal.kafka.reader import KafkaReader

    reader = KafkaReader(Config((bootstrap,), "raw"))
    cursor: Cursor = {}
    reader.read(cursor, max_payloads=1)
    began, processor = time.time(), time.process_time()
    while True:
        chunk = reader.read(cursor)
        if not chunk.items:
            break
        cursor = chunk.cursor
    found = {"seconds": time.time() - began, "processor_s": time.process_time() - processor}
    reader.close()
    return found


def consume(folder: str, bootstrap: str, name: str) -> dict[str, Any]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": name, "enable.partition.eof": True})
    consumer.assign([TopicPartition("raw", number, OFFSET_BEGINNING) for number in range(_LANES)])
    left = _LANES
    began, processor = time.time(), time.process_time()
    while left:
        for message in consumer.consume(2_000, 1):
            left -= message.error() is not None
    found = {"seconds": time.time() - began, "processor_s": time.process_time() - processor}
    consumer.close()
    return found
