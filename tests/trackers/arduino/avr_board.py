"""Sketches compiled with avr-g++, and an emulated board to run them on: see board.c and the Makefile beside this file."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LIBRARY = ROOT / "trackers/arduino"
BUILT = ROOT / "build/arduino"
SKETCHES = HERE / "sketches"


@cache
def board_program() -> Path:
    """The emulator, compiled."""
    program = BUILT / "board"
    BUILT.mkdir(parents=True, exist_ok=True)
    source = HERE / "board.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        made = program.with_suffix(f".{os.getpid()}")
        flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-isystem", "/usr/include/simavr")
        subprocess.run(["gcc", *flags, source, "-o", made, "-lsimavr", "-lelf", "-lutil"], check=True)
        made.rename(program)
    return program


@cache
def compiled(sketch: Path, *defines: str, board: str = "uno", warnings: str = "-Werror -Wno-maybe-uninitialized") -> Path:
    """The sketch as an ELF file. Raises AssertionError with what the compiler said."""
    out = BUILT / "-".join(["s", sketch.stem, board, *(d.lstrip("-D").replace("=", "_") for d in defines)])
    out.mkdir(parents=True, exist_ok=True)
    (core := BUILT / f"core-{board}").mkdir(exist_ok=True)
    link = out / core.name
    if not link.is_symlink():
        link.symlink_to(core)
    words = [f"SKETCH={sketch}", f"BOARD={board}", f"OUT={out}", f"DEFINE={' '.join(defines)}", f"WARNINGS={warnings}"]
    made = subprocess.run(["make", "-s", "-f", HERE / "Makefile", *words], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-4000:]
    return out / f"{sketch.stem}-{board}.elf"


def size(elf: Path) -> tuple[int, int]:
    """Bytes of flash and of static RAM, as avr-size counts them."""
    text, data, bss = (
        subprocess.run(["avr-size", elf], capture_output=True, text=True, check=True).stdout.split("\n")[1].split()[:3]
    )
    return int(text) + int(data), int(data) + int(bss)


def symbol(elf: Path, name: str) -> int:
    """Where a variable lies in RAM."""
    for line in subprocess.run(["avr-nm", elf], capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, found = line.partition(" ")
        if found[2:] == name:
            return int(address, 16) & 0xFFFF
    raise AssertionError(f"{elf} has no {name}")


class Board:
    """A powered board. port: a symbolic link to its serial port."""

    def __init__(self, elf: Path, port: Path, *options: str, eeprom: Path | None = None) -> None:
        command = [board_program(), "-x", elf, "-l", port, *(("-e", eeprom) if eeprom else ()), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready"):
                return
        raise AssertionError("the board did not start")

    def said(self) -> str:
        """The next line of the emulator; "" at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def off(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
