"""When a device's event happened, although its clock was wrong, missing or begun anew: derived_tstamp and a device_time entity.

Pure but for the memory it is handed, which only ever tightens what it says. An event without a device_clock costs one
look-up. An uptime is never taken for a date. docs/device-time.md is the text of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from enrich.device_clock import DeviceClock, device_clock
from enrich.device_facts import WRAP, Between, Boot, Contact, Facts, Limits, nearest, read, within, written
from enrich.enrichments import RawEvent, Remembered, World
from protocol.devices import DEVICE_TIME
from protocol.seams import ConfigurationError, Event, Json, Reason

Method = Literal["true", "difference", "wall_clock", "anchored", "bounded", "received"]

_A_DATE = 1_000_000_000_000  # milliseconds: September 2001; as an uptime it would be 31 years
_AT_ONCE_MS = 1_000  # a wall clock that nobody vouches for measures no longer wait than this
_RIGHT_MS = 1_000  # a time this far outside its bounds is corrected; further, it is not believed
_ROUNDED_MS = 2  # each time was cut to whole milliseconds
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, and the Z is written by us: half as dear
_YEAR_1_MS, _YEAR_10000_MS = -62_135_596_800_000, 253_402_300_800_000


@dataclass(frozen=True, slots=True)
class Config:
    """drift_ppm: how fast or slow a device's clock may run. delivery_s: the longest way of the quickest message of a start.

    queued: transports whose messages may have waited elsewhere, so that nothing bounds their way.
    boots: starts of one device that are remembered; devices: how many.
    """

    drift_ppm: float = 100.0
    delivery_s: float = 60.0
    queued: tuple[str, ...] = ("mqtt_bridge", "file")
    boots: int = 8
    devices: int = 100_000

    def __post_init__(self) -> None:
        if not 0 <= self.drift_ppm <= 100_000:
            raise ConfigurationError("device_time.drift_ppm: expected 0 to 100000")
        if self.delivery_s < 0 or self.boots < 1 or self.devices < 1:
            raise ConfigurationError("device_time: delivery_s is 0 or more, boots and devices are 1 or more")


class _Sent(NamedTuple):
    """What the message itself says of one event.

    contact: the device's uptime as it sent, or as its clock lets us know; None where nothing does. waited_ms: between
    tracking and sending. vouched: the contact is one that others may be measured by. by_date: a wall clock says all this.
    """

    waited_ms: float | None
    contact: Contact | None
    vouched: bool
    by_date: bool


_NOTHING_SENT = _Sent(None, None, False, False)


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._limits = limits = Limits(config.drift_ppm / 1e6, round(config.delivery_s * 1000), config.boots)
        self._queued = frozenset(config.queued)

        def merged(one: Facts, other: Facts) -> Facts:
            return one.merged(other, limits)

        self._memory = world.memory("device_time", Remembered(written, read, merged), config.devices)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        if "contexts" not in event:
            return {}
        clock = device_clock(event, raw.payload)
        if clock is None:
            return {}
        received = raw.payload.received_ms
        # What a proven device is known by, nobody else can spoil.
        key = f"{'proven' if clock.proven else 'claimed'}:{clock.device}"
        known = self._memory.get(key) if clock.device is not None else None
        before = known or Facts()
        created, sent = _number(raw.parameters, "dtm"), _number(raw.parameters, "stm")
        message = self._sent(clock, created, sent, received, before.boot(clock.boot_id))
        facts = self._learned(before, clock, message, received, raw.payload.transport)
        if message.contact is not None:
            message = message._replace(contact=facts.boot(clock.boot_id).in_step(message.contact))
        if clock.device is not None and facts is not known:
            self._memory.put(key, facts)

        bounds = self._bounds(facts, clock, message, received, raw.payload.transport)
        method, time = self._when(facts, clock, message, created, received, bounds)
        if (true := event.get("true_tstamp")) is not None:
            method, time = "true", true
        data: dict[str, Json] = {} if clock.device is None else {"device": clock.device}
        data |= {"proven": clock.proven, "boot_id": clock.boot_id, "sequence": clock.sequence, "method": method}
        least, most = math.floor(bounds.least) if bounds.least > -math.inf else None, math.ceil(bounds.most)
        not_before, not_after = None if least is None else _iso(least), _iso(most)
        if not_before is not None:
            data["not_before"] = not_before
        if not_after is not None:
            data["not_after"] = not_after
        if least is not None:
            data["uncertainty_ms"] = most - least
        data["transport"] = raw.payload.transport
        return {"derived_tstamp": round(time), "derived_contexts": [{"schema": DEVICE_TIME, "data": data}]}

    def _sent(self, clock: DeviceClock, created: int | None, sent: int | None, received: int, boot: Boot) -> _Sent:
        """How long the event waited, as far as its times can be believed."""
        if sent is None:
            return _NOTHING_SENT
        uptime = clock.uptime_ms
        if clock.source == "none" or created == uptime:  # times are uptimes
            if sent >= _A_DATE:  # but the clock was set meanwhile
                return _NOTHING_SENT
            waited = sent - uptime
            if waited < 0:
                if uptime >= WRAP or sent < 0:
                    return _NOTHING_SENT
                waited += WRAP
            return _Sent(waited, Contact(boot.unwrapped(sent, received), received), True, False)
        if created is None or sent < created:
            return _NOTHING_SENT
        waited = sent - created
        if waited > WRAP:  # longer than the counter counts: the clock was set meanwhile
            return _NOTHING_SENT
        # A clock that was set from outside is at most corrected while an event waits, by what it drifted.
        slack = 0.0
        if clock.source != "rtc":
            set_at = clock.set_at_ms if clock.set_at_ms is not None and clock.set_at_ms <= uptime else 0
            slack = self._limits.drift * 2 * (waited + uptime - set_at)
        vouched = clock.source != "rtc" or waited <= _AT_ONCE_MS
        contact = Contact(boot.unwrapped(uptime, received - waited) + waited, received, slack)
        return _Sent(waited, contact, vouched, True)

    def _learned(self, facts: Facts, clock: DeviceClock, message: _Sent, received: int, transport: str) -> Facts:
        boot_id, limits = clock.boot_id, self._limits
        if message.contact is None or not message.vouched:
            return facts.seen(boot_id, clock.uptime_ms, received, limits)
        if transport in self._queued:
            return facts.seen(boot_id, message.contact.uptime - message.contact.slack_ms, received, limits)
        reached = message.contact.uptime
        if message.by_date:  # between tracking and sending the device may have started anew
            reached -= message.waited_ms or 0
        return facts.measured(boot_id, message.contact, reached, limits)

    def _bounds(self, facts: Facts, clock: DeviceClock, message: _Sent, received: int, transport: str) -> Between:
        """Between which times the event happened, whatever its clock says."""
        boot, around = facts.boot(clock.boot_id), facts.around(clock.boot_id, self._limits)
        own: tuple[Contact, ...] = ()
        latest: float = received
        uptimes: tuple[float, float] | None = None
        if message.contact is not None and message.vouched and message.waited_ms is not None:
            latest += message.contact.slack_ms - message.waited_ms / (1 + self._limits.drift)
            if boot.measured:
                uptime = message.contact.uptime - message.waited_ms
                uptimes = (uptime, uptime)
                own = () if transport in self._queued else (message.contact,)
        if uptimes is None:
            uptimes = self._uptimes(boot, around, clock.uptime_ms, received)
        first = last = self._span(boot, around, uptimes[0], own)
        if uptimes[1] != uptimes[0]:
            last = self._span(boot, around, uptimes[1], own)
        return Between(first.least - _ROUNDED_MS, min(last.most, latest, received) + _ROUNDED_MS)

    def _uptimes(self, boot: Boot, around: Between, uptime: int, received: int) -> tuple[float, float]:
        """The least and the most that the event's uptime can have been, by a counter that never wraps.

        They differ where the start may have lasted for weeks: then the event may be older or younger by 49.7 days.
        """
        if uptime >= WRAP:
            return uptime, uptime
        zero = around.least
        if boot.measured:
            zero = max(zero, within(boot, uptime, self._limits).least - uptime)
        if zero == -math.inf:
            return uptime, math.inf
        wraps = max(0, math.floor(((received - zero) * (1 + self._limits.drift) + _ROUNDED_MS - uptime) / WRAP))
        return uptime, uptime + wraps * WRAP

    def _span(self, boot: Boot, around: Between, uptime: float, own: tuple[Contact, ...]) -> Between:
        drift = self._limits.drift
        least, most = within(boot, uptime, self._limits, own)
        after = around.least + max(uptime, 0) / (1 + drift)
        if after <= most:  # otherwise boot ids do not count up, whatever else is wrong
            least = max(least, after)
        before = around.most - max(boot.longest - uptime, 0) / (1 + drift)
        return Between(least, min(most, before) if before >= least else most)

    def _when(
        self, facts: Facts, clock: DeviceClock, message: _Sent, created: int | None, received: int, bounds: Between
    ) -> tuple[Method, float]:
        """The best guess within the bounds."""
        boot = facts.boot(clock.boot_id)
        guesses: list[tuple[Method, float]] = []
        dated = clock.source != "none" and created is not None and created >= _A_DATE and created != clock.uptime_ms
        if dated and created is not None and clock.source != "rtc":
            guesses.append(("wall_clock", created))
        if message.waited_ms is not None:
            guesses.append(("difference", received - message.waited_ms))
        if dated and created is not None and clock.source == "rtc":
            guesses.append(("wall_clock", created))
        for method, time in guesses:
            if bounds.least - _RIGHT_MS <= time <= bounds.most + _RIGHT_MS:
                return method, _clamped(time, bounds)
        if boot.measured:
            around = facts.around(clock.boot_id, self._limits)
            uptime = self._uptimes(boot, around, clock.uptime_ms, received)[1]
            return "anchored", _clamped(received if uptime == math.inf else nearest(boot, uptime), bounds)
        if bounds.least > -math.inf:
            return "bounded", (bounds.least + bounds.most) / 2
        return ("bounded" if bounds.most < received - _RIGHT_MS else "received"), min(bounds.most, received)


def _clamped(time: float, bounds: Between) -> float:
    return min(max(time, bounds.least), bounds.most)


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    """As it was sent: what mends the times of old trackers would take long uptimes for seconds."""
    text = parameters.get(name, "")
    return int(text) if len(text) < 19 and text.isascii() and text.isdigit() else None


def _iso(ms: int) -> str | None:
    if not _YEAR_1_MS <= ms < _YEAR_10000_MS:
        return None
    return f"{(_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec='milliseconds')}Z"
