"""The MQTT listener beside Mosquitto: durable publishes per second, idle connections, a thousand devices that come back."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any

from benchmarks.load import wait_until
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from benchmarks.server import ROOT, Server, environment, metric, spoorway
from tests.peers.ports import free_port

_WINDOW = 20
_CONNECTIONS = (1, 64)
_IDLE, _BACK = 10_000, 1_000
_LONGEST_S = 90


@dataclass(slots=True)
class Contestant:
    """admin: where Spoorway says what it has on disk; None = the peer."""

    label: str
    means: str
    server: Server
    port: int
    admin: int | None
    rates: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    processor_us: dict[int, list[float]] = field(default_factory=dict[int, list[float]])


def measure(effort: Effort) -> Result:
    _raise_file_limit()
    raw: dict[str, Any] = {}
    with ExitStack() as stack:
        contestants = [_listener(effort, stack, "flood"), *_mosquitto(effort, stack)]
        for _ in range(effort.rounds):
            for connections in _CONNECTIONS:
                for one in contestants:
                    _flood(one, connections, effort.seconds)
    rates = [row for connections in _CONNECTIONS for row in _rows(contestants, connections)]
    raw["publishes/s"] = {f"{one.label}, {n}": one.rates[n] for one in contestants for n in _CONNECTIONS}
    idle = _IDLE if effort.rounds > 1 else 500
    with ExitStack() as stack:
        rows = [_idle(one, idle) for one in (_listener(effort, stack, "idle"), *_mosquitto(effort, stack))]
    return Result(
        "MQTT, each PUBACK given when the payload is on disk",
        f"One server process on core 0, the load (raw sockets) on core 1; QoS 1, {_WINDOW} unacknowledged publishes per "
        f"connection, no subscriber; {effort.rounds} rounds of {effort.seconds:g} s each, taking turns; medians.",
        "MQTT 3.1.1 publishes with 200 bytes of payload: a structured event in a query string.",
        [
            Table("QoS 1 publishes", rates),
            Table(f"{idle:,} idle connections", rows),
            Table(f"{_BACK:,} devices that reconnect at once after kill -9 of the gateway, one event each", [_storm(effort)]),
        ],
        [
            "After each flood the number of payloads on disk is compared with the number of PUBACKs.",
            "Mosquitto acknowledges a publish when it has it in memory; without a subscriber it then drops it.",
        ],
        raw,
    )


def _raise_file_limit() -> None:
    """For both ends of 10,000 connections; child processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _IDLE * 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _rows(contestants: list[Contestant], connections: int) -> list[Row]:
    ours = statistics.median(contestants[0].rates[connections])
    return [
        {
            "server": one.label,
            "connections": connections,
            "PUBACK means": one.means,
            "publishes/s": (rate := statistics.median(one.rates[connections])),
            "Spoorway ÷ this": None if one is contestants[0] else ours / rate,
            "processor µs/publish": statistics.median(one.processor_us[connections]),
        }
        for one in contestants
    ]


def _flood(one: Contestant, connections: int, seconds: float) -> None:
    before = metric(one.admin, "journal_payloads_accepted_total") if one.admin else 0.0
    used = one.server.processor_s()
    found = _load("flood", one.port, connections, _WINDOW, seconds)
    one.processor_us.setdefault(connections, []).append((one.server.processor_s() - used) / found["all"] * 1e6)
    one.rates.setdefault(connections, []).append(found["acknowledged"] / found["seconds"])
    if one.admin is not None:
        kept = metric(one.admin, "journal_payloads_accepted_total") - before
        if kept < found["all"]:
            raise RuntimeError(f"{found['all']} publishes acknowledged, {kept} on disk")


def _load(what: str, port: int, *arguments: float) -> dict[str, float]:
    command = ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.mqtt_load", what, str(port), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout))


def _idle(one: Contestant, connections: int) -> Row:
    before = sum(m.pss for m in one.server.memory())
    command = [sys.executable, "-m", "benchmarks.mqtt_load", "idle", str(one.port), str(connections)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None and load.stdin is not None
        try:
            if json.loads(load.stdout.readline() or "{}").get("connected") != connections:
                raise RuntimeError(f"{one.label} did not take {connections} connections")
            memory = one.server.memory()
        finally:
            load.stdin.close()
            load.wait(_LONGEST_S)
    pss = sum(m.pss for m in memory)
    return {"server": one.label, "PSS MiB in all": pss, "KiB per connection": (pss - before) * 1024 / connections}


def _storm(effort: Effort) -> Row:
    """kill -9, start again, and everybody is back at once. Raises RuntimeError when an acknowledged event is not there."""
    folder, port, admin = effort.folder / "storm", free_port(), free_port()
    folder.mkdir()
    command = _command(folder / "data", port, admin)
    with Server(command, port, folder / "log", core=0) as server:
        server.kill()
    with Server(command, port, folder / "log", core=0):
        before = metric(admin, "journal_payloads_accepted_total")
        found = _load("reconnect", port, _BACK)
        wait_until(lambda: metric(admin, "journal_payloads_accepted_total") - before >= _BACK, 10)
    return {"what": "Spoorway gateway", "seconds": found["seconds"], "connections begun": found["attempts"], "events lost": 0.0}


def _command(data: Path, port: int, admin: int) -> list[str]:
    options = ["--mqtt", f"127.0.0.1:{port}"]
    return [*spoorway("gateway", data, free_port(), admin), *options]


def _listener(effort: Effort, stack: ExitStack, name: str) -> Contestant:
    folder, port, admin = effort.folder / name, free_port(), free_port()
    folder.mkdir()
    config = folder / "spoorway.toml"
    config.write_text(
        f"[gateway.transports.http]\n[gateway.transports.mqtt]\nmax_connections = {_IDLE + 100}\npresence = false\n", "utf-8"
    )
    command = [*_command(folder / "data", port, admin), "--config", str(config)]
    server = stack.enter_context(Server(command, port, folder / "log", core=0))
    return Contestant("Spoorway gateway", "on disk", server, port, admin)


def _mosquitto(effort: Effort, stack: ExitStack) -> list[Contestant]:
    program = which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        return []
    port = free_port()
    folder = effort.folder / f"mosquitto{port}"
    folder.mkdir()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 100\n", "utf-8")
    server = stack.enter_context(Server([program, "-c", str(config)], port, folder / "log", core=0))
    return [Contestant("Mosquitto", "in memory", server, port, None)]
