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
    """files: of the package, in the order of their import. upon: those that are there before.

    most_bytes: of its .mpy files; most_heap: of them imported. goal_…: what we would like.
    """

    name: str
    files: tuple[str, ...]
    upon: tuple[str, ...]
    most_bytes: int
    most_heap: int
    goal_bytes: int | None = None
    goal_heap: int | None = None


HTTP = ("__init__", "http")
MQTT = ("__init__", "http", "mqtt")
PARTS = (
    Part("core: structured and self-describing events, RAM queue, HTTP", HTTP, (), 2_940, 7_000, 3_000, 4_500),
    Part("core with MQTT in place of HTTP, entities of a named device", (*MQTT, "entities"), (), 4_800, 10_300, 5_000, 7_000),
    Part("entities, a device's clock, on top", ("entities",), HTTP, 555, 1_050),
    Part("what is called seldom, on top", ("seldom",), (*HTTP, "entities"), 930, 2_000),
    Part("durable queue, on top", ("files",), (*HTTP, "entities"), 1_955, 3_400),
    Part("verbs of pages, screens, timings, health, on top", ("verbs",), (*HTTP, "entities"), 1_620, 3_650),
    Part("serial lines, on top", ("uart",), ("__init__", "entities"), 1_265, 2_800),
    Part("signatures, on top", ("sign",), HTTP, 555, 1_400),
)
PEERS = (
    ("umqtt.simple: QoS 1, never sends again, no queue", 2_221, 3_904),
    ("mqtt_as 0.8.3: QoS 1, no queue", 10_290, 15_248),
)


class Figures(NamedTuple):
    """sizes: file -> bytes of its .mpy. heaps: name of a part -> heap that it takes. use: what heap.py told of a tracker."""

    sizes: dict[str, int]
    heaps: dict[str, int]
    use: dict[str, int]

    def bytes_of(self, part: Part) -> int:
        return sum(self.sizes[file] for file in part.files)


def measure(folder: Path, events: int) -> Figures:
    made = boards.compiled(folder)

    def told(*arguments: str | Path) -> dict[str, int]:
        done = boards.run("micropython", "heap.py", made, *arguments, heap="512k")
        assert done.returncode == 0, done.stdout + done.stderr
        facts: dict[str, int] = json.loads(done.stdout)
        return facts

    heaps = {}
    for part in PARTS:  # each in an interpreter of its own: the tables of names grow in steps
        modules = [f"spoor.{file}".removesuffix(".__init__") for file in (*part.upon, *part.files)]
        heap = told(*modules)
        heaps[part.name] = sum(heap[module] for module in modules[len(part.upon) :])
    sizes = {file.stem: file.stat().st_size for file in (made / "spoor").iterdir()}
    return Figures(sizes, heaps, told("use", folder / "queue", str(events)))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), 10_000)
    print(f"{'MicroPython tracker':64} {'.mpy':>7} {'goal':>6} {'heap64':>7} {'goal32':>7}")
    over = False
    for part in PARTS:
        size, heap = found.bytes_of(part), found.heaps[part.name]
        over |= size > part.most_bytes or heap > part.most_heap
        print(f"{part.name:64} {size:7,} {part.goal_bytes or '':>6} {heap:7,} {part.goal_heap or '':>7}")
    for name, size, heap in PEERS:
        print(f"{'  ' + name + ' (32 bits)':64} {size:7,} {'':>6} {heap:7,}")
    print(f"a tracker with its queue: {found.use['tracker']:,} B; an event while it is tracked: {found.use['transient']:,} B")
    print(f"growth over 10,000 events: {found.use['growth']:,} B")
    return int(over or found.use["growth"] > 0)


if __name__ == "__main__":
    sys.exit(main())
