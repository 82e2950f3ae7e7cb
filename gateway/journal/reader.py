"""The journal's reader: a cursor -> durable payloads after it, from any process, while the writer writes.

Never writes and never waits. Open files and the place reached are kept between reads, so that asking again for nothing new
costs two system calls a lane. Damaged bytes are handed over once, in their place; they never stop what follows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from gateway.journal import Chunk, Damage
from gateway.journal.disk import DISK, Disk, read_around
from gateway.journal.lanes import lanes, open_record, plain, published, sealed, segments
from gateway.journal.lines import decode, decode_damage, pieces
from gateway.journal.sealing import SealedSegment
from protocol.seams import START, Cursor, PermanentError, Position, RawPayload

_WINDOW = 256 << 10
_DAMAGE_BYTES = 1 << 20  # a longer damage is handed over in several pieces

Item = RawPayload | Damage


class _Segment(Protocol):
    def size(self) -> int: ...
    def read(self, offset: int, limit: int) -> tuple[bytes, int, bool]: ...
    def close(self) -> None: ...


class _PlainSegment:
    def __init__(self, path: Path, disk: Disk) -> None:
        self._disk = disk
        self._fd = disk.open(path, os.O_RDONLY)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, limit: int) -> tuple[bytes, int, bool]:
        data = read_around(self._disk, self._fd, limit - offset, offset)
        return data, offset + len(data), True

    def close(self) -> None:
        self._disk.close(self._fd)


class FileReader:
    """A `gateway.journal.Reader`. Used from one thread at a time; any number of readers may look at one journal."""

    def __init__(self, folder: Path, disk: Disk = DISK, only: str | None = None) -> None:
        """The journal need not exist yet. only: the name of the one lane to look at."""
        self._folder, self._disk, self._only = folder, disk, only
        self._lanes: dict[str, _LaneReader] = {}
        self._turn = 0

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        items: list[Item] = []
        after = dict(cursor)
        more = False
        with self._translating():
            found = self._found()
            self._turn += 1  # another lane is the first one every time, and none takes more than its share while others wait
            for index in range(len(found)):
                lane = found[(index + self._turn) % len(found)]
                start = at = cursor.get(lane.name, START)
                if items and (len(items) >= max_payloads or max_bytes <= 0):
                    more = more or lane.pending(start) > 0
                    continue
                payloads = len(items) + max(1, (max_payloads - len(items)) // (len(found) - index))
                budget = max(1, max_bytes // (len(found) - index))
                for item, position in lane.items(start):
                    if len(items) >= payloads or budget <= 0:
                        more = True
                        break
                    size = position.offset - (at.offset if position.segment == at.segment else 0)
                    items.append(item)
                    budget, max_bytes, at = budget - size, max_bytes - size, position
                if at != start:
                    after[lane.name] = at
        return Chunk(tuple(items), after, more)

    def pending(self, cursor: Cursor) -> int:
        with self._translating():
            return sum(lane.pending(cursor.get(lane.name, START)) for lane in self._found())

    def close(self) -> None:
        """Gives the open files back; the next read opens what it needs."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def _found(self) -> list[_LaneReader]:
        """Raises OSError."""
        paths = [path for path in lanes(self._folder) if self._only in (None, path.name)]
        for path in paths:
            if path.name not in self._lanes:
                self._lanes[path.name] = _LaneReader(path, self._disk)
        return [self._lanes[path.name] for path in paths]

    @contextmanager
    def _translating(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            raise PermanentError(f"the journal in {self._folder} cannot be read: {error}") from error


class _LaneReader:
    def __init__(self, path: Path, disk: Disk) -> None:
        self.name = path.name
        self._path, self._disk = path, disk
        self._record: int | None = None
        self._known: Position | None = None
        self._open: _Segment | None = None
        self._number = 0
        self._sealed = False

    def close(self) -> None:
        if self._record is not None:
            self._disk.close(self._record)
        if self._open is not None:
            self._open.close()
        self._record = self._open = None

    def __del__(self) -> None:
        self.close()

    def pending(self, position: Position) -> int:
        return max(0, self._durable().sequence - position.sequence)

    def items(self, position: Position) -> Iterator[tuple[Item, Position]]:
        """What follows `position`, each with the position after it. Raises OSError."""
        durable = self._durable()
        while position[:2] < durable[:2]:
            source = self._source(position.segment)
            if source is not None:
                size = source.size()
                # A sealed segment is finished; an open one may hold bytes that no fsync has covered yet.
                limit = size if self._sealed or position.segment < durable.segment else min(size, durable.offset)
                for item, after in self._between(source, position, limit, durable):
                    yield item, after
                    position = after
            following = self._following(position.segment, durable.segment)
            if following is None:
                return
            position = Position(following, 0, position.sequence)

    def _between(self, source: _Segment, position: Position, limit: int, durable: Position) -> Iterator[tuple[Item, Position]]:
        segment, offset, sequence = position

        def damage(data: bytes, start: int, end: int) -> Iterator[tuple[Item, Position]]:
            for first in range(0, len(data), _DAMAGE_BYTES):
                part = data[first : first + _DAMAGE_BYTES]
                stop = end if first + len(part) == len(data) else start + first + len(part)
                # Where nothing follows that has a number, the record knows how many there were.
                after = Position(segment, stop, durable.sequence if (segment, stop) == durable[:2] else sequence)
                yield Damage(self.name, after, part), after

        buffer, at = b"", offset
        while at < limit:
            block, end, whole = source.read(at, min(limit, at + max(_WINDOW, len(buffer))))
            if end == at:
                return
            buffer, used = buffer + block if whole else buffer, 0
            for first, used, good in pieces(buffer, not whole or end >= limit):
                line = buffer[first:used]
                try:
                    if good:
                        sequence, payload = decode(line)
                        yield payload, Position(segment, offset + used, sequence)
                        continue
                except ValueError:
                    pass
                if good and (noted := decode_damage(line)) is not None:
                    yield noted, Position(segment, offset + used, sequence)
                    continue
                yield from damage(line, offset + first, offset + used)
            buffer, offset = buffer[used:], offset + used
            if not whole:
                yield from damage(block or b"?", offset, end)
                offset = end
            at = end

    def _durable(self) -> Position:
        """How far this lane may be read. Raises OSError."""
        for _ in range(3):  # the writer may be in the middle of it
            if self._record is None:
                self._record = open_record(self._path, self._disk)
            if self._record is not None and (record := published(self._disk, self._record)) is not None:
                self._known = record
                return record
        if self._known is not None:
            return self._known
        # Lost: what is finished can be read; the next writer will publish again.
        open_numbers, sealed_numbers = segments(self._path)
        newest = max((*open_numbers, *sealed_numbers), default=0)
        return Position(newest, sys.maxsize if newest in sealed_numbers else 0, 0)

    def _source(self, segment: int) -> _Segment | None:
        """The segment, open; None when it does not exist (any more). Raises OSError."""
        if self._open is not None and self._number == segment:
            return self._open
        if self._open is not None:
            self._open.close()
            self._open = None
        if not segment:
            return None
        # The sealed file appears before the plain one goes, so that one of them is found here.
        for self._sealed, kind, path in ((False, _PlainSegment, plain), (True, SealedSegment, sealed)):
            with suppress(FileNotFoundError):
                self._open, self._number = kind(path(self._path, segment), self._disk), segment
                return self._open
        return None

    def _following(self, segment: int, last: int) -> int | None:
        """The next existing segment, up to `last`. Raises OSError."""
        if segment >= last:
            return None
        numbers = segments(self._path)
        return min((number for number in (*numbers[0], *numbers[1]) if segment < number <= last), default=None)


__all__ = ["FileReader"]
