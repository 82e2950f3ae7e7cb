"""A server process and its children: started, waited for, looked at through /proc, ended. Ends only what it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
_START_S, _END_S = 20.0, 30.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """MiB of one process. pss: shared pages divided by who shares them, so the sum over processes is what is really used."""

    name: str
    rss: float
    pss: float


class Server:
    """Call order: `Server(...)`, listening when it returns -> what you like -> `stop` or `kill` (or leave the `with`)."""

    def __init__(self, command: Sequence[str], port: int, log: Path, core: int | None = None) -> None:
        """core: the one it is confined to; None = all. Raises RuntimeError, with its log, when it does not listen in time."""
        self.port = port
        pinned = ["taskset", "-c", str(core), *command] if core is not None else list(command)
        began = time.perf_counter()
        with log.open("ab") as output:
            # A session of its own: `kill` means it and its children, nobody else.
            self._process = subprocess.Popen(
                pinned, cwd=log.parent, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        while not self._listens():
            if self._process.poll() is not None or time.perf_counter() - began > _START_S:
                self.kill()
                raise RuntimeError(f"{' '.join(command)} does not listen: {log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.002)
        self.started_s = time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        parents = {int(stat.parent.name): fields for stat in Path("/proc").glob("[0-9]*/stat") if (fields := _stat(stat))}
        found = [self._process.pid]
        for pid in found:
            found += [child for child, fields in parents.items() if int(fields[1]) == pid]
        return [pid for pid in found if pid in parents]

    def processor_s(self) -> float:
        """Processor seconds used so far, user and system, by all of them."""
        fields = [_stat(Path(f"/proc/{pid}/stat")) for pid in self.pids()]
        return sum((int(f[11]) + int(f[12])) * _TICK_S for f in fields if f)

    def memory(self) -> list[Memory]:
        found: list[Memory] = []
        for pid in self.pids():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
            arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            found.append(Memory(_role(arguments), sizes["Rss"], sizes["Pss"]))
        return found

    def stop(self) -> None:
        """Asks it to end. Raises subprocess.TimeoutExpired."""
        self._process.terminate()
        self._process.wait(_END_S)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_END_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def spoorway(stage: str, data: Path, port: int, admin: int) -> list[str]:
    """The command of `spoorway run` or `spoorway gateway`."""
    listen = ["--http", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    return [sys.executable, "-m", "spoorway", stage, "--data", str(data), *listen]


def environment() -> Mapping[str, str]:
    """This checkout, with compiled modules as an installation has them, and no setting of the user's that changes the product."""
    compiled = "PYTHONDONTWRITEBYTECODE"
    rest = {name: value for name, value in os.environ.items() if name != compiled and not name.startswith("SPOORWAY__")}
    return {**rest, "PYTHONPATH": str(ROOT)}


def metric(admin: int, name: str) -> float:
    """The sum of a metric over its labels, from /metrics."""
    with urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = [float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0].endswith(name)]
    if not found:
        raise RuntimeError(f"/metrics has no {name}")
    return sum(found)


def _stat(path: Path) -> list[str]:
    """The fields after the process's name; empty when it is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _role(arguments: Sequence[str]) -> str:
    for word in ("gateway", "run", "load"):
        if word in arguments:
            return f"spoorway {word}"
    return Path(next((word for word in arguments[1:] if word.endswith(".py")), arguments[0])).stem
