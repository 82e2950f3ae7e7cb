"""Events -> the lines of each table, or the reasons why Redshift cannot hold an event. Pure.

An event is taken whole or not at all: what one of its entities cannot be stored with, keeps all of it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from protocol.iglu import InvalidUri, SchemaKey, parse
from protocol.seams import Event, Reason, SelfDescribing
from protocol.tables import COLUMN_NAMES
from storage.redshift.ddl import REQUIRED
from storage.redshift.holding import LONGEST_LINE, LONGEST_VARCHAR, Misfit, holder, text_of
from storage.redshift.loading import NULL
from storage.redshift.tables import META, Column, Table, family, ref_tree, value_at
from storage.rows import clean, json_text, to_tsv

_LONGEST_VALUE = 1_000
_PLACE = {name: place for place, name in enumerate(COLUMN_NAMES)}
_ID, _RECEIVED, _MADE, _BY = (_PLACE[name] for name in ("event_id", "collector_tstamp", "etl_tstamp", "v_etl"))


@dataclass(slots=True)
class Part:
    """What goes into one table. event_ids: whose lines they are. schema: of the table's entities, without revision."""

    table: str
    columns: tuple[Column, ...]
    schema: str | None = None
    lines: list[str] = field(default_factory=list[str])
    event_ids: list[str] = field(default_factory=list[str])

    def value(self, line: int, column: str) -> str | None:
        """What a line has for a column."""
        places = [place for place, known in enumerate(self.columns) if known.name == column]
        return _shortened(self.lines[line].split("\t")[places[0]]) if places else None


class Writer:
    """Call order: `add` for each event -> `parts`.

    events: the columns of `events`, as wide as they are. tables: of entities, by family; None = entities get no rows.
    """

    def __init__(self, events: tuple[Column, ...], tables: Mapping[str, Table] | None, cut: bool) -> None:
        self._tables, self._cut = tables, cut
        self._events = Part("events", events)
        self._holders = [(c, _PLACE[c.name], holder(c.kind, cut), c.name in REQUIRED) for c in events]
        self._entities: dict[str, Part] = {}
        self._low = self._high = self._made = ""
        self._by = ""

    @property
    def count(self) -> int:
        return len(self._events.lines)

    def parts(self) -> Iterator[Part]:
        return chain((self._events,) if self._events.lines else (), self._entities.values())

    def facts(self) -> tuple[str, str, str | None, str, str]:
        """For the manifest: the first and the last collector_tstamp, the last etl_tstamp, the tables' schemas as JSON, v_etl."""
        types: list[object] = [part.schema for part in self._entities.values()]
        while len((text := json_text(types)).encode()) > LONGEST_VARCHAR:
            types = types[: len(types) // 2]
        return self._low, self._high, self._made or None, text, self._by

    def add(self, event: Event) -> tuple[Reason, ...]:
        """Why the event does not fit; when there is no reason its lines are written."""
        fields = to_tsv(event).split("\t")
        reasons: list[Reason] = []
        line: list[str] = []
        for column, place, hold, required in self._holders:
            text = fields[place]
            if text:
                try:
                    text = hold(text)
                except Misfit as misfit:
                    reasons.append(_reason("atomic", column.name, misfit, text, None))
            elif required:
                reasons.append(
                    Reason("atomic", column.name, f"is missing; Redshift's {column.name} is NOT NULL", None, "required")
                )
            line.append(text)
        made = [("events", self._events, "\t".join(line))]
        if self._tables is not None:
            made += self._entity_lines(event, fields[_ID], fields[_RECEIVED], reasons)
        for table, _, text in made:
            if len(text) * 4 > LONGEST_LINE and (size := len(text.encode())) > LONGEST_LINE:
                about = f"makes a line of {size} bytes for {table}; COPY takes {LONGEST_LINE}"
                reasons.append(Reason("atomic", "", about, None, "redshift_maxBytes"))
        if reasons:
            return tuple(reasons)
        for _, part, text in made:
            part.lines.append(text)
            part.event_ids.append(fields[_ID])
        self._low = min(self._low or fields[_RECEIVED], fields[_RECEIVED])
        self._high = max(self._high, fields[_RECEIVED])
        self._made, self._by = max(self._made, fields[_MADE]), fields[_BY]
        return ()

    def _entity_lines(self, event: Event, event_id: str, received: str, reasons: list[Reason]) -> list[tuple[str, Part, str]]:
        made: list[tuple[str, Part, str]] = []
        for step, entity in _entities(event):
            try:
                key = parse(entity["schema"])
            except InvalidUri:
                continue
            table = (self._tables or {}).get(name := family(key))
            if table is None:
                continue
            part = self._entities.setdefault(name, Part(table.name, (*META, *table.columns), name))
            about = (key.vendor, key.name, key.format, key.version, event_id, received, "events", ref_tree(table.name), "events")
            line = [*about, *self._values(step, key, entity, table, reasons)]
            made.append((table.name, part, "\t".join(line)))
        return made

    def _values(self, step: str, key: SchemaKey, entity: SelfDescribing, table: Table, reasons: list[Reason]) -> Iterator[str]:
        for column in table.columns:
            value = value_at(entity["data"], column.path)
            try:
                text = text_of(value, column.kind)
                yield NULL if text is None else holder(column.kind, self._cut)(text)
            except Misfit as misfit:
                shown = value if isinstance(value, str) else json_text(value)
                reasons.append(_reason(step, ".".join(column.path), misfit, shown, key.uri))


def _entities(event: Event) -> Iterator[tuple[str, SelfDescribing]]:
    if "unstruct_event" in event:
        yield "unstruct_event", event["unstruct_event"]
    for entity in event.get("contexts", ()):
        yield "contexts", entity
    for entity in event.get("derived_contexts", ()):
        yield "derived_contexts", entity


def _reason(step: str, name: str, misfit: Misfit, value: str, schema: str | None) -> Reason:
    return Reason(step, name, str(misfit), _shortened(clean(value)), f"redshift_{misfit.keyword}", schema)


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
