"""What the transport counts. A plain object: the wiring reads it for /metrics, nothing here resets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from gateway.http.answers import Outcome

Measure = tuple[str, Literal["counter", "gauge"], str, list[tuple[dict[str, str], float]]]


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

    def measures(self) -> Iterator[Measure]:
        """(name, kind, about, samples by label) of everything, for /metrics."""
        yield "requests", "counter", "Finished requests by outcome.", [({"outcome": o}, n) for o, n in self.requests.items()]
        yield "received_bytes", "counter", "Bytes received.", [({}, self.received_bytes)]
        yield "sent_bytes", "counter", "Bytes sent.", [({}, self.sent_bytes)]
        yield "connections", "counter", "Connections ever opened.", [({}, self.connections)]
        yield "refused_connections", "counter", "Connections beyond the limit.", [({}, self.refused_connections)]
        yield "open_connections", "gauge", "Connections open now.", [({}, self.open_connections)]
