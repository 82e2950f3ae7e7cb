"""Firmware and files -> the board, by avrdude, esptool and mpremote; what those say -> one sentence that tells what to do.

Each returns only when what was written was read back and found right, as far as the board's boot loader can do that.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from protocol.seams import ConfigurationError, PermanentError, TransientError
from spoorway.flashing.boards import BOARDS, Board
from spoorway.flashing.firmware import python_tool
from spoorway.flashing.tools import Outcome, run

AVR_S, ESP_S, FILES_S = 120.0, 300.0, 120.0
_SILENT_S = 20.0  # a tool that says nothing for so long has lost its board
_TRIES = 8
_UNANSWERED = 2  # tries one after the other
_RUN = 32_768  # bytes of files in one run of mpremote
_PIECE = 192  # bytes of a file in one program: its text must fit in the memory of a micro:bit
_LONGEST = 1_024  # characters of a program that are told at once
_SHORTEST = 24  # with this everything we say fits in the 64 bytes that a micro:bit holds while it is busy
Share = Callable[[float], None]


class _Unanswered(TransientError):
    """The board said nothing."""


_SIGNATURES = {"1e950f": "ATmega328P (Uno, Nano)", "1e9514": "ATmega328", "1e9801": "ATmega2560 (Mega)", "1e9587": "ATmega32U4"}


def avr(board: Board, port: str, image: Path, options: Sequence[str], share: Share, limit_s: float = AVR_S) -> None:
    """Writes and verifies a .hex file. Raises ConfigurationError, PermanentError (another chip), TransientError."""
    outcome = run(avr_command(board, port, image, options), limit_s, share, _SILENT_S)
    if outcome.code != 0:
        raise _avr_trouble(board, port, outcome)


def avr_command(board: Board, port: str, image: Path, options: Sequence[str]) -> list[str]:
    """-D: the boot loaders erase page by page. Raises ConfigurationError."""
    program = shutil.which("avrdude")
    if program is None:
        raise ConfigurationError("this board needs the program avrdude: apt install avrdude, or brew install avrdude")
    how = ["-p", board.chip, "-c", board.programmer, "-b", str(board.baud), "-P", port, "-D"]
    return [program, *how, *options, "-U", f"flash:w:{image}:i"]


def _avr_trouble(board: Board, port: str, outcome: Outcome) -> Exception:
    text = outcome.text.lower()
    if found := re.search(r"device signature = (?:0x)?([0-9a-f ]{6,8})", text):
        signature = found[1].replace(" ", "")
        if "expected signature" in text or "double check chip" in text:
            other = _SIGNATURES.get(signature, f"a chip with the signature {signature}")
            return PermanentError(f"the board at {port} is no {board.title}: its chip is {other}; nothing was written")
    if "verification error" in text or "mismatch" in text:
        return TransientError(f"{port}: what was written reads back as something else; try again, with another cable")
    if outcome.code is None:
        return TransientError(f"{port}: the board went silent while it was flashed; press its reset button and try again")
    if "can't open device" in text or "cannot open" in text:
        return TransientError(f"{port}: {_last(outcome)}")
    if "not in sync" in text or "getsync" in text or "timeout" in text or "programmer is not responding" in text:
        others = ", ".join(each.name for each in BOARDS.values() if each.tool == board.tool and each is not board)
        return TransientError(
            f"{port}: no boot loader of a {board.title} answered at {board.baud} baud; is it another board ({others})? "
            "Press reset, and try again"
        )
    return TransientError(f"{port}: avrdude failed: {_last(outcome)}")


def esp(board: Board, port: str, image: Path, offset: int, options: Sequence[str], share: Share, limit_s: float = ESP_S) -> bool:
    """Writes an image; True when the chip confirmed its digest. Raises as `avr`."""
    outcome = run(esp_command(board, port, image, offset, options), limit_s, share, _SILENT_S)
    text = outcome.text
    if outcome.code == 0:
        return "Hash of data verified" in text
    if found := re.search(r"This chip is (\S+?),? not (\S+?)[.,\s]", text):
        raise PermanentError(f"the board at {port} is no {board.title}: its chip is {found[1]}; nothing was written")
    if "Failed to connect" in text or "No serial data received" in text:
        raise TransientError(
            f"{port}: the boot loader of the {board.title} did not answer; hold BOOT, press reset, and try again"
        )
    if outcome.code is None or "No more data to read" in text or "Timed out waiting for packet" in text:
        raise TransientError(f"{port}: the board went silent while it was flashed; press its reset button and try again")
    raise TransientError(f"{port}: esptool failed: {_last(outcome)}")


def esp_command(board: Board, port: str, image: Path, offset: int, options: Sequence[str]) -> list[str]:
    """Raises ConfigurationError."""
    how = ["--chip", board.chip, "--port", port, "--baud", str(board.baud)]
    return [*python_tool("esptool"), *how, *options, "write-flash", hex(offset), str(image)]


def files(port: str, contents: Mapping[str, bytes], share: Share, limit_s: float = FILES_S) -> None:
    """Writes files into a MicroPython board's root, reads them back, and restarts the board. Raises as `avr`.

    By `exec` alone: mpremote's own copy needs modules that small boards lack. limit_s: for each of its runs.
    """
    total, written = sum(map(len, contents.values())) or 1, 0
    for names in _together(contents):
        _persistently(partial(_write_together, port, {name: contents[name] for name in names}, limit_s))
        written += sum(len(contents[name]) for name in names)
        share(written / total)
    _persistently(partial(_restart, port, limit_s))


def _persistently(attempt: Callable[[int], object]) -> None:
    """A busy board loses bytes of what it is told; told anew, in smaller pieces, it hears them. attempt: gets their size."""
    longest, unanswered = _LONGEST, 0
    for left in reversed(range(_TRIES)):
        try:
            attempt(longest)
            return
        except TransientError as error:
            unanswered = unanswered + 1 if isinstance(error, _Unanswered) else 0
            if not left or unanswered == _UNANSWERED:
                raise
            longest = max(longest // 8, _SHORTEST)


def _write_together(port: str, contents: Mapping[str, bytes], limit_s: float, longest: int) -> None:
    programs = [program for name, content in contents.items() for program in _programs(name, content)]
    text = _mpremote(port, _pieces(programs, longest), limit_s, ", ".join(contents))
    sums = re.findall(r"sums (\d+) (\d+) (\d+)", text)
    for name, found in zip(contents, sums + [()] * len(contents), strict=False):
        if tuple(map(int, found)) != (len(contents[name]), *_sums(contents[name])):
            raise TransientError(f"{port}: {name} reads back as something else; is the board's file system full?")


def _together(contents: Mapping[str, bytes]) -> Iterator[list[str]]:
    """Files that one run writes: as many as fit on a command line."""
    names: list[str] = []
    size = 0
    for name, content in contents.items():
        if names and size + len(content) > _RUN:
            yield names
            names, size = [], 0
        names.append(name)
        size += len(content)
    if names:
        yield names


def _restart(port: str, limit_s: float, longest: int) -> None:
    _mpremote(port, _pieces([_MACHINE, _RESTART], longest), limit_s, "the restart")


def _pieces(programs: Sequence[str], longest: int) -> Iterator[str]:
    """Programs that do the same, none with much more than so many characters of them."""
    for program in programs:
        if len(program) <= longest:
            yield program
            continue
        yield "s=''"
        yield from (f"s+={program[at : at + longest]!r};print()" for at in range(0, len(program), longest))
        yield "exec(s)"


def _programs(name: str, content: bytes) -> list[str]:
    folders = [_FOLDER.format(name=str(folder)) for folder in list(PurePosixPath(name).parents)[-2::-1]]
    pieces = [f"f.write({content[at : at + _PIECE]!r});print()" for at in range(0, len(content), _PIECE)]
    return [*folders, f"f=open({name!r},'wb')", *pieces, "f.close()", _SUMS.format(name=name)]


_MACHINE = "try:\n import machine as m\n m.reset\nexcept (ImportError,AttributeError):\n import microbit as m"
_RESTART = "m.reset()"  # nothing follows: the board is gone
_FOLDER = "import os\ntry:\n os.mkdir({name!r})\nexcept OSError:\n pass"
_SUMS = (
    "a=b=n=0\nwith open({name!r},'rb') as f:\n while 1:\n  d=f.read(64)\n  if not d: break\n"
    "  for c in d:\n   a=(a+c)%65521\n   b=(b+a)%65521\n   n+=1\nprint('sums',n,a,b)"
)


def _sums(content: bytes) -> tuple[int, int]:
    a = b = 0
    for byte in content:
        a = (a + byte) % 65_521
        b = (b + a) % 65_521
    return a, b


def _mpremote(port: str, programs: Iterable[str], limit_s: float, what: str) -> str:
    command = [*python_tool("mpremote"), "connect", port, "resume"]
    for program in programs:
        command += ["exec", *(["--no-follow"] if program == _RESTART else []), program, "+"]
    outcome = run(command[:-1], limit_s, silent_s=_SILENT_S)
    if outcome.code == 0:
        return outcome.text
    if outcome.code is None or "could not enter raw repl" in outcome.text:
        raise _Unanswered(f"{port}: no MicroPython answered (at {what}); is its firmware on the board?")
    if "ENOSPC" in outcome.text or "Errno 28" in outcome.text:
        raise PermanentError(f"{port}: the board's file system is full at {what}")
    raise TransientError(f"{port}: mpremote failed at {what}: {_last(outcome)}")


def _last(outcome: Outcome) -> str:
    lines = [line.strip() for line in outcome.text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "can't" in line]
    return (errors or lines or ["without a word"])[-1]


__all__ = ["avr", "avr_command", "esp", "esp_command", "files"]
