"""What devices cost: reading serial lines and compact frames, their time, their ledger, and simulated ones from end to end."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import mix
from benchmarks.load import wait_until
from benchmarks.measures import Effort
from benchmarks.pinned import pinned
from benchmarks.result import Result, Row, Table
from benchmarks.server import ROOT, Server, environment, metric, spoorway
from protocol import lines
from protocol.compact import Reading, decode, encode
from protocol.lines import Line
from protocol.templates import bundled, bundled_template
from tests.peers.ports import free_port

_CHUNK = 4_096
_DEVICES, _EVENTS = 100, 200
_LONGEST_S = 120


def measure(effort: Effort) -> Result:
    count = 200_000 if effort.rounds > 1 else 20_000
    serial = pinned(deframe, effort.folder, count)
    compact = pinned(readings, effort.folder, count)
    rows: list[Row] = [
        {"what": f"serial lines of {serial['bytes']:.0f} bytes, in chunks of {_CHUNK:,}", "per s": serial["rate"],
         "beside it": "json.loads of the same bodies, no sum, no framing", "its rate": serial["peer"]},
        {"what": "compact readings of three values, ten a frame", "per s": compact["batched"],
         "beside it": "json.loads of the same readings as JSON", "its rate": compact["peer"]},
        {"what": "compact readings of three values, one a frame", "per s": compact["single"],
         "beside it": "json.loads of the same readings as JSON", "its rate": compact["peer"]},
    ]  # fmt: skip
    sent = _simulated(effort)
    return Result(
        "what devices cost",
        "Decoders on core 0. Simulated devices with losses, copies, restarts and cut connections, all of it on both cores.",
        f"Readings of temperature, humidity and pressure; {_DEVICES} devices with {_EVENTS} events each in messages of ten.",
        [Table("Decoding, on one core", rows), Table("`spoorway simulate` against `spoorway run`", sent)],
        [
            "Every event that was sent is a row once before the time is taken, and device_gaps names exactly what was lost.",
            "A simulated device waits for each acknowledgement, so its rate is one of latency, not of the gateway's limit.",
        ],
        {"serial": serial, "compact": compact},
    )


def deframe(folder: str, count: float) -> dict[str, Any]:
    """Lines a second out of chunks; the peer reads the bodies alone."""
    chance = random.Random(3)
    bodies = [mix.post([mix.reading(chance, mix.START_MS)])[:300] for _ in range(200)]
    data = b"".join(lines.encode(Line("j", "pump-7", 3, number, body)) for number, body in enumerate(bodies, 1))
    bodies = [json.dumps({"text": body.decode()}).encode() for body in bodies]
    rounds = max(1, int(count) // len(bodies))
    deframer, found = lines.device_lines(), 0
    began = time.perf_counter()
    for _ in range(rounds):
        for at in range(0, len(data), _CHUNK):
            found += len(deframer.feed(data[at : at + _CHUNK]))
    seconds = time.perf_counter() - began
    if found != rounds * len(bodies):
        raise RuntimeError(f"{found} of {rounds * len(bodies)} lines were read")
    began = time.perf_counter()
    for _ in range(rounds):
        for body in bodies:
            json.loads(body)
    return {"rate": found / seconds, "bytes": len(data) / len(bodies), "peer": found / (time.perf_counter() - began)}


def readings(folder: str, count: float) -> dict[str, Any]:
    """Readings a second, batched and one by one; the peer parses them as JSON."""
    chance, template = random.Random(4), bundled()[1, 1]
    data = [
        {"temperature_celsius": round(chance.uniform(-20, 40), 2), "humidity_percent": round(chance.uniform(0, 100), 1),
         "pressure_hpa": round(chance.uniform(950, 1050), 1)}
        for _ in range(500)
    ]  # fmt: skip
    batched = [
        encode(template, [(60_000 * (at + step), data[at + step]) for step in range(10)], 7, at + 1, 60_000 * (at + 10))
        for at in range(0, len(data), 10)
    ]
    single = [encode(template, [(60_000 * at, one)], 7, at + 1, 60_000 * at) for at, one in enumerate(data)]
    texts = [json.dumps(one) for one in data]
    rounds = max(1, int(count) // len(data))
    rates: dict[str, Any] = {}
    for name, frames in (("batched", batched), ("single", single)):
        found = 0
        began = time.perf_counter()
        for _ in range(rounds):
            for frame in frames:
                found += sum(isinstance(one, Reading) for one in decode(frame, bundled_template))
        rates[name] = found / (time.perf_counter() - began)
        if found != rounds * len(data):
            raise RuntimeError(f"{found} of {rounds * len(data)} readings were read")
    began = time.perf_counter()
    for _ in range(rounds):
        for text in texts:
            json.loads(text)
    return {**rates, "peer": rounds * len(data) / (time.perf_counter() - began)}


def _simulated(effort: Effort) -> list[Row]:
    rows: list[Row] = []
    for over in ("http", "mqtt", "serial"):
        folder = effort.folder / over
        folder.mkdir()
        devices, events = (8, 50) if over == "serial" else (_DEVICES, _EVENTS)
        rows.append({"over": over, "devices": float(devices), **_lived(folder, over, devices, events)})
    return rows


def _lived(folder: Path, over: str, devices: int, events: int) -> Row:
    port, mqtt, admin, data = free_port(), free_port(), free_port(), folder / "data"
    command = [*spoorway("run", data, port, admin), "--mqtt", f"127.0.0.1:{mqtt}", "--serial", f"{folder}/ports/*"]
    place = {"http": f"127.0.0.1:{port}", "mqtt": f"127.0.0.1:{mqtt}", "serial": f"{folder}/ports"}[over]
    faults = [word for fault in ("gap", "duplicate", "reorder", "reboot", "offline") for word in ("--fault", fault)]
    many = ["--devices", str(devices), "--events", str(events), "--over", over, "--to", place, "--json"]
    with Server(command, port, folder / "log"):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "spoorway", "simulate", "greenhouse", *many, *faults],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_LONGEST_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        told = json.loads(done.stdout)
        wait_until(lambda: _stored(data) >= told["events"], 30)
        seconds = time.perf_counter() - began
        taken = metric(admin, "journal_payloads_accepted_total")
    with closing(sqlite3.connect(data / "events.db")) as db:
        (missing,) = db.execute("SELECT coalesce(sum(missing), 0) FROM device_gaps").fetchone()
    if _stored(data) != told["events"] or missing != told["lost"]:
        raise RuntimeError(f"{_stored(data)} of {told['events']} events stored, {missing} of {told['lost']} losses named")
    return {
        "events sent": told["events"], "messages on disk": taken, "losses, all named": told["lost"],
        "events/s until acknowledged": told["events"] / told["seconds"], "seconds until all are rows": seconds,
    }  # fmt: skip


def _stored(data: Path) -> int:
    if not (data / "events.db").exists():
        return 0
    with closing(sqlite3.connect(data / "events.db")) as db:
        try:
            return int(db.execute("SELECT count(*) FROM events WHERE app_id = 'greenhouse'").fetchone()[0])
        except sqlite3.OperationalError:  # the tables are being made
            return 0
