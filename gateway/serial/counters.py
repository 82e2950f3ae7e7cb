"""What the transport counts, by port. A plain object: the wiring reads it for /metrics, nothing here resets it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from protocol.lines import Refusal

# taken: on disk. repeated: it was there already. hello: answered with the time. text: not ours.
Outcome = Literal["taken", "repeated", "hello", "text"] | Refusal


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
