"""Journal -> enrichment -> target, batch after batch: one loop per target, so that a target that is down delays nobody.

The rows and the place in the journal are one commit of the target; a crash between two commits repeats nothing. A target that
takes payloads gets them without enrichment, and says itself when it wants the next ones.

Several loaders may share a target, each with lanes of its own. When a loader's lanes are others now, or another loader was in
one of them, the target is asked anew where it stands: its cursor is the only one that counts.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from threading import Event as Signal
from typing import TYPE_CHECKING, Any, cast

from enrich.reasons import derived_id, reason
from gateway.journal import JOINED_IN_MS, Chunk, Damage, GroupReader, Joining, Reader, Reassigned
from protocol.seams import Cursor, Event, FailedEvent, PermanentError, Position, RawPayload, TransientError
from storage.targets import Batch, Counts, Overtaken, PayloadTarget, RawBatch, Target

if TYPE_CHECKING:  # which validates, and is large: a process that only forwards does without
    from enrich.pipeline import Pipeline

log = logging.getLogger("spoorway.loader")

BATCH_PAYLOADS = 2_000
BATCH_BYTES = 1 << 20
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.1
_IDLE_ROUNDS = 200  # about four seconds of short waits before the long ones
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 5.0
_LONGEST_JOINING_S = 0.5
_OTHERS_EVERY_MS = 10_000
_OWN = ("payloads", "stored", "failed", "duplicate")
_LONGEST_PAUSE_S = 1.0  # then what waits is counted again


@dataclass(slots=True)
class Status:
    """What is told of a target: state is starting, loading, waiting, retrying, held, stopped or finished.

    held: its other side takes no payloads now, so the journal keeps them; nothing is wrong here. contact_ms, error, error_ms,
    errors: see storage.targets.Contact.
    Of a loader among several, beside the counts of the whole target: own, what this one committed since it began; lag, payloads
    that wait in each lane it has now; reassigned, how often it got other lanes; overtaken, how often a commit was refused
    because another loader had been there.
    """

    target: str
    state: str = "starting"
    message: str = ""
    payloads: int = 0
    stored: int = 0
    failed: int = 0
    duplicate: int = 0
    dropped: int = 0
    pending: int = 0
    committed_ms: int = 0
    forwarded: int = 0
    contact_ms: int = 0
    error: str = ""
    error_ms: int = 0
    errors: dict[str, int] = field(default_factory=dict[str, int])
    erased: int = 0
    expired: int = 0
    own: dict[str, int] = field(default_factory=dict[str, int])
    lag: dict[str, int] = field(default_factory=dict[str, int])
    reassigned: int = 0
    overtaken: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Loader:
    """One target's loop. clock: milliseconds since 1970.

    pipeline: None for a target that takes payloads.
    beside: bounded work of the same thread between two batches, True when it did any; raises as `step` does.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        pipeline: Pipeline | None,
        target: Target | PayloadTarget,
        clock: Callable[[], int],
        beside: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reader, self._pipeline, self._target, self._clock, self._beside = reader, pipeline, target, clock, beside
        self._group = cast(GroupReader, reader) if hasattr(reader, "lag") else None
        self._raw = cast(PayloadTarget, target) if pipeline is None else None
        self._limits: tuple[int, int] = getattr(target, "limits", (BATCH_PAYLOADS, BATCH_BYTES))
        self._asks_pause: Callable[[bool], float] | None = getattr(target, "pause_s", None)
        self.cursor: dict[str, Position] = {}
        self.status = Status(name, own=dict.fromkeys(_OWN, 0) if self._group else {})
        self.opened = False
        self._unsure = False  # whether the last batch was taken
        self._told_ms = self._joining_ms = 0
        try:
            self._open()
        except TransientError as error:  # it is out of reach now; the other targets must not wait for it
            self._report("retrying", error)

    def _open(self) -> None:
        self.cursor = dict(self._target.cursor())
        self._tell(self._target.totals())
        self.opened = True

    def step(self) -> bool:
        """Loads what there is, one batch at most; True when there was anything. Raises TransientError, PermanentError."""
        if not self.opened:
            self._open()
        elif self._unsure:
            self.cursor = dict(self._target.cursor())
        self._unsure = False
        payloads, size = self._limits
        try:
            chunk = self._reader.read(self.cursor, max_payloads=payloads, max_bytes=size)
        except Reassigned:
            self.status.reassigned += 1
            self._unsure, self._told_ms, self._joining_ms = True, 0, 0
            return True
        if not chunk.items and chunk.cursor == self.cursor:
            return False
        now_ms = self._clock()
        self._unsure = True
        try:
            counts = self._commit(chunk, now_ms)
        except Overtaken as told:
            self.status.overtaken += 1
            log.info("target %s: %s", self.status.target, told)
            return True
        self.cursor, self._unsure = dict(chunk.cursor), False
        self.status.committed_ms = now_ms
        if self._group is not None:
            self._group.loaded(self.cursor)
            self._count(counts)
        self._tell(self._target.totals())
        return True

    def _count(self, counts: Counts) -> None:
        for name in _OWN:
            self.status.own[name] += getattr(counts, name)

    def _commit(self, chunk: Chunk, now_ms: int) -> Counts:
        if self._pipeline is None:
            return cast(PayloadTarget, self._target).commit(_as_it_is(chunk, now_ms))
        return cast(Target, self._target).commit(enriched(self._pipeline, chunk, now_ms, since=self.cursor))

    def run(self, stop: Signal, finish: Signal) -> None:
        """Until `stop`; after `finish`, until the journal's end is reached. Machine trouble is waited out."""
        idle, backoff_s = 0, _FIRST_BACKOFF_S
        while not stop.is_set():
            try:
                finishing = finish.is_set()  # asked before the look: what came before the question is loaded
                if pause_s := self._pause_s(finishing):
                    if finishing:  # the journal keeps it for the next start
                        return
                    if self.opened:
                        self._beside()
                    finish.wait(min(pause_s, _LONGEST_PAUSE_S))
                    self._tell(self._target.totals())
                    continue
                loaded = self.step()
                if self._beside():
                    self._tell(self._target.totals())
                    loaded = True
                if loaded:
                    idle, backoff_s = 0, _FIRST_BACKOFF_S
                    self.status.state, self.status.message = "loading", ""
                    continue
                self.status.state = "waiting"
                self._look_at_others()
                if finishing:
                    self.status.state = "finished"
                    return
            except TransientError as error:
                self._report("retrying" if self._raw is None else "held", error)
                if finish.is_set() and self._asks_pause is not None:  # it may be out of reach for long; the journal keeps it
                    return
                if self._group is not None:
                    self._group.pending(self.cursor)  # which keeps its place, however long this takes
                if not self._pause_s(False):
                    stop.wait(backoff_s)
                    joining = self._group is not None and not self.status.reassigned  # nobody is spared by waiting
                    backoff_s = min(backoff_s * 2, _LONGEST_JOINING_S if joining else _LONGEST_BACKOFF_S)
                continue
            except PermanentError as error:
                self._report("stopped", error)
                return
            idle += 1
            stop.wait(_SHORTEST_WAIT_S if idle < _IDLE_ROUNDS else _LONGEST_WAIT_S)

    def _look_at_others(self) -> None:
        """What the target holds is told also by those who have nothing to load."""
        if self._group is not None and self._clock() - self._told_ms > _OTHERS_EVERY_MS:
            self.cursor = dict(self._target.cursor())
            self._tell(self._target.totals())

    def _pause_s(self, finishing: bool) -> float:
        return 0.0 if self._asks_pause is None or not self.opened else self._asks_pause(finishing)

    def _report(self, state: str, error: Exception) -> None:
        level = logging.ERROR
        if isinstance(error, Joining):
            self._joining_ms = self._joining_ms or self._clock()
            if self._clock() - self._joining_ms < JOINED_IN_MS:
                return
            level = logging.WARNING
        if (self.status.state, self.status.message) != (state, str(error)):
            log.log(level, "target %s is %s: %s", self.status.target, state, error)
        self.status.state, self.status.message = state, str(error)

    def _tell(self, totals: Counts) -> None:
        status, self._told_ms = self.status, self._clock()
        status.payloads, status.stored = totals.payloads, totals.stored
        status.failed, status.duplicate, status.dropped = totals.failed, totals.duplicate, totals.dropped
        status.erased, status.expired = totals.erased, totals.expired
        status.forwarded, status.pending = totals.forwarded, self._reader.pending(self.cursor)
        if self._group is not None:
            status.lag = dict(self._group.lag())
        if self._raw is not None:
            contact = self._raw.contact()
            status.contact_ms, status.error, status.error_ms = contact.contact_ms, contact.error, contact.error_ms
            status.errors = dict(contact.errors)


def enriched(pipeline: Pipeline, chunk: Chunk, now_ms: int, since: Cursor | None = None) -> Batch:
    """What becomes of a stretch of the journal; since: see `Batch`."""
    events: list[Event] = []
    failed: list[FailedEvent] = []
    erased = 0
    for item in chunk.items:
        erased += 0 if isinstance(item, Damage) else len(item.erased)
        found = [damaged(item, now_ms)] if isinstance(item, Damage) else outcomes(pipeline, item, now_ms)
        for outcome in found:
            if isinstance(outcome, FailedEvent):
                failed.append(outcome)
            else:
                events.append(outcome)
    return Batch(events, failed, chunk.cursor, len(chunk.items), chunk.more, erased, since)


def _as_it_is(chunk: Chunk, now_ms: int) -> RawBatch:
    payloads = [item for item in chunk.items if not isinstance(item, Damage)]
    failed = [damaged(item, now_ms) for item in chunk.items if isinstance(item, Damage)]
    return RawBatch(payloads, failed, chunk.cursor, chunk.more)


def collect_seldom() -> None:
    """For a process that only loads: a batch makes tens of thousands of values that live until its commit and then die by
    themselves. Looking for cycles among them again and again cost a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def outcomes(pipeline: Pipeline, payload: RawPayload, now_ms: int) -> list[Event | FailedEvent]:
    """What became of the payload; where enrichment itself broke, one failed event that holds all of it."""
    try:
        return list(pipeline.outcomes(payload, now_ms))
    except Exception as error:  # the loop's rim: a fault of ours must not stop the events behind it
        log.exception("enrichment broke on payload %s", payload.id)
        broken = reason("pipeline", "", f"a fault in the enrichment: {type(error).__name__}: {error}")
        return [FailedEvent(derived_id(payload.id, "payload", "failed"), "enrichment_failures", (broken,), payload, now_ms)]


def damaged(damage: Damage, now_ms: int) -> FailedEvent:
    """What is left of bytes in the journal that are no payload any more."""
    place = f"{damage.lane}/{damage.position.segment}/{damage.position.offset}"
    told = (damage.what,) if damage.what else ()  # which record it was, where segment and offset do not say it
    payload = RawPayload(derived_id(place, "damage", *told).replace("-", ""), now_ms, "journal", f"/{place}", body=damage.data)
    what = damage.what or f"{len(damage.data)} damaged bytes before {place}"
    why = reason("payload", "journal", what, None, "Damaged")
    return FailedEvent(derived_id(payload.id, "payload", "failed"), "journal_damage", (why,), payload, now_ms)
