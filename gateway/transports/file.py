"""Lines of payloads from a file, a folder or standard input -> RawPayloads, in their order. For replays and tests.

Reads what `protocol.payloads` writes, one JSON object a line, as the journal's segments and the archive hold it: plain or .gz,
with or without the journal's own fields. A line that is no payload is passed on as it is, path "/invalid", so that it becomes
a failed event and is not lost. It is its own sender: what the journal cannot take now is offered again.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import orjson

from gateway import stamps
from gateway.journal.disk import DISK
from gateway.journal.lines import MARK, is_good, pieces
from gateway.journal.sealing import SealedSegment, is_sealed
from gateway.transports import Accept
from protocol.payloads import from_fields
from protocol.seams import ConfigurationError, PermanentError, RawPayload, TransientError

_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class Config:
    """path: a file, a folder whose *.ndjson and *.ndjson.gz are read in the order of their names, or "-" for standard input.

    keep_time: a payload keeps the time at which it was first received; otherwise it is received now.
    in_flight: payloads offered to the journal at once.
    retry_seconds: pause before a payload that could not be taken is offered again.
    """

    path: str
    keep_time: bool = True
    in_flight: int = 1_000
    retry_seconds: float = 1.0


class Plugin:
    """A `gateway.transports.Transport` that comes to an end: see `finished`."""

    def __init__(
        self,
        config: Config,
        devices: object = None,
        *,
        now_ms: Callable[[], int] = stamps.now_ms,
        new_id: Callable[[], str] = stamps.new_id,
    ) -> None:
        """devices: of no use here; a payload that was read keeps the device it had."""
        self._config, self._now_ms, self._new_id = config, now_ms, new_id
        self._stopping = False
        self._task: asyncio.Task[int] | None = None

    async def start(self, accept: Accept) -> None:
        if self._config.path != "-":
            path = self._config.path
            if not (os.access(path, os.R_OK) and (os.path.isfile(path) or os.path.isdir(path))):  # noqa: ASYNC240 - once, at the start
                raise ConfigurationError(f"file: {path} is not a readable file or folder")
        self._task = asyncio.create_task(self._run(accept), name="file transport")

    async def finished(self) -> int:
        """Payloads passed on, once all are on disk. Raises PermanentError when a file could not be read to its end."""
        if self._task is None:
            raise RuntimeError("not started")
        return await asyncio.shield(self._task)

    async def stop(self) -> None:
        self._stopping = True
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # looked at: whoever wants to know asks `finished`

    async def _run(self, accept: Accept) -> int:
        room = asyncio.Semaphore(self._config.in_flight)
        offers: set[asyncio.Task[None]] = set()
        failures: list[Exception] = []
        taken = 0

        async def offer(payload: RawPayload) -> None:
            nonlocal taken
            try:
                while True:
                    try:
                        await accept(payload)
                        taken += 1
                        return
                    except TransientError:
                        if self._stopping:
                            return
                        await asyncio.sleep(self._config.retry_seconds)
            except Exception as error:  # the payload is still where it was read from
                failures.append(error)
                self._stopping = True
            finally:
                room.release()

        batches = self._batches()
        try:
            while not self._stopping and (lines := await asyncio.to_thread(next, batches, None)) is not None:
                for line in lines:
                    await room.acquire()
                    if self._stopping:
                        break
                    task = asyncio.create_task(offer(self._payload(line)))
                    offers.add(task)
                    task.add_done_callback(offers.discard)
        finally:
            await asyncio.gather(*offers)
        if failures:
            raise failures[0]
        return taken

    def _payload(self, line: bytes) -> RawPayload:
        """Never raises: a line that is no payload is a payload of its own bytes."""
        try:
            if line.startswith(MARK) and not is_good(line + b"\n", 0, len(line) + 1):
                raise ValueError("the line is damaged")
            fields: object = orjson.loads(line)
            if not isinstance(fields, dict):
                raise ValueError("a payload is a JSON object")
            known = {"id": self._new_id(), "at": self._now_ms(), "transport": "file"} | cast(dict[str, Any], fields)
            payload = from_fields(known)
        except ValueError:
            return RawPayload(self._new_id(), self._now_ms(), "file", "/invalid", body=line)
        return payload if self._config.keep_time else replace(payload, received_ms=self._now_ms())

    def _batches(self) -> Iterator[list[bytes]]:
        """Lines, some at a time; empty ones are no lines. Runs in a thread. Raises PermanentError."""
        for name, chunks in self._files():
            rest = b""
            try:
                for chunk, whole in chunks:
                    if not whole:
                        yield [chunk]  # a damaged block of a sealed segment, as it lies in the file
                        continue
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield [part for line in lines for part in _parts(line)]
            except (OSError, EOFError, zlib.error) as error:
                raise PermanentError(f"file: {name} cannot be read to its end: {error}") from error
            yield _parts(rest)

    def _files(self) -> Iterator[tuple[str, Iterator[tuple[bytes, bool]]]]:
        if self._config.path == "-":
            yield "standard input", self._standard_input()
            return
        path = Path(self._config.path)
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.name.endswith((".ndjson", ".ndjson.gz")))
        for file in files:
            yield str(file), _chunks(file)

    def _standard_input(self) -> Iterator[tuple[bytes, bool]]:
        fd = sys.stdin.fileno()
        while not self._stopping:
            # A thread that waits in read() cannot be stopped.
            if select.select([fd], [], [], 0.2)[0]:
                if not (chunk := os.read(fd, _CHUNK)):
                    return
                yield chunk, True


def _parts(line: bytes) -> list[bytes]:
    """The lines in a line: more than one where the journal's line feed between them was damaged; none when it is empty."""
    if line.find(MARK, 1) < 0:
        return [line] if line.strip() else []
    data = line + b"\n"
    return [data[start : end - good] for start, end, good in pieces(data, final=True)]


def _chunks(path: Path) -> Iterator[tuple[bytes, bool]]:
    """(bytes, True) of a file, or (a damaged block, False). Raises OSError, EOFError and zlib.error."""
    with path.open("rb") as file:
        if path.suffix != ".gz":
            while chunk := file.read(_CHUNK):
                yield chunk, True
        elif is_sealed(file.read(_CHUNK)):
            segment, at = SealedSegment(path, DISK), 0
            try:
                while at < (size := segment.size()):
                    chunk, at, whole = segment.read(at, size)
                    if not chunk:
                        raise EOFError("its end is missing")
                    yield chunk, whole
            finally:
                segment.close()
        else:
            file.seek(0)
            # gzip.open would, where a file is cut off, keep what it has inflated to itself.
            inflate, begun = zlib.decompressobj(31), False
            while packed := file.read(_CHUNK >> 4):
                while packed:
                    yield inflate.decompress(packed), True
                    packed, begun = inflate.unused_data, not inflate.eof
                    inflate = zlib.decompressobj(31) if inflate.eof else inflate
            if begun:
                raise EOFError("its end is missing")


__all__ = ["Config", "Plugin"]
