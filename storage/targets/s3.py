"""Keeps events as Parquet or canonical TSV in S3, in a store that speaks as S3 does, or in a folder; docs/s3.md describes it.

A batch is one conditional PUT (storage/lake/commits.py); only then its files appear in their places (storage/lake), so readers
never see what was not committed. Which events came before is asked of a local index that can be lost, and that follows the
commits of other loaders. Knows no wall clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, NamedTuple, cast

import orjson

from protocol.seams import ConfigurationError, Cursor, Event, FailedEvent, Json, RawPayload, TransientError
from storage import lake
from storage.duplicates import sort_out
from storage.lake import commits, failures, removal
from storage.lake.commits import Commit
from storage.lake.failures import Failures, Line, failed_again
from storage.lake.index import Index, Known
from storage.lake.writing import WRITERS, events_in, failed_in, files
from storage.marks import mark_of
from storage.objects import NoSuchObject, open_objects
from storage.rows import clean, column
from storage.targets import Batch, Counts, Erasure, Removed, Rule, SchemaLookup, Waiting

_KINDS = {"parquet": (lake.EVENTS,), "tsv": (lake.TSV,), "both": (lake.EVENTS, lake.TSV)}
_ERASURES = "_spoorway/erasures/"
_TRIES = 20  # for the next number, which another loader may take
Resolution = tuple[str, Sequence[Event], Sequence[FailedEvent]]
_LEAST = {"every_s": 0, "batch_payloads": 1, "batch_bytes": 1024, "remember_days": 0}


@dataclass(frozen=True, slots=True)
class Config:
    """url: `s3://bucket/prefix`, or a folder. endpoint: of a store that is not Amazon's; profile: in ~/.aws; "" = as the AWS CLI.

    format: of the events. every_s: a batch waits so long for more, unless batch_payloads or batch_bytes (of the journal) are
    there. remember_days: an event that comes again is known so long, by the day it was received; 0 = for ever.
    state: the local index of ids; "" = DATA/NAME.s3.db.
    """

    url: str = ""
    endpoint: str = ""
    region: str = ""
    profile: str = ""
    format: Literal["parquet", "tsv", "both"] = "parquet"
    every_s: float = 60.0
    batch_payloads: int = 20_000
    batch_bytes: int = 16_777_216
    remember_days: int = 90
    state: str = ""


class _Change(NamedTuple):
    """What a commit does to what older ones stored; None: there is nothing to do. done: how many it solves or drops."""

    commit: Commit | None = None
    bodies: Sequence[bytes] = ()
    done: int = 0
    counts: Counts | None = None


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup, *, timer: Callable[[], float] = time.monotonic) -> None:
        """Opens the index; the store is not asked before `cursor`. timer: seconds. Raises ConfigurationError, PermanentError."""
        for name, least in _LEAST.items():
            if getattr(config, name) < least:
                raise ConfigurationError(f"{name} = {getattr(config, name)}: it must be at least {least}")
        if not config.state:
            raise ConfigurationError("state: no file for the index of ids is named")
        try:
            for kind in _KINDS[config.format]:
                WRITERS[kind]()
        except ModuleNotFoundError as error:
            raise ConfigurationError(f'format = "{config.format}" needs {error.name}; install spoorway[s3]') from None
        self.limits = (config.batch_payloads, config.batch_bytes)
        self._config, self._timer = config, timer
        self._lock = threading.Lock()
        self._objects = open_objects(config.url, endpoint=config.endpoint, region=config.region, profile=config.profile)
        self._index = Index(Path(config.state))
        self._failures = Failures(self._objects, self._index.failed)
        self._checked = False  # that the store heeds conditions
        self._last: Commit | None = None  # None: to be asked
        self._alone = True  # no other loader has been met; while that is so, the store need not be asked before each commit
        self._wait_until = 0.0

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        with self._lock:
            self._last = None
            return dict(self._newest().cursor)

    def totals(self) -> Counts:
        with self._lock:
            return self._newest().totals

    def pause_s(self, finishing: bool) -> float:
        """Between two batches, so that files are not tiny; at the end everything is taken."""
        return 0.0 if finishing else max(0.0, self._wait_until - self._timer())

    def commit(self, batch: Batch) -> Counts:
        mark = mark_of(batch)
        with self._lock:
            for _ in range(_TRIES):
                if not self._alone:
                    self._last = None
                last = self._newest()
                # The very batch that was committed last is not committed again; only the caller did not hear of it.
                done = last if last.mark == mark else self._add(last, batch, mark)
                if done is not None:
                    self._wait_until = 0.0 if batch.more else self._timer() + self._config.every_s
                    return done.counted
                self._alone = False
            raise self._too_late()

    def close(self) -> None:
        with self._lock:
            self._index.close()

    def wipe(self) -> None:
        """Begin again: every file is deleted, no cursor, all totals 0."""
        with self._lock:
            last = self._newest()
            self._last = None
            self._failures.forget()
            number = last.number + 1
            if not commits.add(self._objects, Commit(number, f"{number}-wiped-{last.mark}", wiped=True), ()):
                raise self._too_late()
            self._newest()

    # FailedStore ----------------------------------------------------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        with self._looking() as held:
            return held.listed(kind, since_ms, limit, replayed)

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        with self._looking() as held:
            return held.ids(kind, since_ms, limit)

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        with self._looking() as held:
            return held.show(failed_id)

    def resolve(self, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int) -> Counts | None:
        return self._changed(lambda last: self._resolve(last, [(failed_id, events, failed)], replayed_ms)).counts

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        return self._changed(lambda last: self._drop(last, failed_ids, dropped_ms)).done

    # WaitingStore ---------------------------------------------------------------------------------------------------

    def waiting(self, after: failures.Place | None, rows: int) -> tuple[list[Waiting], failures.Place | None]:
        with self._looking() as held:
            return held.waiting(after, rows)

    def resolve_all(self, resolutions: Iterable[Resolution], replayed_ms: int) -> int:
        made = list(resolutions)
        return self._changed(lambda last: self._resolve(last, made, replayed_ms)).done

    def see_schemas(self, uris: Collection[str]) -> None:
        """Nothing is made of schemas here."""

    # Keeper ---------------------------------------------------------------------------------------------------------

    def erase(self, erasure: Erasure, after: removal.Place | None, *, dry: bool = False) -> tuple[Removed, removal.Place | None]:
        return self._remove(removal.Theirs(erasure), after, dry, erasure.id)

    def expire(
        self, rule: Rule, now_ms: int, after: removal.Place | None, *, dry: bool = False
    ) -> tuple[Removed, removal.Place | None]:
        return self._remove(removal.Old(rule, now_ms), after, dry)

    def _remove(
        self, going: removal.Going, after: removal.Place | None, dry: bool, erasure_id: str = ""
    ) -> tuple[Removed, removal.Place | None]:
        """One commit, which moves no cursor. The index keeps the ids: what comes again is a duplicate."""
        if dry:
            step = removal.look(self._objects, going, after, None)
            return step.removed, step.following
        with removal.alone(self._config.state), self._lock:
            last = self._newest()
            counted = f"{_ERASURES}{erasure_id}" if erasure_id else ""
            found = self._objects.get_with_etag(counted) if counted else None
            before = Removed(*orjson.loads(found[0])) if found else Removed()
            step = removal.look(self._objects, going, after, last.number + 1)
            removed = Removed(before.events + step.removed.events, before.failed + step.removed.failed)
            if step.replaced:
                if counted:
                    step.made.append((counted, orjson.dumps(list(removed))))
                self._take_out(last, step, bool(erasure_id))
        return removed, step.following

    @contextmanager
    def _looking(self) -> Generator[Failures]:
        with self._lock:
            self._newest()
            yield self._failures

    def _changed(self, change: Callable[[Commit], _Change]) -> _Change:
        """One commit, which moves no cursor. change: what it would be after the last; asked anew when a loader was quicker."""
        with removal.alone(self._config.state), self._lock:
            for _ in range(_TRIES):
                self._last = None  # who asks is often not the one who loads
                last = self._newest()
                self._failures.forget()
                made = change(last)
                if made.commit is None:
                    return made
                self._last = None
                if commits.add(self._objects, made.commit, made.bodies):
                    self._last = self._settle(made.commit, b"".join(made.bodies))
                    self._catch_up(self._last)
                    self._failures.forget()
                    return made
            raise self._too_late()

    def _resolve(self, last: Commit, resolutions: Sequence[Resolution], replayed_ms: int) -> _Change:
        held = self._failures.find([failed_id for failed_id, _, _ in resolutions])
        changes: dict[str, Line] = {}
        events: list[Event] = []
        others: list[FailedEvent] = []
        solved = 0
        for failed_id, some, failed in resolutions:
            found = held.get(failed_id)
            if found is None or found[1].get("replayed_tstamp") or failed_id in changes:
                continue
            events += some
            others += [one for one in failed if one.id != failed_id]
            again = next((one for one in failed if one.id == failed_id), None)
            changes[failed_id] = failed_again(found[1], again) if again else failures.solved(found[1], replayed_ms)
            solved += again is None
        if not changes:
            return _Change()
        new, duplicates = sort_out(events, self._index.stored)
        fresh = self._fresh(others)
        counts = Counts(0, len(new), len(fresh), duplicates + len(others) - len(fresh))
        made, replaced = self._failures.rewritten(changes, [held[one][0] for one in changes], last.number + 1)
        made += files(last.number + 1, new, fresh, _KINDS[self._config.format])
        totals = _sum(last.totals, counts)
        return _change(last, replace(totals, failed=totals.failed - solved), made, replaced, solved, counts)

    def _drop(self, last: Commit, failed_ids: Sequence[str], dropped_ms: int) -> _Change:
        found = self._failures.find(failed_ids)
        going = {one: held for one, held in found.items() if not held[1].get("replayed_tstamp")}
        if not going:
            return _Change()
        made, replaced = self._failures.rewritten(dict.fromkeys(going), [piece for piece, _ in going.values()], last.number + 1)
        made += failures.dropped_files(last.number + 1, list(going.values()), dropped_ms)
        had, count = last.totals, len(going)
        return _change(last, replace(had, failed=had.failed - count, dropped=had.dropped + count), made, replaced, count)

    # Within the lock ------------------------------------------------------------------------------------------------

    def _newest(self) -> Commit:
        """The last commit, with its files in their places and its ids in the index. Raises TransientError, PermanentError."""
        if self._last is None:
            if not self._checked:
                commits.check(self._objects)
                self._checked = True
            last, bodies = commits.newest(self._objects)
            if last.number and not last.settled:
                last = self._settle(last, bodies)
            self._catch_up(last)
            self._last = last
        return self._last

    def _add(self, last: Commit, batch: Batch, mark: str) -> Commit | None:
        """None: another loader took the number, and what it stored has to be known first. Raises Overtaken."""
        moved = batch.moved(last.cursor)
        new, duplicates = sort_out(batch.events, self._index.stored)
        fresh = self._fresh(batch.failed)
        duplicates += len(batch.failed) - len(fresh)
        counts = Counts(batch.payloads, len(new), len(fresh), duplicates, erased=batch.erased)
        number = last.number + 1
        made = list(files(number, new, fresh, _KINDS[self._config.format]))
        commit = Commit(
            number,
            last.origin or mark,
            mark,
            {**last.cursor, **moved},
            _sum(last.totals, counts),
            counts,
            tuple((name, len(body)) for name, body in made),
        )
        bodies = [body for _, body in made]
        self._last = None  # whatever happens now, the store is asked
        if not commits.add(self._objects, commit, bodies):
            found = self._newest()
            return found if found.mark == mark else None  # an attempt of ours that seemed to fail
        commit = self._settle(commit, b"".join(bodies))
        if self._index.reached() == (last.origin, last.number):
            self._remember(commit, new, fresh)
        else:
            self._catch_up(commit)
        self._last = commit
        return commit

    def _take_out(self, last: Commit, step: removal.Step, erased: bool) -> None:
        had, (events, failed) = last.totals, step.removed
        totals = replace(
            had,
            stored=had.stored - events,
            failed=had.failed - failed,
            erased=had.erased + (events + failed if erased else 0),
            expired=had.expired + (0 if erased else events + failed),
        )
        change = _change(last, totals, step.made, step.replaced, sum(step.removed))
        assert change.commit is not None
        self._last = None  # whatever happens now, the store is asked
        if commits.add(self._objects, change.commit, change.bodies):
            self._last = self._settle(change.commit, b"".join(change.bodies))
            self._catch_up(self._last)
        elif replace(self._newest(), settled=False) != change.commit:  # otherwise an attempt of ours that seemed to fail
            raise self._too_late()

    def _too_late(self) -> TransientError:
        self._alone, self._last = False, None
        return TransientError(f"{self._config.url}: another loader committed at the same time; this one tries again")

    def _fresh(self, failed: Sequence[FailedEvent]) -> list[FailedEvent]:
        """Those that are new, each once."""
        first = {clean(one.id): one for one in reversed(failed)}
        known = self._index.failed(list(first))
        return [one for one in first.values() if clean(one.id) not in known][::-1]

    def _settle(self, commit: Commit, bodies: bytes) -> Commit:
        if commit.wiped:
            self._objects.delete([piece.name for kind in lake.SUFFIXES for piece in lake.pieces(self._objects.list(f"{kind}/"))])
            self._objects.delete([found.name for found in self._objects.list(_ERASURES)])
        return commits.settle(self._objects, commit, bodies)

    def _remember(self, commit: Commit, events: Sequence[Event], failed: Sequence[FailedEvent]) -> None:
        ids = column("event_id", [event.get("event_id") for event in events])
        fingerprints = column("event_fingerprint", [event.get("event_fingerprint") for event in events])
        of_day = [lake.day_of(event.get("collector_tstamp")) for event in events]
        known = cast(list[Known], list(zip(ids, fingerprints, of_day, strict=True)))
        days = [(clean(one.id), lake.day_of(one.payload.received_ms)) for one in failed]
        newest = max((*of_day, *(day for _, day in days)), default="")
        self._index.add(known, days, (commit.origin, commit.number), self._forget_before(newest))

    def _forget_before(self, newest: str) -> str:
        """The first day that is still remembered; "" = nothing is forgotten."""
        if not newest or not self._config.remember_days:
            return ""
        return str(date.fromisoformat(newest) - timedelta(days=self._config.remember_days))

    def _catch_up(self, last: Commit) -> None:
        """The index reads what it has not seen: the files of one commit after a crash, all of them when it was lost."""
        origin, number = self._index.reached()
        if origin != last.origin or number > last.number:
            self._index.begin(last.origin)
            number = 0
        if number == last.number:
            return
        for piece in self._unseen(number):
            try:
                with self._objects.open(piece.name) as file:
                    if piece.kind in (lake.FAILED, lake.DROPPED):
                        self._index.add((), failed_in(piece, file))
                    else:
                        self._index.add(events_in(piece, file), ())
            except NoSuchObject as error:  # merged since the listing
                raise TransientError(str(error)) from error
        self._index.add((), (), (last.origin, last.number))

    def _unseen(self, number: int) -> Iterator[lake.Piece]:
        for kind in lake.SUFFIXES:
            live, _ = lake.sorted_out(self._objects.list(f"{kind}/"))
            first = self._forget_before(max((piece.day for piece in live), default=""))
            yield from (piece for piece in live if piece.last > number and piece.day >= first)


def _change(
    last: Commit,
    totals: Counts,
    made: Sequence[tuple[str, bytes]],
    replaced: Sequence[str],
    done: int,
    counts: Counts | None = None,
) -> _Change:
    """made: files, as (name, bytes). replaced: names of those that go for them."""
    commit = replace(
        last,
        number=last.number + 1,
        totals=totals,
        objects=tuple((name, len(body)) for name, body in made),
        replaced=tuple(replaced),
        wiped=False,
        settled=False,
    )
    return _Change(commit, [body for _, body in made], done, counts)


def _sum(had: Counts, came: Counts) -> Counts:
    return Counts(*(one + other for one, other in zip(astuple(had), astuple(came), strict=True)))
