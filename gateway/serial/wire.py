"""A port as bytes in and bytes out: opened by pyserial, read and written by the event loop without a thread.

Knows nothing of lines. A port that cannot be opened is told with the cure, as far as one can be seen from here.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.serial.config import Settled
from protocol.seams import ConfigurationError

_CHUNK = 4_096
_MOST_UNSENT = 16_384  # an Arduino that never reads must not cost memory; what it does not get it will ask for again
_PIECE = 512  # a pipe that can be written to takes so much without waiting (PIPE_BUF)


class UnopenedError(Exception):
    """The port cannot be had now; says why, and what to do."""


class Wire:
    """Lives on one event loop. trouble: why nothing will follow; "" when it ended as such things end."""

    def __init__(self, reads: int, writes: int, close: Callable[[], object] | None) -> None:
        """reads, writes: file descriptors, non-blocking when `close` is given; without it they are others' and may block."""
        self.trouble = ""
        self._reads, self._writes, self._close = reads, writes, close
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._polled = True  # a plain file is always readable, and the loop refuses to watch it
        self._readable: asyncio.Future[None] | None = None
        self._unsent = bytearray()
        self._watched = False

    async def read(self) -> bytes:
        """Some bytes; b"" = nothing will follow."""
        while not self._ended:
            await self._wait()
            if self._ended:
                break
            try:
                return os.read(self._reads, _CHUNK)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                self.trouble = os.strerror(error.errno) if error.errno else str(error)
                break
        return b""

    def write(self, data: bytes) -> bool:
        """Sends it when it can be sent. False: there was no room, nothing of it will be."""
        if len(self._unsent) + len(data) > _MOST_UNSENT:
            return False
        self._unsent += data
        self._send()
        return True

    def end(self) -> None:
        """Nothing more is read."""
        self._ended = True
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    async def close(self) -> None:
        if self._watched:
            self._loop.remove_writer(self._writes)
        if self._close is not None:
            await asyncio.to_thread(self._close)  # a driver may wait until its last byte has left

    async def _wait(self) -> None:
        readable = self._readable = self._loop.create_future()
        if self._polled:
            try:
                self._loop.add_reader(self._reads, _done, readable)
            except PermissionError:
                self._polled = False
        if not self._polled:
            await asyncio.sleep(0)
            return
        try:
            await readable
        finally:
            self._loop.remove_reader(self._reads)

    def _send(self) -> None:
        while self._unsent:
            if self._close is None and not _writable(self._writes):
                break
            try:
                sent = os.write(self._writes, self._unsent[:_PIECE])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # reading will find out as well
                self._unsent.clear()
                break
            del self._unsent[:sent]
        if bool(self._unsent) != self._watched:
            self._watched = not self._watched
            if self._watched:
                self._loop.add_writer(self._writes, self._send)
            else:
                self._loop.remove_writer(self._writes)


def pyserial() -> Any:
    """The module. Raises ConfigurationError."""
    with suppress(ModuleNotFoundError):
        import serial

        if hasattr(serial, "Serial"):  # another distribution installs a module of that name
            return serial
    raise ConfigurationError("serial ports need the package pyserial: pip install 'spoorway[serial]'")


def open_port(path: str, options: Settled) -> tuple[int, Callable[[], object], str]:
    """(file descriptor, what closes it, real path), for this process alone. May block for some time. Raises UnopenedError."""
    serial = pyserial()
    # inter_byte_timeout = 0 makes the driver say "nothing yet" and "gone" in two different ways (VMIN = 1).
    port = serial.Serial(None, options.baud, timeout=0, exclusive=True, inter_byte_timeout=0)
    port.dtr, port.rts, port.port = options.dtr, options.rts, path
    try:
        port.open()
    except (OSError, ValueError, termios.error) as error:  # pyserial's own is an OSError
        raise UnopenedError(_cure(path, error)) from None
    fd: int = port.fd
    try:
        real = os.path.realpath(path)
        if not is_pseudo(real):  # a pseudo terminal would stay locked when we are killed
            fcntl.ioctl(fd, termios.TIOCEXCL)
        if not options.hang_up:
            settings = termios.tcgetattr(fd)
            settings[2] &= ~termios.HUPCL
            termios.tcsetattr(fd, termios.TCSANOW, settings)
    except (OSError, ValueError, termios.error) as error:
        port.close()
        raise UnopenedError(_cure(path, error)) from None
    return fd, port.close, real


def others(path: str) -> list[str]:
    """Programs that have the port open beside us, such as "screen (process 812)". [] where the system does not tell."""
    if sys.platform != "linux":
        return []
    real, own = os.path.realpath(path), str(os.getpid())
    found: list[str] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or process.name == own:
            continue
        try:
            if any(os.readlink(each) == real for each in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} (process {process.name})")
        except OSError:  # it ended, or is another user's
            continue
    return found


def is_pseudo(real: str) -> bool:
    """Whether a program, not a board, is at the other end; it may hold both ends open. real: path without symbolic links."""
    return real.startswith("/dev/pts/")


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _cure(path: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return f"permission denied; {_group(path)}"
    if number in (errno.EBUSY, errno.EWOULDBLOCK):
        return f"in use by {', '.join(others(path)) or 'another program'}"
    return os.strerror(number) if number else str(error)


def _group(path: str) -> str:
    import grp

    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return "who may open it is not known here"
    if group == "root":
        return "only root may open it; a udev rule can give it to a group"
    return f"its group is {group}: sudo usermod -aG {group} USER, then log in again"


__all__ = ["UnopenedError", "Wire", "is_pseudo", "open_port", "others", "pyserial"]
