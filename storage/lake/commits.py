"""The chain of commits: object N+1 can be made once only, so of two writers one loses and is told.

A commit is one conditional PUT: a line of JSON (where the journal is read on, totals, what the batch counted, the files it
makes), then the files' bytes one after the other. That PUT is the transaction. Afterwards the files are put in their places,
as often as it takes, and the commit is written once more without their bytes: it is settled. Who opens the target settles what a
crash left.

Files that are too much for one PUT are staged first, where nobody reads them, by a writer that works on many machines: then the
commit names where they lie, and settling copies them. Such a commit may stand for several numbers, so that each partition can
get several files from it.

A commit may also take rows out of files, or change some: then it holds the files as they are to be, and names those that they
stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson

from protocol.seams import Cursor, PermanentError, Position
from storage.objects import NoSuchObject, Objects
from storage.targets import Counts

PREFIX: Final = "_spoorway/commits/"
_PROBE = "_spoorway/probe"
_AT_ONCE = 8
_FORMAT, _STAGED = 1, 2  # staged: no older Spoorway must settle it


@dataclass(frozen=True, slots=True)
class Commit:
    """origin: names this life of the target, from its first batch to a `wipe`. mark, counted: of the batch.

    objects: (name, bytes) of the files it makes. replaced: names of those that go for them. wiped: everything before it is to be
    deleted. staged: where each of `objects` lies until it is settled; empty where their bytes follow. first: of the numbers that
    it stands for, which end with `number`; 0 = that one alone.
    """

    number: int = 0
    origin: str = ""
    mark: str = ""
    cursor: Cursor = field(default_factory=dict[str, Position])
    totals: Counts = field(default_factory=Counts)
    counted: Counts = field(default_factory=Counts)
    objects: tuple[tuple[str, int], ...] = ()
    wiped: bool = False
    settled: bool = False
    replaced: tuple[str, ...] = ()
    staged: tuple[str, ...] = ()
    first: int = 0

    @property
    def placed(self) -> int:
        """The newest number of which every file is in its place."""
        return self.number if self.settled else (self.first or self.number) - 1


def check(objects: Objects) -> None:
    """Raises PermanentError where the store makes an object again although it was told not to: two writers would both win."""
    objects.put_new(_PROBE, b"")
    if objects.put_new(_PROBE, b""):
        raise PermanentError(
            f"{objects.url(_PROBE)}: this store ignores If-None-Match, so two writers would not notice each other; use another"
        )


def add(objects: Objects, commit: Commit, bodies: Sequence[bytes]) -> bool:
    """False: somebody has made that number, the first of several. Raises TransientError: nobody knows whether it was made."""
    return objects.put_new(_name(commit.first or commit.number), b"".join((_header(commit), b"\n", *bodies)))


def newest(objects: Objects) -> tuple[Commit, bytes]:
    """And the bytes of its files while it is not settled. Commit() where there is none."""
    last = ""
    for found in objects.list(PREFIX):
        last = found.name
    if not last:
        return Commit(), b""
    header, _, bodies = objects.get(last).partition(b"\n")
    return _read(last, header), bodies


def settle(objects: Objects, commit: Commit, bodies: bytes) -> Commit:
    """Puts the files in their places, then deletes those they stand for. Any number of times, by anybody."""
    start = 0
    for name, size in () if commit.staged else commit.objects:
        objects.put(name, bodies[start : start + size])
        start += size
    settled = replace(commit, settled=True, staged=(), first=0)
    if commit.staged and not _copied(objects, commit):
        return settled
    if commit.replaced:
        objects.delete(commit.replaced)
    objects.put(_name(commit.number), _header(settled))
    objects.delete(commit.staged)
    return settled


def _copied(objects: Objects, commit: Commit) -> bool:
    """False: what was staged is gone, for somebody else has settled it. Raises NoSuchObject where nobody has."""
    names = [name for name, _ in commit.objects]
    try:
        with ThreadPoolExecutor(_AT_ONCE, "settle") as pool:
            for _ in pool.map(objects.copy, commit.staged, names):
                pass
    except NoSuchObject:
        last, _ = newest(objects)
        if last.number < commit.number or not last.settled:
            raise
        return False
    return True


def prune(objects: Objects, keep: int) -> int:
    """Deletes all but so many of the newest; how many. They serve only to be read by people, and to refuse the very late."""
    names = [found.name for found in objects.list(PREFIX)][:-keep]
    objects.delete(names)
    return len(names)


def _name(number: int) -> str:
    return f"{PREFIX}{number:010d}"


def _header(commit: Commit) -> bytes:
    fields: dict[str, Any] = asdict(commit)
    fields["cursor"] = {lane: list(position) for lane, position in commit.cursor.items()}
    return orjson.dumps({"format": _STAGED if commit.staged else _FORMAT, **fields})


def _read(name: str, header: bytes) -> Commit:
    try:
        fields: dict[str, Any] = orjson.loads(header)
        if fields["format"] > _STAGED:
            raise PermanentError(f"{name}: written by a newer Spoorway")
        positions: Mapping[str, Sequence[int]] = fields["cursor"]
        return Commit(
            fields["number"],
            fields["origin"],
            fields["mark"],
            {lane: Position(*position) for lane, position in positions.items()},
            Counts(**fields["totals"]),
            Counts(**fields["counted"]),
            tuple((one[0], one[1]) for one in fields["objects"]),
            fields["wiped"],
            fields["settled"],
            tuple(fields.get("replaced", ())),
            tuple(fields.get("staged", ())),
            fields.get("first", 0),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(f"{name}: is no commit of this target: {error!r}") from error


__all__ = ["Commit", "add", "check", "newest", "prune", "settle"]
