"""What the MicroPython tracker takes of a board: .mpy files and heap. `python -m tests.trackers.micropython.sizes`

The heap is that of the Unix port with 64-bit pointers; a board with 32 bits needs about six tenths of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.trackers.micropython import boards


class Part(NamedTuple):
    """files: of the package. most_bytes: of its .mpy files; most_heap: of them imported. goal_…: what we would like."""

    name: str
    files: tuple[str, ...]
    most_bytes: int
    most_heap: int
    goal_bytes: int | None = None
    goal_heap: int | None = None


CORE = ("__init__", "net", "http")
PARTS = (
    Part("core: structured and self-describing events, RAM queue, HTTP", CORE, 5_380, 13_000, 3_000, 4_500),
    Part("core with MQTT in place of HTTP", ("__init__", "net", "mqtt"), 6_000, 14_200, 5_000, 7_000),
    Part("durable queue, on top", ("files",), 2_000, 3_600),
    Part("verbs of pages, screens, timings, health, on top", ("verbs",), 1_170, 3_000),
    Part("serial lines, on top", ("uart",), 1_275, 3_100),
    Part("signatures, on top", ("sign",), 540, 1_400),
)
PEERS = (
    ("umqtt.simple: QoS 1, never sends again, no queue", 2_221, 3_904),
    ("mqtt_as 0.8.3: QoS 1, no queue", 10_290, 15_248),
)


class Figures(NamedTuple):
    """sizes: file -> bytes of its .mpy. heap: what heap.py told."""

    sizes: dict[str, int]
    heap: dict[str, int]

    def bytes_of(self, part: Part) -> int:
        return sum(self.sizes[file] for file in part.files)

    def heap_of(self, part: Part) -> int:
        # Whoever imports http imports net with it.
        return sum(self.heap["spoor" if file == "__init__" else file] for file in part.files if file != "net")


def measure(folder: Path, events: int) -> Figures:
    made = boards.compiled(folder)
    done = boards.run("micropython", "heap.py", made, folder / "queue", str(events), heap="512k")
    assert done.returncode == 0, done.stdout + done.stderr
    return Figures({file.stem: file.stat().st_size for file in (made / "spoor").iterdir()}, json.loads(done.stdout))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), 10_000)
    print(f"{'MicroPython tracker':64} {'.mpy':>7} {'goal':>6} {'heap64':>7} {'goal32':>7}")
    over = False
    for part in PARTS:
        size, heap = found.bytes_of(part), found.heap_of(part)
        over |= size > part.most_bytes or heap > part.most_heap
        print(f"{part.name:64} {size:7,} {part.goal_bytes or '':>6} {heap:7,} {part.goal_heap or '':>7}")
    for name, size, heap in PEERS:
        print(f"{'  ' + name + ' (32 bits)':64} {size:7,} {'':>6} {heap:7,}")
    print(f"a tracker with its queue: {found.heap['tracker']:,} B; an event while it is tracked: {found.heap['transient']:,} B")
    print(f"growth over 10,000 events: {found.heap['growth']:,} B")
    return int(over or found.heap["growth"] > 0)


if __name__ == "__main__":
    sys.exit(main())
