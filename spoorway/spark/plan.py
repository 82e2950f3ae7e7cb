"""The archive's segments -> stretches: neighbours in the order one machine reads them, of about the same size. Driver only."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.seams import START, ConfigurationError, Cursor, PermanentError, Position
from spoorway.rebuilding import Rebuilding
from storage.archive import Archive, Entry


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one task reads. number: from 0, in reading order."""

    number: int
    entries: tuple[Entry, ...]


def planned(archive: Archive, url: str, most_bytes: int, told: Callable[[str], object], *, partial: bool) -> list[Stretch]:
    """most_bytes: of a stretch, uncompressed; a segment is never cut. told: hears what is missing.

    Raises ConfigurationError, PermanentError where something is missing and that is not accepted, TransientError.
    """
    with tempfile.TemporaryDirectory(prefix="spoorway-") as room:
        rebuilding = Rebuilding(archive, Path(room) / "no-journal", Path(room), told, partial=partial)
        try:
            entries = [place.entry for place in rebuilding.places() if place.entry is not None]
            missing = rebuilding.missing()
        finally:
            rebuilding.close()
    if not entries:
        raise ConfigurationError(f"spark: there is no archive in {url}")
    for each in missing:
        told(each)
    if missing and not partial:
        raise PermanentError("spark: what is missing would be missing in the result; `spoorway spark --partial` accepts that")
    return [Stretch(number, tuple(some)) for number, some in enumerate(_neighbours(entries, most_bytes))]


def _neighbours(entries: Iterable[Entry], most_bytes: int) -> Iterator[list[Entry]]:
    together: list[Entry] = []
    size = 0
    for entry in entries:
        if together and size + entry.contents.bytes > most_bytes:
            yield together
            together, size = [], 0
        together.append(entry)
        size += entry.contents.bytes
    if together:
        yield together


def beyond(stretches: Iterable[Stretch], cursor: Cursor) -> int:
    """How many segments are not wholly before `cursor`."""
    return sum(
        at.segment < entry.segment or (at.segment == entry.segment and at.offset < entry.contents.bytes)
        for stretch in stretches
        for entry in stretch.entries
        for at in (cursor.get(entry.lane, START),)
    )


def joined(cursors: Iterable[Cursor]) -> dict[str, Position]:
    """Where the journal is read on after all of them, which are in reading order."""
    found: dict[str, Position] = {}
    for cursor in cursors:
        for lane, at in cursor.items():
            before = found.get(lane, START)
            found[lane] = at._replace(sequence=max(at.sequence, before.sequence))
    return found


__all__ = ["Stretch", "beyond", "joined", "planned"]
