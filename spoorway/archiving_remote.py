"""A journal on servers -> the archive: each lane's payloads, in order, gathered into segments as the journal in files has them.

One more reader of the journal, with a group of its own, in a thread beside the targets of a worker. Where a lane goes on is what
the archive's manifest says, never the group: a segment begins where the last entry of its lane ends, its entry is made only if
nobody else has made that one, and only then is the group told. So whoever is killed, or comes back from a stall, loses
what was gathered, which is read again, and archives nothing twice.

Gathered is in memory and on disk: a file per lane, closed when it is large or old enough, or when the room runs out. While the
archive takes nothing, nothing more is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Signal
from typing import IO

from gateway.journal import JOINED_IN_MS, Damage, GroupReader, Joining, Reassigned
from gateway.journal.gathering import Gathering, gathered_lane
from gateway.journal.options import Options
from protocol.seams import START, Cursor, PermanentError, Position, RawPayload, TransientError
from spoorway.archiving import ArchiveStatus
from storage.archive import Archive, Contents, Origin
from storage.targets import Overtaken

log = logging.getLogger("spoorway.archiving")

_READ_PAYLOADS, _READ_BYTES = 2_000, 1 << 20
_LOOK_S = 0.25
_LOOKS = 2  # that find nothing: a shard that ended makes room for others only at the next one
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 5.0  # the group wants to hear of us
_ROOM = "gather-"


@dataclass(slots=True)
class _Lane:
    """number, since: of the next segment, and where it begins. at: gathered as far as here. payloads: in all segments before."""

    lane: str
    number: int
    since: Position
    at: Position
    payloads: int
    held: Gathering | None = None
    begun_ms: int = 0
    written_ms: int = 0

    def drop(self) -> None:
        if self.held is not None:
            self.held.drop()
        self.held, self.at = None, self.since


class GroupArchiving:
    """One archive's loop, of one worker. Call order: step as often as wanted -> close; or run. clock: milliseconds since 1970."""

    def __init__(
        self, reader: GroupReader, archive: Archive, url: str, data: Path, options: Options, clock: Callable[[], int]
    ) -> None:
        """reader: one that says by `loaded` what it has for good. data: the folder to gather in."""
        self._reader, self._archive, self._options, self._clock = reader, archive, options, clock
        self.status = ArchiveStatus(url)
        self._data = data
        self._room: _Room | None = None  # made with the first segment
        self._lanes: dict[str, _Lane] = {}
        self._unsure = True  # whether the lanes are these
        self._joining_ms = 0  # since when the group is waited for

    def step(self) -> bool:
        """Archives what is due, and gathers what there is, one read at most; True when there was anything.

        Raises Joining, TransientError, PermanentError; what was gathered before is kept.
        """
        self._archive_due()
        if self._unsure:
            self._look_up()
        try:
            chunk = self._reader.read(
                {lane.lane: lane.at for lane in self._lanes.values()}, max_payloads=_READ_PAYLOADS, max_bytes=_READ_BYTES
            )
        except Reassigned:
            self._unsure = True
            return True
        start = 0
        for name, count in chunk.lanes:
            if (lane := self._lanes.get(name)) is None:  # it has not been told that it is ours
                self._unsure = True
                return True
            items = chunk.items[start : start + count]
            self._gather(lane, items, chunk.cursor[name])
            start += count
        return bool(chunk.items)

    def run(self, stop: Signal, finish: Signal, *, once: bool = False) -> None:
        """Until `finish`; then what was gathered is archived, if that can be. Trouble of any kind is waited out.

        stop, once: as of spoorway.archiving.Archiving, whose place this takes; of no use here.
        """
        backoff_s, status = _FIRST_BACKOFF_S, self.status
        try:
            while not finish.is_set():
                try:
                    busy = self.step()
                except Exception as error:  # the loop's rim: a thread that ends tells nobody
                    self._report(error)
                    self._reader.pending({lane.lane: lane.at for lane in self._lanes.values()})  # which keeps its place
                    finish.wait(backoff_s)
                    backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
                    continue
                status.state, status.message, backoff_s, self._joining_ms = "waiting", "", _FIRST_BACKOFF_S, 0
                if not busy:
                    finish.wait(_LOOK_S)
            if status.state == "waiting":
                self._finish()
            status.state = "finished"
        finally:
            self.close()

    def now(self, reached: Callable[[Cursor], bool], gathered: Callable[[int], object]) -> None:
        """Archives at once what there is, large and old enough or not, beside workers that do the same or by itself.

        reader: of all lanes, of no group. reached: whether these places of the lanes are far enough; it also ends when nothing
        more is found. gathered: hears of every payload that is read. Raises TransientError, PermanentError; what was archived
        before stays so.
        """
        while True:
            empty = 0
            while empty < _LOOKS:
                before, looked = self._gathered(), bool(self.places())  # else this look tells which lanes there are, and no more
                empty = 0 if self.step() else empty + 1
                gathered(max(0, self._gathered() - before))
                if looked and reached(self.places()):
                    break
            for lane in [lane for lane in self._lanes.values() if lane.held is not None]:
                self._put(lane)
            if not self._unsure:
                return
            # A worker has archived a part of it meanwhile; what comes after that is still to do.

    def places(self) -> Cursor:
        """Where each lane that it has goes on. Raises TransientError, PermanentError."""
        if self._unsure:
            self._look_up()
        return {lane.lane: lane.at for lane in self._lanes.values()}

    def _gathered(self) -> int:
        return self.status.payloads + sum(lane.held.payloads for lane in self._lanes.values() if lane.held is not None)

    def close(self) -> None:
        """Leaves the group. What was gathered and is not archived is read again by the next one."""
        self._reader.close()
        self._leave_room()

    def _leave_room(self) -> None:
        if self._room is not None:
            self._room.leave()
            self._room = None

    # Lanes ------------------------------------------------------------------------------------------------------------

    def _look_up(self) -> None:
        """Those that are ours now: the ones kept go on, the others begin where the archive ends."""
        lanes = self._reader.lanes()
        for name in [name for name in self._lanes if name not in lanes]:
            self._lanes.pop(name).drop()
        for name in lanes:
            if name not in self._lanes:
                self._lanes[name] = self._looked_up(name)
        self._unsure = False
        self._tell_group()

    def _looked_up(self, name: str) -> _Lane:
        archived = gathered_lane(name)
        entry = self._archive.last(archived)
        if entry is None:
            return _Lane(name, 1, START, START, 0)
        if entry.origin is None or entry.origin.lane != name:
            raise PermanentError(f"segment {entry.segment} of lane {archived} in the archive is not of {name}")
        until = entry.origin.until
        return _Lane(name, entry.segment + 1, until, until, entry.contents.last_number)

    def _tell_group(self) -> None:
        self._reader.loaded({lane.lane: lane.since for lane in self._lanes.values() if lane.since != START})

    # Gathering --------------------------------------------------------------------------------------------------------

    def _gather(self, lane: _Lane, items: Sequence[RawPayload | Damage], until: Position) -> None:
        now_ms = self._clock()
        with self._writing():
            if lane.held is None:
                self._room = self._room or _Room(self._data)
                path = self._room.path / f"{gathered_lane(lane.lane)}-{lane.number}"
                lane.held, lane.begun_ms = Gathering(path, lane.payloads, self._options), now_ms
            lane.held.add(items)
        lane.at, lane.written_ms = until, now_ms

    @contextlib.contextmanager
    def _writing(self) -> Generator[None, None, None]:
        """What a segment holds that could not be written nobody knows, and others need the room: all is read again."""
        try:
            yield
        except Exception as error:
            for each in self._lanes.values():
                each.drop()
            self._leave_room()
            if isinstance(error, OSError):
                raise TransientError(f"{error.filename or self._data}: {error.strerror or error}") from error
            raise

    # Archiving --------------------------------------------------------------------------------------------------------

    def _archive_due(self) -> None:
        lanes = self._reader.lanes()
        closed = {name for name, ended in lanes.items() if ended}
        due = [lane for lane in self._lanes.values() if self._is_due(lane, closed)]
        self._tell(due)
        for index, lane in enumerate(due):
            self._put(lane)
            self._tell(due[index + 1 :])
        while (fullest := self._crowded()) is not None:
            self._put(fullest)
        if closed:
            self._tell_group()

    def _is_due(self, lane: _Lane, closed: Collection[str]) -> bool:
        held, options = lane.held, self._options
        return held is not None and (
            held.finished
            or held.bytes >= options.finished_bytes
            or self._clock() - lane.begun_ms >= options.segment_age_ms
            or lane.lane in closed
        )

    def _crowded(self) -> _Lane | None:
        """The fullest lane, when all of them together have no more room."""
        held = {name: each.held.size for name, each in self._lanes.items() if each.held is not None and each.held.size}
        if not held:
            return None
        total, options = sum(held.values()), self._options
        full = bool(options.max_bytes) and total >= options.max_bytes
        if full or shutil.disk_usage(self._data).free < options.min_free_bytes:
            return self._lanes[max(held, key=held.__getitem__)]
        return None

    def _put(self, lane: _Lane) -> None:
        """Raises TransientError, PermanentError; then it is due still."""
        held = lane.held
        assert held is not None
        self.status.state = "archiving"
        with self._writing():
            held.finish()
        first = held.last - held.payloads + 1 if held.payloads else 0
        first_ms, last_ms = (held.first_ms, held.last_ms) if held.payloads else (lane.begun_ms, lane.written_ms)
        contents = Contents(held.bytes, held.payloads, held.damaged, first_ms, last_ms, first, held.last)
        origin = Origin(lane.lane, lane.since, lane.at)
        try:
            entry = self._archive.add(gathered_lane(lane.lane), lane.number, held.path, contents, origin)
        except Overtaken as told:
            log.info("archive: %s", told)
            self._lanes.pop(lane.lane).drop()
            self._unsure = True
            return
        held.drop()
        self._lanes[lane.lane] = _Lane(lane.lane, lane.number + 1, lane.at, lane.at, held.last)
        self._tell_group()
        self.status.took(entry.size, held.payloads, self._clock())

    def _finish(self) -> None:
        """Archives what was gathered; what it cannot, the next one reads again."""
        try:
            for lane in [lane for lane in self._lanes.values() if lane.held is not None]:
                self._put(lane)
        except (TransientError, PermanentError) as error:
            log.warning("what was gathered is not archived yet, and will be read again: %s", error)

    def _tell(self, due: list[_Lane]) -> None:
        status = self.status
        status.pending, status.pending_bytes = len(due), sum(lane.held.size for lane in due if lane.held is not None)
        status.oldest_ms = min((lane.written_ms for lane in due), default=0)

    def _report(self, error: Exception) -> None:
        now_ms = self._clock()
        if isinstance(error, Joining):
            self._joining_ms = self._joining_ms or now_ms
            if now_ms - self._joining_ms < JOINED_IN_MS:
                return
        self.status.failed(error, now_ms)


class _Room:
    """A folder of one process, locked while that lives. What others left who were killed goes when one is made."""

    def __init__(self, data: Path) -> None:
        """Raises OSError."""
        for left in data.glob(f"{_ROOM}*"):
            with contextlib.suppress(OSError), (left / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        self.path = data / f"{_ROOM}{os.getpid()}-{secrets.token_hex(4)}"
        fresh = data / f".{self.path.name}"  # until it is locked nobody may find it
        fresh.mkdir(parents=True)
        self._lock: IO[str] = (fresh / "lock").open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(self.path)

    def leave(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


__all__ = ["GroupArchiving"]
