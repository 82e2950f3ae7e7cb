"""What a database knows about the event -> entities or columns: a device registry, a list of customers.

The event's values are parameters of the query, never part of its text. Nothing is written. Where a value that the query
needs is missing, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from enrich import answers
from enrich.answers import Unusable
from enrich.enrichments import RawEvent, Unanswered, World
from enrich.places import first, place
from enrich.reasons import reason
from protocol.iglu import InvalidUri, parse
from protocol.seams import ConfigurationError, Decimal, Event, Reason, SelfDescribing

Rows = list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Config:
    """database: a SQLite file, or postgresql://…. query: with ? (SQLite) or %s (PostgreSQL) for each of `inputs`, in order.

    inputs: columns, or places such as 'contexts iglu:com.acme/device/jsonschema/1-*-* $.id'. schema: of the entity that each
    row becomes, its keys the result's columns. columns: event column -> result column. rows: how many there must be.
    """

    database: str = ""
    query: str = ""
    inputs: tuple[str, ...] = ()
    schema: str = ""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    rows: Literal["at_most_one", "exactly_one", "at_least_one", "any"] = "at_most_one"
    max_rows: int = 100
    timeout_s: float = 0.5
    cache_size: int = 10_000
    cache_ttl_s: float = 60


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        if not config.database or not config.query:
            raise ConfigurationError("sql_lookup: set database and query")
        self._inputs = [place(text, "sql_lookup.inputs") for text in config.inputs]
        self._schema = checked_schema(config.schema, "sql_lookup.schema")
        self._columns = checked_columns(config.columns, "sql_lookup.columns")
        if not self._schema and not self._columns:
            raise ConfigurationError("sql_lookup: say what becomes of the rows: schema, columns or both")
        one = config.rows in ("at_most_one", "exactly_one")
        if self._columns and not one:
            raise ConfigurationError("sql_lookup.columns: take one row; set rows to at_most_one or exactly_one")
        self._least = 1 if config.rows in ("exactly_one", "at_least_one") else 0
        ask = world.database(config.database, config.query, len(config.inputs), config.timeout_s, 1 if one else config.max_rows)
        self._ask = world.cached(config.cache_size, config.cache_ttl_s, ask)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        values: list[object] = []
        for where in self._inputs:
            value = first(event, where)
            if value is None:
                return {}
            values.append(str(value) if isinstance(value, Decimal) else value)
        try:
            rows = self._ask(tuple(values))
            if len(rows) < self._least:
                return reason("sql_lookup", "", "no row where there must be one", str(values[0]) if values else None)
            return self._added(rows)
        except Unanswered as error:
            return reason("sql_lookup", "", str(error))
        except Unusable as error:
            return reason("sql_lookup", error.field, str(error))

    def _added(self, rows: Rows) -> Event:
        added: dict[str, Any] = {}
        for name, result in self._columns:
            if rows:
                if result not in rows[0]:
                    raise Unusable(name, f"the result has no column {result}; there are {', '.join(rows[0])}")
                added[name] = rows[0][result]
        found = answers.added(added)
        if self._schema and rows:
            entities: list[SelfDescribing] = []
            for row in rows:
                data = answers.json({key: value for key, value in row.items() if value is not None})
                entities.append({"schema": self._schema, "data": data})
            found["derived_contexts"] = entities
        return found


def checked_schema(uri: str, where: str) -> str:
    """ "" or a schema's URI. Raises ConfigurationError."""
    try:
        return uri and parse(uri).uri
    except InvalidUri:
        raise ConfigurationError(f"{where}: {uri!r} is no schema such as iglu:com.acme/device/jsonschema/1-0-0") from None


def checked_columns(columns: Mapping[str, str], where: str) -> list[tuple[str, str]]:
    """Raises ConfigurationError."""
    if strange := [name for name in columns if name not in answers.WRITABLE or name == "derived_contexts"]:
        raise ConfigurationError(f"{where}: {', '.join(strange)} cannot be filled")
    return list(columns.items())
