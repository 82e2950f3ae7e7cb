"""Event -> Row (SQL values in column order) and Event -> one line of canonical TSV.

Pure. Text that no table or line can carry (control characters, NUL, lone surrogates) is cleaned here, so that no event
can break a commit; a number or a time outside its column's range has no row value and becomes null.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

import orjson

from protocol.seams import Event, Json, SelfDescribing
from protocol.tables import COLUMN_NAMES, COLUMNS, ColumnType

Value = str | int | float | None
Row = tuple[Value, ...]

CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
UNSTRUCT_EVENT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"

_INT64 = 2**63
_YEAR_0_MS, _YEAR_10000_MS = -62_167_219_200_000, 253_402_300_800_000
_MILLIS = tuple(f".{ms:03d}" for ms in range(1000))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIRTY = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEEPEST_JSON = 200  # levels; enrichment refuses more than 50 and orjson more than 254


def clean(text: str) -> str:
    """As the tracker protocol cleans text: TAB becomes four spaces, other control characters vanish.

    A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
    """
    if text.isprintable():
        return text
    return _DIRTY.sub(lambda found: "    " if found[0] == "\t" else "\ufffd" if found[0] >= "\ud800" else "", text)


def _is_clean(text: str) -> bool:
    """Whether `clean` leaves it as it is. JSON escapes what it would touch, and finds that soonest; quotes need a second look."""
    try:
        plain = len(orjson.dumps(text)) == len(text.encode()) + 2
    except (TypeError, UnicodeEncodeError):  # a lone surrogate
        return False
    return "\x7f" not in text if plain else text.isprintable() or _DIRTY.search(text) is None


def _joined(texts: Sequence[str | None]) -> str:
    try:
        return "".join(cast(Sequence[str], texts))
    except TypeError:  # nulls among them
        return "".join(filter(None, texts))


@lru_cache(maxsize=8192)
def _second(seconds: int) -> str:
    # datetime begins at year 1: year 0 is computed 400 years (one Gregorian cycle) later.
    if seconds < _YEAR_0_MS // 1000 + 366 * 86_400:
        return f"0000{(_EPOCH + timedelta(days=146_097, seconds=seconds)):-%m-%d %H:%M:%S}"
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.year:04d}{moment:-%m-%d %H:%M:%S}"


def timestamp(ms: int) -> str | None:
    """`yyyy-MM-dd HH:mm:ss.SSS`, UTC, from milliseconds since 1970; None outside the years 0 to 9999."""
    if not _YEAR_0_MS <= ms < _YEAR_10000_MS:
        return None
    return _second(ms // 1000) + _MILLIS[ms % 1000]


def decimal_text(number: Decimal) -> str | None:
    """Plain text with its scale; scientific below 1E-6 as Java's BigDecimal.toString; None for NaN and infinity."""
    if not number.is_finite():
        return None
    text = str(number)
    return format(number, "f") if "E+" in text and number.adjusted() < 400 else text


@lru_cache(maxsize=4096)
def degrees_text(degrees: float) -> str | None:
    """The shortest decimal that names the same 32-bit float; None for what are no degrees. Zero has no sign."""
    if not -1000 < degrees < 1000:
        return None
    degrees += 0.0
    single = struct.pack("<f", degrees)
    text = next(t for t in (f"{degrees:.{digits}g}" for digits in range(1, 10)) if struct.pack("<f", float(t)) == single)
    text = repr(float(text))
    return format(Decimal(text), "f") if "e" in text else text


def json_text(value: object) -> str:
    """Compact JSON, non-ASCII unescaped, without NUL or lone surrogates; NaN and infinity become null."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, or deeper than orjson goes
        return json.dumps(_clean_json(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return orjson.dumps(_clean_json(value)).decode() if "\\u0000" in text else text


def _clean_json(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value.replace("\0", ""))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= _DEEPEST_JSON:
        return None
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {_clean_json(key): _clean_json(item, depth + 1) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_clean_json(item, depth + 1) for item in cast(Sequence[Any], value)]
    return value


def _entities(value: list[SelfDescribing]) -> str | None:
    return json_text({"schema": CONTEXTS, "data": value}) if value else None


def _unstruct_event(value: SelfDescribing) -> str:
    return json_text({"schema": UNSTRUCT_EVENT, "data": value})


def _integer(number: int) -> int | None:
    return number if -_INT64 <= number < _INT64 else None


def _float(number: float) -> float | None:
    return number if math.isfinite(number) else None


# One value, by column type; JSON columns differ in their wrapper.
_SQL: dict[ColumnType, Callable[[Any], Value]] = {
    "string": clean,
    "uuid": clean,
    "timestamp": timestamp,
    "integer": _integer,
    "decimal": decimal_text,
    "float": _float,
    "boolean": int,
    "json": _entities,
}
_TSV: dict[ColumnType, Callable[[Any], str | None]] = {
    "string": clean,
    "uuid": clean,
    "timestamp": timestamp,
    "integer": str,
    "decimal": decimal_text,
    "float": degrees_text,
    "boolean": lambda flag: "1" if flag else "0",
    "json": _entities,
}
_TO_SQL: dict[str, Callable[[Any], Value]] = {c.name: _SQL[c.type] for c in COLUMNS} | {"unstruct_event": _unstruct_event}
_TO_TSV = {c.name: (place, _TSV[c.type]) for place, c in enumerate(COLUMNS)}
_TO_TSV["unstruct_event"] = (_TO_TSV["unstruct_event"][0], _unstruct_event)


def column(name: str, values: Sequence[Any]) -> Sequence[Value]:
    """A whole column at once: where nothing is dirty or out of range, one look at all of it is enough."""
    convert = _TO_SQL[name]
    try:
        if convert is clean and _is_clean(_joined(values)):
            return values
        if convert is timestamp and min(values) >= _YEAR_0_MS and max(values) < _YEAR_10000_MS:
            times = cast(Sequence[int], values)
            if len(once := set(times)) * 2 > len(times):
                return [_second(ms // 1000) + _MILLIS[ms % 1000] for ms in times]
            # Many events share a time: those of one request, and etl_tstamp all of them.
            texts = {ms: _second(ms // 1000) + _MILLIS[ms % 1000] for ms in once}
            return [texts[ms] for ms in times]
        if convert is _integer and min(values) >= -_INT64 and max(values) < _INT64:
            return values
    except TypeError:  # nulls among them
        pass
    return [None if value is None else convert(value) for value in values]


def to_rows(events: Sequence[Event], names: Sequence[str] = COLUMN_NAMES) -> list[Row]:
    """The values of the named columns for every event, in that order; None where an event has none."""
    columns = _columns(cast(Sequence[dict[str, Any]], events), names)
    return list(zip(*map(column, names, columns), strict=True))


def _columns(events: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterable[Sequence[Any]]:
    if len(names) > 1:  # of one name itemgetter makes no tuple
        with suppress(KeyError):  # the fast way, when every event has every column
            return zip(*map(itemgetter(*names), events), strict=True)
    return [[event.get(name) for event in events] for name in names]


def to_row(event: Event) -> Row:
    return to_rows((event,))[0]


def to_tsv(event: Event) -> str:
    """131 fields separated by TAB, without a line feed; null is an empty field. Source: tracker protocol, "Enriched TSV"."""
    fields = [""] * len(COLUMN_NAMES)
    for name, value in event.items():
        if value is not None and (known := _TO_TSV.get(name)):
            place, write = known
            fields[place] = write(value) or ""
    return "\t".join(fields)


def to_json(event: Event) -> dict[str, Json]:
    """The columns for people and for JSON: times and decimals as text, booleans as they are, JSON columns as objects."""
    out: dict[str, Json] = {}
    for name, value in cast(dict[str, Any], event).items():
        if value is not None and name in _TO_SQL:
            written = _TO_SQL[name](value)
            is_json = name in ("contexts", "derived_contexts", "unstruct_event")
            out[name] = bool(value) if isinstance(value, bool) else json.loads(str(written)) if is_json and written else written
    return out
