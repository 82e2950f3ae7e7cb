"""What the access-log transport counts. A plain object: the wiring reads it for /metrics, nothing here resets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

# accepted: on disk. bad: on disk too, to become a failed event. other: a request for something else than the pixel.
# redirected: the log has the request once more, where it was sent to. comment: of the log itself.
Outcome = Literal["accepted", "bad", "other", "redirected", "comment"]

Measure = tuple[str, Literal["counter", "gauge"], str, list[tuple[dict[str, str], float]]]


@dataclass(slots=True)
class Counters:
    """not_taken: attempts at a journal that took nothing. unreadable: files, or looks at S3, that failed. files: seen last."""

    lines: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))
    not_taken: int = 0
    unreadable: int = 0
    files: int = 0
    received_bytes: int = 0

    def measures(self) -> Iterator[Measure]:
        """(name, kind, about, samples by label) of everything, for /metrics."""
        yield "access_log_lines", "counter", "Lines by outcome.", [({"outcome": o}, n) for o, n in self.lines.items()]
        yield (
            "access_log_not_taken",
            "counter",
            "Attempts at a journal that took nothing.",
            [({}, self.not_taken)],
        )
        yield "access_log_unreadable", "counter", "Files that could not be read to their end.", [({}, self.unreadable)]
        yield "access_log_files", "gauge", "Files there at the last look.", [({}, self.files)]
        yield "received_bytes", "counter", "Bytes received.", [({}, self.received_bytes)]
