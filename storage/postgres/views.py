"""A typed view per schema and model over the jsonb of `events`, for PostgreSQL; and which schemas have one.

A value that is not of its property's type is null in the view, so that no single event can break it; the jsonb has it as it
came. Names and literals that come from a schema are quoted here, so that none can become SQL.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from psycopg import errors
from psycopg.types.json import Jsonb

from protocol.iglu import InvalidUri, SchemaKey, parse
from protocol.seams import Event, Json
from storage.postgres.connection import Connection
from storage.rows import json_text
from storage.targets import SchemaLookup
from storage.views import Leaf, column_names, cut, leaves_of, literal, quoted, schemas_of, view_name

log = logging.getLogger("spoorway.postgres")

_LONGEST_NAME = 63  # bytes; PostgreSQL cuts longer names, in questions too, so that those find what is named by the cut one
_MOST_COLUMNS = 1_500  # of a view; the limit is 1,600
_MOST_SCHEMAS = 5_000  # schemas that get a view; more are stored all the same
_BUSY_MS = 200  # so long a commit waits for those who read a view that is to be made anew

_TYPED = {
    "string": "{text}",
    "integer": "CASE WHEN jsonb_typeof({value}) = 'number' AND abs(({value})::numeric) < 9223372036854775807"
    " THEN ({value})::numeric::bigint END",
    "number": "CASE WHEN jsonb_typeof({value}) = 'number' AND abs(({value})::numeric) < 1.7e308"
    " THEN ({value})::double precision END",
    "boolean": "CASE WHEN jsonb_typeof({value}) = 'boolean' THEN ({value})::boolean END",
}


def view_sql(name: str, key: SchemaKey, documents: Sequence[Mapping[str, Json]]) -> str:
    """CREATE OR REPLACE VIEW for one schema and model. documents: every known version, oldest first; none = a `data` column."""
    uri = f"iglu:{key.vendor}/{key.name}/{key.format}/"
    family = literal(f"{uri}{key.model}-")
    leaves = leaves_of(documents, _MOST_COLUMNS)
    names = column_names(leaves, _LONGEST_NAME) if leaves else ["data"]
    values = list(map(_value, leaves)) or ["x.d"]

    def select(version: str, document: str, source: str, condition: str) -> str:
        """OFFSET 0: the part is taken out of the event once, not once for each column."""
        columns = [
            f"{literal(key.vendor)}::text AS schema_vendor",
            f"{literal(key.name)}::text AS schema_name",
            f"{literal(key.format)}::text AS schema_format",
            f"{version}::text AS schema_version",
            "e.event_id AS root_id",
            "e.collector_tstamp AS root_tstamp",
            *(f"{value} AS {quoted(column)}" for value, column in zip(values, names, strict=True)),
        ]
        part = f"CROSS JOIN LATERAL (SELECT {document} AS d OFFSET 0) AS x"
        return f"SELECT {', '.join(columns)} FROM {source} {part} WHERE {condition}"

    sent = "e.unstruct_event #>> '{data,schema}'"
    item = "a.value ->> 'schema'"
    selects = [
        select(  # by index events_self_describing
            "e.event_version",
            "e.unstruct_event #> '{data,data}'",
            "events AS e",
            f"e.event = 'unstruct' AND e.event_vendor = {literal(key.vendor)} AND e.event_name = {literal(key.name)}"
            f" AND e.event_format = {literal(key.format)} AND starts_with(e.event_version, '{key.model}-')"
            " AND e.unstruct_event IS NOT NULL",
        ),
        select(  # by index events_stray_unstruct: one on another kind of event, which is rare
            f"substr({sent}, {len(uri) + 1})",
            "e.unstruct_event #> '{data,data}'",
            "events AS e",
            f"e.unstruct_event IS NOT NULL AND e.event IS DISTINCT FROM 'unstruct' AND starts_with({sent}, {family})",
        ),
        *(
            select(
                f"substr({item}, {len(uri) + 1})",
                "a.value -> 'data'",
                f"events AS e CROSS JOIN LATERAL jsonb_array_elements(e.{column} -> 'data') AS a(value)",
                f"starts_with({item}, {family})",
            )
            for column in ("contexts", "derived_contexts")
        ),
    ]
    return f"CREATE OR REPLACE VIEW {quoted(name)} AS " + " UNION ALL ".join(selects)


def _value(leaf: Leaf) -> str:
    *parents, name = map(literal, leaf.path)
    above = " -> ".join(["x.d", *parents])
    typed = _TYPED.get(leaf.type or "", "NULLIF({value}, 'null'::jsonb)")
    return typed.replace("{value}", f"{above} -> {name}").replace("{text}", f"{above} ->> {name}")


class Views:
    """Makes the views of the schemas that events bring, each in the transaction of its first event."""

    def __init__(self, lookup: SchemaLookup) -> None:
        self._lookup = lookup
        self.known: set[str] = set()
        """Schemas that need no more thought in this run; whoever rolls back puts back what it was."""
        self._waiting: set[str] = set()  # schemas whose view somebody was reading when it was to be made anew

    def see(self, db: Connection, events: Sequence[Event]) -> None:
        """The schemas of these events."""
        for uri in sorted(schemas_of(events) - self.known):
            self.known.add(uri)
            with suppress(InvalidUri):
                self._see(db, uri, parse(uri), again=False)
        if self._waiting:
            self.see_again(db, self._waiting)

    def see_again(self, db: Connection, uris: Collection[str]) -> None:
        """Their documents are new or others than before."""
        for uri in sorted(uris):
            with suppress(InvalidUri):
                self._see(db, uri, parse(uri), again=True)

    def _see(self, db: Connection, uri: str, key: SchemaKey, *, again: bool) -> None:
        """A schema seen for the first time, or whose document was not to be had before: its view is made anew.

        again: also when its document was had and is another now.
        """
        stored = db.execute("SELECT view_name, document FROM schemas WHERE uri = %s", (uri,)).fetchone()
        if stored and stored[1] is not None and not again:
            return
        found = self._lookup(uri)
        document: Any = None if found is None else json.loads(json_text(found))
        if stored and (document is None or document == stored[1]):
            self._waiting.discard(uri)
            return
        family = _family(db, key)
        if not stored and not family and _count(db) >= _MOST_SCHEMAS:
            return
        name = next(iter(family.values()))[0] if family else _new_name(db, key)
        documents = {one: text for one, (_, text) in family.items()} | {uri: document}
        known = [text for _, text in sorted(documents.items(), key=lambda item: parse(item[0])) if text is not None]
        try:
            with db.transaction():
                _make(db, name, view_sql(name, key, known))
                db.execute(
                    "INSERT INTO schemas VALUES (%s, %s, %s) ON CONFLICT (uri) DO UPDATE SET document = excluded.document",
                    (uri, name, None if document is None else Jsonb(document)),
                )
        except errors.LockNotAvailable:
            self._waiting.add(uri)
            log.warning("view %s stays as it was: somebody reads it; the next commit tries again", name)
        else:
            self._waiting.discard(uri)


def _make(db: Connection, name: str, statement: str) -> None:
    """Replaced where its columns allow it, which keeps grants; else made anew, unless another view was built on it."""
    row = db.execute("SELECT current_setting('lock_timeout')").fetchone()
    db.execute("SELECT set_config('lock_timeout', %s, true)", (str(_BUSY_MS),))
    try:
        with db.transaction():
            db.execute(statement.encode())
    except errors.InvalidTableDefinition:
        try:
            with db.transaction():
                db.execute(f"DROP VIEW {quoted(name)}".encode())
                db.execute(statement.encode())
        except errors.DependentObjectsStillExist:
            log.warning("view %s stays as it was: a view of your own is built on it, and its columns would change", name)
    db.execute("SELECT set_config('lock_timeout', %s, true)", row)


def _family(db: Connection, key: SchemaKey) -> dict[str, tuple[str, Any]]:
    """uri -> (view, document) of the schema's other versions of the same model."""
    family = f"iglu:{key.vendor}/{key.name}/{key.format}/{key.model}-"
    rows = db.execute("SELECT uri, view_name, document FROM schemas WHERE starts_with(uri, %s)", (family,))
    return {uri: (name, document) for uri, name, document in rows}


def _count(db: Connection) -> int:
    row = db.execute("SELECT count(*) FROM schemas").fetchone()
    return int(row[0]) if row else 0


def _new_name(db: Connection, key: SchemaKey) -> str:
    name = cut(view_name(key), _LONGEST_NAME)
    taken = db.execute(
        "SELECT 1 FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND lower(relname) = %s",
        (name,),
    ).fetchone()
    if not taken:
        return name
    # Another schema's name reads the same (case, dots and dashes are lost, and what is too long): told apart by the exact URI.
    exact = f"iglu:{key.vendor}/{key.name}/{key.format}/{key.model}-*"
    return f"{cut(name, _LONGEST_NAME - 9)}_{hashlib.sha1(exact.encode()).hexdigest()[:8]}"
