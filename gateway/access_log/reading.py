"""Files -> batches of payloads, each line once, going on where each file was left. Runs in a thread; waits for nobody.

A batch's place is kept when the next one is asked for: whoever asks says that the batch is on disk.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import NamedTuple

from gateway.access_log.config import Config
from gateway.access_log.counters import Counters
from gateway.access_log.formats import Formats, about_the_log
from gateway.access_log.places import Place, Places
from gateway.access_log.requests import Requests
from gateway.access_log.sources import LogFile, Source, Unreadable
from protocol.seams import RawPayload

log = logging.getLogger("gateway.access_log")

_BATCH_LINES = 1_000
_BATCH_BYTES = 1 << 20
_SEEN_EVERY_MS = 3_600_000


class Line(NamedTuple):
    """raw: with its line feed, if it has one. at, end: where in the file, uncompressed. torn: part of a line that is too long."""

    at: int
    end: int
    raw: bytes
    torn: bool


class Reading:
    """Call order: `batches` to its end, again and again; between two of its batches `stopping` may be set."""

    def __init__(self, config: Config, source: Source, places: Places, counters: Counters, now_ms: Callable[[], int]) -> None:
        """Raises ConfigurationError."""
        self._config, self._source, self._places, self._counters, self._now_ms = config, source, places, counters, now_ms
        self._requests = Requests(config, now_ms)
        self._told: dict[str, str] = {}  # what was said of a file that cannot be read, so that it is said once
        self._seen_ms = 0
        self.stopping = False

    def batches(self) -> Iterator[list[RawPayload]]:
        """What is new in all files. Raises TransientError when a place cannot be kept; then it is read again."""
        names: set[str] = set()
        try:
            for file in self._source.files():
                names.add(file.name)
                if self._places.finished(file.name) == file.stamp:
                    continue
                try:
                    yield from self._file(file)
                    self._told.pop(file.name, None)
                except Unreadable as error:
                    self._tell(file.name, error)
                    if not error.passing:
                        self._places.finish(file.name, file.stamp, self._now_ms())
                if self.stopping:
                    return
        except Unreadable as error:
            self._tell("", error)
            return
        self._told.pop("", None)
        self._counters.files = len(names)
        if self._now_ms() - self._seen_ms >= _SEEN_EVERY_MS:
            self._places.seen(names, self._now_ms())
            self._seen_ms = self._now_ms()

    def _file(self, file: LogFile) -> Iterator[list[RawPayload]]:
        place = self._begin(file)
        if place is not None:
            formats, payloads, begun = Formats(place.fields), list[RawPayload](), place.offset
            trouble: Unreadable | None = None
            lines = self._lines(file, place.offset)
            while trouble is None:
                try:
                    line = next(lines, None)
                except Unreadable as error:  # what came before counts
                    line, trouble = None, error
                if line is not None:
                    self._take(formats, line, f"{place.head}/{line.at}", payloads)
                    place = place._replace(last_at=line.at, offset=line.end, last=_sum(line.raw), fields=formats.fields)
                if place.offset > begun and (
                    line is None or len(payloads) >= _BATCH_LINES or place.offset - begun >= _BATCH_BYTES
                ):
                    yield payloads
                    self._places.keep(place, self._now_ms())
                    self._counters.received_bytes += place.offset - begun
                    payloads, begun = [], place.offset
                    if self.stopping:
                        return
                if line is None:
                    break
            if trouble is not None:
                raise trouble
        if file.whole:
            self._places.finish(file.name, file.stamp, self._now_ms())

    def _take(self, formats: Formats, line: Line, place: str, payloads: list[RawPayload]) -> None:
        data = line.raw.rstrip(b"\r\n")
        if data.strip():
            payload, outcome = self._requests.payload(formats, data, line.torn, place)
            self._counters.lines[outcome] += 1
            if payload is not None:
                payloads.append(payload)

    def _begin(self, file: LogFile) -> Place | None:
        """Where to read on in it; None while it has no line."""
        known = self._places.by_name(file.name)
        if known is None or not self._goes_on(file, known):
            if (head := self._head(file)) is None:
                return None
            known = self._places.by_head(head)
            if known is None or not self._goes_on(file, known):
                known = Place(head, file.name, 0, 0, "", self._config.fields)
        return known._replace(name=file.name)

    def _goes_on(self, file: LogFile, place: Place) -> bool:
        """Whether the line before that place is in the file where it was."""
        found, size = b"", place.offset - place.last_at
        with closing(file.chunks(place.last_at)) as chunks:
            while len(found) < size and (chunk := next(chunks, b"")):
                found += chunk
        return len(found) >= size and _sum(found[:size]) == place.last

    def _head(self, file: LogFile) -> str | None:
        with closing(self._lines(file, 0)) as lines:
            return next((_sum(line.raw) for line in lines if not about_the_log(line.raw)), None)

    def _lines(self, file: LogFile, start: int) -> Generator[Line]:
        return split(file.chunks(start), start, self._config.longest_line_bytes, lambda: file.whole)

    def _tell(self, name: str, error: Unreadable) -> None:
        self._counters.unreadable += 1
        if self._told.get(name) != str(error):
            self._told[name] = str(error)
            log.error("access log: %s", error)


def split(chunks: Iterator[bytes], start: int, longest: int, whole: Callable[[], bool]) -> Generator[Line]:
    """Bytes from `start` on -> lines. What follows the last line feed is one only when the file is whole, asked at its end."""
    rest, at, torn = b"", start, False
    for chunk in chunks:
        *found, rest = (rest + chunk).split(b"\n")
        for data in found:
            end = at + len(data) + 1
            yield Line(at, end, data + b"\n", torn or len(data) > longest)
            at, torn = end, False
        if len(rest) > longest:
            yield Line(at, at + len(rest), rest, True)
            at, rest, torn = at + len(rest), b"", True
    if rest and whole():
        yield Line(at, at + len(rest), rest, torn)


def _sum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
