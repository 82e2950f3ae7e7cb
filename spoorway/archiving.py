"""Sealed segments of the journal -> the archive, in order, in a thread beside the targets: when it is down, it delays nobody.

What the archive has for certain is written beside the cursors, where the journal's retention finds it: that record may lag
behind the archive, never run ahead of it. Where it is lost, the archive's own manifest says what need not be copied again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Signal
from typing import Any, NamedTuple

from gateway.journal.disk import DISK
from gateway.journal.lanes import lanes, sealed, segments
from gateway.journal.lines import decode, pieces
from gateway.journal.sealing import SealedSegment
from protocol.seams import START, ConfigurationError, Cursor, PermanentError, Position, TransientError
from spoorway.files import archive_file, journal_folder, read_archived, write_archived
from storage.archive import Archive, Contents, Options
from storage.objects import open_objects

log = logging.getLogger("spoorway.archiving")

_ROUND_S = 2.0
_LATE_MS = 600_000
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0


class Waiting(NamedTuple):
    """A sealed segment that the archive does not have yet. size: of the file; sealed_ms: when it was last written to."""

    lane: str
    segment: int
    path: Path
    size: int
    sealed_ms: int


@dataclass(slots=True)
class ArchiveStatus:
    """What is told of the archive. state: starting, waiting, archiving, retrying, finished or failed.

    segments, bytes: archived by this process. archived_ms: when the last one was; error_ms: when something last went wrong.
    oldest_ms: when the oldest segment that waits was last written to; 0 = none waits.
    """

    archive: str
    state: str = "starting"
    message: str = ""
    segments: int = 0
    bytes: int = 0
    payloads: int = 0
    pending: int = 0
    pending_bytes: int = 0
    oldest_ms: int = 0
    archived_ms: int = 0
    error: str = ""
    error_ms: int = 0
    errors: dict[str, int] = field(default_factory=dict[str, int])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def took(self, size: int, payloads: int, now_ms: int) -> None:
        """A segment is archived."""
        self.segments, self.bytes, self.payloads = self.segments + 1, self.bytes + size, self.payloads + payloads
        self.archived_ms = now_ms

    def failed(self, error: Exception, now_ms: int) -> None:
        """It is tried again. Told once in the log."""
        ours = isinstance(error, (TransientError, PermanentError))
        message = str(error) if ours else repr(error)
        if self.message != message:
            log.error("the archive waits: %s", message, exc_info=None if ours else error)
        kind = "transient" if isinstance(error, TransientError) else "permanent"
        self.errors = self.errors | {kind: self.errors.get(kind, 0) + 1}
        self.state, self.message, self.error, self.error_ms = "retrying", message, message, now_ms


def open_archive(options: Options, url: str = "") -> Archive:
    """url: another place than the configured one. Raises ConfigurationError."""
    where = url or options.url
    return Archive(open_objects(where, endpoint=options.endpoint, region=options.region, profile=options.profile))


def waiting(folder: Path, archived: Cursor) -> Iterator[Waiting]:
    """Sealed segments of a journal after `archived`, lane by lane, in order. Raises OSError."""
    for lane in lanes(folder):
        plain_numbers, sealed_numbers = segments(lane)
        # Of a number that is plain as well, the sealed file's name may not be on the medium yet.
        end = min(plain_numbers, default=None)
        for number in sealed_numbers:
            if number > archived.get(lane.name, START).segment and (end is None or number < end):
                path = sealed(lane, number)
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                yield Waiting(lane.name, number, path, found.st_size, found.st_mtime_ns // 1_000_000)


def contents(path: Path) -> Contents:
    """What a sealed segment holds. Raises OSError."""
    segment = SealedSegment(path, DISK)
    try:
        size, at = segment.size(), 0
        payloads = damaged = first_ms = last_ms = first = last = 0
        while at < size:
            block, at, whole = segment.read(at, size)
            damaged += not whole
            for start, end, good in pieces(block, True) if whole else ():
                try:
                    if not good:
                        raise ValueError
                    number, payload = decode(block[start:end])
                except ValueError:
                    damaged += 1
                    continue
                received_ms = payload.received_ms
                first, first_ms = first or number, min(first_ms, received_ms) if payloads else received_ms
                last, last_ms, payloads = number, max(last_ms, received_ms), payloads + 1
    finally:
        segment.close()
    if not payloads:
        first_ms = last_ms = path.stat().st_mtime_ns // 1_000_000
    return Contents(size, payloads, damaged, first_ms, last_ms, first, last)


def findings(data: Path, options: Options, now_ms: int, *, gathered: bool = False) -> Iterator[tuple[str, str]]:
    """What `doctor` says of the archive: (ok, warning or wrong; a sentence). gathered: by workers, from a journal on servers."""
    try:
        archive, archived = open_archive(options), read_archived(archive_file(data), options.url) or {}
        lost = [lane for lane, position in archived.items() if archive.entry(lane, position.segment) is None]
        if not archived:
            archive.entry("00000000", 1)  # does it answer at all?
        left = [] if gathered else list(waiting(journal_folder(data), archived))
    except (ConfigurationError, TransientError, PermanentError) as error:
        yield "wrong", f"{error}; the journal keeps what is not archived"
        return
    except OSError as error:
        yield "wrong", f"{error.filename or data}: {error.strerror or error}"
        return
    if lost:
        yield "wrong", f"what was archived of {len(lost)} lanes is not in {options.url} any more; `spoorway archive verify`"
    oldest_ms = min((each.sealed_ms for each in left), default=now_ms)
    told = f"{len(left):,} sealed segments ({sum(each.size for each in left) >> 20:,} MiB) wait"
    if now_ms - oldest_ms > _LATE_MS:
        since = f"{datetime.fromtimestamp(oldest_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        yield "warning", f"it lags: {told}, the oldest since {since}; `spoorway archive now` says why"
    elif not lost:
        whole = "each worker says on /metrics what waits" if gathered else "it has all that is sealed"
        yield "ok", f"{options.url} answers; {told if left else whole}"


class Archiving:
    """One archive's loop. clock: milliseconds since 1970."""

    def __init__(self, data: Path, archive: Archive, url: str, clock: Callable[[], int]) -> None:
        self._folder, self._record, self._url, self._archive, self._clock = (
            journal_folder(data),
            archive_file(data),
            url,
            archive,
            clock,
        )
        self.cursor: dict[str, Position] = dict(read_archived(self._record, url) or {})
        self.status = ArchiveStatus(url)
        self._checked = False

    def step(self, stop: Signal) -> int:
        """Archives what is sealed, until `stop`; how many segments that were.

        A lane that fails does not keep the others waiting. Raises the first TransientError or PermanentError.
        """
        if not self._checked:
            self._check()
        archived, failed = 0, dict[str, TransientError | PermanentError]()
        try:
            found = list(waiting(self._folder, self.cursor))
            self._tell(found)
            for index, each in enumerate(found):
                if stop.is_set():
                    break
                if each.lane in failed:
                    continue
                try:
                    self._add(each)
                except FileNotFoundError:  # somebody else deleted it
                    continue
                except (TransientError, PermanentError) as error:
                    failed[each.lane] = error
                    continue
                archived += 1
                self._tell([*(one for one in found[:index] if one.lane in failed), *found[index + 1 :]])
        except OSError as error:
            raise TransientError(f"{error.filename or self._folder}: {error.strerror or error}") from error
        if failed:
            raise next(iter(failed.values()))
        return archived

    def run(self, stop: Signal, finish: Signal, *, once: bool = False) -> None:
        """Until `finish`; once: until all that is sealed is archived, or cannot be. Trouble of any kind is waited out."""
        backoff_s, status = _FIRST_BACKOFF_S, self.status
        while not stop.is_set():
            if finish.is_set() and not once:
                break
            try:
                self.step(stop)
                status.state, status.message, backoff_s = "waiting", "", _FIRST_BACKOFF_S
            except Exception as error:  # the loop's rim: a thread that ends tells nobody
                status.failed(error, self._clock())
                if not once:
                    finish.wait(backoff_s)
                    backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
            if once:
                status.state = "failed" if status.message else "finished"
                return
            finish.wait(_ROUND_S)
        status.state = "finished"

    def _check(self) -> None:
        """What the record says is believed only if the archive says so too: it may have been emptied, or be another disk."""
        for lane, position in list(self.cursor.items()):
            if self._archive.entry(lane, position.segment) is None:
                log.warning("the archive has not what was archived of lane %s; it is copied again as far as it is here", lane)
                del self.cursor[lane]
                write_archived(self._record, self._url, self.cursor)
        self._checked = True

    def _add(self, each: Waiting) -> None:
        self.status.state = "archiving"
        held = contents(each.path)
        entry = self._archive.add(each.lane, each.segment, each.path, held)
        self.cursor[each.lane] = Position(
            each.segment, held.bytes, max(held.last_number, self.cursor.get(each.lane, START).sequence)
        )
        write_archived(self._record, self._url, self.cursor)
        self.status.took(entry.size, held.payloads, self._clock())

    def _tell(self, found: list[Waiting]) -> None:
        status = self.status
        status.pending, status.pending_bytes = len(found), sum(each.size for each in found)
        status.oldest_ms = min((each.sealed_ms for each in found), default=0)


__all__ = ["ArchiveStatus", "Archiving", "Waiting", "contents", "findings", "open_archive", "waiting"]
