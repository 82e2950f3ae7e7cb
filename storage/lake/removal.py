"""Rows that are to go, in files: those of a person (`Keeper.erase`) and those that are too old (`Keeper.expire`).

`look` reads the files that count, one in memory at a time, and says what is to lie there instead; it makes nothing appear. First
the TSV, where only events count that no Parquet holds as well, then the Parquet, then the failed events. Knows no clock.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from protocol import payloads
from protocol.persons import COLUMNS as PERSONAL
from protocol.persons import ENTITY_COLUMNS
from protocol.seams import PermanentError, RawPayload, TransientError
from protocol.tables import COLUMN_NAMES
from storage.failed import payload_text
from storage.lake import EVENTS, FAILED, TSV, Piece, events_partition, piece_name, pieces, sorted_out
from storage.lake.writing import events_in
from storage.objects import NoSuchObject, Objects
from storage.rows import json_text, timestamp
from storage.targets import Erasure, Removed, Rule

_KINDS: Final = (TSV, EVENTS, FAILED)
_BYTES = 4_194_304  # looked at in one piece, of files as they lie there; no batch is loaded meanwhile
_FILES = 500
_TIME = "collector_tstamp"

Row = Mapping[str, str | None]


class Going(Protocol):
    """Which rows are to go. columns: what it must know of an event."""

    columns: tuple[str, ...]

    def concerns(self, kind: str, day: str, partition: str) -> bool:
        """False: nothing in this partition is to go."""
        ...

    def likely(self, table: Any) -> Any:
        """Of a pyarrow table with the columns: a mask of those that `fits` is to be asked of; it may have nulls, which say no."""
        ...

    def fits(self, row: Row) -> bool:
        """Of the columns as text."""
        ...

    def failed(self, columns: dict[str, Any]) -> bool | dict[str, Any]:
        """Of a line of failed events: whether it goes, or what it is from now on."""
        ...


class Place(NamedTuple):
    """Where the next piece begins. left: partitions, None = to be listed; the first one's files are done up to commit `done`."""

    kind: int
    left: tuple[str, ...] | None
    done: int


class Step(NamedTuple):
    """What is to be done. made: files, as (name, bytes), which stand for `replaced`. following: None at the end."""

    removed: Removed
    made: list[tuple[str, bytes]]
    replaced: list[str]
    following: Place | None


class Theirs:
    """See storage.targets.Erasure."""

    def __init__(self, erasure: Erasure) -> None:
        self._erasure, self._who = erasure, erasure.who
        self._until = timestamp(erasure.until_ms) or "9999-12-31 23:59:59.999"
        self._known = {(event_id, timestamp(received_ms)) for event_id, received_ms in erasure.events}
        entities = ENTITY_COLUMNS if self._who.device else ()
        self._names = {name: sorted(getattr(self._who, kind)) for kind, names in PERSONAL.items() for name in names}
        self.columns = ("event_id", _TIME, *self._names, *entities)
        self._quoted = [json.dumps(device, ensure_ascii=False)[1:-1] for device in sorted(self._who.device)]
        self._cut: tuple[str, RawPayload | None] = ("", None)  # of the last payload: its failed events lie side by side

    def concerns(self, kind: str, day: str, partition: str) -> bool:
        return day <= self._until[:10]

    def likely(self, table: Any) -> Any:
        from storage.lake.parquet import pa, pc

        mask = pc.is_in(table["event_id"], pa.array({event_id for event_id, _ in self._known}, pa.string()))
        for name, wanted in self._names.items():
            if wanted:
                mask = pc.or_(mask, pc.is_in(table[name], pa.array(wanted, pa.string())))
        for quoted in self._quoted:
            for name in ENTITY_COLUMNS:
                mask = pc.or_(mask, pc.fill_null(pc.match_substring(table[name], quoted), False))
        return mask

    def fits(self, row: Row) -> bool:
        received = row[_TIME]
        if (row["event_id"], received) in self._known:
            return True
        if received is not None and received > self._until:
            return False
        if any(row[name] in wanted for name, wanted in self._names.items() if wanted):
            return True
        # A name within JSON: a text to begin with, then a look at where it stands.
        texts = {name: text for name in ENTITY_COLUMNS if self._quoted and (text := row[name])}
        likely = any(quoted in text for quoted in self._quoted for text in texts.values())
        return likely and self._who.in_entities({name: json.loads(text) for name, text in texts.items()})

    def failed(self, columns: dict[str, Any]) -> bool | dict[str, Any]:
        received = columns[_TIME]
        if columns["failed_id"] in self._erasure.failed:
            return True
        if (received is None or received <= self._until) and (
            self._who.in_parameters(json.loads(columns["parameters"])) or self._who.in_columns(json.loads(columns["event"]))
        ):
            return True
        if columns["payload"] is None:  # solved
            return False
        if self._cut[0] != columns["payload_id"]:
            self._cut = columns["payload_id"], self._erasure.cut(payloads.from_json(columns["payload"].encode()))
        cut = self._cut[1]
        if cut is None:
            return False
        return columns["event_index"] in (None, *cut.erased) or {**columns, "payload": payload_text(cut)}


class Old:
    """See storage.targets.Rule. now_ms: milliseconds since 1970."""

    columns: tuple[str, ...] = ("event_id", _TIME, "app_id", "event_name", "event_vendor", "event_format", "event_version")

    def __init__(self, rule: Rule, now_ms: int) -> None:
        self._rule, self._before_ms = rule, now_ms - rule.older_than_ms
        self._before = timestamp(self._before_ms) or ""

    def concerns(self, kind: str, day: str, partition: str) -> bool:
        if day > self._before[:10] or (kind == FAILED and self._rule.schema):
            return False
        return kind == FAILED or not self._rule.event or partition == f"{kind}/{events_partition(day, self._rule.event)}"

    def likely(self, table: Any) -> Any:
        from storage.lake.parquet import pa, pc

        return pc.less(table[_TIME], pa.scalar(self._before_ms, pa.timestamp("ms", "UTC")))

    def fits(self, row: Row) -> bool:
        if not self._fits(row):
            return False
        names = (row["event_vendor"], row["event_name"], row["event_format"], row["event_version"])
        return not self._rule.schema or (None not in names and fnmatchcase(f"iglu:{'/'.join(map(str, names))}", self._rule.glob))

    def failed(self, columns: dict[str, Any]) -> bool | dict[str, Any]:
        return self._fits(columns)

    def _fits(self, row: Row) -> bool:
        received, rule = row[_TIME], self._rule
        return (
            received is not None
            and received < self._before
            and rule.app_id in ("", row["app_id"])
            and rule.event in ("", row["event_name"])
        )


@contextmanager
def alone(state: str) -> Generator[None]:
    """Whoever merges files, and whoever takes rows out of them, one at a time. state: the target's index; waits for the other."""
    try:
        path = Path(f"{state}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise PermanentError(f"{error.filename}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def look(objects: Objects, going: Going, place: Place | None, number: int | None) -> Step:
    """number: of the commit that this will be; None: it will be none, and nothing is touched.

    Otherwise files that are superseded are deleted: what they hold must not come back when the file that took them in is gone.
    Raises TransientError, also when somebody merged a file meanwhile.
    """
    kind, left, done = place or Place(0, None, 0)
    made: list[tuple[str, bytes]] = []
    replaced: list[str] = []
    events = failed = size = files = 0
    while kind < len(_KINDS):
        if left is None:
            left = _partitions(objects, _KINDS[kind], going)
        if not left:
            kind, left, done = kind + 1, None, 0
            continue
        live, superseded = sorted_out(objects.list(f"{left[0]}/"))
        if number is not None and superseded:
            objects.delete([piece.name for piece in superseded])
        for piece in live:
            if piece.last <= done:
                continue
            if size >= _BYTES or files >= _FILES:
                return Step(Removed(events, failed), made, replaced, Place(kind, left, done))
            size, files, done = size + piece.size, files + 1, piece.last
            found = _without(objects, piece, going)
            if found is None:
                continue
            gone, body = found
            if piece.kind == FAILED:
                failed += sum(map(bool, gone))
            else:
                events += len(gone) if piece.kind == EVENTS else _alone_in_tsv(objects, piece, gone)
            replaced.append(piece.name)
            if body:
                partition = piece.partition.removeprefix(f"{piece.kind}/")
                made.append((piece_name(piece.kind, partition, piece.first, piece.last, number or 0), body))
        left, done = left[1:], 0
    return Step(Removed(events, failed), made, replaced, None)


def _partitions(objects: Objects, kind: str, going: Going) -> tuple[str, ...]:
    found = {(piece.partition, piece.day) for piece in pieces(objects.list(f"{kind}/"))}
    return tuple(sorted(partition for partition, day in found if going.concerns(kind, day, partition)))


def _without(objects: Objects, piece: Piece, going: Going) -> tuple[Sequence[str], bytes] | None:
    """The ids of what goes ("" for what does not count), and the file without it, empty when nothing is left; None: it stays."""
    body = _get(objects, piece)
    if piece.kind == EVENTS:
        return _parquet(body, going)
    return _lines(body, _going_lines(body, going) if piece.kind == TSV else _going_failed(body, going))


def _get(objects: Objects, piece: Piece) -> bytes:
    try:
        return objects.get(piece.name)
    except NoSuchObject as error:
        raise TransientError(f"{error}; somebody else merges or deletes here") from error


def _parquet(body: bytes, going: Going) -> tuple[Sequence[str], bytes] | None:
    from storage.lake.parquet import COMPRESSION, pa, pq, schema

    file = pq.ParquetFile(pa.BufferReader(body))
    gone: list[str] = []
    masks: list[list[bool]] = []
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=list(going.columns))
        mask = [not likely for likely in going.likely(table).to_pylist()]
        places = [place for place, kept in enumerate(mask) if not kept]
        times = table[_TIME].cast(pa.int64())
        for place, row in zip(places, table.drop_columns([_TIME]).take(places).to_pylist() if places else (), strict=True):
            ms = times[place].as_py()
            row[_TIME] = None if ms is None else timestamp(ms)
            if going.fits(row):
                gone.append(row["event_id"])
            else:
                mask[place] = True
        masks.append(mask)
    if not gone:
        return None
    if not any(map(any, masks)):
        return gone, b""
    out = pa.BufferOutputStream()
    with pq.ParquetWriter(out, schema(), **COMPRESSION) as writer:
        for group, mask in enumerate(masks):
            writer.write_table(file.read_row_group(group).filter(pa.array(mask)))
    return gone, out.getvalue().to_pybytes()


def _going_lines(body: bytes, going: Going) -> Iterator[tuple[int, str, str]]:
    places = {name: COLUMN_NAMES.index(name) for name in going.columns}
    for number, line in enumerate(_read(body)):
        fields = line.split("\t")
        row = {name: fields[place] or None for name, place in places.items()}
        if going.fits(row):
            yield number, row["event_id"] or "", ""


def _going_failed(body: bytes, going: Going) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(_read(body)):
        columns = json.loads(line)
        found = going.failed(columns)
        if isinstance(found, dict):
            if found != columns:
                yield number, "", json_text(found)
        elif found:  # one that was solved is counted as stored already
            yield number, "" if columns.get("replayed_tstamp") else columns["failed_id"], ""


def _read(body: bytes) -> Iterator[str]:
    with gzip.open(io.BytesIO(body)) as lines:
        for line in lines:
            yield line.decode().rstrip("\n")


def _lines(body: bytes, found: Iterator[tuple[int, str, str]]) -> tuple[Sequence[str], bytes] | None:
    """found: of lines that go or change their number, the id of what goes, and what they become; "" = nothing."""
    gone: list[str] = []
    others: dict[int, str] = {}
    for number, name, text in found:
        others[number] = text
        if not text:
            gone.append(name)
    if not others:
        return None
    kept = False
    out = io.BytesIO()
    with gzip.GzipFile("", "wb", 6, out, mtime=0) as file:
        for number, line in enumerate(_read(body)):
            if text := others.get(number, line):
                file.write(f"{text}\n".encode())
                kept = True
    return gone, out.getvalue() if kept else b""


def _alone_in_tsv(objects: Objects, piece: Piece, gone: Sequence[str]) -> int:
    """How many of these events no Parquet holds; those that one holds are counted when it is looked at."""
    wanted, held = frozenset(gone), set[str]()
    partition = f"{EVENTS}{piece.partition.removeprefix(TSV)}/"
    for other in sorted_out(objects.list(partition))[0]:
        if other.first <= piece.last and other.last >= piece.first:
            held.update(wanted.intersection(name for name, *_ in events_in(other, io.BytesIO(_get(objects, other)))))
    return sum(name not in held for name in gone)


__all__ = ["Going", "Old", "Place", "Step", "Theirs", "alone", "look"]
