"""Reads parameters.json and columns.json, the only hand-written lists, into typed tables.

Protocol knowledge is a table, not code: nobody else in the house spells out parameters or columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

Conversion = Literal[
    "text",
    "ip_first",
    "int32",
    "decimal",
    "bool01",
    "uuid",
    "epoch_ms",
    "dimensions",
    "event_code",
    "platform_code",
    "json_text",
    "base64_json_text",
    "none",
]
ColumnType = Literal["string", "uuid", "timestamp", "integer", "decimal", "float", "boolean", "json"]
Status = Literal["current", "legacy", "ignored", "reserved"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A short key a tracker sends.

    columns: what it fills; empty when it is tolerated but unused, or belongs to the transport.
    post_since: first payload_data version (SchemaVer) that allows it in a POST body; None = query string only.
    yields_to: the parameter that wins when an event carries both.
    """

    name: str
    about: str
    conversion: Conversion
    columns: tuple[str, ...]
    post_since: str | None
    status: Status
    yields_to: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the canonical event. max_length counts UTF-16 code units; None = not checked."""

    name: str
    type: ColumnType
    max_length: int | None
    required: bool
    redshift: str | None
    postgres: str
    sqlite: str
    source: str


def _rows(name: str, key: str) -> list[dict[str, object]]:
    document = json.loads(files(__package__ or "protocol").joinpath(name).read_text("utf-8"))
    rows: list[dict[str, object]] = document[key]
    return rows


def _parameter(row: dict[str, object]) -> Parameter:
    return Parameter(**{**row, "columns": tuple(row["columns"])})  # type: ignore[arg-type]


def _column(row: dict[str, object]) -> Column:
    return Column(**{("source" if key == "from" else key): value for key, value in row.items()})  # type: ignore[arg-type]


PARAMETERS: dict[str, Parameter] = {p.name: p for p in map(_parameter, _rows("parameters.json", "parameters"))}
COLUMNS: tuple[Column, ...] = tuple(map(_column, _rows("columns.json", "columns")))
COLUMN_NAMES: tuple[str, ...] = tuple(c.name for c in COLUMNS)

PLATFORMS: frozenset[str] = frozenset({"web", "mob", "pc", "srv", "app", "tv", "cnsl", "iot", "headset"})

EVENT_CODES: dict[str, str] = {
    "pv": "page_view",
    "pp": "page_ping",
    "se": "struct",
    "ue": "unstruct",
    "tr": "transaction",
    "ti": "transaction_item",
    "ev": "struct",
    "ad": "ad_impression",
}
"""Wire code -> `event` column. `ad` is mapped and then always fails: it has no schema of its own."""

EVENT_SCHEMAS: dict[str, tuple[str, str]] = {
    "page_view": ("com.snowplowanalytics.snowplow", "page_view"),
    "page_ping": ("com.snowplowanalytics.snowplow", "page_ping"),
    "struct": ("com.google.analytics", "event"),
    "transaction": ("com.snowplowanalytics.snowplow", "transaction"),
    "transaction_item": ("com.snowplowanalytics.snowplow", "transaction_item"),
}
"""`event` column -> (event_vendor, event_name) of the events that carry no schema; all are version 1-0-0."""
