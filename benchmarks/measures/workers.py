"""Events per second of one worker and of two, from Kafka into SQLite and PostgreSQL; beside them loaders from files."""

from __future__ import annotations

import os
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
_Way = Callable[[str, str], dict[str, Any]]  # of the store and a name


def measure(effort: Effort) -> Result:
    events = effort.events / 2
    folder = effort.folder
    with KafkaServer(folder / "kafka") as kafka:
        sent = pinned(fill, folder, kafka.bootstrap, events)
        for number in range(2):
            filled(folder / f"data{number}", events)

        def workers(count: int) -> _Way:
            return lambda store, name: _at_once(
                folder,
                [(work, kafka.bootstrap, _own(store, core), name, sent["payloads"] / count, count)
                 for core in range(count)]
            )  # fmt: skip

        def loaders(count: int) -> _Way:
            return lambda store, _: _at_once(folder, [(from_files, _own(store, core), core) for core in range(count)])

        apart: dict[str, _Way] = {
            "one loader, a journal in files": loaders(1),
            "two loaders, a journal in files each": loaders(2),
            "one worker, Kafka": workers(1),
            "two workers, Kafka": workers(2),
        }
        shared = {way: function for way, function in apart.items() if not way.startswith("two loaders")}
        nowhere: dict[str, _Way] = {
            "confluent_kafka alone: consume, nothing else": lambda _, name: pinned(consume, folder, kafka.bootstrap, name),
            "the reader alone: records to payloads": lambda _, __: pinned(read, folder, kafka.bootstrap),
        }
        rounds = {
            "Into SQLite, a file each": _taking_turns(effort, apart, "sqlite"),
            "Into one PostgreSQL": _taking_turns(effort, shared, "postgres"),
            "Nothing stored": _taking_turns(effort, nowhere, "nothing"),
        }
        tables = [Table(title, _rows(found, sent)) for title, found in rounds.items()]
    return Result(
        "what workers load from Kafka",
        f"{sent['events']:,} events in {sent['payloads']:,} payloads, in a topic of {_LANES} partitions and in journals in "
        f"files; {effort.rounds} rounds, the ways taking turns; medians. Who loads has a core, its lanes before the clock "
        "begins, and the enrichments that run by default.",
        mix.DESCRIPTION,
        tables,
        [
            "This machine has two cores. The broker (one node, Java) and PostgreSQL, with fsync, have none of their own: beside "
            "one worker they use the other core, beside two they take from both. Two loaders that share nothing, each with a "
            "journal and a SQLite file, show what two cores give here at best.",
            "Processor time is that of our processes alone, so it tells what another machine would scale by.",
            "The last table: what librdkafka hands to Python, and what the reader makes of it.",
        ],
        {"sent": sent, "rounds": rounds},
    )


def _at_once(folder: Path, calls: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Each on a core of its own; from when the last one is ready to when the last one is done."""
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(pinned, call[0], folder, *call[1:], core=core) for core, call in enumerate(calls)]
        found = [each.result() for each in running]
    began, ended = min(one["began"] for one in found), max(one["ended"] for one in found)
    return {
        "seconds": ended - began, "payloads": sum(one["payloads"] for one in found),
        "processor_s": sum(one["processor_s"] for one in found), "each": found,
    }  # fmt: skip


def _own(store: str, core: int) -> str:
    """A file for each, one server for all."""
    return f"{store}{core}.db" if store.startswith("/") else store


def _taking_turns(effort: Effort, ways: dict[str, _Way], store: str) -> dict[str, list[dict[str, Any]]]:
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(effort.rounds):
        for way, function in ways.items():
            name = f"{store}-{number}-{len(rounds)}-{way.split()[0]}"
            if store == "postgres":
                with PostgresServer(effort.folder, fsync=True, settings=_SERVER) as server:
                    found = function(server.dsn, name)
            else:
                found = function(f"{effort.folder}/{name}-", name)
            rounds.setdefault(way, []).append(found)
    return rounds


def _rows(rounds: dict[str, list[dict[str, Any]]], sent: dict[str, Any]) -> list[Row]:
    def rate(one: dict[str, Any]) -> float:
        return float(sent["events"] * one.get("payloads", sent["payloads"]) / sent["payloads"] / one["seconds"])

    rates = {way: median(rate(one) for one in found) for way, found in rounds.items()}
    first = next(iter(rates.values()))
    return [
        {
            "way": way,
            "events/s": rates[way],
            "processor µs/event": median(1e6 * one["processor_s"] / rate(one) / one["seconds"] for one in found),
            "÷ the first": rates[way] / first,
        }
        for way, found in rounds.items()
    ]


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


def from_files(folder: str, store: str, number: float) -> dict[str, Any]:
    """A loader alone with its journal, until that is empty."""
    from gateway.journal.reader import FileReader

    data = Path(folder) / f"data{number:.0f}"
    loader, target = _loader(data, store, FileReader(journal_folder(data)))
    began, processor = time.time(), time.process_time()
    while loader.step():
        pass
    ended, processor_s = time.time(), time.process_time() - processor
    pending, payloads = loader.status.pending, target.totals().payloads
    target.close()
    if pending:
        raise RuntimeError(f"{pending} payloads were left")
    return {"began": began, "ended": ended, "processor_s": processor_s, "payloads": payloads}


def work(folder: str, bootstrap: str, store: str, name: str, payloads: float, workers: float) -> dict[str, Any]:
    """A worker's loop, from when it has its share of the lanes until it has loaded them. payloads: about so many are its own."""
    from gateway.journal.kafka import Config
    from gateway.journal.kafka.reader import KafkaReader

    reader = KafkaReader(Config((bootstrap,), "raw", group=name), "worker")
    loader, target = _loader(Path(folder) / "data0", store, reader)
    nothing: Cursor = {}
    end = time.time() + _LONGEST_S
    ready = Path(folder) / f"{name}-{os.getpid()}.ready"  # who begins before the others have their lanes would be done before
    while len(list(ready.parent.glob(f"{name}-*.ready"))) < workers and time.time() < end:
        if len(reader.lag()) == _LANES / workers:
            ready.touch()
        try:
            reader.read(nothing, max_payloads=1)
        except TransientError:
            time.sleep(0.01)
    own = loader.status.own
    began, processor = time.time(), time.process_time()
    ended = began
    while (own["payloads"] < payloads - _LANES or any(reader.lag().values())) and time.time() < end:
        try:
            if loader.step():
                ended = time.time()
                continue
        except TransientError:
            pass
        time.sleep(0.01)
    processor_s = time.process_time() - processor
    reader.close()
    target.close()
    return {"began": began, "ended": ended, "processor_s": processor_s, "payloads": own["payloads"]}


def _loader(data: Path, store: str, reader: Any) -> tuple[Loader, Any]:
    """store: a PostgreSQL DSN, or the path of a SQLite file."""
    from storage.targets import postgres, sqlite

    settings = load(None, {"data": str(data)})
    target: Any = (
        sqlite.Plugin(sqlite.Config(store), lambda uri: None)
        if store.startswith("/")
        else postgres.Plugin(postgres.Config(store), lambda uri: None)
    )
    pipeline = building.pipeline(settings, remember=False)
    loader = Loader("worker", reader, pipeline, target, building.now_ms)
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
