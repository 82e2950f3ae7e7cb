"""Failed events in files: found, told, and what their files become when some of them are solved or dropped.

A solved one stays as a line with a `replayed_tstamp` and without its payload, which another one of the same payload has as long
as it waits; a dropped one leaves its id in another file, so that it is not taken in again. Makes nothing appear: what `rewritten`
answers lies there after a commit. Knows no clock.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple, cast

from protocol import payloads
from protocol.seams import FailedEvent, Json, RawPayload, TransientError
from storage.failed import FailedRow, to_json, to_row, waits_for
from storage.lake import DROPPED, FAILED, Piece, piece_name, sorted_out
from storage.lake.writing import gzipped
from storage.objects import NoSuchObject, Objects
from storage.rows import json_text, timestamp
from storage.targets import Waiting

_FILE_COSTS = 20  # rows, in a walk: a file is a request, however few are in it
_LAST = "\U0010ffff"

Line = Mapping[str, Any]
# Of a failed event that changes: what its line becomes; None: it goes.
Changes = Mapping[str, Line | None]


class Place(NamedTuple):
    """Where a walk goes on: after this row of that file."""

    partition: str
    first: int
    payload_id: str
    failed_id: str


class Failures:
    """One thread at a time. Every call raises TransientError (also when files were merged meanwhile), PermanentError."""

    def __init__(self, objects: Objects, days_of: Callable[[Sequence[str]], Mapping[str, str | None]]) -> None:
        """days_of: of failed events, the day each was received, where that is remembered."""
        self._objects, self._days_of = objects, days_of
        self._partition = ""  # that the rest is of
        self._places: dict[str, str] = {}  # id -> the file it was seen in
        self._scanned: set[str] = set()
        self._open: tuple[str, dict[str, Line]] = ("", {})  # the file that was read last

    def listed(self, kind: str | None, since_ms: int | None, limit: int, replayed: bool) -> list[dict[str, Json]]:
        """As FailedStore.list_failed: every file is read."""
        found = nsmallest(limit, self._chosen(kind, since_ms, replayed), key=_newest_first)
        return [to_json(_row(line)) for line in found]

    def ids(self, kind: str | None, since_ms: int | None, limit: int) -> list[str]:
        """As FailedStore.failed_ids."""
        slim = ({name: line[name] for name in ("failed_id", "failed_tstamp")} for line in self._chosen(kind, since_ms, False))
        return [line["failed_id"] for line in nsmallest(limit, slim, key=_newest_first)]

    def show(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        """As FailedStore.show_failed."""
        found = self.find([failed_id]).get(failed_id)
        if found is None:
            return None
        line = found[1]
        text = line["payload"] or next((one["payload"] for one in self._of_payload(line) if one["payload"]), None)
        return to_json(_row(line)), payloads.from_json(text.encode()) if text else None

    def find(self, failed_ids: Iterable[str]) -> dict[str, tuple[Piece, Line]]:
        """Of those that are there: the file that holds each, and its line. A day's files are listed once."""
        ids = list(failed_ids)
        known = self._days_of(ids)
        days: defaultdict[str, list[str]] = defaultdict(list)
        for failed_id in ids:
            days[known.get(failed_id) or ""].append(failed_id)
        found: dict[str, tuple[Piece, Line]] = {}
        for day, some in days.items():
            live = self._listed(f"{FAILED}/day={day}/" if day else f"{FAILED}/", some)
            for failed_id in sorted(some, key=lambda one: self._places.get(one, "")):  # file by file
                piece = live.get(self._places.get(failed_id, ""))
                if piece and (line := self._lines(piece).get(failed_id)):
                    found[failed_id] = piece, line
        return found

    def _listed(self, partition: str, ids: Iterable[str]) -> dict[str, Piece]:
        """Its files by name; those that may hold one of these were looked through."""
        if partition != self._partition:
            self.forget()
            self._partition = partition
        live = {piece.name: piece for piece in self._live(partition)}
        if any(self._places.get(one) not in live for one in ids):
            for name, piece in live.items():
                if name not in self._scanned:
                    self._places.update(dict.fromkeys(self._lines(piece), name))
                    self._scanned.add(name)
        return live

    def forget(self) -> None:
        """What was seen of files, which may be others under the same names now."""
        self._partition, self._open = "", ("", {})
        self._places.clear()
        self._scanned.clear()

    def waiting(self, after: Place | None, rows: int) -> tuple[list[Waiting], Place | None]:
        """As WaitingStore.waiting, file by file, within each by payload."""
        found: list[Waiting] = []
        for piece in self._live(f"{FAILED}/"):
            begun = False
            if after is not None:
                if (piece.partition, piece.last) < after[:2]:
                    continue
                begun = (piece.partition, piece.first) == after[:2]
                if begun and after.payload_id == _LAST:
                    continue
            lines = sorted(self._lines(piece).values(), key=_by_payload)
            left = [line for line in lines if not (begun and after and _by_payload(line) <= after[2:])]
            for line in left[:rows]:
                if not line.get("replayed_tstamp") and (unknown := waits_for(line["reasons"])):
                    found.append(Waiting(line["failed_id"], line["payload_id"], line["event_index"], unknown))
            if len(left) > rows:
                return found, Place(piece.partition, piece.first, *_by_payload(left[rows - 1]))
            rows -= max(len(left), _FILE_COSTS)
            if rows <= 0:
                return found, Place(piece.partition, piece.first, _LAST, "")
        return found, None

    def rewritten(self, changes: Changes, pieces: Iterable[Piece], number: int) -> tuple[list[tuple[str, bytes]], list[str]]:
        """What the files that hold these become by commit `number`: as (name, bytes), and the names of those they stand for.

        Files that are superseded are deleted: what they hold must not come back when the one that took them in is gone.
        """
        made: list[tuple[str, bytes]] = []
        replaced: list[str] = []
        for piece in sorted(set(pieces)):
            _, superseded = sorted_out(self._objects.list(f"{piece.partition}/"))
            if superseded:
                self._objects.delete([one.name for one in superseded])
            left = [json_text(line) for key, had in self._read(piece) if (line := changes.get(key, had))]
            replaced.append(piece.name)
            if left:
                partition = piece.partition.removeprefix(f"{FAILED}/")
                made.append((piece_name(FAILED, partition, piece.first, piece.last, number), gzipped(left)))
        return made, replaced

    def _chosen(self, kind: str | None, since_ms: int | None, replayed: bool) -> Iterator[Line]:
        since = timestamp(since_ms) if since_ms is not None else None
        for piece in self._live(f"{FAILED}/"):
            for _, line in self._read(piece):
                if (
                    kind in (None, line["kind"])
                    and (since is None or (line["failed_tstamp"] or "") >= since)
                    and (replayed or not line.get("replayed_tstamp"))
                ):
                    yield line

    def _of_payload(self, solved: Line) -> Iterator[Line]:
        """Those that came in the same payload; they were received the same day."""
        for piece in self._live(self._partition):
            for _, line in self._read(piece):
                if line["payload_id"] == solved["payload_id"]:
                    yield line

    def _live(self, partition: str) -> list[Piece]:
        return sorted_out(self._objects.list(partition))[0]

    def _lines(self, piece: Piece) -> dict[str, Line]:
        if self._open[0] != piece.name:
            self._open = piece.name, dict(self._read(piece))
        return self._open[1]

    def _read(self, piece: Piece) -> Iterator[tuple[str, Line]]:
        try:
            with self._objects.open(piece.name) as file, gzip.open(file) as lines:
                for text in lines:
                    line = cast(dict[str, Any], json.loads(text))
                    yield line["failed_id"], line
        except NoSuchObject as error:
            raise TransientError(f"{error}; somebody else merges or rewrites here: try again") from error


def solved(line: Line, replayed_ms: int) -> Line:
    """What the line of a failed event that is solved becomes."""
    return {**line, "replayed_tstamp": timestamp(replayed_ms), "payload": None}


def failed_again(line: Line, failed: FailedEvent) -> Line:
    """What it becomes when it failed once more: its reasons are others."""
    row = to_row(failed)
    return {**line, **{name: getattr(row, name) for name in ("kind", "reasons", "first_reason", "failed_tstamp")}}


def dropped_files(number: int, dropped: Sequence[tuple[Piece, Line]], dropped_ms: int) -> Iterator[tuple[str, bytes]]:
    """What remembers them: a file for each day."""
    days: defaultdict[str, list[str]] = defaultdict(list)
    for piece, line in dropped:
        told = {name: line[name] for name in ("failed_id", "kind", "collector_tstamp")}
        days[piece.day].append(json_text({**told, "dropped_tstamp": timestamp(dropped_ms)}))
    for day, lines in sorted(days.items()):
        yield piece_name(DROPPED, f"day={day}", number, number), gzipped(lines)


def _row(line: Line) -> FailedRow:
    values: dict[str, Any] = {name: line.get(name) for name in FailedRow._fields}
    return FailedRow(**values)


def _newest_first(line: Line) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, line["failed_tstamp"] or ""))
    return -int(digits or 0), line["failed_id"]


def _by_payload(line: Line) -> tuple[str, str]:
    return line["payload_id"], line["failed_id"]


__all__ = ["Changes", "Failures", "Line", "Place", "dropped_files", "failed_again", "solved"]
