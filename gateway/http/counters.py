"""What the transport counts. A plain object: the wiring reads it for /metrics, nothing here resets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from gateway.http.answers import Outcome


def _zeros() -> dict[Outcome, int]:
    return dict.fromkeys(get_args(Outcome), 0)


@dataclass(slots=True)
class Counters:
    """requests: finished, by outcome; `aborted` = the client left before its answer.

    connections: ever opened; refused_connections: beyond max_connections; open_connections: now.
    """

    requests: dict[Outcome, int] = field(default_factory=_zeros)
    received_bytes: int = 0
    sent_bytes: int = 0
    connections: int = 0
    refused_connections: int = 0
    open_connections: int = 0
