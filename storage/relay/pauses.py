"""When a relay may send: the wait after trouble, the hours of day, so many bytes a second. Pure but for what is handed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from protocol.seams import ConfigurationError

FIRST_WAIT_S = 1.0
LONGEST_RETRY_AFTER_S = 86_400.0
_LOOK_EVERY_S = 30.0  # while the hours are closed: no arithmetic about summer time
_HOURS = re.compile(r"([01]\d|2[0-3]|24):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")


class Waits:
    """How long to wait after each failure in a row: full jitter under a doubling ceiling; longer where the upstream says so.

    timer: seconds, monotonic. chance: 0 to 1.
    """

    def __init__(self, longest_s: float, timer: Callable[[], float], chance: Callable[[], float]) -> None:
        self._longest_s, self._timer, self._chance = longest_s, timer, chance
        self._failures, self._until = 0, 0.0

    def left_s(self) -> float:
        return max(0.0, self._until - self._timer())

    def worked(self) -> None:
        self._failures, self._until = 0, 0.0

    def failed(self, retry_after_s: float | None = None, hopeless: bool = False) -> None:
        """hopeless: somebody has to change something first, so there is no hurry."""
        ceiling = min(self._longest_s, FIRST_WAIT_S * 2 ** min(self._failures, 30))
        self._failures += 1
        wait = self._chance() * ceiling
        if hopeless:
            wait = self._longest_s * (1 + self._chance()) / 2
        if retry_after_s is not None:  # and somewhat later, so that a fleet does not come back at one moment
            wait = max(wait, min(retry_after_s, LONGEST_RETRY_AFTER_S) * (1 + self._chance() / 10))
        # Not 0: a wait that is over at once would not be seen as one.
        self._until = self._timer() + max(wait, 0.001)


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds that a Retry-After header asks for; None when there is none to be understood. Source: RFC 9110, 10.2.3."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now_ms / 1000)


class Hours:
    """Times of day at which sending is allowed; none given = always."""

    def __init__(self, hours: Sequence[str], zone: str) -> None:
        """hours: "22:00-06:00", the end not included. zone: IANA name. Raises ConfigurationError."""
        self._spans = [_span(text) for text in hours]
        self._zone: tzinfo = UTC
        if hours and not zone:
            raise ConfigurationError('hours: say in which time_zone, such as "Europe/Berlin" or "UTC"')
        if zone and zone != "UTC":
            try:
                self._zone = ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ConfigurationError(f"time_zone: no time zone {zone!r} on this machine") from None

    def pause_s(self, now_ms: int) -> float:
        """0 = open; otherwise when to look again."""
        if not self._spans:
            return 0.0
        # No fromtimestamp: it refuses what some platforms' C libraries do.
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now_ms)).astimezone(self._zone)
        minute = local.hour * 60 + local.minute
        if any(begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in self._spans):
            return 0.0
        return _LOOK_EVERY_S


def _span(text: str) -> tuple[int, int]:
    match = _HOURS.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ConfigurationError(f'hours: expected times of day such as "22:00-06:00", not {text!r}')
    first, first_minute, last, last_minute = map(int, match.groups())
    begin, end = first * 60 + first_minute, last * 60 + last_minute
    if begin == end or begin >= 1440 or end > 1440:
        raise ConfigurationError(f'hours: {text!r} is no part of a day; all day is "00:00-24:00", or no hours at all')
    return begin, end


class Pace:
    """So many bytes a second. timer: seconds, monotonic."""

    def __init__(self, bytes_per_s: int, timer: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._rate, self._timer, self._sleep, self._free_at = bytes_per_s, timer, sleep, 0.0

    @property
    def piece(self) -> int:
        """Bytes to send at once: a quarter of a second's worth, and no more than 64 KiB."""
        return min(65_536, max(1, self._rate // 4)) if self._rate else 65_536

    def wait(self, size: int) -> None:
        """Before so many bytes are sent."""
        if not self._rate:
            return
        now = self._timer()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        self._free_at = max(self._free_at, now) + size / self._rate
