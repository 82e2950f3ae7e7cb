"""Text of a parameter -> typed value, one function per conversion of parameters.json.

Pure: no clock, no network, no schema look-ups. A value that will not convert raises Unconvertible, which never leaves
this room: transform.py turns it into a Reason. Source: tracker protocol, "conversions"; vectors enrich/*.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache, lru_cache

from protocol.tables import EVENT_CODES, PLATFORMS

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_is_plain = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch
_INTEGER = re.compile(r"[+-]?\d+")
_INTEGRAL = re.compile(r"([+-]?\d+)\.0+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_is_uuid = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}").fullmatch
_DIMENSIONS = re.compile(r"([0-9]+)x([0-9]+)")
_IP_END = re.compile(r"[,| ]")

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
# Years 0000 to 9999, the ones that can be written with four digits.
_MILLISECONDS = range(-62_167_219_200_000, 253_402_300_800_000)
# Longer texts are no number anybody means, and int() of them is slow.
_LONGEST_NUMBER = 400


class Unconvertible(ValueError):
    """The message says what was expected, without the value."""


def text(value: str) -> str | None:
    """Tabs become four spaces, other control characters go; None when nothing is left."""
    if not value.isprintable():
        value = _CONTROL.sub("", value.replace("\t", "    "))
    return value or None


def ip_first(value: str) -> str | None:
    """The first of several addresses, as text."""
    return text(_IP_END.split(value, maxsplit=1)[0])


def int32(value: str) -> int | None:
    if len(value) < 10 and value.isdecimal():
        return int(value)
    if value.lower() == "null":
        return None
    return _integer(value, _INT32, "an integer of 32 bits")


def int32_or_integral(value: str) -> int | None:
    """As int32, and a fraction of zeros is allowed ("123.0"): leniency integral_number."""
    if len(value) < 10 and value.isdecimal():
        return int(value)
    match = _INTEGRAL.fullmatch(value)
    return int32(match[1] if match else value)


def decimal(value: str) -> Decimal | None:
    """Scale is kept ("42.50"); a positive exponent is expanded ("1E7" -> 10000000)."""
    if _is_plain(value):
        return Decimal(value)
    if value.lower() == "null":
        return None
    if len(value) > _LONGEST_NUMBER or not _DECIMAL.fullmatch(value):
        raise Unconvertible("expected a decimal number")
    number = Decimal(value)
    if not number:
        number = number.copy_abs()  # there is no negative zero
    if number and not -_LONGEST_NUMBER < number.adjusted() < _LONGEST_NUMBER:
        raise Unconvertible(f"expected a decimal number of at most {_LONGEST_NUMBER} digits")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        # quantize() would round at the context's 28 digits; writing the zeros out does not.
        number = Decimal(f"{number:f}") if number else Decimal(0)
    return number


@cache
def bool01(value: str) -> bool:
    if value == "1":
        return True
    if value == "0":
        return False
    raise Unconvertible("expected 0 or 1")


def uuid(value: str) -> str:
    if not _is_uuid(value):
        raise Unconvertible("expected a UUID written as 8-4-4-4-12 hexadecimal digits")
    return value.lower()


def epoch_ms(value: str) -> int:
    if len(value) == 13 and value.isdecimal():
        return int(value)
    milliseconds = _integer(value, _INT64, "milliseconds since 1970 as an integer")
    if milliseconds not in _MILLISECONDS:
        raise Unconvertible("expected a time between the years 0000 and 9999")
    return milliseconds


# Screens come in few sizes, and pages of one site in not so many.
@lru_cache(maxsize=4_096)
def dimensions(value: str) -> tuple[int, int]:
    first, _, second = value.partition("x")
    if len(value) < 20 and first.isdecimal() and second.isdecimal() and len(first) < 10 > len(second) and value.isascii():
        return int(first), int(second)
    match = _DIMENSIONS.fullmatch(value)
    expected = "expected two integers of 32 bits written as 1280x800"
    if match is None or len(value) > _LONGEST_NUMBER:
        raise Unconvertible(expected)
    width, height = int(match[1]), int(match[2])
    if width not in _INT32 or height not in _INT32:
        raise Unconvertible(expected)
    return width, height


# Only what is known is kept: an exception never is.
@cache
def event_code(value: str) -> str:
    event = EVENT_CODES.get(value)
    if event is None:
        raise Unconvertible(f"expected one of {', '.join(EVENT_CODES)}")
    return event


@cache
def platform_code(value: str) -> str:
    if value not in PLATFORMS:
        raise Unconvertible(f"expected one of {', '.join(sorted(PLATFORMS))}")
    return value


def _integer(value: str, allowed: range, expected: str) -> int:
    if len(value) > _LONGEST_NUMBER or not _INTEGER.fullmatch(value):
        raise Unconvertible(f"expected {expected}")
    number = int(value)
    if number not in allowed:
        raise Unconvertible(f"expected {expected}")
    return number
