"""The tables as they are in one schema of Redshift: made where they are missing, longer and wider as schemas become known.

Works inside the caller's transaction; what is remembered here is read anew with each connection, so a transaction that came to
nothing must be followed by a new one. Tables that other loaders make or widen are seen by `follow`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress

from protocol.iglu import InvalidUri, SchemaKey, parse
from protocol.seams import PermanentError
from storage.redshift import ddl, tables
from storage.redshift.connection import Config, Link, Session
from storage.redshift.holding import parts
from storage.redshift.tables import Column, Table, quoted
from storage.targets import SchemaLookup

_MOST_TABLES = 2_000
_ROWS = 500  # of one INSERT
# As svv_columns calls types -> as we do.
_KINDS = {
    "character varying": "varchar",
    "character": "char",
    "smallint": "smallint",
    "integer": "int",
    "bigint": "bigint",
    "numeric": "decimal",
    "double precision": "double precision",
    "boolean": "boolean",
    "timestamp without time zone": "timestamp",
    "date": "date",
}


class TooNarrow(Exception):
    """Columns must become wider, which Redshift does outside of transactions only."""

    def __init__(self, family: str, table: Table, columns: Sequence[Column]) -> None:
        super().__init__(table.name)
        self.family, self.table, self.columns = family, table, columns


class Layout:
    """events: the columns that are loaded, as wide as they are. tables: of entities, by family; None = entities have none."""

    def __init__(self, config: Config, lookup: SchemaLookup) -> None:
        self._schema, self._lookup = config.schema, lookup
        self._wanted = ddl.CANONICAL if config.entities == "tables" else ddl.EVERY
        self.events = self._wanted
        self.tables: dict[str, Table] | None = {} if config.entities == "tables" else None
        self._known: set[str] = set()  # schemas that need no more thought in this run
        self._foreign: set[str] = set()  # names of tables that are not ours

    def prepare(self, db: Session) -> None:
        """With a new connection. Raises PermanentError for a schema of a newer version."""
        there: set[str] = {row[0] for row in db.ask("SELECT table_name FROM svv_tables WHERE table_schema = %s", self._schema)}
        if "spoorway_state" not in there:
            if not db.ask("SELECT 1 FROM pg_namespace WHERE nspname = %s", self._schema):
                db.run(f"CREATE SCHEMA {quoted(self._schema)}")
            for statement in ddl.create(self._schema, self._wanted):
                db.run(statement)
        state = f"{quoted(self._schema)}.spoorway_state"
        ((version,),) = db.ask(f"SELECT version FROM {state}")
        if version < ddl.VERSION:
            db.run(f"LOCK TABLE {state}")
            ((version,),) = db.ask(f"SELECT version FROM {state}")  # another process may have been faster
            for statement in ddl.upgrade(self._schema, version):
                db.run(statement)
        if version > ddl.VERSION:
            about = f"was made by a newer Spoorway: version {version}, this one knows up to {ddl.VERSION}"
            raise PermanentError(f"redshift: schema {self._schema} {about}")
        self._see_events(db)
        self._known = set()
        if self.tables is not None:
            self.tables = self._read_tables(db)
            self._foreign = {*there, *ddl.NAMES} - {table.name for table in self.tables.values()}

    def follow(self, db: Session) -> None:
        """What others made of the tables of entities since the last look: whoever holds the lock sees the newest state."""
        if self.tables is not None:
            self.tables = self._read_tables(db)

    def see(self, db: Session, uris: Collection[str], again: bool = False) -> None:
        """Schemas seen for the first time, or whose document was not to be had before: their tables are made, or get columns.

        again: also those that were had, and may be others now. Raises TooNarrow.
        """
        if again:
            self._known -= set(uris)
        for uri in sorted(set(uris) - self._known):
            with suppress(InvalidUri):
                self._see(db, uri, parse(uri))

    def widen(self, link: Link, narrow: TooNarrow) -> None:
        """Outside of any transaction of the caller's. Interrupted, it is gone on with the next time."""
        with link.transaction() as db:
            found = self._columns(db, narrow.table.name)
        for column in narrow.columns:
            if parts(found[column.name])[1] < parts(column.kind)[1]:
                link.alone(tables.widen_sql(self._schema, narrow.table, column))
            with link.transaction() as db:
                db.run(
                    f"UPDATE {quoted(self._schema)}.spoorway_columns SET kind = %s WHERE family = %s AND column_name = %s",
                    column.kind,
                    narrow.family,
                    column.name,
                )

    def written(self, db: Session) -> dict[str, Table]:
        """Every table of entities that was ever loaded, by family, also where entities have none now."""
        return self._read_tables(db)

    def inside(self, db: Session) -> list[str]:
        """The columns of `events` that hold entities themselves."""
        found = self._columns(db, "events")
        return [column.name for column in ddl.EVERY if column.kind == "super" and column.name in found]

    def empty(self, db: Session) -> None:
        """The tables of entities stay, and what others built on them."""
        for table in (self.tables or {}).values():
            db.run(f"DELETE FROM {quoted(self._schema)}.{quoted(table.name)}")

    def _see(self, db: Session, uri: str, key: SchemaKey) -> None:
        if self.tables is None:
            return
        family = tables.family(key)
        old = self.tables.get(family)
        if old is None and len(self.tables) >= _MOST_TABLES:
            return
        document = self._lookup(uri)
        found: dict[str, str] = {}
        table = old
        if table is None and document is not None and (name := tables.table_name(key, self._names())) in self._foreign:
            found = self._columns(db, name)
            table = tables.adopted(name, document, found)
        is_new = table is None
        if table is None:
            found, table = {}, Table(tables.table_name(key, self._names() | self._foreign), ())
        before = 0 if old is None else len(old.columns)
        table, added, wider = tables.extended(table, document, found)
        if wider:
            raise TooNarrow(family, table, wider)
        if is_new:
            db.run(tables.create_sql(self._schema, table))
        else:
            for column in added:
                db.run(tables.add_sql(self._schema, table, column))
        self._note(db, family, table, before)
        self.tables[family] = table
        if document is not None:
            self._known.add(uri)

    def _names(self) -> set[str]:
        return {table.name for table in (self.tables or {}).values()}

    def _columns(self, db: Session, table: str) -> dict[str, str]:
        """Of a table that is there, the types as we call them; "" of one that we do not write."""
        question = (
            "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale FROM svv_columns"
            " WHERE table_schema = %s AND table_name = %s"
        )
        found: dict[str, str] = {}
        for name, kind, size, precision, scale in db.ask(question, self._schema, table):
            numbers = {"character varying": f"({size})", "character": f"({size})", "numeric": f"({precision},{scale})"}
            found[name] = _KINDS[kind] + numbers.get(kind, "") if kind in _KINDS else ""
        return found

    def _note(self, db: Session, family: str, table: Table, first: int) -> None:
        """The columns from the first one on, which were not noted before."""
        for start in range(first, len(table.columns), _ROWS):
            some = table.columns[start : start + _ROWS]
            rows = ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(some))
            values = [
                value
                for place, column in enumerate(some, start)
                for value in (family, table.name, place, column.name, column.kind, json.dumps(column.path))
            ]
            db.run(f"INSERT INTO {quoted(self._schema)}.spoorway_columns VALUES {rows}", *values)

    def _see_events(self, db: Session) -> None:
        """Columns that `events` lacks are added; those that somebody made wider hold more."""
        found = self._columns(db, "events")
        for column in self._wanted:
            if column.name not in found:
                db.run(f"ALTER TABLE {quoted(self._schema)}.events ADD COLUMN {column.name} {column.kind.upper()}")
        self.events = tuple(
            column._replace(kind=kind) if (kind := found.get(column.name, "")).startswith("varchar") else column
            for column in self._wanted
        )

    def _read_tables(self, db: Session) -> dict[str, Table]:
        found: dict[str, Table] = {}
        for family, name, column, kind, path in db.ask(
            "SELECT family, table_name, column_name, kind, path"
            f" FROM {quoted(self._schema)}.spoorway_columns ORDER BY family, position"
        ):
            table = found.get(family, Table(name, ()))
            found[family] = table._replace(columns=(*table.columns, Column(column, kind, tuple(json.loads(path)))))
        return found
