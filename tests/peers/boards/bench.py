"""Boards on the desk: an emulated Uno or Mega with its boot loader and a micro:bit with its firmware, each behind a terminal.

Needs gcc, avr-gcc, simavr, Debian's Arduino boot loaders, QEMU; what is missing is said by name.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
import tty
from pathlib import Path
from typing import NamedTuple

from tests.peers.programs import missing

HERE = Path(__file__).parent
LOADERS = Path("/usr/share/arduino/hardware/arduino/avr/bootloaders")
MICROPYTHON = HERE.parents[2] / "build" / "micropython" / "micropython"
RESTART = 64
MICROBIT = Path("/usr/share/firmware-microbit-micropython/firmware.hex")
_START_S = 20


class Made(NamedTuple):
    """board: the emulator. optiboot, wiring: boot loaders of Uno and Mega. uno, mega: the sketch as .hex files."""

    board: Path
    optiboot: Path
    wiring: Path
    uno: Path
    mega: Path


def make(folder: Path) -> Made:
    for program in ("gcc", "avr-gcc", "avr-objcopy", "avrdude"):
        if shutil.which(program) is None:
            missing(program)
    if not Path("/usr/include/simavr/sim_avr.h").exists():
        missing("libsimavr-dev")
    if not LOADERS.is_dir():
        missing("arduino-core-avr")
    board = folder / "avr_board"
    _run("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/simavr", HERE / "avr_board.c", "-o", board,
         "-lsimavr", "-lelf", "-lutil")  # fmt: skip
    # The one that Debian 12 has built does not fit where it has to go, and lets no sketch start.
    loader = folder / "optiboot"
    _run("avr-gcc", "-mmcu=atmega328p", "-DF_CPU=16000000L", "-DBAUD_RATE=115200", "-DLED_START_FLASHES=0", "-Os", "-std=gnu99",
         "-fno-inline-small-functions", "-fno-split-wide-types", "-w", "-Wl,--section-start=.text=0x7e00", "-Wl,--relax",
         "-Wl,--section-start=.version=0x7ffe", "-nostartfiles", LOADERS / "optiboot" / "optiboot.c", "-o", loader)  # fmt: skip
    sections = ("-j", ".text", "-j", ".data", "-j", ".version", "--set-section-flags", ".version=alloc,load")
    _run("avr-objcopy", *sections, "-O", "ihex", loader, folder / "optiboot.hex")
    return Made(
        board,
        folder / "optiboot.hex",
        LOADERS / "stk500v2" / "stk500boot_v2_mega2560.hex",
        sketch(folder / "uno", "atmega328p"),
        sketch(folder / "mega", "atmega2560"),
    )


def sketch(at: Path, chip: str) -> Path:
    """sketch.c, compiled for a chip; its .hex file."""
    made = at.with_suffix(".hex")
    defined = ("-DF_CPU=16000000UL", f'-DSKETCH="{at.name}"')
    _run("avr-gcc", f"-mmcu={chip}", *defined, "-Os", "-Wall", "-Wextra", "-Werror", "-std=gnu11", HERE / "sketch.c", "-o", at)
    _run("avr-objcopy", "-O", "ihex", "-R", ".eeprom", at, made)
    return made


def program_bytes(hex_file: Path) -> bytes:
    """What is in flash when a .hex file is, from address 0."""
    raw = hex_file.with_suffix(".raw")
    _run("avr-objcopy", "-I", "ihex", "-O", "binary", hex_file, raw)
    return raw.read_bytes()


class Board:
    """An AVR board. port: where it is. flash, eeprom: files; what they hold outlives it."""

    def __init__(self, folder: Path, emulator: Path, chip: str, loader: Path) -> None:
        self.port, self.flash, self.eeprom = folder / "ttyACM0", folder / "flash", folder / "eeprom"
        self._command = [emulator, chip, self.flash, self.eeprom, self.port, loader]
        self._process: subprocess.Popen[str] | None = None
        self.plug()

    def plug(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("READY")

    def pull(self) -> None:
        """The cable: without power at once."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.send_signal(number)
        self._process.wait(10)
        self._process.stdout.close()


class Microbit:
    """Genuine MicroPython 1.9.2 on an emulated micro:bit. port: its terminal."""

    def __init__(self) -> None:
        if shutil.which("qemu-system-arm") is None:
            missing("qemu-system-arm")
        if not MICROBIT.exists():
            missing("firmware-microbit-micropython")
        command = [
            "qemu-system-arm",
            "-M",
            "microbit",
            "-device",
            f"loader,file={MICROBIT}",
            "-display",
            "none",
            "-monitor",
            "none",
        ]
        self._process = subprocess.Popen(
            [*command, "-serial", "pty"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().split("redirected to ")[1].split()[0]

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.wait(10)
        self._process.stdout.close()


class Interpreter:
    """The genuine MicroPython of the Unix port as a board. port: its terminal. files: its file system."""

    def __init__(self, folder: Path) -> None:
        if not MICROPYTHON.exists():
            missing("micropython")
        self.files = folder / "files"
        self.files.mkdir()
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._ending = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name="micropython board", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending = True
        self._process.kill()
        self._thread.join(10)
        os.close(self._ours)
        os.close(self._theirs)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [MICROPYTHON, "-X", "heapsize=1m", HERE / "raw_repl.py", *arguments]
        # Its terminal's far end is ours: what tools write there, it reads.
        return subprocess.Popen(command, cwd=self.files, stdin=self._ours, stdout=self._ours, stderr=subprocess.STDOUT)

    def _keep(self) -> None:
        while self._process.wait() == RESTART and not self._ending:
            self._process = self._start("main")


def until(true: object, otherwise: str) -> None:
    end = time.monotonic() + _START_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, otherwise
        time.sleep(0.005)


def _run(*arguments: str | Path) -> None:
    subprocess.run(arguments, check=True)


__all__ = ["Board", "Interpreter", "Made", "Microbit", "make", "program_bytes", "sketch", "until"]
