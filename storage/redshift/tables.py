"""Schemas -> tables as the Redshift world names them: vendor_name_model, a column per declared property, a row per entity.

Pure. Names, order and types are the field's (tracker protocol, "Storage shape"): nested objects become `parent.child`, what the
first version requires comes first, later versions append. Names come from schemas, so all of them are quoted here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from protocol.iglu import SchemaKey
from protocol.seams import Json
from storage.redshift.holding import LONGEST_CHAR, LONGEST_VARCHAR, parts
from storage.rows import json_text
from storage.views import leaves_of, snake_case, view_name

_LONGEST_NAME = 127  # bytes
_MOST_COLUMNS = 1_500  # Redshift's limit is 1,600
_INTEGERS = ("smallint", "int", "bigint")


class Column(NamedTuple):
    """path: the property's names from the root of the data; () = all of it. kind: as holding.py knows types."""

    name: str
    kind: str
    path: tuple[str, ...]


class Table(NamedTuple):
    """Of one schema and model."""

    name: str
    columns: tuple[Column, ...]


META = (
    *(Column(name, "varchar(128)", ()) for name in ("schema_vendor", "schema_name", "schema_format", "schema_version")),
    Column("root_id", "char(36)", ()),
    Column("root_tstamp", "timestamp", ()),
    Column("ref_root", "varchar(255)", ()),
    Column("ref_tree", "varchar(1500)", ()),
    Column("ref_parent", "varchar(255)", ()),
)
DATA = Column("data", f"varchar({LONGEST_VARCHAR})", ())  # while nobody knows the schema


def family(key: SchemaKey) -> str:
    """What shares a table: `iglu:vendor/name/format/model`."""
    return f"iglu:{key.vendor}/{key.name}/{key.format}/{key.model}"


def table_name(key: SchemaKey, taken: Iterable[str]) -> str:
    """taken: names of other families' tables, and of tables that are not ours."""
    name = _short(view_name(key))
    if name in taken:  # reads the same (case, dots and dashes are lost): told apart by the exact URI
        name = _short(f"{name}_{hashlib.sha1(family(key).encode()).hexdigest()[:8]}")
    return name


def adopted(name: str, document: Mapping[str, Json], found: Mapping[str, str]) -> Table | None:
    """A table that another loader made: its columns that hold properties. found: all of its columns, with their types.

    None when it is not such a table.
    """
    if not {column.name for column in META} <= found.keys():
        return None
    columns = [Column(_path_name(leaf.path), found.get(_path_name(leaf.path), ""), leaf.path) for leaf in leaves_of([document])]
    return Table(name, tuple(column for column in columns if column.kind))


def extended(
    table: Table, document: Mapping[str, Json] | None, others: Iterable[str] = ()
) -> tuple[Table, list[Column], list[Column]]:
    """The table with this version of its schema in it, the columns that are new, and those that must become wider.

    others: names of columns that it has besides.
    """
    if document is None:
        return (table, [], []) if table.columns else (table._replace(columns=(DATA,)), [DATA], [])
    known = {column.path: column for column in table.columns}
    taken = {*others, *(column.name for column in (*META, *table.columns))}
    added: list[Column] = []
    wider: list[Column] = []
    for leaf in leaves_of([document]):
        kind = _kind(_property(document, leaf.path))
        if (old := known.get(leaf.path)) is not None:
            (name, size, _), (new, longer, _) = parts(old.kind), parts(kind)
            if name == "varchar" and new in ("varchar", "char") and longer > size:
                wider.append(old._replace(kind=f"varchar({longer})"))
        elif len(table.columns) + len(added) < _MOST_COLUMNS:
            name = _free(_path_name(leaf.path), taken)
            taken.add(name)
            added.append(Column(name, kind, leaf.path))
    if not table.columns and not added:  # it declares nothing
        added.append(DATA)
    change = {column.name: column for column in wider}
    return table._replace(columns=(*(change.get(c.name, c) for c in table.columns), *added)), added, wider


def create_sql(schema: str, table: Table) -> str:
    """The statement that makes the table of a schema's data."""
    columns = [
        f"{quoted(column.name)} {column.kind.upper()}{_encoding(column)}{' NOT NULL' if column in META else ''}"
        for column in (*META, *table.columns)
    ]
    lines = ",\n    ".join(columns)
    return (
        f"CREATE TABLE {quoted(schema)}.{quoted(table.name)} (\n    {lines}\n)\n"
        "DISTSTYLE KEY\nDISTKEY (root_id)\nSORTKEY (root_tstamp)"
    )


def add_sql(schema: str, table: Table, column: Column) -> str:
    """The statement for a column that a newer version of the schema brought."""
    return f"ALTER TABLE {quoted(schema)}.{quoted(table.name)} ADD COLUMN {quoted(column.name)} {column.kind.upper()} ENCODE ZSTD"


def widen_sql(schema: str, table: Table, column: Column) -> str:
    """Not to be run inside a transaction, says Redshift."""
    return f"ALTER TABLE {quoted(schema)}.{quoted(table.name)} ALTER COLUMN {quoted(column.name)} TYPE {column.kind.upper()}"


def value_at(data: Json, path: Sequence[str]) -> Json:
    """The value under these keys, one inside the other; None where one is missing."""
    for name in path:
        if not isinstance(data, dict):
            return None
        data = data.get(name)
    return data


def ref_tree(table: str) -> str:
    """The column of that name: the way from `events` to the table, as JSON."""
    return json_text(["events", table])


def quoted(name: str) -> str:
    """As an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _path_name(path: Sequence[str]) -> str:
    return ".".join(map(snake_case, path))


def _encoding(column: Column) -> str:
    return " ENCODE RAW" if column.name == "root_tstamp" and column in META else " ENCODE ZSTD"


def _property(document: Mapping[str, Json], path: Sequence[str]) -> Mapping[str, Json]:
    found: Any = document
    for name in path:
        found = found["properties"][name]
    return cast(Mapping[str, Json], found) if isinstance(found, dict) else {}


def _kind(schema: Mapping[str, Json]) -> str:
    """The field's mapping, first match wins. Source: tracker protocol, "Redshift type mapping for data columns"."""
    types = schema.get("type")
    kinds = {kind for kind in (types if isinstance(types, list) else [types]) if isinstance(kind, str) and kind != "null"}
    enum = [one for one in cast(list[Json], schema.get("enum") or []) if one is not None]
    longest = max((len(_literal(one).encode()) for one in enum), default=0)
    numbers = [one for one in enum if isinstance(one, int | float) and not isinstance(one, bool)]
    maximum = schema.get("maximum")
    if (enum and len(numbers) not in (0, len(enum))) or any(isinstance(one, bool) for one in enum):
        return _varchar(longest)
    if kinds == {"boolean", "integer"}:
        return "varchar(10)"
    if len(kinds) > 1 and kinds != {"integer", "number"}:
        return "varchar(4096)"
    if schema.get("format") == "date-time" and "string" in kinds:
        return "timestamp"
    if schema.get("format") == "date" and "string" in kinds:
        return "date"
    if "array" in kinds:
        return f"varchar({LONGEST_VARCHAR})"
    if kinds == {"integer"} or (not kinds and (numbers == enum != [] or isinstance(schema.get("multipleOf"), int))):
        if not kinds and not enum:
            return "int"
        top = max((abs(one) for one in numbers), default=maximum)
        return _whole(top if isinstance(top, int | float) and not isinstance(top, bool) else None, schema.get("minimum"))
    if "number" in kinds:
        return "decimal(36,2)" if schema.get("multipleOf") == 0.01 else "double precision"
    if kinds == {"boolean"}:
        return "boolean"
    return _text(schema, enum, longest)


def _text(schema: Mapping[str, Json], enum: Sequence[Json], longest: int) -> str:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if enum:
        single = len(enum) == 1 and 0 < longest <= LONGEST_CHAR and _literal(enum[0]).isascii()
        return f"char({longest})" if single else _varchar(longest)
    if isinstance(most, int) and least == most and 0 < most <= LONGEST_CHAR:
        return f"char({most})"
    by_format = {"uuid": "char(36)", "ipv6": "varchar(39)", "ipv4": "varchar(15)", "email": "varchar(255)"}
    if (kind := by_format.get(str(schema.get("format")))) is not None:
        return kind
    return _varchar(most) if isinstance(most, int) and not isinstance(most, bool) else "varchar(4096)"


def _varchar(size: int) -> str:
    return f"varchar({min(max(size, 1), LONGEST_VARCHAR)})"


def _whole(maximum: float | None, minimum: Json) -> str:
    low = -minimum if isinstance(minimum, int | float) and not isinstance(minimum, bool) else 0
    if maximum is None:
        return "bigint"
    top = max(maximum, low)
    return "smallint" if top <= 32_767 else "int" if top <= 2_147_483_647 else "bigint"


def _literal(value: Json) -> str:
    return value if isinstance(value, str) else json_text(value)


def _free(wanted: str, taken: set[str]) -> str:
    name, number = _short(wanted or "_"), 1
    while name in taken:
        number += 1
        name = f"{_short(wanted, 6)}_{number}"
    return name


def _short(name: str, room: int = 0) -> str:
    most = _LONGEST_NAME - room
    if len(name.encode()) <= most:
        return name
    digest = hashlib.sha1(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: most - 9].decode('utf-8', 'ignore')}_{digest}"
