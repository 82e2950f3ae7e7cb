"""Durable POSTs per second of one gateway process: into Kafka, and into the journal in files beside it."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from statistics import median
from urllib.error import URLError

from benchmarks.load import Answered, flood, steady, ten_page_views
from benchmarks.measures import Effort
from benchmarks.measures.gateway import POST, Contestant
from benchmarks.result import Result, Row, Table
from benchmarks.server import Server, metric, spoorway
from tests.peers.kafka_server import KafkaServer
from tests.peers.ports import free_port

_START_S = 60.0
_LIGHT_PER_S = 50
_PROCESSOR = "processor µs/request"


def measure(effort: Effort) -> Result:
    request = ten_page_views()
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaServer(effort.folder / "kafka"))
        os.sched_setaffinity(kafka.pid, {1})  # with wrk: on the gateway's core nothing else runs
        for thread in os.listdir(f"/proc/{kafka.pid}/task"):
            os.sched_setaffinity(int(thread), {1})
        files, remote = _gateway(effort, stack), _gateway(effort, stack, kafka.bootstrap)
        for one in (files, remote):
            one.count(flood(one.server.port, request, 1, effort.folder))
        for _ in range(effort.rounds):
            for one in (files, remote):
                one.run(POST, request, effort.seconds, effort.folder)
        light = {one.label: _light(one, effort) for one in (files, remote)}
    rows = [_row(one) for one in (files, remote)]
    rate, processor = (float(str(rows[1][name])) / float(str(rows[0][name])) for name in ("requests/s", _PROCESSOR))
    rows[0] |= {"% of files, by rate": None, "by processor": None}
    rows[1] |= {"% of files, by rate": 100 * rate, "by processor": 100 / processor}
    return Result(
        "what one gateway answers, each answer given when the request is on disk, or in Kafka",
        f"One gateway process on core 0; on core 1 wrk with 64 kept-alive connections and, while it is its turn, the broker; "
        f"{effort.rounds} rounds of {effort.seconds:g} s each, the gateways taking turns; medians. {POST}.",
        "Apache Kafka 4.3 with one node and one copy, six partitions, over loopback; idempotent producer, acks=all, lz4.",
        [
            Table(POST, rows),
            Table(
                f"{POST}, {_LIGHT_PER_S} a second",
                [{"journal": label, "p50 ms": one.p50_ms, "p99 ms": one.p99_ms} for label, one in light.items()],
            ),
        ],
        [
            "The broker does not fsync, as by default: with one copy its acknowledgement says less than that of a disk.",
            "It takes a part of wrk's core; a broker on a machine of its own would leave wrk all of it.",
            "Processor time is the gateway's alone, so it tells what another machine would do.",
            "Every request that was answered was in the journal's count of accepted payloads, and none had gone to disk instead.",
        ],
        {"rounds": {one.label: one.found[POST] for one in (files, remote)}},
    )  # fmt: skip


def _row(one: Contestant) -> Row:
    found = one.found[POST]
    return {
        "journal": one.label,
        "answered means": one.keeps,
        "requests/s": median(a.per_s for a in found),
        "p50 ms": median(a.p50_ms for a in found),
        "p99 ms": median(a.p99_ms for a in found),
        _PROCESSOR: one.processor_s[POST] / sum(a.requests for a in found) * 1e6,
    }


def _light(one: Contestant, effort: Effort) -> Answered:
    """So few that hardly any waits for another."""
    found = steady(one.server.port, ten_page_views(), _LIGHT_PER_S, effort.seconds)
    one.count(found)
    return found


def _gateway(effort: Effort, stack: ExitStack, brokers: str = "") -> Contestant:
    folder, port, admin = effort.folder / ("kafka-gateway" if brokers else "files-gateway"), free_port(), free_port()
    folder.mkdir()
    (folder / "spoorway.toml").write_text(f'[journal.kafka]\nbrokers = ["{brokers}"]\ncreate = true\n' if brokers else "")
    command = [*spoorway("gateway", folder / "data", port, admin), "--config", str(folder / "spoorway.toml")]
    server = stack.enter_context(Server(command, port, folder / "log", core=0))
    if not brokers:
        return Contestant("in files", "on disk", server, lambda: metric(admin, "journal_payloads_accepted_total"))
    end = time.monotonic() + _START_S
    while True:
        with suppress(URLError):  # it listens to trackers a moment before it shows its metrics
            if metric(admin, "journal_remote_up"):
                break
        if time.monotonic() > end:
            raise RuntimeError("the gateway did not reach Kafka")
        time.sleep(0.1)
    return Contestant("in Kafka", "in Kafka", server, lambda: metric(admin, "journal_remote_payloads_total"))


__all__ = ["measure"]
