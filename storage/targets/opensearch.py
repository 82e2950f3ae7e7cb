"""Keeps events in OpenSearch, or Elasticsearch, as documents of a data stream; docs/opensearch.md describes it.

A store without transactions: documents carry the number of their commit, and a commit is done when the one document that holds
the cursor and the counts says that number (storage/opensearch/store.py). That document is replaced only as the version that was
read, so of two commits at the same time one comes to nothing and is tried again: several loaders take turns, and are no faster
than one. Knows no clock.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from protocol import payloads
from protocol.seams import ConfigurationError, Cursor, Event, FailedEvent, Json, PermanentError, RawPayload
from storage.duplicates import identity, sort_out
from storage.failed import waits_for
from storage.marks import mark_of
from storage.opensearch import removal
from storage.opensearch.documents import (
    COMMIT,
    document,
    event_key,
    failed_document,
    failed_key,
    failed_row,
    iso,
    unfit,
)
from storage.opensearch.server import Config
from storage.opensearch.store import Document, Late, State, Store, Todo
from storage.rows import clean, json_text
from storage.targets import Batch, Counts, Erasure, Removed, Rule, SchemaLookup, Waiting

_ASK = 5_000  # ids of one question, documents of one answer
_RECENT = 20_000  # ids remembered instead of asking the store to make them searchable
_TRIES = 10
_NEWEST_FIRST: Sequence[Document] = ({"failed_tstamp": "desc"}, {"failed_id": "asc"})
_REASONS = ("kind", "reasons", "first_reason", "failed_tstamp")  # of a failed event, what another try may change

_T = TypeVar("_T")
Resolution = tuple[str, Sequence[Event], Sequence[FailedEvent]]


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup) -> None:
        """The store is not asked before `cursor`. schemas: of no use, a document names its fields. Raises ConfigurationError."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", config.name):
            raise ConfigurationError(f"opensearch: name: {config.name!r}; expected small letters, digits, - _ and .")
        if config.bulk_bytes < 1 or config.shards < 1 or config.replicas < 0:
            raise ConfigurationError("opensearch: bulk_bytes and shards must be at least 1, replicas at least 0")
        self._remember_ms = round(config.remember_days * 86_400_000)
        self._store = Store(config)
        self._lock = threading.Lock()
        self._last: State | None = None  # of our last commit; None: what failed since may have left something
        self._recent: dict[str, str | None] = {}  # stored, and perhaps not searchable yet

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        with self._lock:
            return dict(self._store.read().cursor)

    def totals(self) -> Counts:
        with self._lock:
            return self._store.read().totals

    def commit(self, batch: Batch) -> Counts:
        mark = mark_of(batch)
        with self._lock:
            last, self._last = self._last, None  # whatever happens now, it must be put in order
            state = self._store.read()  # each time, so that a loader that was overtaken writes nothing
            if state.mark != mark:
                moved = batch.moved(state.cursor)
                state = self._in_order(last, state)
                counts, stored = self._take(state, batch.events, batch.failed)
                counts = replace(counts, payloads=batch.payloads, erased=batch.erased)
                cursor = {**state.cursor, **moved}
                state = replace(state, cursor=cursor, totals=_sum(state.totals, counts), mark=mark, counted=counts)
                self._last = state = self._committed(state, stored)
            # Otherwise this very batch was committed before; only the caller did not hear of it.
            return state.counted

    def close(self) -> None:
        with self._lock:
            self._store.server.close()

    def wipe(self) -> None:
        """Begin again: every document is deleted, no cursor, all totals 0."""
        with self._lock:
            self._last = None
            self._recent.clear()
            state = self._store.read()
            state = self._store.write(State(state.version, state.commit, wiped=True, void=state.void))
            self._last = self._store.put_in_order(state)

    # FailedStore ----------------------------------------------------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        with self._lock:
            hits = self._failed(kind, since_ms, limit, replayed, {"excludes": ["payload"]})
            return [failed_row(hit["_source"]) for hit in hits]

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        with self._lock:
            return [hit["_id"] for hit in self._failed(kind, since_ms, limit, False, False)]

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        """One failed event, and the payload as long as one of those that came in it waits."""
        with self._lock:
            state = self._seen()
            found = self._store.get(self._store.failed, [failed_id]).get(failed_id)
            if found is None or not _is_committed(found["_source"], state):
                return None
            row: Document = found["_source"]
            kept = row.get("payload")
            if kept is None:  # solved: then who came with it and waits has it
                others = [*state.committed, {"term": {"payload_id": row["payload_id"]}}, _WAITS]
                for hit in self._store.search(self._store.failed, others, 1):
                    kept = hit["_source"]["payload"]
            return failed_row(row), payloads.from_fields(kept) if kept else None

    def resolve(self, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int) -> Counts | None:
        with self._lock:
            return self._tried(lambda: self._resolve([(failed_id, events, failed)], replayed_ms))[0]

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        """Their documents go; that they were is told in the index of what is gone."""
        with self._lock:
            return self._tried(lambda: self._drop(failed_ids, dropped_ms))

    # WaitingStore ---------------------------------------------------------------------------------------------------

    def waiting(self, after: list[str] | None, rows: int) -> tuple[list[Waiting], list[str] | None]:
        with self._lock:
            state = self._seen()
            rows = min(rows, _ASK)
            names = ["failed_id", "payload_id", "event_index", "reasons", "replayed_tstamp"]
            order = [{"payload_id": "asc"}, {"failed_id": "asc"}]
            hits = self._store.search(self._store.failed, state.committed, rows, sort=order, after=after or (), _source=names)
            found = [hit["_source"] for hit in hits]
            waits = [
                Waiting(row["failed_id"], row["payload_id"], row["event_index"], unknown)
                for row in found
                if row.get("replayed_tstamp") is None and (unknown := waits_for(json_text(row["reasons"])))
            ]
            return waits, hits[-1]["sort"] if len(hits) == rows else None

    def resolve_all(self, resolutions: Iterable[Resolution], replayed_ms: int) -> int:
        made = list(resolutions)
        with self._lock:
            return self._tried(lambda: self._resolve(made, replayed_ms))[1]

    def see_schemas(self, uris: Collection[str]) -> None:
        """Nothing is made of schemas here."""

    # Keeper ---------------------------------------------------------------------------------------------------------

    def erase(self, erasure: Erasure, after: removal.Place | None, *, dry: bool = False) -> tuple[Removed, removal.Place | None]:
        with self._lock:
            state = self._seen() if dry else self._searchable(self._in_order(*self._mine()))
            found = removal.theirs(self._store, state, erasure, after, dry)
            removed = Removed(len(found.events), found.waiting)
            if dry:
                return removed, found.following
            before = Removed(*state.removed.get(erasure.id, Removed()))
            told = Removed(before.events + removed.events, before.failed + removed.failed)
            totals = replace(state.totals, erased=state.totals.erased + sum(removed))
            state = replace(state, totals=totals, removed={**state.removed, erasure.id: list(told)})
            self._last = self._removed(state, found, erasure.until_ms)
            return told, found.following

    def expire(
        self, rule: Rule, now_ms: int, after: removal.Place | None, *, dry: bool = False
    ) -> tuple[Removed, removal.Place | None]:
        with self._lock:
            state = self._seen() if dry else self._searchable(self._in_order(*self._mine()))
            if after is None and not dry:
                self._store.delete(self._store.gone, {"range": {"gone_tstamp": {"lt": iso(now_ms - self._remember_ms)}}})
            found = removal.old(self._store, state, rule, now_ms, after)
            removed = Removed(len(found.events), found.waiting)
            if not dry:
                totals = replace(state.totals, expired=state.totals.expired + sum(removed))
                self._last = self._removed(replace(state, totals=totals), found, now_ms)
            return removed, found.following

    # Within the lock ------------------------------------------------------------------------------------------------

    def _mine(self) -> tuple[State | None, State]:
        """For `_in_order`: the state of our last commit, which is forgotten until the next is done, and what it is now."""
        last, self._last = self._last, None
        return last, self._store.read()

    def _in_order(self, last: State | None, state: State) -> State:
        """The state after which we may commit; what is stored is searchable, or in `_recent`."""
        if last is not None and last.version == state.version:
            return state
        self._recent.clear()
        return self._store.put_in_order(state)

    def _seen(self) -> State:
        """For a look: what was committed can be searched."""
        return self._searchable(self._tried(lambda: self._store.settle(self._store.read())))

    def _searchable(self, state: State) -> State:
        self._store.refresh(f"{self._store.events},{self._store.failed}")
        self._recent.clear()
        return state

    def _tried(self, do: Callable[[], _T]) -> _T:
        """Again when a loader was quicker: it waits a while before it tries again, and we do not."""
        for _ in range(_TRIES):
            with suppress(Late):
                return do()
        return do()

    def _take(self, state: State, events: Sequence[Event], offered: Sequence[FailedEvent]) -> tuple[Counts, list[Event]]:
        """Writes what is new, under the number of the next commit; the counts of it, and the events."""
        number = state.commit + 1
        new, duplicates = sort_out(events, partial(self._stored, state))
        keys = [(identity(event)[0], event) for event in new]
        refused = self._store.create(self._store.events, ((key, {**document(event), COMMIT: number}) for key, event in keys))
        stored = [event for key, event in keys if key not in refused]
        offered = [*offered, *(unfit(event, refused[key]) for key, event in keys if key in refused)]
        fresh = self._fresh(state, offered)
        documents = ((key, {**failed_document(one), COMMIT: number}) for key, one in fresh.items())
        if strange := self._store.create(self._store.failed, documents):
            raise PermanentError(f"{self._store.failed}: a failed event is refused: {next(iter(strange.values())).message}")
        return Counts(0, len(stored), len(fresh), duplicates + len(offered) - len(fresh)), stored

    def _committed(self, state: State, stored: Sequence[Event] = ()) -> State:
        """The next commit, and what it leaves to do."""
        done = self._store.settle(self._store.write(replace(state, commit=state.commit + 1)))
        self._recent.update(map(identity, stored))
        if len(self._recent) > _RECENT:
            self._store.refresh(self._store.events)
            self._recent.clear()
        return done

    def _removed(self, state: State, found: removal.Found, gone_ms: int) -> State:
        if not found.events and not found.failed:
            return state
        remembered = {
            event_key(one): {"event_fingerprint": mark, "gone_tstamp": iso(gone_ms)} for one, mark in found.events.items()
        }
        had = state.totals
        totals = replace(had, stored=had.stored - len(found.events), failed=had.failed - found.waiting)
        todo = Todo(state.commit + 1, list(found.events), found.failed, remembered=remembered)
        return self._committed(replace(state, totals=totals, todo=todo))

    def _drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        state = self._in_order(*self._mine())
        waiting = self._waiting(failed_ids)
        if waiting:
            remembered = {
                failed_key(one): {
                    "dropped_tstamp": iso(dropped_ms),
                    "kind": row["kind"],
                    "collector_tstamp": row["collector_tstamp"],
                }
                for one, row in waiting.items()
            }
            had, count = state.totals, len(waiting)
            totals = replace(had, failed=had.failed - count, dropped=had.dropped + count)
            todo = Todo(state.commit + 1, failed=list(waiting), remembered=remembered)
            state = self._committed(replace(state, totals=totals, todo=todo))
        self._last = state
        return len(waiting)

    def _resolve(self, resolutions: Sequence[Resolution], replayed_ms: int) -> tuple[Counts | None, int]:
        """In one commit: what it counted (None: nothing was to be solved), and how many are solved."""
        state = self._in_order(*self._mine())
        waiting = self._waiting([failed_id for failed_id, _, _ in resolutions])
        made = {failed_id: (events, failed) for failed_id, events, failed in resolutions if failed_id in waiting}
        if not made:
            self._last = state
            return None, 0
        events = [event for some, _ in made.values() for event in some]
        others = [one for failed_id, (_, failed) in made.items() for one in failed if one.id != failed_id]
        again = {failed_id: one for failed_id, (_, failed) in made.items() for one in failed if one.id == failed_id}
        counts, stored = self._take(state, events, others)
        changed: dict[str, Document] = {key: {"replayed_tstamp": iso(replayed_ms), "payload": None} for key in made}
        for failed_id, one in again.items():
            told = failed_document(one)
            changed[failed_id] = {name: told[name] for name in _REASONS}
        solved = len(made) - len(again)
        totals = _sum(state.totals, counts)
        state = replace(
            state, totals=replace(totals, failed=totals.failed - solved), todo=Todo(state.commit + 1, changed=changed)
        )
        self._last = self._committed(state, stored)
        return counts, solved

    def _waiting(self, failed_ids: Sequence[str]) -> dict[str, Document]:
        """Of those that wait among these: the documents, as far as a drop tells of them. Everything must be in order."""
        names = ["kind", "collector_tstamp", "replayed_tstamp"]
        found = self._store.get(self._store.failed, dict.fromkeys(failed_ids), names)
        return {key: one["_source"] for key, one in found.items() if one["_source"].get("replayed_tstamp") is None}

    def _failed(
        self, kind: str | None, since_ms: int | None, limit: int, replayed: bool, source: bool | Document
    ) -> Iterator[dict[str, Any]]:
        conditions = self._seen().committed
        if kind is not None:
            conditions.append({"term": {"kind": kind}})
        if since_ms is not None:
            conditions.append({"range": {"failed_tstamp": {"gte": iso(since_ms)}}})
        if not replayed:
            conditions.append(_WAITS)
        after: Sequence[Any] = ()
        while limit > 0:
            size = min(limit, _ASK)
            hits = self._store.search(self._store.failed, conditions, size, sort=_NEWEST_FIRST, after=after, _source=source)
            yield from hits
            limit -= len(hits)
            if len(hits) < size:
                return
            after = hits[-1]["sort"]

    def _stored(self, state: State, ids: Sequence[str]) -> Mapping[str, str | None]:
        found = {key: self._recent[key] for key in ids if key in self._recent}
        rest = iter([key for key in dict.fromkeys(ids) if key not in found])
        while asked := list(islice(rest, _ASK)):
            conditions: list[Document] = [{"ids": {"values": asked}}, *state.committed]
            for hit in self._store.search(self._store.events, conditions, _ASK, _source=["event_fingerprint"]):
                found[hit["_id"]] = hit.get("_source", {}).get("event_fingerprint")
            if state.totals.erased or state.totals.expired:
                gone = self._store.get(self._store.gone, map(event_key, asked))
                for key in asked:
                    if told := gone.get(event_key(key)):
                        found.setdefault(key, told["_source"]["event_fingerprint"])
        return found

    def _fresh(self, state: State, offered: Sequence[FailedEvent]) -> dict[str, FailedEvent]:
        """Those that are new, each once, by their ids."""
        first = {clean(one.id): one for one in reversed(offered)}
        known = self._store.get(self._store.failed, list(first), [COMMIT])
        # One that was never committed is in the way: making it anew is refused, and it goes before the next try.
        first = {key: one for key, one in first.items() if key not in known or not _is_committed(known[key]["_source"], state)}
        if state.totals.dropped:
            gone = self._store.get(self._store.gone, map(failed_key, first), ())
            first = {key: one for key, one in first.items() if failed_key(key) not in gone}
        return dict(reversed(first.items()))


_WAITS: Document = {"bool": {"must_not": {"exists": {"field": "replayed_tstamp"}}}}


def _is_committed(row: Document, state: State) -> bool:
    return row[COMMIT] <= state.commit and row[COMMIT] not in state.void


def _sum(had: Counts, came: Counts) -> Counts:
    return Counts(*(one + other for one, other in zip(astuple(had), astuple(came), strict=True)))


__all__ = ["Config", "Plugin"]
