"""Keeps events in Amazon Redshift: `events`, a table per schema, `failed_events`; docs/redshift.md describes them.

A batch is written to S3 and loaded by COPY, in one transaction with the look for duplicates, the totals, a row of the manifest
and the cursor. No other service takes part. What Redshift cannot hold becomes a failed event. Knows no clock but a timer.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, cast

from protocol.seams import (
    ConfigurationError,
    Cursor,
    Event,
    FailedEvent,
    Json,
    PermanentError,
    Position,
    RawPayload,
    Reason,
    TransientError,
)
from storage.duplicates import identity, sort_out
from storage.marks import mark_of
from storage.objects import open_objects
from storage.redshift import failures, removal
from storage.redshift.connection import Config as Config
from storage.redshift.connection import Link, Session
from storage.redshift.layout import Layout, TooNarrow
from storage.redshift.loading import LONGEST_URL, Load, literal, sweep
from storage.redshift.tables import Column, quoted
from storage.redshift.writing import Writer
from storage.targets import Batch, Counts, Erasure, Removed, Rule, SchemaLookup, Waiting
from storage.views import schemas_of

boto3: Any = import_module("boto3")

_FEW = 500  # ids that are looked up by name; more go by COPY into a table of their own
_LEAST = {"every_s": 0, "batch_payloads": 1, "batch_bytes": 1024, "timeout_s": 1}
_REMOVALS = ("spoorway_gone", "spoorway_erasures")
_STAGING = "spoorway_staging"
_STAGED = (Column("event_id", "char(36)", ()),)

T = TypeVar("T")


class _RowsRefused(Exception):
    """Redshift refused rows of these events (by id): the transaction is given up and begun again without them."""

    def __init__(self, reasons: Mapping[str, tuple[Reason, ...]]) -> None:
        super().__init__(f"{len(reasons)} events")
        self.reasons = reasons


class _Work:
    """One attempt: a transaction, its files, and the events that an attempt before it could not load."""

    def __init__(self, db: Session, load: Load, refused: Mapping[str, tuple[Reason, ...]]) -> None:
        self.db, self.load, self.refused = db, load, refused


class Plugin:
    def __init__(
        self,
        config: Config,
        schemas: SchemaLookup,
        *,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects to nothing before `cursor`. timer: seconds, monotonic. Raises ConfigurationError."""
        for name, least in _LEAST.items():
            if getattr(config, name) < least:
                raise ConfigurationError(f"redshift: {name} = {getattr(config, name)}: it must be at least {least}")
        if not config.url.startswith("s3://"):
            raise ConfigurationError(f"redshift: url = {config.url!r}: expected s3://BUCKET/PREFIX, from where Redshift loads")
        if not config.schema or "\0" in config.schema or len(config.schema.encode()) > 127:
            raise ConfigurationError("redshift: schema needs a name of 1 to 127 bytes")
        self.limits = (config.batch_payloads, config.batch_bytes)
        self._config, self._timer, self._sleep = config, timer, sleep
        self._schema = quoted(config.schema)
        self._lock = threading.Lock()
        self._layout = Layout(config, schemas)
        self._link = Link(config, self._layout.prepare)
        self._objects = open_objects(config.url, endpoint=config.endpoint, region=config.region, profile=config.profile)
        if len(self._objects.url("0" * 48)) > LONGEST_URL:
            raise ConfigurationError(
                f"redshift: url = {config.url!r} is too long; Redshift's errors name {LONGEST_URL} characters"
            )
        self._wait_until = 0.0

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        with self._lock, self._link.transaction() as db:
            return self._read_cursor(db)

    def totals(self) -> Counts:
        with self._lock, self._link.transaction() as db:
            ((payloads, stored, failed, duplicate, dropped, erased, expired),) = db.ask(
                f"SELECT payloads, stored, failed, duplicate, dropped, erased, expired FROM {self._schema}.spoorway_state"
            )
        return Counts(payloads, stored, failed, duplicate, dropped, erased=erased, expired=expired)

    def pause_s(self, finishing: bool) -> float:
        """Between two loads, because a COPY costs the same for few rows as for many; at the end everything is taken."""
        return 0.0 if finishing else max(0.0, self._wait_until - self._timer())

    def commit(self, batch: Batch) -> Counts:
        mark = mark_of(batch)
        with self._lock:
            counts = self._work(lambda work: self._commit(work, batch, mark))
            self._wait_until = 0.0 if batch.more else self._timer() + self._config.every_s
        return counts

    def close(self) -> None:
        with self._lock:
            self._link.close()

    # Failed events --------------------------------------------------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        with self._lock, self._link.transaction() as db:
            return failures.find(db, self._config.schema, kind, since_ms, limit, replayed)

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        with self._lock, self._link.transaction() as db:
            return failures.ids(db, self._config.schema, kind, since_ms, limit)

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        with self._lock, self._link.transaction() as db:
            return failures.show(db, self._config.schema, failed_id)

    def resolve(self, failed_id: str, events: Sequence[Event], failed: Sequence[FailedEvent], replayed_ms: int) -> Counts | None:
        with self._lock:
            return self._work(lambda work: self._resolve(work, [(failed_id, events, failed)], replayed_ms))[1]

    def resolve_all(self, resolutions: Iterable[tuple[str, Sequence[Event], Sequence[FailedEvent]]], replayed_ms: int) -> int:
        known = list(resolutions)
        with self._lock:
            return self._work(lambda work: self._resolve(work, known, replayed_ms))[0]

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        def dropping(work: _Work) -> int:
            waiting = failures.payloads_of(work.db, self._config.schema, failed_ids)
            failures.drop(work.db, self._config.schema, waiting, dropped_ms)
            self._add(work.db, Counts(failed=-len(waiting), dropped=len(waiting)))
            return len(waiting)

        with self._lock:
            return self._work(dropping)

    def waiting(self, after: tuple[str, str] | None, rows: int) -> tuple[list[Waiting], tuple[str, str] | None]:
        with self._lock, self._link.transaction() as db:
            return failures.waiting(db, self._config.schema, after, rows)

    def see_schemas(self, uris: Collection[str]) -> None:
        """Their documents are new or others than before: their tables get the columns they lack."""
        with self._lock:
            self._work(lambda work: self._layout.see(work.db, uris, again=True))

    # Keeper ---------------------------------------------------------------------------------------------------------

    def erase(self, erasure: Erasure, after: removal.Place | None, *, dry: bool = False) -> tuple[Removed, removal.Place | None]:
        """See Keeper.erase. The last piece also takes away what kills left in the bucket; it needs s3:ListBucket."""

        def erasing(db: Session) -> tuple[Removed, removal.Place | None]:
            removed, following = removal.erase(self._held(db), erasure, after, dry)
            if following is None and not dry:  # the state's table is locked: no load of this schema is under way
                sweep(self._objects)
            return removed, following

        return self._removing(erasing, dry)

    def expire(
        self, rule: Rule, now_ms: int, after: removal.Place | None, *, dry: bool = False
    ) -> tuple[Removed, removal.Place | None]:
        """See Keeper.expire. The bucket as for `erase`, as far as it goes: for nobody's sake loading should stop."""
        remember_ms = round(self._config.remember_days * 86_400_000)

        def expiring(db: Session) -> tuple[Removed, removal.Place | None]:
            removed, following = removal.expire(self._held(db), rule, now_ms, after, remember_ms, dry)
            if following is None and not dry:
                with suppress(TransientError, PermanentError):
                    sweep(self._objects)
            return removed, following

        return self._removing(expiring, dry)

    def wipe(self) -> None:
        """Begin again: no events or entities, no failed or dropped events, no cursor, all totals 0. One transaction."""

        def wiping(work: _Work) -> None:
            for name in ("events", "failed_events", "failed_payloads", "dropped_events", "manifest", *_REMOVALS):
                work.db.run(f"DELETE FROM {self._schema}.{name}")
            self._layout.empty(work.db)
            names = ("payloads", "stored", "failed", "duplicate", "dropped", "erased", "expired")
            zero = ", ".join(f"{name} = 0" for name in names)
            work.db.run(f"UPDATE {self._schema}.spoorway_state SET lanes = '{{}}', mark = '', {zero}")

        with self._lock:
            self._work(wiping)

    # Attempts -------------------------------------------------------------------------------------------------------

    def _work(self, does: Callable[[_Work], T]) -> T:
        """In one transaction; again as long as Redshift refuses rows, each time without those that it named."""
        refused: dict[str, tuple[Reason, ...]] = {}
        while True:
            load = Load(self._objects, self._access(), self._config.region, self._sleep)
            try:
                with self._link.transaction() as db:
                    db.run(f"LOCK TABLE {self._schema}.spoorway_state")
                    self._layout.follow(db)
                    return does(_Work(db, load, refused))
            except _RowsRefused as told:
                self._link.close()
                if told.reasons.keys() <= refused.keys():
                    raise PermanentError("redshift: COPY refuses rows that it was not given") from None
                refused |= told.reasons
            except TooNarrow as told:
                self._layout.widen(self._link, told)
                self._link.close()
            except BaseException:
                self._link.close()  # the next connection looks anew at what there is
                raise
            finally:
                load.clear()

    def _held(self, db: Session) -> removal.Store:
        return removal.Store(db, self._config.schema, self._layout.written(db), self._layout.inside(db))

    def _removing(
        self, piece: Callable[[Session], tuple[Removed, removal.Place | None]], dry: bool
    ) -> tuple[Removed, removal.Place | None]:
        with self._lock:
            if not dry:
                return self._work(lambda work: piece(work.db))
            with self._link.transaction() as db:
                return piece(db)

    def _access(self) -> str:
        """How Redshift may read what is written for it."""
        if self._config.role:
            role = self._config.role
            return "IAM_ROLE default" if role == "default" else f"IAM_ROLE {literal(role)}"
        found = boto3.session.Session(profile_name=self._config.profile or None).get_credentials()
        if found is None:
            raise PermanentError("redshift: no role is named, and there are no credentials to hand to COPY")
        keys = found.get_frozen_credentials()
        token = f" SESSION_TOKEN {literal(keys.token)}" if keys.token else ""
        return f"ACCESS_KEY_ID {literal(keys.access_key)} SECRET_ACCESS_KEY {literal(keys.secret_key)}{token}"

    def _commit(self, work: _Work, batch: Batch, mark: str) -> Counts:
        ((before, payloads, stored, failed, duplicate, erased),) = work.db.ask(
            "SELECT mark, last_payloads, last_stored, last_failed, last_duplicate, last_erased"
            f" FROM {self._schema}.spoorway_state"
        )
        cursor = self._read_cursor(work.db)
        if before == mark:  # this very batch: its commit had succeeded, only the caller did not hear of it
            return Counts(payloads, stored, failed, duplicate, erased=erased)
        cursor.update(batch.moved(cursor))
        counts = self._take(work, batch.events, batch.failed, batch.payloads, batch.erased)
        work.db.run(
            f"UPDATE {self._schema}.spoorway_state SET lanes = %s, mark = %s, last_payloads = %s, last_stored = %s,"
            " last_failed = %s, last_duplicate = %s, last_erased = %s",
            json.dumps(cursor),
            mark,
            *(counts.payloads, counts.stored, counts.failed, counts.duplicate, counts.erased),
        )
        return counts

    def _resolve(
        self, work: _Work, resolutions: Sequence[tuple[str, Sequence[Event], Sequence[FailedEvent]]], replayed_ms: int
    ) -> tuple[int, Counts | None]:
        """How many are solved, and what all of them counted; one load, however many they are."""
        schema = self._config.schema
        waiting = failures.payloads_of(work.db, schema, [failed_id for failed_id, _, _ in resolutions])
        # Of one that is named twice the first counts.
        known = {failed_id: (events, failed) for failed_id, events, failed in reversed(resolutions) if failed_id in waiting}
        if not known:
            return 0, None
        events = [event for some, _ in known.values() for event in some]
        others = [one for failed_id, (_, failed) in known.items() for one in failed if one.id != failed_id]
        counts = self._take(work, events, others, 0)
        for failed_id, (_, failed) in known.items():
            if again := next((one for one in failed if one.id == failed_id), None):
                failures.fail_again(work.db, schema, again)
                del waiting[failed_id]
        failures.solved(work.db, schema, waiting, replayed_ms)
        self._add(work.db, Counts(failed=-len(waiting)))
        return len(waiting), counts

    def _take(
        self, work: _Work, events: Sequence[Event], failed: Sequence[FailedEvent], payloads: int, erased: int = 0
    ) -> Counts:
        new, duplicates = sort_out(events, partial(self._stored, work))
        self._layout.see(work.db, schemas_of(new))
        writer = Writer(self._layout.events, self._layout.tables, self._config.too_long == "cut")
        unfit: list[FailedEvent] = []
        for event in new:
            if reasons := work.refused.get(identity(event)[0]) or writer.add(event):
                unfit.append(failures.unfit(event, reasons))
        self._store(work, writer)
        every = [*failed, *unfit]
        fresh = failures.keep(work.db, self._config.schema, every, partial(self._write, work))
        stored = len(new) - len(unfit)
        counts = Counts(payloads, stored, fresh, duplicates + len(every) - fresh, erased=erased)
        self._add(work.db, counts)
        return counts

    def _store(self, work: _Work, writer: Writer) -> None:
        """The lines, table by table. Raises _RowsRefused."""
        refused: defaultdict[str, list[Reason]] = defaultdict(list)
        for part in writer.parts():
            is_events = part.table == "events"
            errors = work.load.copy(work.db, self._config.schema, part.table, part.columns, part.lines, empty_is_null=is_events)
            for error in errors:
                value = part.value(error.line, error.column)
                refused[part.event_ids[error.line]].append(
                    Reason("redshift", f"{part.table}.{error.column}", error.message, value, f"error_{error.code}", part.schema)
                )
        if refused:
            raise _RowsRefused({event_id: tuple(reasons) for event_id, reasons in refused.items()})
        if writer.count:
            low, high, made, types, version = writer.facts()
            work.db.run(
                f"INSERT INTO {self._schema}.manifest VALUES (%s, %s, CAST(%s AS TIMESTAMP), CAST(%s AS TIMESTAMP),"
                f" CAST(%s AS TIMESTAMP), CAST(%s AS TIMESTAMP), GETDATE(), 'GZIP', 'spoorway', %s, {writer.count})",
                *(work.load.base, types, made, made, low, high, version[:32]),
            )

    def _write(self, work: _Work, table: str, columns: Sequence[Column], lines: Sequence[str]) -> None:
        if errors := work.load.copy(work.db, self._config.schema, table, columns, lines):
            raise PermanentError(
                f"redshift: {table}.{errors[0].column}: {errors[0].message}; its columns are not as they were made"
            )

    # Inside one transaction -----------------------------------------------------------------------------------------

    def _read_cursor(self, db: Session) -> dict[str, Position]:
        ((lanes,),) = db.ask(f"SELECT lanes FROM {self._schema}.spoorway_state")
        return {lane: Position(*place) for lane, place in json.loads(lanes).items()}

    def _stored(self, work: _Work, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Of these ids, the events that are stored or were until lately, with their fingerprints."""
        fitting = list({one: None for one in ids if one.isascii() and 0 < len(one) <= 36 and "\\" not in one})
        if not fitting:
            return {}

        def question(condition: str) -> str:
            return " UNION ALL ".join(
                f"SELECT trim(e.event_id), e.event_fingerprint FROM {self._schema}.{table} AS e {condition}"
                for table in ("spoorway_gone", "events")
            )

        if len(fitting) <= _FEW:
            marks = ", ".join(["%s"] * len(fitting))
            rows = work.db.ask(question(f"WHERE e.event_id IN ({marks})"), *fitting, *fitting)
            return dict(cast(list[tuple[str, str | None]], rows))
        # Many: a table for the length of the transaction, so that Redshift joins where it would compare.
        work.db.run(f"CREATE TEMP TABLE {_STAGING} (event_id CHAR(36) ENCODE RAW DISTKEY)")
        work.load.copy(work.db, "", _STAGING, _STAGED, fitting)
        rows = work.db.ask(question(f"JOIN {_STAGING} AS s ON s.event_id = e.event_id"))
        work.db.run(f"DROP TABLE {_STAGING}")
        return dict(cast(list[tuple[str, str | None]], rows))

    def _add(self, db: Session, counts: Counts) -> None:
        names = ("payloads", "stored", "failed", "duplicate", "dropped", "erased")
        changed = {name: value for name in names if (value := getattr(counts, name))}
        if changed:
            sums = ", ".join(f"{name} = {name} + {value}" for name, value in changed.items())
            db.run(f"UPDATE {self._schema}.spoorway_state SET {sums}")
