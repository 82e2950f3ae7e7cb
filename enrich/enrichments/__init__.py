"""One file per enrichment; file name = name in the configuration, which lists them in the order they run.

An enrichment is a pure function of the event so far: it returns only the columns to add or replace, or a Reason why it
could not, and then the event fails with that reason among its others. It never raises for a value it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from protocol.seams import Event, RawPayload, Reason


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as the tracker sent it, before any conversion. index: 0-based place in its payload."""

    payload: RawPayload
    index: int
    parameters: Mapping[str, str]


class Enrichment(Protocol):
    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason: ...
