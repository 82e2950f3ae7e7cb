"""A simulated device's serial port: a pty that a gateway opens as it opens a board, one line at a time, again until answered."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from contextlib import suppress
from pathlib import Path

from protocol.lines import LONGEST, Answer, Line, encode, gateway_lines, signed
from protocol.seams import ConfigurationError, PermanentError, TransientError

_ANSWER_S = 2.0
_CHUNK = 1_024
_NEVER = ("form", "large", "secret", "unknown", "revoked", "replayed")


class SerialSender:
    """A `Sender`. The port is the link FOLDER/DEVICE; it goes when the sender is closed.

    key: 32 bytes, None = unsigned.
    """

    def __init__(self, folder: str, device: str, boot: int, key: bytes | None = None) -> None:
        """Raises ConfigurationError."""
        self._device, self._boot, self._key, self._sequence = device, boot, key, 0
        self._answers = gateway_lines()
        self._arrived = asyncio.Event()
        self._found: list[Answer] = []
        self._link = Path(folder, device)
        self._master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            self._link.parent.mkdir(parents=True, exist_ok=True)
            if self._link.exists() and not self._link.is_symlink():
                raise ConfigurationError(f"--to: {self._link} is there already and is no port of a simulation")
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(os.ttyname(slave))
        except BaseException:
            os.close(self._master)
            os.close(slave)
            raise
        self._slave = slave  # held open, so that a gateway that goes does not end the line
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._read)

    async def send(self, body: bytes, *, cut: bool = False) -> None:
        self._sequence += 1
        line = Line("j", self._device, self._boot, self._sequence, body)
        data = encode(line if self._key is None else signed(line, self._key))
        if len(data) > LONGEST:
            raise PermanentError(
                f"a line of {len(data):,} bytes is too long for a serial port: send fewer events a message (--batch)"
            )
        self._found.clear()
        await self._write(data[: len(data) // 2] + b"\n" if cut else data)
        if cut:
            raise ConnectionError("cut")
        async with asyncio.timeout(_ANSWER_S):
            while (answer := self._answer()) is None:
                self._arrived.clear()
                await self._arrived.wait()
        if answer.kind == "n":
            why = f"{self._device}, line {self._sequence}: {answer.reason}"
            raise PermanentError(why) if answer.reason in _NEVER else TransientError(why)

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        self._link.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)

    def _answer(self) -> Answer | None:
        """To the last line; a refusal of what could not be read was meant for it as well."""
        mine = (self._boot, self._sequence)
        for answer in self._found:
            if answer.kind in ("a", "n") and (answer.boot, answer.sequence) in (mine, (None, None)):
                return answer
        return None

    def _read(self) -> None:
        with suppress(OSError):
            data = os.read(self._master, _CHUNK)
            self._found += [item for item in self._answers.feed(data) if isinstance(item, Answer)]
            self._arrived.set()

    async def _write(self, data: bytes) -> None:
        """All of it, as fast as the other end reads. Raises TimeoutError: nobody does."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        async with asyncio.timeout(_ANSWER_S):
            while view:
                try:
                    view = view[os.write(self._master, view) :]
                except BlockingIOError:
                    room = asyncio.Event()
                    loop.add_writer(self._master, room.set)
                    try:
                        await room.wait()
                    finally:
                        loop.remove_writer(self._master)
