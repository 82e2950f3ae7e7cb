"""The Python tracker beside the official one: import, events/s, one call, what arrives, memory of a long queue."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table

_SOURCES = Path(__file__).parents[2] / "trackers/python"
_QUEUE = 100_000

_EVENT = '"iglu:com.acme/reading/jsonschema/1-0-0", {"sensor": "greenhouse", "celsius": 21.5, "n": n}'
_OURS = f"""
import sys
from spoorway_tracker import Tracker
tracker = Tracker(sys.argv[1], "bench", folder=FOLDER, max_bytes=1 << 30)
def one(n): tracker.track_self_describing({_EVENT})
"""
_OFFICIAL = f"""
import logging, sys
from snowplow_tracker import Emitter, AsyncEmitter, SelfDescribing, SelfDescribingJson, Tracker
logging.disable(logging.CRITICAL)
emitter = EMITTER
tracker = Tracker("ns", emitter, app_id="bench")
def one(n): tracker.track(SelfDescribing(SelfDescribingJson({_EVENT})))
"""
_NEVER = "Emitter(sys.argv[1], batch_size=1 << 40, buffer_capacity=1 << 40)"
_ASYNC = 'AsyncEmitter(sys.argv[1].removeprefix("http://"), protocol="http")'
_SPEED = """
import json, os, resource, time
took = []
processor, began = time.process_time(), time.perf_counter()
for n in range(COUNT):
    t = time.perf_counter()
    one(n)
    took.append(time.perf_counter() - t)
seconds = time.perf_counter() - began
took.sort()
processor = time.process_time() - processor
times = {"p50": took[COUNT // 2] * 1e6, "p99": took[COUNT * 99 // 100] * 1e6}
print(json.dumps({"rate": COUNT / seconds, "processor": processor / COUNT * 1e6, **times}))
sys.stdout.flush()
os._exit(0)
"""
_MEMORY = """
import json, os
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
one(0)
before = resident()
for n in range(COUNT): one(n)
print(json.dumps({"mib": resident() - before}))
sys.stdout.flush()
os._exit(0)
"""
_EXIT = """
for n in range(105): one(n)
"""


class _Counting(BaseHTTPRequestHandler):
    """Takes everything; `server.events` counts."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.events += len(body["data"])  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None: ...


def measure(effort: Effort) -> Result:
    count = 10_000 if effort.rounds > 1 else 5_000
    nowhere = "http://127.0.0.1:9"  # the discard port: nothing listens, so that nothing but the tracker works
    ours = _OURS.replace("FOLDER", repr(str(effort.folder / "queue")))
    memory = _OURS.replace("FOLDER", "None")
    official, asynchronous = _OFFICIAL.replace("EMITTER", _NEVER), _OFFICIAL.replace("EMITTER", _ASYNC)
    found: dict[str, list[dict[str, float]]] = {"ours": [], "memory": [], "official": []}
    imports: dict[str, list[float]] = {"spoorway_tracker": [], "snowplow_tracker": []}
    for _ in range(effort.rounds):
        for name, program in (("ours", ours), ("memory", memory), ("official", official)):
            found[name].append(_run(program + _SPEED.replace("COUNT", str(count)), nowhere))
    for turn in range(3 * effort.rounds + 1):
        for name, taken in imports.items():
            ms_now = _run(_IMPORT.replace("NAME", name), nowhere)["ms"]
            if turn:  # the first one may have written byte code
                taken.append(ms_now)
    rows: list[Row] = []
    labels = {"ours": "spoorway-tracker, into the log on disk", "memory": "spoorway-tracker, in memory",
              "official": "snowplow-tracker 1.1.0, in memory"}  # fmt: skip
    for name, label in labels.items():
        median = {key: statistics.median(one[key] for one in found[name]) for key in ("rate", "processor", "p50", "p99")}
        rows.append(
            {
                "what": label,
                "self-describing events/s": median["rate"],
                "processor µs/event": median["processor"],
                "call p50 µs": median["p50"],
                "call p99 µs": median["p99"],
            }
        )
    queue = _MEMORY.replace("COUNT", str(_QUEUE))
    kept = {"ours": _run(ours + queue, nowhere)["mib"], "official": _run(official + queue, nowhere)["mib"]}
    delivered = {"ours": _delivered(memory + _EXIT), "official": _delivered(asynchronous + _EXIT)}
    ms = {name: statistics.median(each) for name, each in imports.items()}
    return Result(
        "the Python tracker",
        "One program tracks in a loop; nothing listens at its address, so its sending thread fails and waits, as in an outage.",
        f"{count:,} self-describing events of three properties; the official tracker writes base64, ours as text.",
        [
            Table("Tracking", rows),
            Table("The rest", [
                {"what": "import, processor ms", "spoorway-tracker": ms["spoorway_tracker"],
                "snowplow-tracker 1.1.0": ms["snowplow_tracker"]},
                {"what": f"memory of {_QUEUE:,} waiting events, MiB", "spoorway-tracker": kept["ours"],
                 "snowplow-tracker 1.1.0": kept["official"]},
                {"what": "of 105 events, arrived when the program has ended (AsyncEmitter)",
                "spoorway-tracker": delivered["ours"],
                 "snowplow-tracker 1.1.0": delivered["official"]},
            ]),
        ],
        ["Every event of ours is with the kernel when its call returns, and on the disk 0.2 s later.",
         "Import: of a fresh interpreter, without the interpreter's own start; byte code is there."],
        {"tracking": found, "imports": imports},
    )  # fmt: skip


_IMPORT = """
import json, sys, time
began = time.process_time()
import NAME
print(json.dumps({"ms": (time.process_time() - began) * 1000}))
"""


def _run(program: str, url: str) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(_SOURCES)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", program, url]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    return answer


def _delivered(program: str) -> float:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    server.events = 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        _run(program, f"http://127.0.0.1:{server.server_port}")
        return float(server.events)  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
