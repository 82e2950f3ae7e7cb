"""What `spoorway run` takes when nothing happens: memory and processor; and how long it takes to start."""

from __future__ import annotations

import statistics
import sys
import time
from importlib.util import find_spec

from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from benchmarks.server import ROOT, Server, spoorway
from tests.peers.ports import free_port

FASTAPI = ROOT / "benchmarks" / "servers" / "fastapi_sqlite.py"
_IDLE_S = 5.0


def measure(effort: Effort) -> Result:
    started = [_start(effort, f"start{number}") for number in range(7 if effort.rounds > 1 else 3)]
    port = free_port()
    with Server(spoorway("run", effort.folder / "idle", port, free_port()), port, effort.folder / "log") as server:
        time.sleep(_IDLE_S)
        memory = server.memory()
        before, began = server.processor_s(), time.monotonic()
        time.sleep(_IDLE_S)
        busy = (server.processor_s() - before) / (time.monotonic() - began)
    rows: list[Row] = [{"process": one.name, "RSS MiB": one.rss, "PSS MiB": one.pss} for one in memory]
    rows.append({"process": "spoorway, both", "RSS MiB": sum(m.rss for m in memory), "PSS MiB": sum(m.pss for m in memory)})
    rows += _fastapi(effort)
    return Result(
        "what it takes to be there",
        f"`spoorway run` with its defaults on an empty data folder, looked at after {_IDLE_S:g} idle seconds; starts with "
        "everything in the page cache.",
        "none.",
        [
            Table("Memory when idle", rows),
            Table("Start and rest", [
                {"what": f"from start to listening, median of {len(started)}, ms", "value": statistics.median(started) * 1000},
                {"what": "shortest, ms", "value": min(started) * 1000},
                {"what": "longest, ms", "value": max(started) * 1000},
                {"what": f"processor when idle, % of one core, over {_IDLE_S:g} s", "value": busy * 100},
            ]),
        ],
        ["PSS divides shared pages by the number of processes that share them: the sum of PSS is what is really taken."],
        {"started_s": started},
    )  # fmt: skip


def _fastapi(effort: Effort) -> list[Row]:
    """The peer of the gateway's measurement, at rest."""
    if find_spec("fastapi") is None:
        return []
    port = free_port()
    command = [sys.executable, str(FASTAPI), str(port), str(effort.folder / "peer.db")]
    with Server(command, port, effort.folder / "log") as server:
        time.sleep(1)
        (one,) = server.memory()
    return [{"process": "FastAPI + SQLite (takes in only)", "RSS MiB": one.rss, "PSS MiB": one.pss}]


def _start(effort: Effort, name: str) -> float:
    port = free_port()
    with Server(spoorway("run", effort.folder / name, port, free_port()), port, effort.folder / "log") as server:
        return server.started_s
