"""A schema or template that appeared or changed -> one target's pipeline, its views, and the failed events that waited for it.

Works in the target's own thread, between two batches, a bounded piece at a time. Repeating a piece does no harm: a failed
event is solved in one transaction, once.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from protocol.seams import Event, FailedEvent, RawPayload
from spoorway.registry.lookup import Lookup
from spoorway.registry.templates import Templates

if TYPE_CHECKING:
    from enrich.pipeline import Pipeline

log = logging.getLogger("spoorway.registry")

_ROWS = 1_000  # failed events looked at in one piece
_BYTES = 1 << 20  # payloads replayed in one piece: about what a batch of the loader reads
_AGAIN_S = 3_600.0  # everything that waits is looked at again, should a change have been missed

Resolution = tuple[str, Sequence[Event], Sequence[FailedEvent]]


def picked(outcomes: Sequence[Event | FailedEvent], index: int | None) -> tuple[list[Event], list[FailedEvent]]:
    """What one failed event (index None: a payload that failed whole) becomes, of what its payload becomes now.

    Nothing when the payload is now refused as a whole: then the event stays as it is.
    """
    if index is not None:
        outcomes = [o for o in outcomes[index : index + 1] if not isinstance(o, FailedEvent) or o.index == index]
    events = [outcome for outcome in outcomes if not isinstance(outcome, FailedEvent)]
    return events, [outcome for outcome in outcomes if isinstance(outcome, FailedEvent)]


class ComeBack:
    """clock: milliseconds since 1970. timer: seconds, monotonic."""

    def __init__(
        self,
        lookup: Lookup,
        pipeline: Pipeline,
        target: Any,
        clock: Callable[[], int],
        timer: Callable[[], float] = time.monotonic,
        replays: bool = True,
        templates: Templates | None = None,
    ) -> None:
        """target: also one that is no WaitingStore; then only its pipeline hears of changes. replays: False = events stay.

        See storage.targets for what that is.
        """
        self._lookup, self._pipeline, self._target, self._clock, self._timer = lookup, pipeline, target, clock, timer
        self._templates, self._template_mark = templates, 0
        self._views = hasattr(target, "see_schemas")
        self._replays = replays and hasattr(target, "waiting")
        self._mark = 0
        self._after: Any = None
        self._ready: deque[tuple[str, list[tuple[str, int | None]]]] = deque()  # payloads to replay, with their events
        self._walking = self._replays  # what appeared while nothing ran
        self._every = True  # this walk tries all that wait, not only for what appeared
        self._appeared: set[str] = set()  # since the walk before the one under way
        self._next: set[str] = set()  # while a walk is under way: for the next one
        self._last_walk = timer()

    def step(self) -> bool:
        """One piece of work; False when there is none. Raises TransientError, PermanentError: the same piece again later."""
        mark, changed = self._lookup.changes(self._mark)
        if changed:
            self._pipeline.forget_schemas(changed)
            if self._views:
                self._target.see_schemas(changed)
            self._mark = mark
            self._next |= changed
        if self._templates is not None:
            self._template_mark, arrived = self._templates.changes(self._template_mark)
            self._next |= arrived
        if not self._replays:
            return False
        if self._ready:
            self._replay()
            return True
        if not self._walking:
            late = self._timer() - self._last_walk > _AGAIN_S
            if not self._next and not late:
                return False
            self._walking, self._every, self._after = True, late, None
            self._appeared, self._next = self._next, set()
        self._look()
        return True

    def _look(self) -> None:
        rows, self._after = self._target.waiting(self._after, _ROWS)
        ready: defaultdict[str, list[tuple[str, int | None]]] = defaultdict(list)
        for failed_id, payload_id, index, names in rows:
            known = [self._knows(name) for name in names]  # asks for all, so that all are looked for
            if all(known) and (self._every or not self._appeared.isdisjoint(names)):
                ready[payload_id].append((failed_id, index))
        self._ready.extend(ready.items())
        if self._after is None:
            self._walking, self._last_walk = False, self._timer()

    def _knows(self, name: str) -> bool:
        if name.startswith("iglu:") or self._templates is None:
            return self._lookup(name) is not None
        return self._templates.key(name) is not None

    def _replay(self) -> None:
        now_ms, size, taken = self._clock(), 0, 0
        resolutions: list[Resolution] = []
        for _, waiting in self._ready:
            taken += 1
            shown = self._target.show_failed(waiting[0][0])
            if shown is None or (payload := shown[1]) is None:
                continue
            resolutions += self._resolutions(payload, waiting, now_ms)
            size += len(payload.body or b"") + len(payload.query)
            if size > _BYTES:
                break
        solved = self._target.resolve_all(resolutions, now_ms) if resolutions else 0
        for _ in range(taken):  # only now: what raised is tried again
            self._ready.popleft()
        if solved:
            log.info("%d failed events came back: what they waited for is known now", solved)

    def _resolutions(self, payload: RawPayload, waiting: Sequence[tuple[str, int | None]], now_ms: int) -> list[Resolution]:
        try:
            outcomes = list(self._pipeline.outcomes(payload, now_ms))
        except Exception:  # the loop's rim: this payload stays failed, the others go on
            log.exception("enrichment broke on payload %s", payload.id)
            return []
        made = [(failed_id, *picked(outcomes, index)) for failed_id, index in waiting]
        return [(failed_id, events, failed) for failed_id, events, failed in made if events or failed]
