"""What the transport counts, by port. A plain object: the wiring reads it for /metrics, nothing here resets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from protocol.lines import Refusal

# taken: on disk. repeated: it was there already. hello: answered with the time. text: not ours.
Outcome = Literal["taken", "repeated", "hello", "text"] | Refusal

Measure = tuple[str, Literal["counter", "gauge"], str, list[tuple[dict[str, str], float]]]


@dataclass(slots=True)
class Counters:
    """lines: by (port, outcome); kept_damage: of the damaged ones, those that became failed events.

    unsent: answers that found no room because the device does not read. openings: ever; open_ports: now.
    """

    lines: Counter[tuple[str, Outcome]] = field(default_factory=Counter[tuple[str, Outcome]])
    kept_damage: Counter[str] = field(default_factory=Counter[str])
    unsent: Counter[str] = field(default_factory=Counter[str])
    received_bytes: Counter[str] = field(default_factory=Counter[str])
    sent_bytes: Counter[str] = field(default_factory=Counter[str])
    openings: Counter[str] = field(default_factory=Counter[str])
    open_ports: int = 0

    def measures(self) -> Iterator[Measure]:
        """(name, kind, about, samples by label) of everything, for /metrics."""
        lines = [({"port": port, "outcome": outcome}, float(count)) for (port, outcome), count in self.lines.items()]
        yield "serial_lines", "counter", "Lines by what became of them.", lines
        yield "serial_kept_damage", "counter", "Damaged lines kept as failed events.", _by_port(self.kept_damage)
        yield "serial_unsent_answers", "counter", "Answers to devices that do not read.", _by_port(self.unsent)
        yield "received_bytes", "counter", "Bytes received.", _by_port(self.received_bytes)
        yield "sent_bytes", "counter", "Bytes sent.", _by_port(self.sent_bytes)
        yield "serial_openings", "counter", "How often a port was opened.", _by_port(self.openings)
        yield "serial_open_ports", "gauge", "Ports open now.", [({}, self.open_ports)]


def _by_port(counts: Counter[str]) -> list[tuple[dict[str, str], float]]:
    return [({"port": port}, count) for port, count in counts.items()]
