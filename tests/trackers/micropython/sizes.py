"""What the MicroPython tracker takes of a board: .mpy files and heap. `python -m tests.trackers.micropython.sizes`

The heap is that of the Unix port with pointers of 32 bits, as a board's, where there is one (tools/micropython), otherwise of 64.
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

    most_bytes: of its .mpy files; most_heap: of them imported, with 32 bits. goal_…: what we would like.
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
    Part("core: structured and self-describing events, RAM queue, HTTP", HTTP, (), 2_930, 4_250, 3_000, 4_500),
    Part("core with MQTT in place of HTTP, entities of a named device", (*MQTT, "entities"), (), 4_800, 6_850, 5_000, 7_000),
    Part("entities, a device's clock, on top", ("entities",), HTTP, 555, 800),
    Part("what is called seldom, on top", ("seldom",), (*HTTP, "entities"), 920, 1_400),
    Part("durable queue, on top", ("files",), (*HTTP, "entities"), 1_970, 2_800),
    Part("verbs of pages, screens, timings, health, on top", ("verbs",), (*HTTP, "entities"), 1_615, 2_750),
    Part("serial lines, on top", ("uart",), ("__init__", "entities"), 1_255, 2_100),
    Part("signatures, on top", ("sign",), HTTP, 545, 950),
)
# Names are kept in pieces of 128 bytes and in a table that grows in steps: what an import takes depends on how many names the
# program has of its own, so the figures are means over these.
OWN = range(0, 160, 10)
PEERS = (
    ("umqtt.simple: QoS 1, never sends again, no queue", 2_221, 3_904),
    ("mqtt_as 0.8.3: QoS 1, no queue", 10_290, 15_248),
)


class Figures(NamedTuple):
    """sizes: file -> bytes of its .mpy. heaps: name of a part -> heap that it takes, from files and from a ROMFS.

    bits: of the pointers on that heap. use: what heap.py told of a tracker (64 bits).
    """

    sizes: dict[str, int]
    heaps: dict[str, tuple[int, int]]
    bits: int
    use: dict[str, int]

    def bytes_of(self, part: Part) -> int:
        return sum(self.sizes[file] for file in part.files)


def measure(folder: Path, events: int) -> Figures:
    made = boards.compiled(folder)
    image = folder / "spoor.romfs"
    boards.romfs(made, image)
    bits = 32 if boards.INTERPRETER_32.exists() else 64

    def told(interpreter: str, *arguments: str | Path) -> dict[str, int]:
        done = boards.run(interpreter, "heap.py", *arguments, heap="512k")
        assert done.returncode == 0, done.stdout + done.stderr
        facts: dict[str, int] = json.loads(done.stdout)
        return facts

    def mean(package: Path, part: Part) -> int:
        modules = [f"spoor.{file}".removesuffix(".__init__") for file in (*part.upon, *part.files)]
        interpreter = "micropython-32" if bits == 32 else "micropython"
        found = [told(interpreter, package, "import", str(own), *modules) for own in OWN]
        return sum(heap[module] for heap in found for module in modules[len(part.upon) :]) // len(found)

    heaps = {part.name: (mean(made, part), mean(image, part)) for part in PARTS}
    sizes = {file.stem: file.stat().st_size for file in (made / "spoor").iterdir()}
    return Figures(sizes, heaps, bits, told("micropython", made, "use", folder / "queue", str(events)))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), 10_000)
    heap = f"heap{found.bits}"
    print(f"{'MicroPython tracker':64} {'.mpy':>7} {'goal':>6} {heap:>7} {'goal32':>7} {'in a ROMFS':>11}")
    over = False
    for part in PARTS:
        size, (copied, in_place) = found.bytes_of(part), found.heaps[part.name]
        over |= size > part.most_bytes or (found.bits == 32 and copied > part.most_heap)
        print(f"{part.name:64} {size:7,} {part.goal_bytes or '':>6} {copied:7,} {part.goal_heap or '':>7} {in_place:11,}")
    for name, size, copied in PEERS:
        print(f"{'  ' + name + ' (32 bits)':64} {size:7,} {'':>6} {copied:7,}")
    print(f"a tracker with its queue: {found.use['tracker']:,} B; an event while it is tracked: {found.use['transient']:,} B")
    print(f"growth over 10,000 events: {found.use['growth']:,} B")
    return int(over or found.use["growth"] > 0)


if __name__ == "__main__":
    sys.exit(main())
