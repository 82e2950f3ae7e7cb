"""What is known of a device's starts: moments at which the gateway's time and the device's uptime met.

Pure values. Each fact holds whatever else is learned, so facts only ever tighten what follows from them: the order in which
they come, and how often, does not matter, and what two processes know apart can be merged. What is too much is forgotten,
which only loosens. Times are milliseconds since 1970 by the gateway's clock, uptimes milliseconds of the device's counter.

Assumed: a counter that wraps at 32 bits met the gateway within its first 49.7 days; no clock drifts more than `Limits` say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import orjson

WRAP = 1 << 32  # milliseconds: 49.7 days
_MOST = 24  # contacts of one start: the earliest in each stretch of it, and the last
_STRETCH_MS = 3_600_000  # doubled until there are no more than that
_APART = 65_535  # boot ids further apart than this may be drawn at random: which start was first is not known
_UNSURE_MS = 86_400_000  # by which drift and slow messages can mislead while wraps are counted
_RESTARTED_MS = 3_600_000  # a direct message that is so much later than others of its start is of another one with its number


class Limits(NamedTuple):
    """drift: by which share a device's clock may be fast or slow. delivery_ms: the longest way of a start's quickest message.

    boots: starts of one device that are remembered.
    """

    drift: float
    delivery_ms: int
    boots: int


class Contact(NamedTuple):
    """At `at` the device's uptime was `uptime` at least: the message had left it, at most slack_ms later than it says."""

    uptime: float
    at: float
    slack_ms: float = 0.0

    @property
    def zero(self) -> float:
        """The latest time at which the counter can have stood at 0, were there no drift."""
        return self.at + self.slack_ms - self.uptime


Contacts = tuple[Contact, ...]


class Between(NamedTuple):
    """A span of time. least: -infinity where nothing tells."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Boot:
    """One start of a device.

    measured: the uptime is that of the sending, so the message's way is all that lies between. seen: the device had that
    uptime some time before, who knows how long. longest: an uptime that it reached. stretches: milliseconds of uptime that
    share one contact, of measured and of seen.
    """

    measured: Contacts = ()
    seen: Contacts = ()
    longest: float = 0.0
    stretches: tuple[int, int] = (_STRETCH_MS, _STRETCH_MS)

    @property
    def last_at(self) -> float:
        return max((contact.at for contact in (*self.measured, *self.seen)), default=0.0)

    def unwrapped(self, uptime: int, at: float) -> float:
        """The uptime by a counter that never wraps. at: about when the device's counter stood there."""
        if uptime >= WRAP or not self.measured:
            return uptime
        wraps = round((at - self.measured[0].zero - uptime) / WRAP)
        return uptime + wraps * WRAP

    def in_step(self, contact: Contact) -> Contact:
        """The contact, its uptime counted as this start's are."""
        wraps = round((contact.zero - self.measured[0].zero) / WRAP) if self.measured else 0
        return contact._replace(uptime=contact.uptime + wraps * WRAP) if wraps else contact


def within(boot: Boot, uptime: float, limits: Limits, own: Iterable[Contact] = ()) -> Between:
    """When the counter stood at `uptime`, by this start's own contacts. own: of the event itself, measured."""
    fast, slow = 1 + limits.drift, 1 - limits.drift
    most = math.inf
    earliest: list[float] = []
    for at_uptime, at, slack_ms in (*boot.measured, *own):
        ago = at_uptime - uptime
        least_ago, most_ago = (ago / fast, ago / slow) if ago > 0 else (ago / slow, ago / fast)
        most = min(most, at + slack_ms - least_ago)
        earliest.append(at - slack_ms - most_ago - limits.delivery_ms)
    for at_uptime, at, _ in boot.seen:
        ago = at_uptime - uptime
        most = min(most, at - (ago / fast if ago > 0 else ago / slow))
    # A message that was under way longer than assumed says nothing; that it was is seen by a later, quicker one.
    return Between(max((time for time in earliest if time <= most), default=-math.inf), most)


def nearest(boot: Boot, uptime: float) -> float:
    """The same by the nearest measured contact, of which there is one, and a clock without drift."""
    contact = min(boot.measured, key=lambda contact: abs(contact.uptime - uptime))
    return contact.at + uptime - contact.uptime


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one device, by boot id. Never changed, only replaced."""

    boots: Mapping[int, Boot] = field(default_factory=dict[int, Boot])
    # Of a start: when its counter began, by the starts before and after it. Worked out when asked for.
    _around: dict[int, Between] = field(default_factory=dict[int, Between], compare=False)

    def boot(self, boot_id: int) -> Boot:
        return self.boots.get(boot_id, _NOTHING)

    def measured(self, boot_id: int, contact: Contact, reached: float, limits: Limits) -> Facts:
        """With one more, from the device itself and stored nowhere. Uptimes by a counter that never wraps.

        reached: an uptime of this start for certain; that of the contact may only be what it would have been.
        """
        boot = self.boot(boot_id)
        if boot.measured:
            if contact in boot.measured and reached <= boot.longest:
                return self
            near = min(boot.measured, key=lambda known: abs(known.uptime - contact.uptime))
            allowed = _RESTARTED_MS + 2 * limits.drift * abs(near.uptime - contact.uptime)
            if abs(near.zero - contact.zero) > allowed:
                # The number was used twice, or a message was under way for hours: what arrived last is of the start that lives.
                boot = boot if contact.at < boot.last_at else _NOTHING
                contact = contact if not boot.measured else near
        return self._with(boot_id, _joined(boot, Boot((contact,), (), reached)), limits)

    def seen(self, boot_id: int, uptime: float, at: float, limits: Limits) -> Facts:
        """The device had that uptime before `at`; who knows how long before."""
        return self._with(boot_id, _joined(self.boot(boot_id), Boot((), (Contact(uptime, at),), uptime)), limits)

    def merged(self, other: Facts, limits: Limits) -> Facts:
        boots = dict(self.boots)
        for boot_id, boot in other.boots.items():
            boots[boot_id] = _joined(boots[boot_id], boot) if boot_id in boots else boot
        return Facts(_kept(boots, limits.boots))

    def around(self, boot_id: int, limits: Limits) -> Between:
        """When the counter of this start stood at 0, by the starts before and after it."""
        found = self._around.get(boot_id)
        if found is None:
            found = self._around[boot_id] = self._between_neighbours(boot_id, limits)
        return found

    def _with(self, boot_id: int, boot: Boot, limits: Limits) -> Facts:
        if self.boots.get(boot_id) == boot:
            return self
        # The other starts are what they were, so what they say of this one still holds.
        around = {boot_id: self._around[boot_id]} if boot_id in self._around else {}
        boots = {**self.boots, boot_id: boot}
        return Facts(boots, around) if len(boots) <= limits.boots else Facts(_kept(boots, limits.boots))

    def _between_neighbours(self, boot_id: int, limits: Limits) -> Between:
        drift = limits.drift
        least, most = -math.inf, math.inf
        # Forward: a start began after the last moment known of the one before.
        for _, boot in self._neighbours(sorted(known for known in self.boots if known < boot_id), boot_id):
            ended = within(boot, boot.longest, limits).least
            least = max(least, ended, least + boot.longest / (1 + drift))
        # Backward: the last moment of a start was before the next began.
        later = sorted((known for known in self.boots if known > boot_id), reverse=True)
        for _, boot in self._neighbours(later, boot_id):
            began = min(within(boot, 0.0, limits).most, most - boot.longest / (1 + drift))
            most = min(most, began)
        return Between(least, most)

    def _neighbours(self, boot_ids: list[int], boot_id: int) -> Iterator[tuple[int, Boot]]:
        return ((known, self.boots[known]) for known in boot_ids if abs(known - boot_id) <= _APART)


_NOTHING = Boot()


def _joined(one: Boot, other: Boot) -> Boot:
    """Both together; the same in whatever order any number of them are joined."""
    if one.measured and other.measured and one.measured != other.measured:
        apart = round((one.measured[0].zero - other.measured[0].zero) / WRAP)
        if apart:  # one of them first met the gateway some wraps later: the longer count is the true one
            if apart > 0:
                one = _lifted(one, apart * WRAP)
            else:
                other = _lifted(other, -apart * WRAP)
    measured, stretch = _thinned(one.measured, other.measured, max(one.stretches[0], other.stretches[0]))
    seen, seen_stretch = _thinned(one.seen, other.seen, max(one.stretches[1], other.stretches[1]))
    joined = Boot(measured, seen, max(one.longest, other.longest), (stretch, seen_stretch))
    if joined.measured:  # counted from a wrap too late: an uptime below 0, or one that was seen before it can have been
        wraps = -math.floor(joined.measured[0].uptime / WRAP)
        if joined.seen:
            late = joined.measured[0].zero - min(contact.zero for contact in joined.seen)
            wraps = max(wraps, math.ceil((late - _UNSURE_MS) / WRAP))
        if wraps > 0:
            joined = _lifted(joined, wraps * WRAP)
    return joined


def _lifted(boot: Boot, by: int) -> Boot:
    # What was only seen stays where it is: too short an uptime is true as well.
    return replace(boot, measured=tuple([c._replace(uptime=c.uptime + by) for c in boot.measured]), longest=boot.longest + by)


def _thinned(one: Contacts, other: Contacts, stretch: int) -> tuple[Contacts, int]:
    """Of both the quickest contact of each stretch of uptime, and the last. A stretch only grows, or order would matter."""
    if not one or not other:
        return one or other, stretch
    found = sorted({*one, *other})
    if len(found) <= 2:
        return tuple(found), stretch
    while True:
        best: dict[float, Contact] = {}
        for contact in found:
            place = contact.uptime // stretch
            if place not in best or _quickness(contact) < _quickness(best[place]):
                best[place] = contact
        if len(best) < _MOST:
            return tuple(sorted({*best.values(), found[-1]})), stretch
        stretch *= 2


def _quickness(contact: Contact) -> tuple[float, Contact]:
    return contact.zero, contact


def _kept(boots: Mapping[int, Boot], most: int) -> Mapping[int, Boot]:
    if len(boots) <= most:
        return boots
    newest = sorted(boots, key=lambda boot_id: (boots[boot_id].last_at, boot_id), reverse=True)[:most]
    return {boot_id: boots[boot_id] for boot_id in newest}


def written(facts: Facts) -> bytes:
    def boot_row(boot_id: int, boot: Boot) -> list[object]:
        return [boot_id, boot.longest, boot.stretches, list(map(list, boot.measured)), list(map(list, boot.seen))]

    return orjson.dumps([boot_row(*item) for item in facts.boots.items()])


def read(text: bytes) -> Facts:
    """What `written` wrote. Raises ValueError, TypeError for anything else."""
    boots: dict[int, Boot] = {}
    for boot_id, longest, (stretch, seen_stretch), measured, seen in orjson.loads(text):
        boots[int(boot_id)] = Boot(
            tuple([Contact(*map(float, one)) for one in measured]),
            tuple([Contact(*map(float, one)) for one in seen]),
            float(longest),
            (int(stretch), int(seen_stretch)),
        )
    return Facts(boots)
