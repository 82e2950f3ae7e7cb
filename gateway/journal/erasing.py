"""Takes single payloads out of the journal, or parts of them, and leaves every other byte, offset and number where it was.

The one exception to "nothing can change what is written", for the sake of a person who asks for it. A line is replaced by one of
the same length, with a good checksum, that says what was erased; so cursors stay valid and nobody takes it for damage. Only
sealed segments are rewritten, each in one step: beside the old one, then renamed over it. Whoever has the old one open goes
on reading it: who keeps what it reads must open it anew. A place that was damaged before stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.journal.disk import DISK, Disk, write_all
from gateway.journal.keeping import finish_and_seal
from gateway.journal.lanes import FINISH, lanes, lock, open_record, plain, published, sealed, segments
from gateway.journal.lines import decode, encode_within, pieces
from gateway.journal.options import Options
from gateway.journal.sealing import SealedSegment, packed
from protocol.seams import Cursor, PermanentError, Position, RawPayload


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a payload, and which events and failed events it no longer holds.

    places: how many of its events went, of which others: not meant, but not to be had apart.
    events: (event_id, when received in milliseconds) of those that were meant. failed: ids of failed events, likewise.
    """

    payload: RawPayload
    places: int
    others: int = 0
    events: tuple[tuple[str, int], ...] = ()
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A segment before and after: SHA-256 of the file, payloads changed, events gone, others among them (see `Cut`).

    damaged: places that could not be searched, because nobody can read them.
    """

    lane: str
    segment: int
    before: str
    after: str
    payloads: int
    events: int
    others: int
    damaged: int
    cuts: tuple[Cut, ...] = field(default=(), repr=False)


# Whether a line may hold what is looked for: cheap, and never wrongly false. And what is left of a payload; None: all of it.
Suspect = Callable[[bytes], bool]
Cutting = Callable[[RawPayload], Cut | None]


def ends(folder: Path, disk: Disk = DISK) -> dict[str, Position]:
    """How far each lane is durable by now; to its end where that record is lost. Raises OSError."""
    found: dict[str, Position] = {}
    for lane in lanes(folder):
        found[lane.name] = Position(sys.maxsize, 0, 0)
        if (record := open_record(lane, disk)) is not None:
            try:
                found[lane.name] = published(disk, record) or found[lane.name]
            finally:
                disk.close(record)
    return found


def ask_to_seal(folder: Path, until: Cursor, options: Options, disk: Disk = DISK) -> list[str]:
    """One attempt to have all segments up to `until` sealed; the lanes where a running gateway has still to do it.

    A lane without a writer is sealed here. Raises OSError.
    """
    waiting: list[str] = []
    for lane in lanes(folder):
        end = until.get(lane.name)
        if end is None or not _unsealed(lane, end):
            continue
        if (held := lock(lane, disk)) is None:
            disk.close(disk.open(lane / FINISH, os.O_WRONLY | os.O_CREAT))
            waiting.append(lane.name)
            continue
        try:
            finish_and_seal(lane, options, disk)
            with suppress(FileNotFoundError):
                disk.unlink(lane / FINISH)
        finally:
            disk.close(held)
    return waiting


def _unsealed(lane: Path, end: Position) -> bool:
    open_numbers, sealed_numbers = segments(lane)
    for number in open_numbers:
        if number <= end.segment and number not in sealed_numbers:
            with suppress(FileNotFoundError):
                if plain(lane, number).stat().st_size:
                    return True
    return False


def sealed_segments(folder: Path, until: Cursor) -> Iterator[tuple[Path, int]]:
    """(lane, number) of those that an erasure has to look into. Raises OSError."""
    for lane in lanes(folder):
        if (end := until.get(lane.name)) is not None:
            yield from ((lane, number) for number in segments(lane)[1] if number <= end.segment)


def rewrite(
    lane: Path,
    number: int,
    suspect: Suspect,
    cutting: Cutting,
    about_to: Callable[[Rewritten], None],
    options: Options,
    disk: Disk = DISK,
) -> Rewritten | None:
    """Takes out of one sealed segment what `cutting` says; None when that is nothing, or the segment is gone.

    about_to: told what is going to be, when the new file is on the medium and before it takes the old one's place; after a crash
    the file's checksum says which of both it is. Raises OSError, PermanentError; the segment is then as it was.
    """
    path = sealed(lane, number)
    fresh = path.with_suffix(".gz.tmp")  # recovery removes what a crash leaves of it
    try:
        segment = SealedSegment(path, disk)
    except FileNotFoundError:
        return None
    try:
        cuts, damaged = list[Cut](), 0
        replaced: dict[int, bytes] = {}
        for index, (member, _, block) in enumerate(segment.blocks()):
            if block is None:
                damaged += 1
                continue
            new, here, bad = _cut_block(block, suspect, cutting)
            damaged += bad
            if here:
                cuts += here
                replaced[index] = packed(new, member.start, options.gzip_level)
        if not cuts:
            return None
        after = hashlib.sha256()
        target, at = disk.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0
        try:
            for data in _members(segment, replaced, options.gzip_level):
                after.update(data)
                write_all(disk, target, data, at)
                at += len(data)
            disk.set_modified(target, path.stat().st_mtime_ns)  # retention goes by when it was written to
            disk.sync_data(target)
        finally:
            disk.close(target)
    finally:
        segment.close()
    done = Rewritten(
        lane.name,
        number,
        checksum(lane, number) or "",
        after.hexdigest(),
        len(cuts),
        sum(cut.places for cut in cuts),
        sum(cut.others for cut in cuts),
        damaged,
        tuple(cuts),
    )
    about_to(done)
    disk.rename(fresh, path)
    disk.sync_folder(lane)
    return done


def checksum(lane: Path, number: int) -> str | None:
    """SHA-256 of a sealed segment's file; None when it is gone."""
    try:
        with sealed(lane, number).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _members(segment: SealedSegment, replaced: dict[int, bytes], level: int) -> Iterator[bytes]:
    """The file's members, some of them replaced, and the empty one that says nothing was cut off, where that is so."""
    whole = True
    for index, (member, raw, _) in enumerate(segment.blocks()):
        yield replaced.get(index, raw)
        whole = member.ok
    if whole:
        yield packed(b"", segment.size(), level)


def _cut_block(block: bytes, suspect: Suspect, cutting: Cutting) -> tuple[bytes, list[Cut], int]:
    """(the block with its lines replaced, what was cut, damaged places)."""
    found: list[Cut] = []
    parts: list[bytes] = []
    damaged = 0
    for start, end, good in pieces(block, True):
        line = block[start:end]
        parts.append(line)
        if not good:
            damaged += 1
        elif suspect(line):
            try:
                sequence, payload = decode(line)
            except ValueError:
                damaged += 1
                continue
            if (cut := cutting(payload)) is not None:
                parts[-1] = _within(cut.payload, sequence, len(line))
                found.append(cut)
    return b"".join(parts), found, damaged


def _within(payload: RawPayload, sequence: int, size: int) -> bytes:
    """The line of what is left. There is nearly always room; where there is none, what is least missed goes too."""
    smaller = replace(payload, headers=(), ip=None, host=None)
    for attempt in (payload, smaller, replace(smaller, transport="")):
        if (line := encode_within(attempt, sequence, size)) is not None:
            return line
    raise PermanentError(f"payload {payload.id}: what is left of it is longer than it was")


__all__ = ["Cut", "Cutting", "Rewritten", "Suspect", "ask_to_seal", "checksum", "ends", "rewrite", "sealed_segments"]
