"""Records -> queue -> gateway: the core under every front. Taking never waits for the network; two threads of its own do the
rest.

One thread puts the log on the disk every `sync_s`, one sends. A child of a fork gets an empty delivery of its own; what the
parent has
queued stays the parent's. At exit at most `exit_limit_s` are spent on sending; what is left in a folder is for the next start.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from contextlib import suppress
from queue import Empty, SimpleQueue  # its put() may interrupt itself, as a signal handler does
from threading import Condition, Thread, current_thread
from weakref import WeakSet

from spoorway_tracker.outcomes import Counters, Refusal
from spoorway_tracker.queues import Full, Queue
from spoorway_tracker.sender import Sender

ADOPT_EVERY_S = 30.0

_living: WeakSet[Delivery] = WeakSet()


class Delivery:
    """background=False: no threads; things are sent by flush and close alone. linger_s: how long a batch may gather."""

    def __init__(
        self, queue: Queue, sender: Sender, counters: Counters, *, sync_s: float = 0.2, linger_s: float = 1.0,
        background: bool = True, exit_limit_s: float = 2.0,
    ) -> None:  # fmt: skip
        self.queue, self.sender, self.counters, self.exit_limit_s = queue, sender, counters, exit_limit_s
        self._sync_s, self._linger_s, self._background = sync_s, linger_s, background
        self._closed = False
        self._begin()
        _living.add(self)
        if queue.adopt() and background:
            self._start()

    def _begin(self) -> None:
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._unsynced: SimpleQueue[bool] = SimpleQueue()
        self._stepped = Condition()
        self._started = self._dirty = self._idle = self._gathering = self._stopping = self._hurried = False
        self._gathered = 0
        self._sending: Thread | None = None

    def put(self, created_ms: int, record: bytes, durable: bool = False) -> Refusal | None:
        """None = taken: kill -9 does not lose it; with durable, neither does a power cut."""
        if self._closed:
            return self.counters.refuse(Refusal.CLOSED)
        try:
            position = self.queue.append(created_ms, record)
        except Full:
            return self.counters.refuse(Refusal.FULL)
        except OSError:
            return self.counters.refuse(Refusal.STORAGE)
        self.counters.took()
        if self._background:
            self._notice(len(record))
        if durable and not self.queue.sync(position):
            return self.counters.refuse(Refusal.NOT_DURABLE)
        return None

    def _notice(self, size: int) -> None:
        if not self._started:
            self._start()
        if not self._dirty:
            self._dirty = True
            self._unsynced.put(True)
        self._gathered += size
        if self._idle or (self._gathering and self._gathered >= self.sender.batch_bytes):
            self._idle = self._gathering = False
            self._wake.put(True)

    def _start(self) -> None:
        # Here, not in the thread: a child forked while that imports would find half a module, for ever.
        for name in ("encodings.idna", "http.client", "zlib"):
            __import__(name)

        self._started = True
        self._sending = Thread(target=self._send_on, name="spoorway-send", daemon=True)
        with suppress(RuntimeError):  # the interpreter is going down: what is in the log is for the next start
            self._sending.start()
            Thread(target=self._sync_on, name="spoorway-sync", daemon=True).start()
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            util.Finalize(self, self.close, exitpriority=0)  # such a process ends without atexit

    def _sync_on(self) -> None:
        while not self._stopping:
            self._unsynced.get()
            time.sleep(self._sync_s)
            self._dirty = False
            with suppress(OSError):
                self.queue.sync()

    def _send_on(self) -> None:
        while not self._stopping:
            wait = self.sender.step()
            with self._stepped:
                self._stepped.notify_all()
            if wait is None:
                self._rest()
            elif wait > 0:
                with suppress(Empty):
                    self._wake.get(timeout=wait)
        self.sender.transport.close()

    def _rest(self) -> None:
        """Until there is something again, and then until it is a batch or has gathered long enough."""
        self._idle, self._gathered = True, 0
        if not self.queue.pending_bytes():  # else: it came before `_idle` was set, and woke nobody
            try:
                self._wake.get(timeout=ADOPT_EVERY_S)
            except Empty:
                self.queue.adopt()
                return
        self._idle = False
        if self._hurried or self._stopping:
            self._hurried = False
            return
        self._gathering = True
        with suppress(Empty):
            self._wake.get(timeout=self._linger_s)
        self._gathering = False

    def flush(self, limit_s: float = 10.0) -> bool:
        """Whether everything that waited is acknowledged, after at most about limit_s."""
        end = time.monotonic() + limit_s
        self.sender.hurry()
        if not self._background:
            return self._flush_here(end)
        if not self.queue.pending_bytes():
            return True
        if not self._started:
            self._start()
        self._hurried = True
        self._wake.put(True)
        with self._stepped:
            while self.queue.pending_bytes():
                left = end - time.monotonic()
                if left <= 0 or self._stopping:
                    return False
                self._stepped.wait(min(left, 0.5))
        return True

    def _flush_here(self, end: float) -> bool:
        self.queue.adopt()
        while (left := end - time.monotonic()) > 0:
            wait = self.sender.step(min(left, self.sender.timeout_s))
            if wait is None:
                return True
            time.sleep(min(wait, max(0.0, end - time.monotonic())))
        return not self.queue.pending_bytes()

    def close(self, limit_s: float | None = None) -> bool:
        """Sends for at most about limit_s (None: exit_limit_s), then takes nothing more. Whether nothing is left."""
        if self._closed:
            return not self.queue.pending_bytes()
        self._closed = True
        _living.discard(self)
        done = self.flush(self.exit_limit_s if limit_s is None else limit_s)
        self._stopping = True
        self._wake.put(True)
        self._unsynced.put(True)
        sending = self._sending
        if sending is None:
            self.sender.transport.close()
        elif sending is not current_thread() and sending.is_alive():
            sending.join(1.0 if done else 0.2)  # it tidies up behind the last batch; only a hung network holds it longer
        self.queue.close()
        return done

    def after_fork(self) -> None:
        self.queue.forget()
        self.sender.transport.close()  # the child's copy of the connection; the parent's stays open
        self.sender.hurry()
        counters = self.counters
        self.counters.__init__()  # type: ignore[misc]  # the same object, which fronts hold
        assert counters is self.counters
        self._begin()


def _after_fork_in_child() -> None:
    for delivery in list(_living):
        delivery.after_fork()


def _at_exit() -> None:
    """All together in the time of the one that may take longest."""
    deliveries = list(_living)
    end = time.monotonic() + max((each.exit_limit_s for each in deliveries), default=0.0)
    for each in deliveries:
        each.close(max(0.0, min(each.exit_limit_s, end - time.monotonic())))


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
