"""What the figures were measured on: read from /proc and /sys, from the disk itself, and from git."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def describe(folder: Path) -> str:
    """One line; the disk is the one that `folder` is on."""
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{_cpu()}, {os.cpu_count()} cores, {_ram_gib():.1f} GiB RAM; {_disk(folder)}; Linux {platform.release()}, {python}"


# what is measured; not what a run before in the same checkout has just written of its own figures
_MEASURED = ("protocol", "gateway", "enrich", "storage", "spoorway", "trackers", ":!spoorway/simulate/measured.json")


def commit(root: Path) -> str:
    try:
        head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", *_MEASURED],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + (" with changes" if changed.stdout else "")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


class Busyness:
    """How much of the machine others had: in the second before, and meanwhile (time stolen by the hypervisor)."""

    def __init__(self) -> None:
        self._load = _others()
        self._before = _ticks()

    def stolen(self) -> float:
        """Percent of all processor time since this was made."""
        spent = [after - before for after, before in zip(_ticks(), self._before, strict=True)]
        return 100 * spent[7] / max(1, sum(spent[:8]))

    def was_busy(self) -> bool:
        return self._load > 15 or self.stolen() > 3

    def __str__(self) -> str:
        return f"others used {self._load:.0f} % of the processors before, the hypervisor took {self.stolen():.1f} % meanwhile"


def sync_ms(folder: Path, times: int = 200) -> list[float]:
    """Milliseconds of a 4.7 KB append and its fdatasync, sorted: what the disk itself takes for one durable write."""
    path = folder / "sync"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    found: list[float] = []
    try:
        for _ in range(times):
            began = time.perf_counter()
            os.write(fd, bytes(4_700))
            os.fdatasync(fd)
            found.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(fd)
        path.unlink()
    return sorted(found)


def require(*programs: str) -> None:
    """Raises SystemExit with what is missing."""
    if lacking := [program for program in programs if shutil.which(program) is None]:
        raise SystemExit(f"benchmarks need {', '.join(lacking)}: tools/runtimes installs them")
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("benchmarks need two cores: one for the server, one for the load")


def _cpu() -> str:
    board = Path("/proc/device-tree/model")  # a Raspberry Pi says here what it is
    if board.exists():
        return board.read_text().strip("\0\n")
    facts = dict(_split(line) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    return facts.get("model name", platform.machine())


def _ram_gib() -> float:
    facts = dict(_split(line) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(facts["MemTotal"].split()[0]) / (1 << 20)


def _disk(folder: Path) -> str:
    mounts = [line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines()]
    device, _, kind = max((m for m in mounts if folder.resolve().is_relative_to(m[1])), key=lambda mount: len(mount[1]))
    major_minor = os.stat(folder).st_dev
    block = Path(f"/sys/dev/block/{os.major(major_minor)}:{os.minor(major_minor)}").resolve()
    queue = next((q for q in (block / "queue", block.parent / "queue") if q.exists()), None)
    spinning = "" if queue is None else f", rotational {(queue / 'rotational').read_text().strip()}"
    times = sync_ms(folder)
    return (
        f"{kind} on {Path(device).name}{spinning}, fdatasync p50 {statistics.median(times):.2f} ms"
        f" p99 {times[len(times) * 99 // 100]:.2f} ms"
    )


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]


def _others() -> float:
    """Percent of all processors that is used while we do nothing for a second."""
    before = _ticks()
    time.sleep(1)
    spent = [after - earlier for after, earlier in zip(_ticks(), before, strict=True)]
    return 100 * (1 - (spent[3] + spent[4]) / max(1, sum(spent[:8])))


def circumstances(machine: str, root: Path, busy: Busyness) -> dict[str, Any]:
    return {"machine": machine, "date": now(), "commit": commit(root), "busy": str(busy), "was_busy": busy.was_busy()}
