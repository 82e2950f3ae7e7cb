"""Celery: how long each task took, and what failed. `connect(tracker)` in the module that makes the app; workers fork later.

Timings have the category `celery`, the task's name, and its end (SUCCESS, RETRY, FAILURE) as the label.
"""

# pyright: basic
from __future__ import annotations

import time
from typing import Any

from celery import signals  # type: ignore[import-untyped]

from spoorway_tracker.events import error_event
from spoorway_tracker.tracker import Verbs

EXIT_LIMIT_S = 2.0


def connect(tracker: Verbs) -> None:
    began: dict[str, float] = {}

    def prerun(task_id: str, **_: Any) -> None:
        began[task_id] = time.perf_counter()

    def postrun(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
        took_ms = (time.perf_counter() - began.pop(task_id, time.perf_counter())) * 1000
        tracker.track_timing("celery", task.name, round(took_ms), state)

    def failure(sender: Any, exception: BaseException, **_: Any) -> None:
        tracker.track_self_describing(error_event(exception, className=sender.name))

    def shutdown(**_: Any) -> None:
        tracker.delivery.close(EXIT_LIMIT_S)  # a pool's process ends without atexit

    for signal, function in (
        (signals.task_prerun, prerun), (signals.task_postrun, postrun), (signals.task_failure, failure),
        (signals.worker_process_shutdown, shutdown),
    ):  # fmt: skip
        signal.connect(function, weak=False)
