"""Made-up lives of devices, with the truth beside them: drifting counters, restarts, wrong clocks that are set, weeks offline.

Each history comes from its number alone, so a failure can be looked at again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from enrich.enrichments import RawEvent
from protocol.devices import DEVICE_CLOCK
from protocol.seams import RawPayload

SECOND, MINUTE, HOUR, DAY = 1_000.0, 60_000.0, 3_600_000.0, 86_400_000.0
WRAP = 1 << 32
BEGAN = 1_760_000_000_000.0
QUICK_MS = 900.0
DRIFT = 100e-6


@dataclass(frozen=True, slots=True)
class Arrived:
    """One event as the gateway got it. true_ms: when it happened. uptime_ms: of a counter that never wraps.

    sent_true_ms: when the message left; None where its times do not say. quick: it was here within a second.
    """

    true_ms: float
    uptime_ms: float
    boot: int
    received_ms: int
    columns: Any
    raw: RawEvent
    sent_true_ms: float | None
    quick: bool


@dataclass(slots=True)
class _Life:
    """One start: uptime and wall clock as functions of the truth."""

    boot: int
    began: float
    ended: float
    rate: float
    wall: list[tuple[float, float, str]]  # from this true time on: offset of the wall clock, and where it is from

    def uptime(self, true: float) -> float:
        return (true - self.began) * self.rate

    def clock(self, true: float) -> tuple[str, float, float]:
        """Where the wall clock is from, what it shows, and the uptime at which it was set."""
        since, offset, source = [one for one in self.wall if one[0] <= true][-1]
        return source, true + offset + (true - since) * (self.rate - 1), self.uptime(since)


def history(number: int) -> list[Arrived]:
    """The events of one device in the order in which they are processed."""
    chance = random.Random(number)
    kind = chance.choice(("none", "none", "none", "rtc", "ntp", "gateway"))
    wide = chance.random() < 0.5  # a counter of 64 bits
    keeps = chance.random() < 0.8  # the queue outlives a restart
    bridge = chance.random() < 0.2
    lives: list[_Life] = []
    now = BEGAN + chance.uniform(0, 100 * DAY)
    boot = chance.choice((0, 1, 57, 4_000_000_000))
    for _ in range(chance.randint(1, 5)):
        lasted = 10 ** chance.uniform(4.5, 9.9)  # 30 s to 92 days
        lives.append(_Life(boot, now, now + lasted, 1 + chance.uniform(-DRIFT, DRIFT) * 0.999, _wall(chance, kind, now, lasted)))
        now += lasted + 10 ** chance.uniform(3, 9)
        boot += chance.choice((1, 1, 1, 2))
    queue: list[tuple[_Life, float, int]] = []
    messages: list[tuple[float, bool, _Life, float, int, _Life, float]] = []
    for life in lives:
        if not keeps:
            queue = []
        length = life.ended - life.began
        tracked = sorted(life.began + length * chance.random() ** chance.choice((1, 3)) for _ in range(chance.randint(0, 5)))
        queue += [(life, true, n) for n, true in enumerate(tracked, 1)]
        windows = sorted(life.began + length * chance.random() for _ in range(chance.choice((0, 1, 1, 2, 4))))
        if length > 45 * DAY:  # what is assumed of counters that wrap
            windows = sorted([*windows, life.began + chance.uniform(0, 40 * DAY)])
        met = False
        for at in windows:
            at += 5
            if at + 2 * SECOND > life.ended:
                continue
            due = [one for one in queue if one[1] < at]
            queue = [one for one in queue if one[1] >= at]
            quickly = chance.random() < 0.7
            for owner, true, sequence in due:
                at += chance.uniform(0, 20)
                if not wide and at - true > 49 * DAY and owner is life:
                    continue  # no wrapping counter can tell; what is assumed excludes it
                way = _way(chance, bridge, met, quickly)
                messages.append((at + way, way <= QUICK_MS, owner, true, sequence, life, at))
                sources = owner.clock(true)[0], life.clock(at)[0]
                measures = sources == ("none", "none") or sources[0] in ("ntp", "gateway")
                met = met or (way <= QUICK_MS and owner is life and not bridge and measures)
                if chance.random() < 0.15:  # the acknowledgement was lost: the same bytes again
                    if met:
                        again = max(way, chance.uniform(30 * MINUTE, 50 * MINUTE))
                    else:
                        again = min(way + chance.uniform(0, 10 * SECOND), max(way, 59 * SECOND))
                    messages.append((at + again, False, owner, true, sequence, life, at))
    order = sorted(messages, key=lambda message: message[0])
    late = any(arrived - sent > MINUTE for arrived, *_, sent in messages)
    if chance.random() < 0.4 and not late and all(life.ended - life.began < 20 * DAY for life in lives):
        chance.shuffle(order)
    return [_arrived(*message, wide=wide, bridge=bridge) for message in order]


def _wall(chance: random.Random, kind: str, began: float, lasted: float) -> list[tuple[float, float, str]]:
    if kind == "none":
        return [(began, 0.0, "none")]
    wrong = chance.choice((0.0, chance.uniform(-HOUR, HOUR), HOUR, -HOUR, chance.uniform(-20, 20) * 365 * DAY))
    wall = [(began, wrong, "rtc" if kind == "rtc" or chance.random() < 0.3 else "none")]
    if kind == "rtc" and chance.random() < 0.5:
        return wall
    right = "gateway" if kind == "gateway" else "ntp"
    at = began + lasted * chance.random() ** 2
    while at < began + lasted and len(wall) < 200:
        wall.append((at, chance.uniform(-400, 0) if right == "gateway" else chance.uniform(-50, 50), right))
        at += chance.choice((HOUR, DAY, 30 * DAY))
    return wall


def _way(chance: random.Random, bridge: bool, met: bool, quickly: bool) -> float:
    if bridge:
        return 10 ** chance.uniform(1, 9.2)  # up to 18 days in a broker
    if quickly or chance.random() < 0.5:
        return chance.uniform(2, QUICK_MS)
    if met and chance.random() < 0.2:
        return chance.uniform(30 * MINUTE, 50 * MINUTE)
    return chance.uniform(QUICK_MS, 58 * SECOND)


def _arrived(
    received: float,
    quick: bool,
    owner: _Life,
    true: float,
    sequence: int,
    sender: _Life,
    sent: float,
    *,
    wide: bool,
    bridge: bool,
) -> Arrived:
    uptime = owner.uptime(true)

    def counted(value: float) -> int:
        return int(value) if wide else int(value) % WRAP

    source, wall, set_at = owner.clock(true)
    data: dict[str, Any] = {"boot_id": owner.boot, "sequence": sequence, "uptime_ms": counted(uptime), "device_id": "pump-7"}
    parameters: dict[str, str] = {"e": "ue", "dtm": str(counted(uptime))}
    sent_true: float | None = None
    if source != "none":
        data |= {"clock": source, "set_at_ms": int(set_at)}
        parameters["dtm"] = str(int(wall))
    sends, sending_wall, _ = sender.clock(sent)
    if owner is sender:
        parameters["stm"] = str(int(sending_wall) if sends != "none" else counted(sender.uptime(sent)))
        if source == sends == "none":
            sent_true = sent
    columns = {"contexts": [{"schema": DEVICE_CLOCK, "data": data}], "derived_tstamp": int(received)}
    payload = RawPayload("0" * 32, int(received), "mqtt_bridge" if bridge else "http", "/i")
    return Arrived(true, uptime, owner.boot, int(received), columns, RawEvent(payload, 0, parameters), sent_true, quick)


def histories(first: int, count: int) -> Iterator[tuple[int, list[Arrived]]]:
    for number in range(first, first + count):
        yield number, history(number)
