"""The archive and what the journal still holds, as one journal: every payload once, archived segments in the order of their time.

A sealed segment that lies here undamaged is read here; otherwise its archived copy is fetched, its checksum compared before
anything of it is used, read, and deleted again: one segment on disk, one batch in memory. What is not sealed yet comes last.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.journal import Chunk
from gateway.journal.lanes import lanes, sealed, segments
from gateway.journal.reader import FileReader
from protocol.seams import START, Cursor, Position, TransientError
from spoorway.archiving import contents
from storage.archive import Archive, Contents, DamagedObject, Entry
from storage.objects import NoSuchObject

_AT_ONCE = 8
_ELSEWHERE = Position(1 << 62, 0, 0)  # beyond the end of any lane


@dataclass(frozen=True, slots=True)
class Place:
    """A sealed segment. entry: where it is archived, local: where it lies undamaged in the journal; one of them at least."""

    lane: str
    segment: int
    contents: Contents
    entry: Entry | None
    local: Path | None


class Rebuilding:
    """A `gateway.journal.Reader`, from the beginning to the end of what there is. For one thread."""

    def __init__(self, archive: Archive, journal: Path, room: Path, told: Callable[[str], object], *, partial: bool) -> None:
        """room: a folder of our own, for the segment that is being read. told: hears of each object that cannot be used.

        partial: what is damaged is read as far as it can be, what is gone is left out. Raises TransientError, PermanentError.
        """
        self._archive, self._journal, self._room, self._told, self._partial = archive, journal, room, told, partial
        self._tail = FileReader(journal)
        self._places = _places(archive, journal)
        self._next = 0
        self._here: FileReader | None = None
        self._reached: dict[str, Position] = {}  # of the lanes of a journal on servers, where loading goes on from there

    def empty(self) -> bool:
        return not self._places and not self._tail.pending({})

    def places(self) -> Sequence[Place]:
        """Every sealed segment, in the order it is read."""
        return self._places

    def archived(self) -> int:
        """Segments that are read from the archive."""
        return sum(place.local is None for place in self._places)

    def missing(self) -> list[str]:
        """What is neither in the archive nor in the journal, in words. Raises TransientError, PermanentError."""
        gaps: list[str] = []
        ends: dict[str, Contents] = {}
        for place in self._places:
            gaps += _gap(place.lane, ends.get(place.lane), place.contents.first_number)
            ends[place.lane] = place.contents
        try:
            here = lanes(self._journal)
        except OSError as error:
            raise TransientError(f"{self._journal}: {error.strerror}") from error
        others = {lane.name: _ELSEWHERE for lane in here}
        for lane in here:
            at = self._end().get(lane.name, START)
            after = self._tail.read({**others, lane.name: at}, max_payloads=1).cursor[lane.name]
            if after != at:
                gaps += _gap(lane.name, ends.get(lane.name), after.sequence)
        return gaps

    def damaged(self) -> Iterator[str]:
        """What is wrong with each archived segment that is needed, "" = nothing. Raises TransientError, PermanentError."""
        needed = [place.entry for place in self._places if place.local is None and place.entry is not None]
        with ThreadPoolExecutor(_AT_ONCE, "verify") as pool:
            yield from pool.map(self._archive.wrong, needed)

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        while self._next < len(self._places):
            place = self._places[self._next]
            if self._here is None and (_passed(place, cursor) or not self._fetch(place)):
                self._next += 1
                continue
            assert self._here is not None
            chunk = self._here.read(cursor, max_payloads=max_payloads, max_bytes=max_bytes)
            if not chunk.more:
                self._reached |= place.entry.reached if place.entry is not None else {}
                self._leave()
            if chunk.items:
                return Chunk(chunk.items, {**chunk.cursor, **self._reached}, True)
        return self._tail.read(cursor, max_payloads=max_payloads, max_bytes=max_bytes)

    def pending(self, cursor: Cursor) -> int:
        """Payloads after `cursor`, as far as they are numbered."""
        gone = {place.lane: place.contents.last_number for place in self._places if not (self._journal / place.lane).is_dir()}
        away = sum(max(0, last - cursor.get(lane, START).sequence) for lane, last in gone.items())
        return away + self._tail.pending(cursor)

    def close(self) -> None:
        self._leave()
        self._tail.close()

    def _end(self) -> dict[str, Position]:
        """After the last sealed segment of each lane."""
        return {place.lane: Position(place.segment, place.contents.bytes, place.contents.last_number) for place in self._places}

    def _fetch(self, place: Place) -> bool:
        """Makes a journal of this segment alone; False when there is nothing to read."""
        self._leave()
        path = self._room / place.lane / sealed(self._room, place.segment).name
        try:
            path.parent.mkdir(parents=True)
            if place.local is not None:
                path.symlink_to(place.local.absolute())
            elif place.entry is not None:
                self._archive.fetch(place.entry, path)
        except OSError as error:
            raise TransientError(f"{error.filename or path}: {error.strerror or error}") from error
        except (DamagedObject, NoSuchObject) as error:
            if not self._partial:
                raise
            self._told(str(error))
            if isinstance(error, NoSuchObject):
                self._leave()
                return False
        self._here = FileReader(self._room)
        return True

    def _leave(self) -> None:
        if self._here is not None:
            self._here.close()
            self._here = None
            self._next += 1
        for path in self._room.iterdir() if self._room.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)


def _places(archive: Archive, journal: Path) -> list[Place]:
    """Every sealed segment once: those of a lane by number, the lanes among each other by time."""
    every: dict[str, dict[int, Place]] = {}
    for entry in archive.entries():
        every.setdefault(entry.lane, {})[entry.segment] = Place(entry.lane, entry.segment, entry.contents, entry, None)
    try:
        for lane in lanes(journal):
            plain_numbers, sealed_numbers = segments(lane)
            end = min(plain_numbers, default=1 << 62)  # from there on it is read with what is not sealed yet
            for number in (number for number in sealed_numbers if number < end):
                place = _local(lane, number, every.get(lane.name, {}).get(number))
                if place is not None:
                    every.setdefault(lane.name, {})[number] = place
    except OSError as error:
        raise TransientError(f"{error.filename or journal}: {error.strerror or error}") from error
    return [place for _, _, _, place in heapq.merge(*(_timed(by_number) for by_number in every.values()))]


def _timed(by_number: dict[int, Place]) -> Iterator[tuple[int, str, int, Place]]:
    """By number, each with the latest time up to it, so that merging keeps the order of numbers."""
    latest_ms = 0
    for number in sorted(by_number):
        place = by_number[number]
        latest_ms = max(latest_ms, place.contents.first_ms)
        yield latest_ms, place.lane, number, place


def _local(lane: Path, number: int, archived: Place | None) -> Place | None:
    """A sealed segment of the journal: None when the archived copy is to be used, or it is gone meanwhile. Raises OSError.

    Its own checksums say whether it is damaged. That it differs from the copy is not damage: it may have been erased in part.
    """
    path = sealed(lane, number)
    with suppress(FileNotFoundError):
        held = contents(path)
        if archived is None or not held.damaged or held == archived.contents:
            return Place(lane.name, number, held, archived.entry if archived else None, path)
    return None


def _passed(place: Place, cursor: Cursor) -> bool:
    at = cursor.get(place.lane, START)
    return at.segment > place.segment or (at.segment == place.segment and at.offset >= place.contents.bytes)


def _gap(lane: str, before: Contents | None, first: int) -> list[str]:
    """Numbers that lie between: of a damaged place nobody knows how many it held."""
    expected = 1 if before is None else before.last_number + 1
    if not first or first <= expected or (before is not None and (before.damaged or not before.last_number)):
        return []
    return [f"payloads {expected:,} to {first - 1:,} of lane {lane} are neither in the archive nor in the journal"]


__all__ = ["Place", "Rebuilding"]
