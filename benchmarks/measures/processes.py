"""One process or two: the product as it is beside the same parts in one process, with the loader in a thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Answered, flood, steady, ten_page_views, wait_until
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from benchmarks.server import ROOT, Server, metric, spoorway
from tests.peers.ports import free_port

_RATE = 100  # requests per second of ten events each
_SWITCH_S = 0.0005
_DRAIN_S = 30


@dataclass(frozen=True, slots=True)
class _Way:
    """command: of (data folder, port, admin port)."""

    label: str
    command: Callable[[Path, int, int], list[str]]


def _one_process(*more: str) -> Callable[[Path, int, int], list[str]]:
    script = str(ROOT / "benchmarks" / "servers" / "one_process.py")
    return lambda data, port, admin: [sys.executable, script, str(data), str(port), str(admin), *more]


_WAYS = (
    _Way("two processes (the product)", lambda data, port, admin: spoorway("run", data, port, admin)),
    _Way("one process, loader in a thread", _one_process()),
    _Way(f"the same, threads switch every {_SWITCH_S * 1000:g} ms", _one_process(str(_SWITCH_S))),
)


def measure(effort: Effort) -> Result:
    seconds = effort.seconds * min(2, effort.rounds)
    light: list[Row] = []
    confined: list[Row] = []
    heavy: list[Row] = []
    for number, way in enumerate(_WAYS):
        light.append(_steady(effort, way, f"light{number}", seconds, None))
        confined.append(_steady(effort, way, f"confined{number}", seconds, 0))
        heavy.append(_flood(effort, way, f"heavy{number}", seconds))
    events = _RATE * 10
    return Result(
        "gateway and loader in two processes, or in one",
        f"`spoorway run` beside a program that runs the same gateway and the same loader in one process; {seconds:g} s of load "
        "each, loading to SQLite all the while.",
        f"ten page views to a POST of {len(ten_page_views().body):,} bytes, every event with its own id.",
        [
            Table(f"{events:,} events/s at a steady rate, all cores", light),
            Table(f"{events:,} events/s at a steady rate, the server confined to one core", confined),
            Table("As fast as it answers: 64 connections, all cores shared with wrk", heavy),
        ],
        [
            "At a steady rate a request's time counts from when it was due, so a server that stalls is seen to stall.",
            "In one process, enrichment takes the interpreter from the event loop that answers trackers, up to 5 ms at a time; "
            "a shorter switch interval lessens that. On one core both ways share the core; only the sharing differs.",
            "Memory is the sum of PSS over the processes after 2 s of rest, before any load, and at the end of the load.",
        ],
    )


def _steady(effort: Effort, way: _Way, name: str, seconds: float, core: int | None) -> Row:
    port, admin, data = free_port(), free_port(), effort.folder / name
    with Server(way.command(data, port, admin), port, effort.folder / "log", core) as server:
        rest = _at_rest(server, admin)
        before, began = server.processor_s(), time.monotonic()
        found = steady(port, ten_page_views(), _RATE, seconds)
        busy = 100 * (server.processor_s() - before) / (time.monotonic() - began)
        memory = _pss(server)
        wait_until(lambda: metric(admin, "target_payloads_taken_total") >= found.requests, _DRAIN_S)
        stored = metric(admin, "target_events_total")
        if stored != found.requests * 10:
            raise RuntimeError(f"{found.requests} requests of ten events, {stored} events stored")
    return {"way": way.label, **_latency(found), "processor, % of a core": busy, **_memory(rest, memory)}


def _flood(effort: Effort, way: _Way, name: str, seconds: float) -> Row:
    port, admin, data = free_port(), free_port(), effort.folder / name
    with Server(way.command(data, port, admin), port, effort.folder / "log") as server:
        rest = _at_rest(server, admin)
        flood(port, ten_page_views(), 1, effort.folder, None)
        taken, began = metric(admin, "target_events_total"), time.monotonic()
        found = flood(port, ten_page_views(), seconds, effort.folder, None)
        time.sleep(0.5)  # the loader's count is told now and then
        loaded = (metric(admin, "target_events_total") - taken) / (time.monotonic() - began)
        memory = _pss(server)
    return {
        "way": way.label,
        "requests/s": found.per_s,
        **_latency(found),
        "events/s loaded meanwhile": loaded,
        **_memory(rest, memory),
    }


def _at_rest(server: Server, admin: int) -> float:
    def up() -> bool:
        try:
            return metric(admin, "target_up") == 1
        except (OSError, RuntimeError):
            return False

    wait_until(up, 20)
    time.sleep(2)
    return _pss(server)


def _latency(found: Answered) -> Row:
    return {"p50 ms": found.p50_ms, "p99 ms": found.p99_ms, "longest ms": found.longest_ms}


def _memory(rest: float, loaded: float) -> Row:
    return {"PSS MiB at rest": rest, "under load": loaded}


def _pss(server: Server) -> float:
    return sum(one.pss for one in server.memory())
