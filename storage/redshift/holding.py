"""Text and JSON values -> the text that COPY reads into a Redshift column, or a Misfit that says why it cannot hold them.

Pure. Redshift counts the bytes of a VARCHAR, takes ASCII only in a CHAR, and cuts digits that a DECIMAL has no place for: all of
it is decided here, before anything is sent. Source: Amazon Redshift Database Developer Guide, "Data types".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from protocol.seams import Json
from storage.rows import clean, json_text

LONGEST_VARCHAR = 65_535
LONGEST_CHAR = 4_096
LONGEST_LINE = 4_194_304  # of the text that COPY reads, in bytes
_INTEGERS = {"smallint": 2**15, "int": 2**31, "bigint": 2**63}
_KIND = re.compile(r"(\w+(?: \w+)?)(?:\((\d+)(?:,(\d+))?\))?")

Hold = Callable[[str], str]


class Misfit(Exception):
    """keyword: the rule that was broken. The message is one sentence without its value."""

    def __init__(self, keyword: str, message: str) -> None:
        super().__init__(message)
        self.keyword = keyword


def parts(kind: str) -> tuple[str, int, int]:
    """`varchar(255)` -> ("varchar", 255, 0); `dec(18,2)` -> ("dec", 18, 2); `int` -> ("int", 0, 0)."""
    found = _KIND.fullmatch(kind)
    if found is None:
        raise ValueError(kind)
    return found[1], int(found[2] or 0), int(found[3] or 0)


@lru_cache(maxsize=4096)
def holder(kind: str, cut: bool) -> Hold:
    """What a column of that type makes of a text that is not null. cut: too long a text is shortened instead of refused.

    The function that is returned raises Misfit.
    """
    name, size, scale = parts(kind)
    if name in ("varchar", "char"):
        return _characters(name, size, cut)
    if name in _INTEGERS:
        return _integer(name)
    if name in ("dec", "decimal", "numeric"):
        return _decimal(size, scale)
    return {"timestamp": _timestamp, "date": _date, "double precision": _double, "boolean": _boolean, "super": _super}[name]


def text_of(value: Json, kind: str) -> str | None:
    """A JSON value as a column of that type takes it; null is None. Raises Misfit."""
    if value is None:
        return None
    name = parts(kind)[0]
    if name in ("varchar", "char"):
        return clean(value) if isinstance(value, str) else json_text(value)
    if name == "boolean" and isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and name in _INTEGERS and value.is_integer():
        return str(int(value))
    if name == "timestamp" and isinstance(value, str):
        return _moment(value)
    if isinstance(value, str) and name == "date":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("boolean", "timestamp", "date"):
        return repr(value)
    raise Misfit("type", f"a {_JSON.get(type(value), 'value')} does not fit into {kind.upper()}")


_JSON: dict[type[Any], str] = {bool: "boolean", str: "string", int: "number", float: "number", list: "list", dict: "object"}


def _characters(name: str, size: int, cut: bool) -> Hold:
    def hold(text: str) -> str:
        if len(text) * 4 <= size and name == "varchar":
            return text
        if name == "char" and not text.isascii():
            raise Misfit("ascii", "a CHAR column holds ASCII only")
        data = text.encode()
        if len(data) <= size:
            return text
        if cut:
            return data[:size].decode("utf-8", "ignore")
        raise Misfit("maxBytes", f"is {len(data)} bytes long; {name.upper()}({size}) counts bytes")

    return hold


def _integer(name: str) -> Hold:
    limit = _INTEGERS[name]

    def hold(text: str) -> str:
        try:
            number = int(text)
        except ValueError:
            raise Misfit("type", f"is no {name.upper()}") from None
        if not -limit <= number < limit:
            raise Misfit("range", f"is beyond the range of {name.upper()}")
        return str(number)

    return hold


def _decimal(precision: int, scale: int) -> Hold:
    unit, limit = Decimal(1).scaleb(-scale), Decimal(10) ** (precision - scale)

    def hold(text: str) -> str:
        """Half away from zero; COPY itself would cut."""
        try:
            number = Decimal(text)
            if abs(number) < limit:
                number = number.quantize(unit, ROUND_HALF_UP)
        except InvalidOperation:
            raise Misfit("type", f"is no DECIMAL({precision},{scale})") from None
        if not abs(number) < limit:
            raise Misfit("range", f"is beyond the range of DECIMAL({precision},{scale})")
        return format(number, "f")

    return hold


def _double(text: str) -> str:
    try:
        finite = math.isfinite(float(text))
    except (ValueError, OverflowError):
        finite = False
    if not finite:
        raise Misfit("range", "is beyond the range of DOUBLE PRECISION")
    return text


def _boolean(text: str) -> str:
    if text not in ("0", "1"):
        raise Misfit("type", "is no BOOLEAN")
    return text


def _timestamp(text: str) -> str:
    if text.startswith("0000"):
        raise Misfit("range", "is in the year 0, which Redshift does not have")
    return text


def _moment(text: str) -> str:
    """ISO 8601 to microseconds, in UTC; what names no zone is taken to be UTC."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Misfit("format", "is no TIMESTAMP") from None
    return f"{moment.replace(tzinfo=None).isoformat(' ', 'microseconds')}"


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise Misfit("format", "is no DATE") from None


def _super(text: str) -> str:
    return text
