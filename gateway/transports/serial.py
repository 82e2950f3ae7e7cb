"""Lines from serial ports -> payloads: boards on USB, UARTs, pseudo terminals and standard input.

The tour: `_look` finds ports as they come, `_keep_open` opens one again and again, `_talk` reads its lines and answers them in
their order, each only after `accept` has returned. The parts live in gateway/serial; docs/serial.md is the reference.
"""

from __future__ import annotations

import asyncio
import glob
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from gateway import stamps
from gateway.devices import Devices
from gateway.serial.config import Config, Port, Settled, settled
from gateway.serial.conversation import Conversation
from gateway.serial.counters import Counters
from gateway.serial.lending import is_lent
from gateway.serial.wire import UnopenedError, Wire, is_pseudo, open_port, others, pyserial
from gateway.transports import Accept
from protocol.lines import Line, Text, device_lines
from protocol.seams import ConfigurationError

__all__ = ["Config", "Counters", "Plugin", "Port"]

log = logging.getLogger(__name__)

STANDARD_INPUT = "-"
_FIRST_PAUSE_S = 0.1
_HEALTHY_AFTER_S = 5.0
_STRANGE_BYTES = 2_000  # so many received without one good line, and
_STRANGE_SHARE = 0.2  # so much of it no ASCII: that is how another speed looks
_ASCII = bytes(range(128))


class Plugin:
    """Call order: see gateway.transports. counters: live."""

    def __init__(
        self,
        config: Config,
        devices: Devices | None = None,
        *,
        now_ms: Callable[[], int] = stamps.now_ms,
        new_id: Callable[[], str] = stamps.new_id,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigurationError. devices: None = no line can prove a device, apart from ports that are bound to one."""
        self.counters = Counters()
        self._config, self._devices = config, devices
        self._now_ms, self._new_id, self._clock_s = now_ms, new_id, clock_s
        self._patterns = list(settled(config))
        if not self._patterns:
            raise ConfigurationError('serial: ports names none; such as ["/dev/ttyUSB*"]')
        self._accept: Accept | None = None
        self._stopping = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._ports: dict[str, asyncio.Task[None]] = {}  # by path
        self._real: dict[str, str] = {}  # what each path last stood for: two of them may be one port
        self._conversations: dict[str, Conversation] = {}
        self._wires: dict[Wire, str] = {}  # and the path of each

    async def start(self, accept: Accept) -> None:
        self._accept = accept
        if any(pattern != STANDARD_INPUT for pattern, _ in self._patterns):
            pyserial()
        self._looking = asyncio.create_task(self._look(), name="serial ports")

    async def stop(self) -> None:
        self._stopping.set()
        for wire in self._wires:
            wire.end()
        tasks = [task for task in (self._looking, *self._ports.values()) if task is not None]
        if tasks:
            await asyncio.gather(*tasks)

    async def _look(self) -> None:
        """Finds ports that are not open yet, until it is stopped."""
        seen: dict[str, Settled] | None = None
        while not self._stopping.is_set():
            found = await asyncio.to_thread(self._found)
            for real, (path, options) in found.items():
                # A port that has just been plugged in may get its right name and its group a moment later.
                if seen is None or real in seen:
                    self._begin(real, path, options)
            if seen is None and not found:
                log.info("serial: no port yet of %s", ", ".join(pattern for pattern, _ in self._patterns))
            for wire, path in self._wires.items():
                if self._lent(path):
                    wire.end()
            seen = {real: options for real, (_, options) in found.items()}
            await self._pause(self._config.rescan_s)

    def _found(self) -> dict[str, tuple[str, Settled]]:
        """Real path -> path, and the options of the first pattern that stands for it.

        Looked for from the last pattern to the first: a port plugged in meanwhile must not miss the one that is its own.
        """
        found: dict[str, tuple[str, Settled]] = {}
        for pattern, options in reversed(self._patterns):
            for path in [pattern] if pattern == STANDARD_INPUT else sorted(glob.glob(pattern), reverse=True):
                found[os.path.realpath(path) if path != STANDARD_INPUT else path] = (path, options)
        return found

    def _begin(self, real: str, path: str, options: Settled) -> None:
        if path in self._ports or real in self._real.values() or self._stopping.is_set() or is_lent(self._config.lent, real):
            return
        assert self._accept is not None
        if path not in self._conversations:
            self._conversations[path] = Conversation(
                path,
                options.device,
                self._config.damaged_per_minute,
                self._accept,
                self._devices,
                self.counters,
                self._now_ms,
                self._new_id,
                self._clock_s,
            )
        if path == STANDARD_INPUT:
            self._ports[path] = asyncio.create_task(self._standard_input(), name="serial lines from standard input")
            return
        self._real[path] = real
        task = self._ports[path] = asyncio.create_task(self._keep_open(path, options), name=f"serial port {path}")
        task.add_done_callback(lambda _: (self._ports.pop(path), self._real.pop(path)))

    async def _standard_input(self) -> None:
        await self._talk(STANDARD_INPUT, Wire(0, 1, None))
        log.info("serial: standard input has ended")

    async def _keep_open(self, path: str, options: Settled) -> None:
        """Until the port is unplugged, or the transport is stopped."""
        pause_s, failures, told = _FIRST_PAUSE_S, 0, ""
        while not self._stopping.is_set() and not self._lent(path):
            try:
                fd, close, self._real[path] = await asyncio.to_thread(open_port, path, options)
            except UnopenedError as error:
                failures += 1
                if failures > 1 and told != str(error):
                    told = str(error)
                    log.warning("%s: %s", path, told)
            else:
                failures, told = 0, ""
                log.info("%s: open at %d baud", path, options.baud)
                if not is_pseudo(self._real[path]) and (sharing := await asyncio.to_thread(others, path)):
                    log.warning("%s: %s reads it as well, so lines will be missing", path, ", ".join(sharing))
                wire, since_s = Wire(fd, fd, close), self._clock_s()
                try:
                    await self._talk(path, wire)
                finally:
                    await wire.close()
                if not self._stopping.is_set():
                    log.info("%s: gone (%s)", path, wire.trouble or ("lent" if self._lent(path) else "hung up"))
                if self._clock_s() - since_s > _HEALTHY_AFTER_S:
                    pause_s = _FIRST_PAUSE_S
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, self._config.longest_pause_s)
            if not os.path.exists(path):  # noqa: ASYNC240 - a look at a device node
                return

    async def _talk(self, path: str, wire: Wire) -> None:
        """Takes lines and answers them, until no more follow and all have been answered."""
        conversation, counters = self._conversations[path], self.counters
        deframer = device_lines(self._config.longest_line_bytes)
        waiting: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(self._config.window)
        answering = asyncio.create_task(self._answer(path, wire, waiting), name=f"serial answers {path}")
        self._wires[wire] = path
        if self._stopping.is_set():
            wire.end()
        counters.openings[path] += 1
        counters.open_ports += 1
        received, strange, doubtful = 0, 0, True
        try:
            while True:
                data = await wire.read()
                counters.received_bytes[path] += len(data)
                for item in deframer.feed(data) if data else deframer.end():
                    if isinstance(item, Text):
                        conversation.count("text")
                        continue
                    doubtful = doubtful and not isinstance(item, Line)
                    await waiting.put(conversation.answer(item))
                if doubtful:
                    received += len(data)
                    strange += len(data.translate(None, _ASCII))
                    if received > _STRANGE_BYTES:
                        doubtful = False
                        if strange > received * _STRANGE_SHARE:
                            log.warning("%s: what arrives is no text; is the baud rate right?", path)
                if not data:
                    return
        finally:
            await waiting.put(None)
            await answering
            counters.open_ports -= 1
            del self._wires[wire]

    async def _answer(self, path: str, wire: Wire, waiting: asyncio.Queue[asyncio.Task[bytes] | None]) -> None:
        while (task := await waiting.get()) is not None:
            try:
                answer = await task
            except Exception:  # a fault of ours must not silence the port
                log.exception("%s: a line was not answered", path)
                continue
            if wire.write(answer):
                self.counters.sent_bytes[path] += len(answer)
            else:
                self.counters.unsent[path] += 1

    def _lent(self, path: str) -> bool:
        return is_lent(self._config.lent, self._real.get(path, path))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
