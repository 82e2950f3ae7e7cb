"""Durable requests per second of one gateway process on one core, with nginx and a FastAPI program beside it."""

from __future__ import annotations

import sqlite3
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from benchmarks.load import Answered, Request, flood, pixel, ten_page_views
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from benchmarks.server import Server, metric, spoorway
from tests.peers.ports import free_port

SERVERS = Path(__file__).parents[1] / "servers"
POST, GET = "POST of 10 events", "GET of a pixel"

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  log_format full '$remote_addr $msec "$request" $status "$http_referer" "$http_user_agent"';
  access_log {folder}/access.log full;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location /i {{ empty_gif; }} }}
}}
"""


@dataclass(slots=True)
class Contestant:
    """kept: how many requests' worth it really has kept; None = it keeps nothing."""

    label: str
    keeps: str
    server: Server
    kept: Callable[[], float] | None
    found: dict[str, list[Answered]] = field(default_factory=dict[str, list[Answered]])
    processor_s: dict[str, float] = field(default_factory=dict[str, float])
    answered: int = 0

    def run(self, kind: str, request: Request, seconds: float, folder: Path) -> None:
        before = self.server.processor_s()
        one = flood(self.server.port, request, seconds, folder)
        self.processor_s[kind] = self.processor_s.get(kind, 0) + self.server.processor_s() - before
        self.found.setdefault(kind, []).append(one)
        self.count(one)

    def count(self, one: Answered) -> None:
        self.answered += one.requests
        if self.kept is not None and self.kept() < self.answered:
            raise RuntimeError(f"{self.label}: {self.answered} requests answered, {self.kept()} kept")


def measure(effort: Effort) -> Result:
    requests = {POST: ten_page_views(), GET: pixel()}
    with ExitStack() as stack:
        contestants = {
            POST: [_gateway(effort, stack), *_fastapi(effort, stack, 10), _without_journal(effort, stack)],
            GET: [_gateway(effort, stack), *_nginx(effort, stack), *_fastapi(effort, stack, 1)],
        }
        for kind, some in contestants.items():
            for one in some:
                one.count(flood(one.server.port, requests[kind], 1, effort.folder))
        for _ in range(effort.rounds):
            for kind, some in contestants.items():
                for one in some:
                    one.run(kind, requests[kind], effort.seconds, effort.folder)
        memory = {one.label: sum(m.pss for m in one.server.memory()) for one in (*contestants[POST], *contestants[GET])}
    bytes_of = {kind: len(request.raw()) for kind, request in requests.items()}
    return Result(
        "what one core answers, each answer given when the request is on disk",
        f"One server process on core 0, wrk with 64 kept-alive connections on core 1; {effort.rounds} rounds of "
        f"{effort.seconds:g} s each, the servers taking turns; medians.",
        f"POST: ten page views in one request of {bytes_of[POST]:,} bytes, headers and all, every event with its own id. "
        f"GET: one page view in a request of {bytes_of[GET]:,} bytes.",
        [Table(kind, _rows(kind, some)) for kind, some in contestants.items()],
        [
            "Latency is of a saturated server: 64 requests are always waiting. See `latency` for light load.",
            "Every server was made to prove that it kept what it had answered: durable payloads, rows, log lines.",
            "Spoorway compresses finished journal segments on the same core meanwhile, at the lowest priority.",
            "nginx logs GETs without parsing them and never calls fsync: a power cut loses what it answered last.",
            "FastAPI runs with uvicorn[standard] (uvloop, httptools); SQLite in WAL mode with synchronous=FULL.",
        ],
        {
            "rounds": {f"{kind}: {one.label}": one.found[kind] for kind, some in contestants.items() for one in some},
            "columns": list(Answered._fields),
            "memory_pss_mib": memory,
        },
    )  # fmt: skip


def _rows(kind: str, contestants: list[Contestant]) -> list[Row]:
    rates = [statistics.median(a.per_s for a in one.found[kind]) for one in contestants]
    ours = rates[0]
    rows: list[Row] = []
    for one, rate in zip(contestants, rates, strict=True):
        found = one.found[kind]
        requests = sum(a.requests for a in found)
        rows.append(
            {
                "server": one.label,
                "answered means": one.keeps,
                "requests/s": rate,
                "Spoorway ÷ this": None if rate == ours else ours / rate,
                "p50 ms": statistics.median(a.p50_ms for a in found),
                "p99 ms": statistics.median(a.p99_ms for a in found),
                "processor µs/request": one.processor_s[kind] / requests * 1e6,
                "core busy %": 100 * one.processor_s[kind] / sum(a.requests / a.per_s for a in found),
            }
        )
    return rows


def _folder(effort: Effort, name: str) -> Path:
    """A new one: there are two gateways, one for each kind of request."""
    folder = effort.folder / f"{name}{sum(1 for _ in effort.folder.glob(f'{name}*'))}"
    folder.mkdir()
    return folder


def _gateway(effort: Effort, stack: ExitStack) -> Contestant:
    folder, port, admin = _folder(effort, "gateway"), free_port(), free_port()
    server = stack.enter_context(Server(spoorway("gateway", folder / "data", port, admin), port, folder / "log", core=0))
    return Contestant("Spoorway gateway", "on disk", server, lambda: metric(admin, "journal_payloads_accepted_total"))


def _without_journal(effort: Effort, stack: ExitStack) -> Contestant:
    folder, port = _folder(effort, "without"), free_port()
    command = [sys.executable, str(SERVERS / "without_journal.py"), str(port)]
    server = stack.enter_context(Server(command, port, folder / "log", core=0))
    return Contestant("Spoorway's HTTP alone, no journal", "nothing", server, None)


def _nginx(effort: Effort, stack: ExitStack) -> list[Contestant]:
    if which("nginx") is None:
        return []
    folder, port = _folder(effort, "nginx"), free_port()
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port), "utf-8")
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    server = stack.enter_context(Server(command, port, folder / "log", core=0))
    return [Contestant("nginx, access_log", "in the page cache", server, lambda: _lines(folder / "access.log"))]


def _fastapi(effort: Effort, stack: ExitStack, events: int) -> list[Contestant]:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        return []
    folder, port = _folder(effort, "fastapi"), free_port()
    file = folder / "events.db"
    command = [sys.executable, str(SERVERS / "fastapi_sqlite.py"), str(port), str(file)]
    server = stack.enter_context(Server(command, port, folder / "log", core=0))
    return [Contestant("FastAPI + SQLite", "committed, on disk", server, lambda: _rows_in(file) / events)]


def _lines(file: Path) -> float:
    with file.open("rb") as log:
        return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))


def _rows_in(file: Path) -> float:
    with closing(sqlite3.connect(file)) as db:
        return float(db.execute("SELECT max(id) FROM events").fetchone()[0])
