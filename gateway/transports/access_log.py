"""Lines of access logs -> RawPayloads -> journal: a CDN or a web server hosts the pixel, and its log is the collector.

Each line becomes one payload, with the time at which the request was logged and an id that only the line decides. So a line
that is read twice, because we were killed or the file was copied or delivered again, is the same payload, and its events
are duplicates. It is its own sender: what the journal cannot take now is offered again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.access_log.config import Config
from gateway.access_log.counters import Counters
from gateway.access_log.places import Places
from gateway.access_log.reading import Reading
from gateway.access_log.sources import Unreadable, open_source
from gateway.transports import Accept
from protocol.seams import RawPayload, TransientError

log = logging.getLogger("gateway.access_log")

_SCAN_FILES_S, _SCAN_S3_S = 1.0, 60.0


class Plugin:
    """A `gateway.transports.Transport`. counters: live."""

    def __init__(self, config: Config, devices: object = None, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """devices: of no use here, a log proves nobody. clock_ns: nanoseconds since 1970. Raises ConfigurationError."""
        self.counters = Counters()
        self._config = config
        self._scan_s = config.scan_s or (_SCAN_S3_S if config.path.startswith("s3://") else _SCAN_FILES_S)
        self._places = Places(config.state or ":memory:")
        self._source = open_source(config, clock_ns)
        self._reading = Reading(config, self._source, self._places, self.counters, lambda: clock_ns() // 1_000_000)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, accept: Accept) -> None:
        """Raises ConfigurationError."""
        self._places.open()
        self._task = asyncio.create_task(self._run(accept), name="access log")

    async def stop(self) -> None:
        self._stopping.set()
        self._reading.stopping = True
        if self._task is not None:
            await self._task
            self._places.close()
        self._source.close()

    async def _run(self, accept: Accept) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            begun, found = loop.time(), False
            try:
                batches = self._reading.batches()
                while (payloads := await asyncio.to_thread(next, batches, None)) is not None:
                    found = True
                    if not await self._taken(accept, payloads):
                        return
            except TransientError as error:
                log.error("access log: %s", error)
            except Exception:  # the loop's rim: whatever is wrong with us, the lines are still in their files
                log.exception("reading access logs failed")
            # A folder of many thousand files is looked through for a fifth of the time at most.
            await self._pause(max(self._scan_s, 0 if found else 4 * (loop.time() - begun)))

    async def _taken(self, accept: Accept, payloads: list[RawPayload]) -> bool:
        """False: we stop, and they were not taken."""
        many = getattr(accept, "many", None)
        rest = [payloads] if many else [[payload] for payload in payloads]
        while rest:
            try:
                await (many(rest[0]) if many else accept(rest[0][0]))
                del rest[0]
            except TransientError:
                self.counters.not_taken += 1
                if self._stopping.is_set():
                    return False
                await self._pause(self._config.retry_s)
        return True

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def check(config: Config) -> str:
    """For `spoorway doctor`: what keeps the logs from being found; "" = nothing. Raises ConfigurationError."""
    source = open_source(config, time.time_ns)
    try:
        next(source.files(), None)
    except Unreadable as error:
        return str(error)
    finally:
        source.close()
    return ""


__all__ = ["Config", "Plugin", "check"]
