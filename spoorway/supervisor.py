"""The loading process beside the gateway, a worker where the journal is not in files: started, watched, started again when it
dies, let finish at the end.

Two processes, because enrichment would otherwise take the interpreter from the event loop that answers trackers; see
benchmarks/ for what that costs in memory and saves in latency.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event as Signal
from threading import Thread
from typing import Any, Literal

from spoorway.metrics import Metric

log = logging.getLogger("spoorway.supervisor")

MISCONFIGURED = 78
"""Exit code of a loader that cannot do what the configuration asks for (sysexits.h: EX_CONFIG)."""

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0
_HEALTHY_AFTER_S = 30.0


class LoaderProcess:
    """`spoorway load`, or `spoorway worker`, as a child.

    statuses: what its targets last said, by name; archive: its archive, {} = none.
    """

    def __init__(self, arguments: Sequence[str], stage: Literal["load", "worker"] = "load") -> None:
        """arguments: of that command, such as --data."""
        self._command = [sys.executable, "-m", "spoorway", stage, "--supervised", *arguments]
        self.statuses: dict[str, dict[str, Any]] = {}
        self.archive: dict[str, Any] = {}
        self._child: subprocess.Popen[str] | None = None
        self.misconfigured = False
        self._tell: Callable[[], object] = lambda: None
        self._ending = Signal()
        self._watching = Thread(target=self._watch, name="loader", daemon=True)

    def start(self) -> None:
        self._spawn()
        self._watching.start()

    def when_misconfigured(self, tell: Callable[[], object]) -> None:
        """`tell` is called, from another thread, when the loader finds that it cannot do what the configuration asks for."""
        self._tell = tell
        if self.misconfigured:
            tell()

    def finish(self, timeout_s: float) -> bool:
        """Lets it load what the journal holds and end; False when it had to be killed."""
        self._ending.set()
        child = self._child
        if child is None:
            return True
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.close()  # the sign to finish; a signal to our whole process group must not be one
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("the loader did not finish in %.0f s; it goes on at the next start", timeout_s)
            child.kill()
            child.wait()
            return False
        finally:
            self._watching.join(5)
        return True

    def unready(self) -> str:
        child = self._child
        if child is None or child.poll() is not None:
            return "the loader is not running"
        return target_trouble(list(self.statuses.values()))

    def metrics(self) -> list[Metric]:
        return [*target_metrics(list(self.statuses.values())), *(archive_metrics(self.archive) if self.archive else ())]

    def _spawn(self) -> None:
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _watch(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            child = self._child
            assert child is not None and child.stdout is not None
            began = time.monotonic()
            for line in child.stdout:
                try:
                    status = json.loads(line)
                    if "archive" in status:
                        self.archive = status
                    else:
                        self.statuses[status["target"]] = status
                except (ValueError, KeyError, TypeError):
                    log.warning("the loader said something strange")
            code = child.wait()
            child.stdout.close()
            if child.stdin is not None and not child.stdin.closed:
                child.stdin.close()
            if self._ending.is_set():
                return
            if code == MISCONFIGURED:  # it has said why; another try would say the same
                self.misconfigured = True
                self._tell()
                return
            if time.monotonic() - began > _HEALTHY_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            log.error("the loader ended with code %d; starting it again in %.1f s", code, backoff_s)
            if self._ending.wait(backoff_s):
                return
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
            self._spawn()


def target_trouble(statuses: Sequence[Mapping[str, Any]]) -> str:
    """What keeps targets from taking batches; "" = nothing."""
    return "; ".join(f"{s['target']}: {s['message']}" for s in statuses if s["state"] in ("retrying", "stopped"))


def target_metrics(statuses: Sequence[Mapping[str, Any]]) -> list[Metric]:
    def each(field: str) -> list[tuple[dict[str, str], float]]:
        return [({"target": s["target"]}, s[field]) for s in statuses]

    outcomes = ("stored", "failed", "duplicate", "dropped", "forwarded", "erased", "expired")
    errors = [({"target": s["target"], "error": kind}, n) for s in statuses for kind, n in s["errors"].items()]
    events = [({"target": s["target"], "outcome": o}, s[o]) for s in statuses for o in outcomes]
    shared = [s for s in statuses if s["reassigned"]]
    return [
        *(_group_metrics(shared) if shared else ()),
        Metric("target_payloads_taken", "counter", "Payloads a target has stored, failed or dropped.", each("payloads")),
        Metric("target_payloads_pending", "gauge", "Durable payloads a target has not taken yet.", each("pending")),
        Metric("target_events", "counter", "Events by what became of them.", events),
        Metric("target_up", "gauge", "1 while the target takes batches.",
               [({"target": s["target"]}, int(s["state"] not in ("retrying", "held", "stopped"))) for s in statuses]),
        Metric("target_contact_timestamp_seconds", "gauge", "When the other side of a target last answered, since 1970.",
               [({"target": s["target"]}, s["contact_ms"] / 1000) for s in statuses if s["contact_ms"]]),
        Metric("target_errors", "counter", "What went wrong with the other side of a target, by kind.", errors),
        Metric("target_error_timestamp_seconds", "gauge", "When it last went wrong, since 1970.",
               [({"target": s["target"]}, s["error_ms"] / 1000) for s in statuses if s["error_ms"]]),
    ]  # fmt: skip


def _group_metrics(statuses: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Of this process among those that share the targets."""
    own = [({"target": s["target"], "outcome": name}, n) for s in statuses for name, n in s["own"].items() if name != "payloads"]
    lag = [({"target": s["target"], "lane": lane}, n) for s in statuses for lane, n in s["lag"].items()]
    return [
        Metric("worker_payloads", "counter", "Payloads that this process has committed.",
               [({"target": s["target"]}, s["own"]["payloads"]) for s in statuses]),
        Metric("worker_events", "counter", "Events in them by what became of them.", own),
        Metric("worker_lane_lag", "gauge", "What waits in each of its lanes: payloads; of Kinesis, milliseconds.", lag),
        Metric("worker_reassigned", "counter", "How often this process got other lanes.",
               [({"target": s["target"]}, s["reassigned"]) for s in statuses]),
        Metric("worker_commits_refused", "counter", "Commits refused because another process had loaded the same lane.",
               [({"target": s["target"]}, s["overtaken"]) for s in statuses]),
    ]  # fmt: skip


def archive_metrics(status: dict[str, Any]) -> list[Metric]:
    def one(name: str, kind: Literal["counter", "gauge"], about: str, value: float) -> Metric:
        return Metric(f"archive_{name}", kind, about, [({}, value)])

    errors = [({"error": kind}, n) for kind, n in status["errors"].items()]
    return [
        one("segments", "counter", "Segments archived and listed.", status["segments"]),
        one("bytes", "counter", "Bytes of them, compressed.", status["bytes"]),
        one("payloads", "counter", "Payloads in them.", status["payloads"]),
        one("pending_segments", "gauge", "Sealed segments that the archive does not have yet.", status["pending"]),
        one("pending_bytes", "gauge", "Bytes of them.", status["pending_bytes"]),
        one("oldest_pending_timestamp_seconds", "gauge", "When the oldest of them was written to, since 1970; 0 = none waits.",
            status["oldest_ms"] / 1000),
        one("up", "gauge", "1 while the archive takes segments.", int(status["state"] != "retrying")),
        one("last_timestamp_seconds", "gauge", "When a segment was last archived, since 1970; 0 = not yet.",
            status["archived_ms"] / 1000),
        Metric("archive_errors", "counter", "What went wrong with the archive, by kind.", errors),
        one("error_timestamp_seconds", "gauge", "When it last went wrong, since 1970; 0 = never.", status["error_ms"] / 1000),
    ]  # fmt: skip
