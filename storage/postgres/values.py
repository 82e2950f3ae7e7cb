"""Events -> the text that COPY reads, a line per event; what a PostgreSQL column cannot hold is null.

Pure. Text comes cleaned from storage.rows, so a line holds no line feed, no TAB and no NUL; numbers keep to their column's range,
because one that does not would stop its whole batch.
"""

from __future__ import annotations

import math
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from itertools import repeat
from typing import Any, cast

from protocol.seams import Event
from protocol.tables import COLUMNS
from storage import rows
from storage.rows import clean, timestamp

_NULL = "\\N"
_PIECE = 500  # events
_INT32 = 2**31
_CENT, _MOST_MONEY = Decimal("0.01"), Decimal(10) ** 16  # of numeric(18,2)
_NAMESPACE = uuid.UUID("2d0b0c7f-5f2e-5d0a-8c7b-0f6f2a1f4a55")
_is_uuid = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def as_uuid(text: str) -> str:
    """As PostgreSQL writes it. A text that is none becomes the one that is always made from it."""
    if _is_uuid(text):
        return text
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(_NAMESPACE, clean(text)))


def with_uuids(events: Sequence[Event]) -> Sequence[Event]:
    """The same events, each event_id as the column will hold it."""
    ids = [event["event_id"] for event in events]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    if all(map(_is_uuid, ids)):
        return events
    return [cast(Event, {**event, "event_id": as_uuid(one)}) for event, one in zip(events, ids, strict=True)]


def moment(ms: int | None) -> str | None:
    """Milliseconds since 1970 as PostgreSQL reads them; None outside the years 0 to 9999."""
    return None if ms is None else readable(timestamp(ms))


def readable(time: str | None) -> str | None:
    """A time of storage.rows as PostgreSQL reads it, which calls the year 0 the year 1 BC."""
    return f"0001{time[4:]} BC" if time is not None and time.startswith("0000") else time


def lines(events: Sequence[Event], names: Sequence[str]) -> Iterator[bytes]:
    """What COPY (names) FROM STDIN reads, in its text format, piece by piece; in any order.

    Events with the same columns are written together: then what a column lacks costs nothing, and a look at a whole column
    does for all of its values. While the server takes one piece, the next is made.
    """
    shapes: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for event in cast(Sequence[dict[str, Any]], events):
        shapes[tuple(event)].append(event)
    for shape, alike in shapes.items():
        had = frozenset(shape)
        for begin in range(0, len(alike), _PIECE):
            piece = alike[begin : begin + _PIECE]
            columns = [
                _cells(name, [event[name] for event in piece]) if name in had else repeat(_NULL, len(piece)) for name in names
            ]
            yield ("\n".join(map("\t".join, zip(*columns, strict=True))) + "\n").encode()


def _cells(name: str, values: Sequence[Any]) -> Sequence[str]:
    write = _WRITERS.get(name)
    if write is not None:
        return [_NULL if value is None else write(value) for value in values]
    # Text, times and JSON: as every store has them.
    texts = cast(Sequence[str | None], rows.column(name, values))
    if name in _TIMES:
        return [readable(text) or _NULL for text in texts]
    return [_NULL if text is None else text.replace("\\", "\\\\") for text in texts]


def _integer(number: int) -> str:
    return str(int(number)) if -_INT32 <= number < _INT32 else _NULL


def _money(number: Decimal) -> str:
    """Two digits after the point, half away from zero, as PostgreSQL itself would round."""
    if not number.is_finite() or abs(number) >= _MOST_MONEY:
        return _NULL
    number = number.quantize(_CENT, ROUND_HALF_UP)
    return str(number) if abs(number) < _MOST_MONEY else _NULL


def _double(number: float | Decimal) -> str:
    try:
        value = float(number)
    except OverflowError:
        return _NULL
    return repr(value) if math.isfinite(value) else _NULL


def _uuid(text: str) -> str:
    text = text.lower()
    return text if _is_uuid(text) else _NULL


def _boolean(flag: bool) -> str:
    return "t" if flag else "f"


_BY_TYPE: dict[str, Callable[[Any], str]] = {
    "INTEGER": _integer,
    "NUMERIC(18,2)": _money,
    "DOUBLE PRECISION": _double,
    "BOOLEAN": _boolean,
    "UUID": _uuid,
}
_WRITERS = {column.name: _BY_TYPE[column.postgres] for column in COLUMNS if column.postgres in _BY_TYPE}
_TIMES = {column.name for column in COLUMNS if column.type == "timestamp"}
