"""A handler for `logging`: each record of its level or above becomes an application_error event.

logging.getLogger().addHandler(Handler(tracker))
"""

from __future__ import annotations

import logging

from spoorway_tracker.events import error_event
from spoorway_tracker.tracker import Verbs


class Handler(logging.Handler):
    """What this tracker itself logs is left out: one failed attempt must not make another event to send."""

    def __init__(self, tracker: Verbs, level: int = logging.ERROR) -> None:
        super().__init__(level)
        self._tracker = tracker

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] == "spoorway_tracker":
            return
        try:
            error = record.exc_info[1] if record.exc_info else None
            where = (
                {}
                if error is not None and error.__traceback__
                else {"fileName": record.pathname[-1024:], "lineNumber": record.lineno}
            )
            event = error_event(
                error, record.getMessage(), className=record.name[:1024], threadName=(record.threadName or "")[:1024] or None,
                isFatal=record.levelno >= logging.CRITICAL, **where,
            )  # fmt: skip
            self._tracker.track_self_describing(event)
        except Exception:  # logging's own way: a broken format must not break the program
            self.handleError(record)
