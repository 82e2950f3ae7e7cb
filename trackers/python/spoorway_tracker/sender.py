"""Queue -> transport, by the rules that all trackers share (trackers/README.md). One step is one attempt; it never sleeps.

What is acknowledged leaves the queue; what will never be taken leaves it counted and told; everything else stays and is
tried again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from spoorway_tracker.outcomes import Counters, Told
from spoorway_tracker.queues import Batch, Queue
from spoorway_tracker.transports import Answer, Transport

NEVER_AGAIN = frozenset({400, 401, 403, 404, 410, 422})
FIRST_BACK_OFF_S = 1.0

Delivered = Callable[[Sequence[bytes]], None]


class Sender:
    """told: of what went wrong. delivered, failed: asked after an attempt, with its records.

    retry_codes: status -> whether to try again, before the rules. monotonic, chance: seconds, and a number from 0 to 1.
    """

    def __init__(
        self,
        queue: Queue,
        transport: Transport,
        counters: Counters,
        batch_bytes: int,
        timeout_s: float,
        told: Told,
        clock_ms: Callable[[], int],
        max_back_off_s: float = 600.0,
        retry_codes: Mapping[int, bool] | None = None,
        delivered: Delivered | None = None,
        failed: Delivered | None = None,
    ) -> None:
        self.queue, self.transport, self.counters, self.told = queue, transport, counters, told
        self.batch_bytes, self.timeout_s, self.max_back_off_s = batch_bytes, timeout_s, max_back_off_s
        self.retry_codes, self.delivered, self.failed, self.clock_ms = retry_codes or {}, delivered, failed, clock_ms
        self.monotonic: Callable[[], float] = time.monotonic
        self.chance: Callable[[], float] = lambda: int.from_bytes(os.urandom(6), "big") / (1 << 48)
        self._failures, self._not_before, self._at_the_servers_word = 0, 0.0, False

    def hurry(self) -> None:
        """The next attempt may be now, unless the gateway has named a time."""
        if not self._at_the_servers_word:
            self._not_before = 0.0

    def step(self, timeout_s: float | None = None) -> float | None:
        """One attempt. None = nothing is waiting; else seconds until the next step is worth while."""
        if (wait := self._not_before - self.monotonic()) > 0:
            return wait
        try:
            batch = self.queue.batch(self.batch_bytes)
            if batch is None:
                return None
            self._skipped(batch)
            if not batch.records:
                self.queue.acknowledge(batch)
                return 0.0
            self.counters.attempts += 1
            if self._failures:
                self.counters.resent += len(batch.records)
            answer = self.transport.send(batch.records, self.clock_ms(), timeout_s or self.timeout_s)
            return self._after(batch, answer)
        except OSError as error:  # the queue's files
            self.counters.storage_errors += 1
            return self._again(Answer(0, f"queue: {error}"), 0)

    def _skipped(self, batch: Batch) -> None:
        for why, count in (("old", batch.old), ("damaged", batch.damaged)):
            if count:
                self.counters.drop(why, count)
                self.told(why, count, "")

    def _after(self, batch: Batch, answer: Answer) -> float:
        status, records = answer.status, batch.records
        if 200 <= status < 300:
            return self._done(batch, len(records))
        if answer.taken:
            self._done(batch, answer.taken)
            batch = batch._replace(records=records[answer.taken :], ends=batch.ends[answer.taken :])
            records = batch.records
        self.counters.failed_attempts += 1
        if self.failed is not None:
            self.failed(records)
        about = answer.about or len(records)
        if status == 413 and about > 1 and 413 not in self.retry_codes:
            self.batch_bytes = max(1, sum(map(len, records)) // 2)  # for good: the server's limit will not grow
            return 0.0
        if not self._may_pass(status):
            why = "large" if status == 413 else "rejected"
            self.queue.acknowledge(batch, about)
            self.counters.drop(why, about)
            self.told(why, about, f"{status} {answer.why}")
            self._failures, self._not_before = 0, 0.0
            return 0.0
        return self._again(answer, len(records))

    def _done(self, batch: Batch, count: int) -> float:
        # Counted first: an error of the file below does not undo that the gateway has them.
        self.counters.sent += count
        self._failures, self._not_before, self._at_the_servers_word = 0, 0.0, False
        if self.delivered is not None:
            self.delivered(batch.records[:count])
        self.queue.acknowledge(batch, None if count == len(batch.records) else count)
        return 0.0

    def _may_pass(self, status: int) -> bool:
        if status in self.retry_codes:
            return self.retry_codes[status]
        if status in (401, 403):
            return bool(getattr(self.transport, "credentials_may_change", False))
        return status not in NEVER_AGAIN and status != 413

    def _again(self, answer: Answer, count: int) -> float:
        ceiling: float = min(self.max_back_off_s, FIRST_BACK_OFF_S * 2 ** min(self._failures, 30))
        self._failures += 1
        self._at_the_servers_word = answer.retry_after_s > 0
        wait = max(answer.retry_after_s, self.chance() * ceiling)
        self._not_before = self.monotonic() + wait
        self.told("not_sent", count, f"{answer.status or 'no answer'} {answer.why}; again in {wait:.1f} s")
        return wait
