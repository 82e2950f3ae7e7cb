"""Which port a board is at, whether it can be had, and a gateway that has it asked to let go of it for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from gateway.serial.lending import lent_file
from gateway.serial.wire import is_pseudo, others, pyserial
from protocol.seams import ConfigurationError, PermanentError, TransientError
from spoorway.flashing.boards import BOARDS, CONVERTERS, Board

_FREE_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.1
_READ_S = 0.05


class PortInfo(Protocol):
    """As pyserial lists them. vid, pid: None where it is no USB port."""

    device: str
    description: str
    vid: int | None
    pid: int | None


def listed() -> list[Any]:
    """Raises ConfigurationError."""
    pyserial()
    from serial.tools.list_ports import comports

    return sorted(comports(), key=lambda port: port.device)


def choose(board: Board, ports: Sequence[PortInfo]) -> str:
    """The one port this board can be at: one that says it is this board, else one with a converter. Raises ConfigurationError."""
    usb = [port for port in ports if port.vid is not None]
    named = [port for port in usb if (port.vid, port.pid) in board.usb]
    found = named or [port for port in usb if board.converters and (port.vid, port.pid) in CONVERTERS]
    if len(found) == 1:
        return found[0].device
    seen = ", ".join(f"{port.device} ({_called(port)})" for port in found or ports)
    if found:
        raise ConfigurationError(f"{len(found)} boards could be the {board.name}; say which with --port: {seen}")
    hint = f"only {seen} is there; say --port if that is it" if seen else "no serial port is there; is the cable a data cable?"
    raise ConfigurationError(f"no {board.title} found: {hint}")


def _called(port: PortInfo) -> str:
    known = [board.title for board in BOARDS.values() if (port.vid, port.pid) in board.usb]
    return known[0] if known else port.description


@contextmanager
def borrowed(data: Path, port: str) -> Generator[None, None, None]:
    """The port for us alone: a gateway that runs on this data folder lets go of it until the block ends.

    Raises ConfigurationError (no such port, no permission), TransientError (another program has it).
    """
    if not os.path.exists(port):
        raise ConfigurationError(f"{port}: there is no such port; `spoorway flash --ports` lists those that are there")
    if not os.access(port, os.R_OK | os.W_OK):
        raise ConfigurationError(f"{port}: permission denied; on most systems: sudo usermod -aG dialout $USER, then log in again")
    mark = lent_file(data, os.path.realpath(port))
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(str(os.getpid()))
    except OSError as error:
        raise PermanentError(f"{mark}: {error.strerror}") from None
    try:
        _wait_until_free(port)
        yield
    finally:
        with suppress(FileNotFoundError):
            mark.unlink()


def _wait_until_free(port: str) -> None:
    end = time.monotonic() + _FREE_WITHIN_S
    while True:
        # An emulator holds the far end of its pseudo terminal open itself; there only the lock tells.
        sharing = [] if is_pseudo(os.path.realpath(port)) else others(port)
        if not sharing:
            try:
                open_here(port, 115_200).close()
                return
            except OSError:
                sharing = others(port)
        if time.monotonic() > end:
            raise TransientError(f"{port} is in use by {', '.join(sharing) or 'another program'}; end that, and try again")
        time.sleep(_LOOK_EVERY_S)


def open_here(port: str, baud: int) -> Any:
    """A pyserial port for us alone, whose `read` waits 50 ms at most. Raises OSError (SerialException is one)."""
    serial = pyserial()
    return serial.Serial(port, baud, timeout=_READ_S, write_timeout=2, exclusive=True)


__all__ = ["PortInfo", "borrowed", "choose", "listed", "open_here"]
