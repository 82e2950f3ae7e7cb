"""Durable requests per second of one gateway process on one core: server on core 0, wrk on core 1, real journal, real fsync.

    python benchmarks/gateway_http/run.py [--seconds 10] [--connections 64] [--disk FOLDER] [--get]

Needs wrk, taskset and two cores. Says how busy the machine was before it began: on a busy one the numbers mean little, but
the processor time per request still compares.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=10)
    arguments.add_argument("--connections", type=int, default=64)
    arguments.add_argument("--disk", default=str(HERE), help="folder on the disk to measure")
    arguments.add_argument("--get", action="store_true", help="pixel requests instead of batches of 10 events")
    options = arguments.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}")
    server = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, str(HERE / "server.py"), options.disk],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        port = int(server.stdout.readline())
        load = ["taskset", "-c", "1", "wrk", "-t1", f"-c{options.connections}", "--latency"]
        script = ["-s", str(HERE / ("get.lua" if options.get else "post.lua")), f"http://127.0.0.1:{port}"]
        subprocess.run([*load, "-d1s", *script], check=True, capture_output=True)
        before = ask(server)
        report = subprocess.run([*load, f"-d{options.seconds}s", *script], check=True, capture_output=True, text=True).stdout
        after = ask(server)
    finally:
        server.stdin.close()
        server.wait(30)
    answered = after[0] - before[0]
    percentiles = dict(re.findall(r"(50|99)%\s+(\S+)", report))
    print(f"requests per second   {answered / options.seconds:,.0f}")
    print(f"latency p50, p99      {percentiles['50']}, {percentiles['99']}")
    print(f"processor per request {(after[2] - before[2]) / answered * 1e6:.1f} us")
    print(f"peak memory           {after[3] / 1024:.0f} MiB")
    print(f"answered, durable     {after[0]:.0f}, {after[1]:.0f}")
    failed = re.findall(r"Non-2xx.*|Socket errors.*", report)
    print(*failed, sep="\n", end="")
    return 1 if failed or after[1] < after[0] else 0  # more may be durable than answered yet, never fewer


def ask(server: subprocess.Popen[str]) -> list[float]:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("now\n")
    server.stdin.flush()
    return [float(word) for word in server.stdout.readline().split()[:4]]


if __name__ == "__main__":
    sys.exit(main())
