"""Records -> tables: pages of flattened events, their columns and what these hold, counts over time.

Pure. Source: the requests the Micro user interface makes; docs/micro.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from spoorway.micro.filters import WrongShape, flag, items, text, text_of, whole
from spoorway.micro.filters import table as fields_of
from spoorway.micro.records import Record
from spoorway.micro.shapes import Object, flattened

_PAGE_SIZE = 50
_MOST_VALUES = 20
_NESTED = ("contexts_", "unstruct_event_")

Row = tuple[bool, Object]  # whether it is a good event, and its flattened columns


def table(records: Iterable[Record]) -> Iterator[Row]:
    """The records that have columns, in their order."""
    return ((record.good, flattened(record.column_values())) for record in records if record.has_columns)


def events(records: Iterable[Record], request: Mapping[str, Any]) -> Object:
    """The answer of /micro/events. Raises WrongShape."""
    keep = _filters(request)
    valid = flag(request, "validEvents")
    within = _range(fields_of(request, "timeRange") or {})
    found = [row for good, row in table(records) if valid in (None, good) and within(row["collector_tstamp"]) and keep(row)]
    _sort(found, fields_of(request, "sorting"))
    page, size = _positive(request, "page", 1), _positive(request, "pageSize", _PAGE_SIZE)
    return {
        "events": found[(page - 1) * size : page * size],
        "totalPages": max(1, -(-len(found) // size)),
        "totalItems": len(found),
    }


def columns(records: Iterable[Record]) -> list[str]:
    """Names of the columns that hold anything; those of what lies within schemas as `column.key`."""
    names: set[str] = set()
    for _, row in table(records):
        for name, value in row.items():
            if name.startswith(_NESTED):
                objects: list[Any] = value if name.startswith("contexts_") else [value]
                names.update(f"{name}.{key}" for each in objects if isinstance(each, dict) for key in cast(Object, each))
            elif value is not None:
                names.add(name)
    return sorted(names)


def column_stats(records: Iterable[Record], request: Mapping[str, Any]) -> Object:
    """The answer of /micro/columnStats. Raises WrongShape."""
    wanted = items(request, "columns", str)
    if wanted is None:
        raise WrongShape("columns: expected a list of column names")
    rows = [row for _, row in table(records)]
    return {name: _stats(name, rows) for name in wanted}


def _stats(name: str, rows: Iterable[Object]) -> Object:
    if name.startswith(_NESTED):
        return {"sortable": False, "filterable": False}
    if name.endswith("_tstamp"):
        return {"sortable": True, "filterable": False}
    values: dict[object, None] = {}
    for row in rows:
        if row.get(name) is not None:
            values[row[name]] = None
            if len(values) == _MOST_VALUES:
                break
    return {"sortable": True, "filterable": True, "values": sorted(values, key=_order)}


def timeline(records: Iterable[Record], request: Mapping[str, Any]) -> Object:
    """The answer of /micro/timeline. Raises WrongShape."""
    buckets = items(request, "buckets", dict)
    if buckets is None:
        raise WrongShape("buckets: expected a list of objects with start and end")
    times = [(record.good, record.received_ms) for record in records if record.has_columns]
    points: list[Object] = []
    for bucket in buckets:
        start, end = _time(bucket, "start"), _time(bucket, "end")
        if start is None or end is None:
            raise WrongShape("buckets: expected a start and an end in each")
        inside = [good for good, at in times if start <= at < end]
        points.append({"validEvents": inside.count(True), "failedEvents": inside.count(False), "bucket": bucket})
    return {"points": points}


def _filters(request: Mapping[str, Any]) -> Callable[[Object], bool]:
    filters = items(request, "filters", dict)
    if filters is None:
        raise WrongShape("filters: expected a list, [] for every event")
    wanted: list[tuple[str, set[str]]] = []
    for fields in filters:
        name, values = text(fields, "column"), items(fields, "values")
        if values is None and "value" in fields:  # as older clients write it
            values = [fields["value"]]
        if name is None or values is None:
            raise WrongShape("filters: expected objects with column and values")
        if not name.startswith(_NESTED):  # what has no single value is not filtered by
            wanted.append((name, {(text_of(value) or "").lower() for value in values}))
    return lambda row: all((text_of(row.get(name)) or "").lower() in values for name, values in wanted)


def _range(fields: Mapping[str, Any]) -> Callable[[str | None], bool]:
    start, end = _time(fields, "start"), _time(fields, "end")

    def within(instant: str | None) -> bool:
        at = _milliseconds(instant) if instant is not None else 0
        return (start is None or start <= at) and (end is None or at < end)

    return within


def _sort(rows: list[Object], sorting: Mapping[str, Any] | None) -> None:
    """In place; rows without the value come last."""
    if sorting is None:
        return
    name, descending = text(sorting, "column"), flag(sorting, "desc") or False
    if name is None:
        raise WrongShape("sorting: expected an object with column and desc")
    rows.sort(key=lambda row: _order(row.get(name)), reverse=descending)
    rows.sort(key=lambda row: row.get(name) is None)


def _order(value: object) -> tuple[int, Any]:
    """Numbers before texts, so that any two values can be compared."""
    return (0, value) if isinstance(value, (int, float)) else (1, text_of(value) or "")


def _positive(request: Mapping[str, Any], name: str, default: int) -> int:
    number = whole(request, name)
    if number is not None and number < 1:
        raise WrongShape(f"{name}: expected 1 or more")
    return default if number is None else number


def _time(fields: Mapping[str, Any], name: str) -> int | None:
    """Milliseconds since 1970, from an ISO 8601 text or such a number."""
    value = fields.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        return _milliseconds(str(value))
    except ValueError:
        raise WrongShape(f"{name}: expected a time like 2026-01-15T10:00:05Z") from None


def _milliseconds(instant: str) -> int:
    moment = datetime.fromisoformat(instant)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
