"""What a batch keeps -> the files it makes, as (name, bytes); and back: the ids that a file holds. Pure."""

from __future__ import annotations

import gzip
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import BinaryIO, Final, cast

from protocol.seams import Event, FailedEvent
from protocol.tables import COLUMN_NAMES
from storage.failed import payload_text, to_row
from storage.lake import DROPPED, EVENTS, FAILED, TSV, Piece, day_of, events_partition, piece_name
from storage.lake.index import Known
from storage.rows import json_text, to_tsv

_ID, _FINGERPRINT = COLUMN_NAMES.index("event_id"), COLUMN_NAMES.index("event_fingerprint")

Write = Callable[[Sequence[Event]], bytes]


def by_partition(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Of the day they were received and their name; the order is kept."""
    named: defaultdict[tuple[int | None, str], list[Event]] = defaultdict(list)
    for event in events:
        received = event.get("collector_tstamp")
        day = None if received is None else received // 86_400_000
        named[day, event.get("event_name") or event.get("event") or ""].append(event)
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for (day, name), members in named.items():
        found[events_partition(day_of(None if day is None else day * 86_400_000), name)] += members
    return dict(sorted(found.items()))


def files(
    number: int, events: Sequence[Event], failed: Sequence[FailedEvent], kinds: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """(name, bytes). kinds: of EVENTS and TSV, those that are wanted."""
    parted = by_partition(events)
    for kind in kinds:
        write = WRITERS[kind]()
        for partition, members in parted.items():
            yield piece_name(kind, partition, number, number), write(members)
    days: defaultdict[str, list[FailedEvent]] = defaultdict(list)
    for one in failed:
        days[day_of(one.payload.received_ms)].append(one)
    for day, some in sorted(days.items()):
        yield piece_name(FAILED, f"day={day}", number, number), gzipped(map(failed_line, some))


def gzipped(lines: Iterable[str]) -> bytes:
    """The same bytes for the same lines, whenever."""
    return compressor()("".join([f"{line}\n" for line in lines]).encode())


@cache
def compressor() -> Callable[[bytes], bytes]:
    """To gzip. The extra "fast" takes a tenth of the time; its files are 4 % larger until merging compresses them anew."""
    try:
        from isal.igzip import compress  # pyright: ignore[reportUnknownVariableType]
    except ImportError:
        return partial(gzip.compress, compresslevel=6, mtime=0)
    return partial(compress, compresslevel=2, mtime=0)


def failed_line(one: FailedEvent) -> str:
    """The columns of `failed_events`, the JSON ones as text so that every engine reads them alike, and the payload."""
    return json_text(to_row(one)._asdict() | {"payload": payload_text(one.payload)})


def _parquet() -> Write:
    from storage.lake.parquet import to_parquet  # pyarrow is large: who keeps TSV alone does without

    return to_parquet


WRITERS: Final[dict[str, Callable[[], Write]]] = {EVENTS: _parquet, TSV: lambda: lambda events: gzipped(map(to_tsv, events))}


def events_in(piece: Piece, file: BinaryIO) -> Iterator[Known]:
    """Of a file of events; none of one of failed events."""
    if piece.kind == EVENTS:
        from storage.lake.parquet import pa, pq

        table = pq.read_table(pa.BufferReader(file.read()), columns=["event_id", "event_fingerprint"])
        for event_id, fingerprint in zip(*(column.to_pylist() for column in table.columns), strict=True):
            yield cast(str, event_id), cast(str | None, fingerprint), piece.day
    elif piece.kind == TSV:
        with gzip.open(file) as lines:
            for line in io.TextIOWrapper(cast(BinaryIO, lines), "utf-8", newline="\n"):
                fields = line.rstrip("\n").split("\t")
                yield fields[_ID], fields[_FINGERPRINT] or None, piece.day


def failed_in(piece: Piece, file: BinaryIO) -> Iterator[tuple[str, str]]:
    """(id, day) of a file of failed events, or of dropped ones; none of one of events."""
    if piece.kind in (FAILED, DROPPED):
        with gzip.open(file) as lines:
            for line in lines:
                yield json.loads(line)["failed_id"], piece.day
