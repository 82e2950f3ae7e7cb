"""The HTTP transport on the real journal in a temporary folder, until the parent closes standard input.

Prints its port, and for every line it is sent what it has done and used so far.
Run by run.py, pinned to one core.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
from pathlib import Path

import uvloop

from gateway.journal.files import FileWriter
from gateway.transports.http import Config, Plugin


async def serve(folder: Path) -> None:
    writer = FileWriter.open(folder)
    plugin = Plugin(Config(port=0))
    await plugin.start(writer.append)
    print(plugin.addresses[0][1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        print(plugin.counters.requests["accepted"], writer.accepted(), cpu, usage.ru_maxrss, line.strip(), flush=True)
    await plugin.stop()
    await writer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1], prefix="gateway-http-") as name:
        uvloop.run(serve(Path(name)))
