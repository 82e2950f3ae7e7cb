"""What the Arduino library costs on an ATmega328P, over the same sketch without it; the limits are build gates.

    python -m tests.trackers.arduino.sizes

Prints one line each; exit code 1 where a limit is exceeded. A sketch's template and texts count as the library's.
"""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

from tests.trackers.arduino.avr_board import SKETCHES, compiled, size

KEY = "-DKEY=" + ",".join(str(n) for n in range(32))


class Build(NamedTuple):
    """over: the sketch, or the name of the build, that it is counted from. Limits in bytes."""

    name: str
    sketch: str
    defines: tuple[str, ...]
    over: str
    flash: int
    ram: int


BUILDS = (
    Build("serial lines, compact frames, queue of 8", "line", ("-DFORMAT=Compact",), "base_line", 3_950, 236),
    Build("serial lines, JSON, queue of 8", "line", ("-DFORMAT=Json",), "base_line", 4_600, 236),
    Build("MQTT QoS 1, will, JSON, queue of 8", "client", ("-DLINK=Mqtt",), "base_client", 4_260, 208),
    Build("  + EEPROM journal", "client", ("-DLINK=Mqtt", "-DJOURNAL"), "MQTT QoS 1, will, JSON, queue of 8", 2_420, 24),
    Build("HTTP POST, JSON, queue of 8", "client", ("-DLINK=Http",), "base_client", 4_800, 240),
    Build("  + HMAC-SHA256", "client", ("-DLINK=Http", KEY), "HTTP POST, JSON, queue of 8", 2_190, 56),
)

FORBIDDEN = ("malloc", "free", "realloc", "printf", "vfprintf", "dtostrf", "String", "delay")


def measured() -> list[tuple[Build, int, int]]:
    """Each build with the bytes of flash and of static RAM it adds."""
    absolute: dict[str, tuple[int, int]] = {}
    found: list[tuple[Build, int, int]] = []
    for build in BUILDS:
        if build.over not in absolute:
            absolute[build.over] = size(compiled(SKETCHES / f"{build.over}.ino"))
        absolute[build.name] = size(compiled(SKETCHES / f"{build.sketch}.ino", *build.defines))
        (flash, ram), (less_flash, less_ram) = absolute[build.name], absolute[build.over]
        found.append((build, flash - less_flash, ram - less_ram))
    return found


def forbidden() -> set[str]:
    """What no tracker may link, and some build does."""
    found: set[str] = set()
    for build in BUILDS:
        elf = compiled(SKETCHES / f"{build.sketch}.ino", *build.defines)
        names = subprocess.run(["avr-nm", "-C", elf], capture_output=True, text=True, check=True).stdout.splitlines()
        found |= {name for name in FORBIDDEN if any(line.split(" ", 2)[-1].partition("(")[0] == name for line in names)}
    return found


def main() -> int:
    over = 0
    print(f"{'Arduino library on an ATmega328P (avr-gcc 5.4, bytes)':<54}{'flash':>8}{'limit':>8}{'RAM':>8}{'limit':>8}")
    for build, flash, ram in measured():
        over += flash > build.flash or ram > build.ram
        print(f"{build.name:<54}{flash:>8,}{build.flash:>8,}{ram:>8,}{build.ram:>8,}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
