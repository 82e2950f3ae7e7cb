"""Events as files that any engine reads: what lies where, and which of it counts.

Below the root, in a folder or a bucket:

    events/day=2026-01-31/name=page_view/0000000007-0000000007.parquet     events of commit 7
    tsv/day=2026-01-31/name=page_view/0000000007-0000000007.tsv.gz         the same as canonical TSV
    failed/day=2026-01-31/0000000007-0000000007.ndjson.gz                  failed events, with their payloads
    dropped/day=2026-01-31/0000000009-0000000009.ndjson.gz                 ids of failed events that commit 9 gave up
    _spoorway/commits/0000000007                                           see storage/lake/commits.py

The two numbers are the first and the last commit that a file holds the events of. A file whose numbers lie within those of
another file of its partition is superseded: the other one holds its events as well. So one PUT of a merged file replaces many
at once, and what is deleted afterwards, or by the next run, or written once more by somebody who was stopped for a week,
counts no more. Nothing is ever written here that was not committed before.

A third number, as in 0000000007-0000000007-0000000012.parquet, is the commit that took rows out of the file, or changed some
(storage/lake/removal.py, storage/lake/failures.py): of the files with the same two numbers the one with the highest third counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from protocol.tables import Column
from storage.objects import Found
from storage.rows import timestamp

EVENTS: Final = "events"
TSV: Final = "tsv"
FAILED: Final = "failed"
DROPPED: Final = "dropped"
SUFFIXES: Final = {EVENTS: ".parquet", TSV: ".tsv.gz", FAILED: ".ndjson.gz", DROPPED: ".ndjson.gz"}

_UNKNOWN_DAY = "1970-01-01"
_LONGEST_NAME = 120
_OTHER = re.compile(r"[^A-Za-z0-9_.\-]")
_PIECE = re.compile(
    r"(?P<partition>(?P<kind>events|tsv|failed|dropped)/day=(?P<day>[^/]+)(?:/name=[^/]+)?)/"
    r"(\d{10,})-(\d{10,})(?:-(\d{10,}))?\.[a-z.]+"
)


def is_money(column: Column) -> bool:
    """decimal(18,2); the other decimals are doubles."""
    return column.type == "decimal" and "18,2" in column.postgres


class Piece(NamedTuple):
    """A file of events. partition: the folder's name. first, last: the commits whose events it holds.

    revision: the commit that took rows out of it last, or changed some; 0 = none did.
    """

    name: str
    size: int
    kind: str
    partition: str
    day: str
    first: int
    last: int
    revision: int = 0


@lru_cache(maxsize=4096)
def _day(number: int) -> str:
    return (timestamp(number * 86_400_000) or _UNKNOWN_DAY)[:10]


def day_of(ms: int | None) -> str:
    """`2026-01-31`, in UTC, of milliseconds since 1970."""
    return _UNKNOWN_DAY if ms is None else _day(ms // 86_400_000)


@lru_cache(maxsize=4096)
def events_partition(day: str, name: str) -> str:
    """Without the kind. Characters that Hive would escape are escaped as Hive does it; a very long name is cut and told apart."""
    safe = _OTHER.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name) or "unknown"
    if len(safe) > _LONGEST_NAME:
        safe = f"{safe[:_LONGEST_NAME].rpartition('%')[0] or safe[:_LONGEST_NAME]}-{hashlib.sha1(name.encode()).hexdigest()[:8]}"
    return f"day={day}/name={safe}"


def piece_name(kind: str, partition: str, first: int, last: int, revision: int = 0) -> str:
    """partition: without the kind."""
    revised = f"-{revision:010d}" if revision else ""
    return f"{kind}/{partition}/{first:010d}-{last:010d}{revised}{SUFFIXES[kind]}"


def pieces(found: Iterable[Found]) -> Iterator[Piece]:
    """Of a listing; objects that are none of ours are passed over."""
    for one in found:
        if parts := _PIECE.fullmatch(one.name):
            numbers = int(parts[4]), int(parts[5]), int(parts[6] or 0)
            yield Piece(one.name, one.size, parts["kind"], parts["partition"], parts["day"], *numbers)


def sorted_out(found: Iterable[Found]) -> tuple[list[Piece], list[Piece]]:
    """Of a listing that is sorted by name: the files that count, in the order of their commits, and those that are superseded."""
    live: list[Piece] = []
    superseded: list[Piece] = []
    for _, members in groupby(pieces(found), attrgetter("partition")):
        last = 0
        for piece in sorted(members, key=lambda one: (one.first, -one.last, -one.revision)):
            (live if piece.last > last else superseded).append(piece)
            last = max(last, piece.last)
    return live, superseded
