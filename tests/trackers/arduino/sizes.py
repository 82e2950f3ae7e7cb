"""What the Arduino library costs on an ATmega328P, over the same sketch without it; the limits are build gates.

    python -m tests.trackers.arduino.sizes

Prints one line each; exit code 1 where a limit is exceeded. A sketch's template and texts count as the library's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from tests.trackers.arduino.avr_board import SKETCHES, Board, compiled, size, symbol

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
    Build("serial lines, compact frames, queue of 8", "line", ("-DFORMAT=Compact",), "base_line", 2_980, 212),
    Build(
        "  + HMAC-SHA256, compact frames",
        "line",
        ("-DFORMAT=Compact", KEY),
        "serial lines, compact frames, queue of 8",
        1_660,
        50,
    ),
    Build("serial lines, JSON, queue of 8", "line", ("-DFORMAT=Json",), "base_line", 4_040, 226),
    Build("  + HMAC-SHA256, JSON lines", "line", ("-DFORMAT=Json", KEY), "serial lines, JSON, queue of 8", 1_400, 50),
    Build("MQTT QoS 1, will, JSON, queue of 8", "client", ("-DLINK=Mqtt",), "base_client", 3_990, 200),
    Build("  + EEPROM journal", "client", ("-DLINK=Mqtt", "-DJOURNAL"), "MQTT QoS 1, will, JSON, queue of 8", 1_300, -30),
    Build("  + opting out", "client", ("-DLINK=Mqtt", "-DCONSENT"), "MQTT QoS 1, will, JSON, queue of 8", 250, 4),
    Build("HTTP POST, JSON, queue of 8", "client", ("-DLINK=Http",), "base_client", 4_310, 232),
    Build("  + HMAC-SHA256, HTTP", "client", ("-DLINK=Http", KEY), "HTTP POST, JSON, queue of 8", 1_610, 50),
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


STACKS = (
    ("MQTT QoS 1, will, JSON", 160, ("-DLINK=Mqtt",)),
    ("HTTP POST, JSON", 160, ("-DLINK=Http",)),
    ("HTTP POST, JSON, HMAC-SHA256", 300, ("-DLINK=Http", KEY)),
)
"""Limits in bytes, with what the sketch itself and interrupts take: 32."""

SIGNING = (
    ("signing a compact line", 12_000, ("-DFORMAT=Compact", "-DMEASURE", KEY)),
    ("signing a JSON line", 39_000, ("-DFORMAT=Json", "-DMEASURE", KEY)),
)
"""Limits in microseconds of the board's own clock, which is as slow on a busy machine; the `loop()` that signs is the longest."""

RAM_END = 0x900
UNTOUCHED = 0xC5  # what board.c leaves in all memory


def stack(sketch: str, *defines: str) -> int:
    """Bytes of stack used at most in a second of board time, interrupts included. MQTT is told that it is connected."""
    elf = compiled(SKETCHES / f"{sketch}.ino", *defines)
    free = symbol(elf, "__bss_end")
    with tempfile.TemporaryDirectory() as folder:
        port = Path(folder) / "tty"
        board = Board(elf, port, "-f", "-C", "1", "-p", f"{free:x},{RAM_END - free}", eeprom=Path(folder) / "eeprom")
        wire = os.open(port, os.O_RDWR | os.O_NOCTTY)
        threading.Thread(target=_greet, args=(wire,), daemon=True).start()
        memory = bytes.fromhex(board.said().removeprefix("knew "))
        board.off()
    return len(memory) - next(i for i, byte in enumerate(memory) if byte != UNTOUCHED)


def longest(*defines: str) -> int:
    """Microseconds that a `loop()` of the line sketch takes at most, in a second of board time."""
    elf = compiled(SKETCHES / "line.ino", *defines)
    with tempfile.TemporaryDirectory() as folder:
        at = symbol(elf, "longest_us")
        board = Board(elf, Path(folder) / "tty", "-f", "-C", "1", "-p", f"{at:x},4", eeprom=Path(folder) / "eeprom")
        memory = bytes.fromhex(board.said().removeprefix("knew "))
        board.off()
    return int.from_bytes(memory, "little")


def _greet(wire: int) -> None:
    heard = b""
    try:
        while some := os.read(wire, 256):
            heard += some
            if b"MQTT" in heard:
                os.write(wire, b"\x20\x02\0\0")  # CONNACK
                heard = b""
    except OSError:  # the board is off
        pass


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
    for name, limit, defines in STACKS:
        deep = stack("client", *defines)
        over += deep > limit
        print(f"{'stack, ' + name:<54}{deep:>8,}{limit:>8,}")
    for name, limit, defines in SIGNING:
        over += (took := longest(*defines)) > limit
        print(f"{name + ', microseconds':<54}{took:>8,}{limit:>8,}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
