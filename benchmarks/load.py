"""Load on a server over HTTP: as fast as it answers (wrk), or at a steady rate whether it answers or not.

Raises RuntimeError when a single answer is missing or not a 2xx.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks import mix

CONNECTIONS = 64
_MARK = "@" * 12  # load.lua puts twelve hex digits here
_RUNS = count(1)


class Answered(NamedTuple):
    """requests per second; milliseconds from sending to the last byte of the answer."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


@dataclass(frozen=True, slots=True)
class Request:
    """method, path and headers without Host and Content-Length; `_MARK` in the body stands for a number that differs."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def raw(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers), "", ""]
        return "\r\n".join(lines).encode() + self.body


def ten_page_views() -> Request:
    """As a browser posts what it had collected: about 5.2 KB. Every event has an id of its own."""
    chance = random.Random(1)
    events = [mix.page_view(chance, mix.START_MS) for _ in range(10)]
    for event in events:
        event["eid"] = f"{event['eid'][:23]}-{_MARK}"
    headers = (("Content-Type", mix.CONTENT_TYPE), ("Origin", "https://shop.example"), ("User-Agent", mix.USER_AGENT))
    return Request("POST", mix.POST_PATH, headers, mix.post(events))


def pixel() -> Request:
    """One page view in a query string."""
    query = (
        "e=pv&url=https%3A%2F%2Fshop.example%2Fp%2F1%3Futm_source%3Dmail&page=Spring%20catalogue"
        "&refr=https%3A%2F%2Fwww.google.com%2F&tv=js-4.6.8&tna=sp&aid=shop&p=web&cookie=1&cs=UTF-8&lang=en-GB&res=1920x1080"
        "&cd=24&tz=Europe%2FLondon&dtm=1795300000101&stm=1795300000999&duid=0b8f2f0a-93de-4f0b-a4a4-2b1f6d3c9e77"
    )
    return Request("GET", f"/i?{query}", (("Referer", "https://shop.example/p/1"), ("User-Agent", mix.USER_AGENT)))


def flood(port: int, request: Request, seconds: float, folder: Path, core: int | None = 1) -> Answered:
    """64 connections kept alive, the next request as soon as the last is answered. core: wrk's."""
    file = folder / "request"
    file.write_bytes(request.raw())
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "--latency"]
    script = ["-s", str(Path(__file__).with_name("load.lua")), f"http://127.0.0.1:{port}", "--", str(file), f"{next(_RUNS):04x}"]
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    done = subprocess.run([*pinned, *command, *script], capture_output=True, text=True, check=True, timeout=seconds + 30)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"not every request was answered with 2xx: {done.stdout}")
    per_s = found["requests"] / found["microseconds"] * 1e6
    return Answered(found["requests"], per_s, found["p50"] / 1000, found["p99"] / 1000, found["longest"] / 1000)


def steady(port: int, request: Request, rate: float, seconds: float) -> Answered:
    """So many requests per second, each at its time: one that is late does not hold up the next, and its delay counts."""
    return asyncio.run(_steady(port, request, rate, seconds))


async def _steady(port: int, request: Request, rate: float, seconds: float) -> Answered:
    loop = asyncio.get_running_loop()
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    run, found = next(_RUNS), list[float]()
    length = (("Host", "127.0.0.1"), ("Content-Length", str(len(request.body))))
    whole = Request(request.method, request.path, request.headers + length, request.body).raw()

    async def one(number: int, due: float) -> None:
        reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole.replace(_MARK.encode(), b"%04x%08x" % (run, number)))
        head = await reader.readuntil(b"\r\n\r\n")
        status, _, rest = head.partition(b"\r\n")
        size = next(int(line[15:]) for line in rest.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
        found.append((loop.time() - due) * 1000)
        if status.split()[1] != b"200":
            raise RuntimeError(f"answered {status.decode()}")
        free.append((reader, writer))

    began = loop.time()
    async with asyncio.timeout(seconds + 30), asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            due = began + number / rate
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(number, due))
    elapsed = loop.time() - began
    for _, writer in free:
        writer.close()
    found.sort()
    return Answered(len(found), len(found) / elapsed, percentile(found, 50), percentile(found, 99), found[-1])


def percentile(ordered: list[float], percent: float) -> float:
    """Nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    """Raises RuntimeError when it still is not after so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"not reached within {seconds} s")
        time.sleep(0.02)
