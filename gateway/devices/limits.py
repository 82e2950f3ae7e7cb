"""How fast a device may send: token buckets. Pure: the clock is an argument, in seconds that never go back.

A bucket is full at first. One payload that is larger than the whole bucket passes when that is full, and is paid for afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.devices.options import Options

_DAY_S = 86_400


class Limits(NamedTuple):
    """None = what the configuration says for every device; 0 = no limit."""

    payloads_per_s: float | None = None
    bytes_per_s: float | None = None
    payloads_per_day: float | None = None

    def over(self, options: Options) -> Limits:
        """With the configuration's in place of None."""
        return Limits(*(getattr(options, name) if value is None else value for name, value in self._asdict().items()))


class Bucket:
    __slots__ = ("_at_s", "_capacity", "_level", "_rate")

    def __init__(self, rate: float, capacity: float, now_s: float) -> None:
        """rate: per second, more than 0. capacity: what may come at once."""
        self._rate, self._capacity, self._level, self._at_s = rate, capacity, capacity, now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until so much may be taken; 0 = now."""
        self._level = min(self._capacity, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        return max(0.0, (min(amount, self._capacity) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Also gives back, where amount is below 0. After `wait_s` at the same moment."""
        self._level -= amount

    def full(self, now_s: float) -> bool:
        return self._level + (now_s - self._at_s) * self._rate >= self._capacity


class Pace:
    """The limits of one device at work."""

    __slots__ = ("_bytes", "_payloads")

    def __init__(self, limits: Limits, burst_s: float, now_s: float) -> None:
        """limits: without None."""
        per_s, bytes_per_s, per_day = (limit or 0 for limit in limits)
        self._payloads: list[Bucket] = []
        if per_s:
            self._payloads.append(Bucket(per_s, max(1.0, per_s * burst_s), now_s))
        if per_day:
            self._payloads.append(Bucket(per_day / _DAY_S, max(1.0, per_day), now_s))
        self._bytes = Bucket(bytes_per_s, max(1.0, bytes_per_s * burst_s), now_s) if bytes_per_s else None

    def delay_s(self, size: int, now_s: float) -> float:
        """0 = it may be taken now, and was counted."""
        asked = [(bucket, 1) for bucket in self._payloads]
        if self._bytes is not None:
            asked.append((self._bytes, size))
        delay = max((bucket.wait_s(amount, now_s) for bucket, amount in asked), default=0.0)
        if not delay:
            for bucket, amount in asked:
                bucket.take(amount)
        return delay


class Guesses:
    """Wrong claim codes: so many a minute for each source, and for all together. Sources are remembered while they matter."""

    def __init__(self, per_source: int, together: int, sources: int = 4_096) -> None:
        self._per_source, self._sources = per_source, sources
        self._together = Bucket(together / 60, together, 0)
        self._known: dict[str, Bucket] = {}

    def wait_s(self, source: str, now_s: float) -> float:
        """0 = one guess may be made now, and was counted; `right` takes that back."""
        bucket = self._known.get(source)
        if bucket is None:
            if len(self._known) >= self._sources:
                self._known = {name: known for name, known in self._known.items() if not known.full(now_s)}
            if len(self._known) >= self._sources:
                return 1.0
            bucket = self._known[source] = Bucket(self._per_source / 60, self._per_source, now_s)
        delay = max(bucket.wait_s(1, now_s), self._together.wait_s(1, now_s))
        if not delay:
            bucket.take(1)
            self._together.take(1)
        return delay

    def right(self, source: str) -> None:
        self._together.take(-1)
        if (bucket := self._known.get(source)) is not None:
            bucket.take(-1)
