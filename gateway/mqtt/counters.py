"""What the MQTT listener counts. A plain object: the wiring reads it for /metrics, nothing here resets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

# accepted: on disk. repeated: a QoS 2 message that was on disk already. unknown_topic: nobody takes it. not_allowed: another
# device's topic. not_taken: the journal refused for too long; the connection was closed without an acknowledgement.
Outcome = Literal["accepted", "repeated", "unknown_topic", "not_allowed", "not_taken"]

Measure = tuple[str, Literal["counter", "gauge"], str, list[tuple[dict[str, str], float]]]


@dataclass(slots=True)
class Counters:
    """refused_logins: connections without, or with wrong, credentials. ended: by reason, see `session.Reason`.

    lost_presence: events about devices that come and go which the journal did not take.
    """

    messages: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))
    ended: dict[str, int] = field(default_factory=dict[str, int])
    received_bytes: int = 0
    sent_bytes: int = 0
    connections: int = 0
    refused_connections: int = 0
    refused_logins: int = 0
    open_connections: int = 0
    malformed: int = 0
    lost_presence: int = 0

    def measures(self) -> Iterator[Measure]:
        """(name, kind, about, samples by label) of everything, for /metrics."""
        yield "mqtt_messages", "counter", "Messages by outcome.", [({"outcome": o}, n) for o, n in self.messages.items()]
        yield "mqtt_ended", "counter", "Connections by how they ended.", [({"reason": r}, n) for r, n in self.ended.items()]
        yield "received_bytes", "counter", "Bytes received.", [({}, self.received_bytes)]
        yield "sent_bytes", "counter", "Bytes sent.", [({}, self.sent_bytes)]
        yield "connections", "counter", "Connections ever opened.", [({}, self.connections)]
        yield "refused_connections", "counter", "Connections beyond the limit.", [({}, self.refused_connections)]
        yield "open_connections", "gauge", "Connections open now.", [({}, self.open_connections)]
        yield "mqtt_refused_logins", "counter", "Connections that proved nothing.", [({}, self.refused_logins)]
        yield "mqtt_malformed", "counter", "Connections that broke the protocol.", [({}, self.malformed)]
        yield "mqtt_lost_presence", "counter", "Presence events the journal did not take.", [({}, self.lost_presence)]
