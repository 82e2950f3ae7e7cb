"""Keeps events in RAM with a real target's semantics, and fails on request: to test with, ours and yours.

Nothing survives the process. Not for production.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from protocol.seams import Cursor, Event, FailedEvent, Json, Position, RawPayload, TransientError
from storage.duplicates import identity, sort_out
from storage.failed import FailedRow, to_json, to_row, waits_for
from storage.rows import clean, timestamp
from storage.targets import Batch, Counts, Erasure, Removed, Rule, SchemaLookup, Waiting

Moment = Literal["", "before", "inside", "after", "any"]


@dataclass(frozen=True, slots=True)
class Config:
    """fail: when a commit raises TransientError. "before" and "inside": nothing is kept; "after": everything is kept, but
    the caller cannot know; "any": one of the three, at random; "" = never.
    every: each n-th commit fails; 0 = leave it to `probability` (0.0 to 1.0).
    """

    fail: Moment = ""
    every: int = 0
    probability: float = 1.0
    seed: int = 0


@dataclass(slots=True)
class _Kept:
    events: dict[str, Event] = field(default_factory=dict[str, Event])
    failed: dict[str, tuple[FailedRow, RawPayload]] = field(default_factory=dict[str, tuple[FailedRow, RawPayload]])
    dropped: frozenset[str] = frozenset()
    gone: dict[str, str | None] = field(default_factory=dict[str, str | None])
    cursor: dict[str, Position] = field(default_factory=dict[str, Position])
    totals: Counts = field(default_factory=Counts)
    last: tuple[Batch, Counts] | None = None


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup) -> None:
        self._config = config
        self._random = random.Random(config.seed)
        self._commits = 0
        self._kept = _Kept()
        self._lock = threading.Lock()
        self._erased: dict[str, Removed] = {}

    @property
    def events(self) -> list[Event]:
        """What is stored, in the order it came."""
        return list(self._kept.events.values())

    def cursor(self) -> Cursor:
        return dict(self._kept.cursor)

    def totals(self) -> Counts:
        return self._kept.totals

    def commit(self, batch: Batch) -> Counts:
        with self._lock:
            moment = self._moment()
            if moment == "before":
                raise TransientError("memory: told to fail before the commit")
            kept = self._kept
            if kept.last is not None and _same(kept.last[0], batch):
                counts = kept.last[1]
            else:
                moved = batch.moved(kept.cursor)
                kept, counts = _take(kept, batch.events, batch.failed, batch.payloads)
                counts = replace(counts, erased=batch.erased)
                totals = replace(kept.totals, erased=kept.totals.erased + batch.erased)
                kept = replace(kept, cursor={**kept.cursor, **moved}, last=(batch, counts), totals=totals)
            if moment == "inside":
                raise TransientError("memory: told to fail inside the commit")
            self._kept = kept
            if moment == "after":
                raise TransientError("memory: told to fail after the commit")
            return counts

    def close(self) -> None:
        """Nothing to close: a test may open its eyes again on the same target."""

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        since = timestamp(since_ms) if since_ms is not None else None
        rows = [
            row
            for row, _ in self._kept.failed.values()
            if kind in (None, row.kind)
            and (since is None or (row.failed_tstamp or "") >= since)
            and (replayed or row.replayed_tstamp is None)
        ]
        rows.sort(key=lambda row: row.failed_id)
        rows.sort(key=lambda row: row.failed_tstamp or "", reverse=True)
        return [to_json(row) for row in rows[:limit]]

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        return [str(row["failed_id"]) for row in self.list_failed(kind, since_ms, limit)]

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        found = self._kept.failed.get(failed_id)
        if found is None:
            return None
        row, payload = found
        open_ones = (r for r, _ in self._kept.failed.values() if r.payload_id == row.payload_id and not r.replayed_tstamp)
        return to_json(row), payload if any(open_ones) else None

    def resolve(self, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int) -> Counts | None:
        with self._lock:
            self._kept, counts = _resolve(self._kept, failed_id, events, failed, replayed_ms)
            return counts

    def waiting(self, after: tuple[str, str] | None, rows: int) -> tuple[list[Waiting], tuple[str, str] | None]:
        found = sorted((row.payload_id, failed_id, row) for failed_id, (row, _) in self._kept.failed.items())
        found = [one for one in found if after is None or one[:2] > after][:rows]
        waiting = [
            Waiting(failed_id, payload_id, row.event_index, unknown)
            for payload_id, failed_id, row in found
            if row.replayed_tstamp is None and (unknown := waits_for(row.reasons))
        ]
        return waiting, found[-1][:2] if len(found) == rows else None

    def resolve_all(self, resolutions: Iterable[tuple[str, Sequence[Event], Sequence[FailedEvent]]], replayed_ms: int) -> int:
        with self._lock:
            kept, solved = self._kept, 0
            for failed_id, events, failed in resolutions:
                kept, counts = _resolve(kept, failed_id, events, failed, replayed_ms)
                solved += counts is not None and all(again.id != failed_id for again in failed)
            self._kept = kept
            return solved

    def see_schemas(self, uris: Collection[str]) -> None:
        """Nothing is made of schemas here."""

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        with self._lock:
            kept = self._kept
            gone = {i for i in failed_ids if i in kept.failed and kept.failed[i][0].replayed_tstamp is None}
            totals = replace(kept.totals, failed=kept.totals.failed - len(gone), dropped=kept.totals.dropped + len(gone))
            failed = {i: one for i, one in kept.failed.items() if i not in gone}
            self._kept = replace(kept, failed=failed, totals=totals, dropped=kept.dropped | gone)
            return len(gone)

    def erase(self, erasure: Erasure, after: None, *, dry: bool = False) -> tuple[Removed, None]:
        with self._lock:
            kept = self._kept
            events, failed = dict(kept.events), dict(kept.failed)
            waiting = 0
            for event_id, event in kept.events.items():
                received = event.get("collector_tstamp", 0)
                if (event_id, received) in erasure.events or (received <= erasure.until_ms and erasure.who.in_columns(event)):
                    del events[event_id]
            for failed_id, (row, payload) in kept.failed.items():
                cut = erasure.cut(payload)
                understood = to_json(row)
                theirs = failed_id in erasure.failed or (
                    payload.received_ms <= erasure.until_ms
                    and (erasure.who.in_parameters(understood["parameters"]) or erasure.who.in_columns(understood["event"]))  # type: ignore[arg-type]
                )
                if theirs or (cut is not None and (row.event_index in cut.erased or row.event_index is None)):
                    waiting += row.replayed_tstamp is None
                    del failed[failed_id]
                elif cut is not None:
                    failed[failed_id] = row, cut
            removed = Removed(len(kept.events) - len(events), waiting)
            if dry:
                return removed, None
            self._kept = _less(kept, events, failed, removed, "erased")
            before = self._erased.get(erasure.id, Removed())
            self._erased[erasure.id] = now = Removed(before.events + removed.events, before.failed + removed.failed)
            return now, None

    def expire(self, rule: Rule, now_ms: int, after: None, *, dry: bool = False) -> tuple[Removed, None]:
        with self._lock:
            kept = self._kept
            before_ms = now_ms - rule.older_than_ms
            events = {i: event for i, event in kept.events.items() if not _fits(rule, before_ms, event)}
            failed = {
                i: (row, payload)
                for i, (row, payload) in kept.failed.items()
                if rule.schema
                or payload.received_ms >= before_ms
                or rule.app_id not in ("", row.app_id)
                or rule.event not in ("", row.event_name)
            }
            waiting = sum(row.replayed_tstamp is None for i, (row, _) in kept.failed.items() if i not in failed)
            removed = Removed(len(kept.events) - len(events), waiting)
            if not dry:
                self._kept = _less(kept, events, failed, removed, "expired")
            return removed, None

    def wipe(self) -> None:
        with self._lock:
            self._kept = _Kept()
            self._erased.clear()

    def _moment(self) -> Moment:
        self._commits += 1
        every, chance = self._config.every, self._config.probability
        fails = self._commits % every == 0 if every else self._random.random() < chance
        if not fails:
            return ""
        return self._random.choice(("before", "inside", "after")) if self._config.fail == "any" else self._config.fail


def _take(kept: _Kept, events: Sequence[Event], failed: Sequence[FailedEvent], payloads: int) -> tuple[_Kept, Counts]:
    """A new state; the old one is untouched, so that a failure in between keeps nothing."""

    def stored(ids: Sequence[str]) -> dict[str, str | None]:
        gone = {i: kept.gone[i] for i in ids if i in kept.gone}
        return gone | {i: identity(kept.events[i])[1] for i in ids if i in kept.events}

    new, duplicates = sort_out(events, stored)
    known = kept.failed.keys() | kept.dropped
    fresh = {clean(one.id): (to_row(one), one.payload) for one in reversed(failed) if clean(one.id) not in known}
    counts = Counts(payloads, len(new), len(fresh), duplicates + len(failed) - len(fresh))
    totals = Counts(*(had + came for had, came in zip(astuple(kept.totals), astuple(counts), strict=True)))
    now = kept.events | {identity(event)[0]: event for event in new}
    return replace(kept, events=now, failed=kept.failed | fresh, totals=totals), counts


def _less(
    kept: _Kept,
    events: dict[str, Event],
    failed: dict[str, tuple[FailedRow, RawPayload]],
    removed: Removed,
    counted: Literal["erased", "expired"],
) -> _Kept:
    """Without what is missing in events and failed."""
    totals = kept.totals
    totals = replace(totals, stored=totals.stored - removed.events, failed=totals.failed - removed.failed)
    totals = replace(totals, **{counted: getattr(totals, counted) + sum(removed)})
    gone = {i: identity(event)[1] for i, event in kept.events.items() if i not in events}
    return replace(kept, events=events, failed=failed, totals=totals, gone=kept.gone | gone)


def _fits(rule: Rule, before_ms: int, event: Event) -> bool:
    schema = "iglu:" + "/".join(str(event.get(f"event_{part}", "")) for part in ("vendor", "name", "format", "version"))
    return (
        event.get("collector_tstamp", 0) < before_ms
        and rule.app_id in ("", event.get("app_id"))
        and rule.event in ("", event.get("event_name"))
        and (not rule.schema or fnmatchcase(schema, rule.glob))
    )


def _resolve(
    kept: _Kept, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int
) -> tuple[_Kept, Counts | None]:
    """As `_take`; None when there is nothing to solve."""
    row, payload = kept.failed.get(failed_id, (None, None))
    if row is None or payload is None or row.replayed_tstamp:
        return kept, None
    kept, counts = _take(kept, events, [f for f in failed if f.id != failed_id], 0)
    again = [to_row(f) for f in failed if f.id == failed_id]
    if again:
        row = row._replace(**{n: getattr(again[0], n) for n in ("kind", "reasons", "first_reason", "failed_tstamp")})
    else:
        row = row._replace(replayed_tstamp=timestamp(replayed_ms))
        kept = replace(kept, totals=replace(kept.totals, failed=kept.totals.failed - 1))
    kept.failed[failed_id] = (row, payload)
    return kept, counts


def _same(one: Batch, other: Batch) -> bool:
    def ids(batch: Batch) -> list[object]:
        return [dict(batch.cursor), list(map(identity, batch.events)), [failed.id for failed in batch.failed]]

    return ids(one) == ids(other)
