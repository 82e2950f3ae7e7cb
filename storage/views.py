"""A self-describing schema -> the SQL of a view over `events` with a column per declared property, for SQLite.

Pure: documents in, SQL text out. Names follow the field's convention (tracker protocol, "Storage shape"). Every name and
literal that comes from a schema is quoted here, so that none can become SQL; a property whose name no JSON path can hold
is found by comparing keys instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from protocol.iglu import SchemaKey
from protocol.seams import Event, Json

META: tuple[str, ...] = ("schema_vendor", "schema_name", "schema_format", "schema_version", "root_id", "root_tstamp")

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_PATH = re.compile(r'["\\\x00-\x1f\x7f]')
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")  # what rows.json_text never writes, so no key can hold it
_MOST_COLUMNS = 1_900  # SQLite's limit is 2,000
_DEEPEST = 10  # levels of nested objects that are flattened; below that an object is a JSON text
_AFFINITY = {"string": "TEXT", "number": "REAL", "integer": "NUMERIC", "boolean": "INTEGER"}


class Leaf(NamedTuple):
    """A property that gets a column: the names that lead to it, and its JSON type when it has exactly one."""

    path: tuple[str, ...]
    type: str | None


def schemas_of(events: Sequence[Event]) -> set[str]:
    """The URIs of all self-describing parts of these events."""
    return (
        {event["unstruct_event"]["schema"] for event in events if "unstruct_event" in event}
        | {entity["schema"] for event in events for entity in event.get("contexts", ())}
        | {entity["schema"] for event in events for entity in event.get("derived_contexts", ())}
    )


def view_name(key: SchemaKey) -> str:
    vendor = re.sub(r"[.\-]", "_", key.vendor).lower()
    name = f"{vendor}_{snake_case(key.name)}_{key.model}"
    return f"_{name}" if name.startswith("sqlite_") else name  # a prefix SQLite keeps for itself


def snake_case(name: str) -> str:
    """camelCase and PascalCase to snake_case: `HTTPRequest` -> `http_request`, `targetUrl` -> `target_url`."""
    return _WORD_START.sub("_", name).replace("-", "_").lower()


def view_sql(name: str, key: SchemaKey, documents: Sequence[Mapping[str, Json]]) -> str:
    """CREATE VIEW for one schema and model. documents: every known version, oldest first; none = a single `data` column."""
    uri = f"iglu:{key.vendor}/{key.name}/{key.format}/"
    family = f"{uri}{key.model}-"
    leaves = leaves_of(documents)
    names = column_names(leaves) if leaves else ["data"]

    def select(version: str, document: str, root: str, source: str) -> str:
        values = [_value(document, root, leaf) for leaf in leaves] or [f"json_extract({document}, {literal(root)})"]
        columns = [
            f"{literal(key.vendor)} AS schema_vendor",
            f"{literal(key.name)} AS schema_name",
            f"{literal(key.format)} AS schema_format",
            f"{version} AS schema_version",
            "e.event_id AS root_id",
            "e.collector_tstamp AS root_tstamp",
            *(f"{value} AS {quoted(column)}" for value, column in zip(values, names, strict=True)),
        ]
        return f"SELECT {', '.join(columns)} FROM {source}"

    def version_of(schema: str) -> str:
        return f"substr({schema}, {len(uri) + 1})"

    def is_family(schema: str) -> str:
        return f"substr({schema}, 1, {len(family)}) = {literal(family)}"

    sent = "json_extract(e.unstruct_event, '$.data.schema')"
    item = "json_extract(x.value, '$.schema')"
    selects = [
        select(  # by index events_self_describing
            "e.event_version",
            "e.unstruct_event",
            "$.data.data",
            f"events AS e WHERE e.event_vendor = {literal(key.vendor)} AND e.event_name = {literal(key.name)}"
            f" AND e.event = 'unstruct' AND e.unstruct_event IS NOT NULL"
            f" AND e.event_format = {literal(key.format)} AND instr(e.event_version, '{key.model}-') = 1",
        ),
        select(  # by index events_stray_unstruct: one on another kind of event, which is rare
            version_of(sent),
            "e.unstruct_event",
            "$.data.data",
            f"events AS e WHERE e.unstruct_event IS NOT NULL AND e.event IS NOT 'unstruct' AND {is_family(sent)}",
        ),
    ]
    for column in ("contexts", "derived_contexts"):
        # instr() first: far cheaper than taking the JSON of every event apart.
        source = f"events AS e, json_each(e.{column}, '$.data') AS x"
        selects.append(
            select(
                version_of(item),
                "x.value",
                "$.data",
                f"{source} WHERE instr(e.{column}, {literal(family)}) > 0 AND {is_family(item)}",
            )
        )
    return f"CREATE VIEW {quoted(name)} AS " + " UNION ALL ".join(selects)


def leaves_of(documents: Iterable[Mapping[str, Json]], most: int = _MOST_COLUMNS) -> list[Leaf]:
    """The columns of the first version (required ones first, then by name), then what each later version adds."""
    found: dict[tuple[str, ...], str | None] = {}
    for document in documents:
        flat = _leaves(document, (), True)
        for path, (kind, _) in sorted(flat.items(), key=lambda item: (not item[1][1], [snake_case(n) for n in item[0]])):
            found[path] = kind if found.get(path, kind) == kind else None
    # A property that is an object with properties in one version and a leaf in another keeps both columns.
    return [Leaf(path, kind) for path, kind in found.items()][:most]


def _leaves(schema: Mapping[str, Json], above: tuple[str, ...], required: bool) -> dict[tuple[str, ...], tuple[str | None, bool]]:
    properties = schema.get("properties")
    demanded = schema.get("required")
    out: dict[tuple[str, ...], tuple[str | None, bool]] = {}
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if _NOT_STORED.search(name):
            continue
        path = (*above, name)
        must = required and isinstance(demanded, list) and name in demanded
        nested = isinstance(inner, dict) and bool(inner.get("properties")) and isinstance(inner.get("properties"), dict)
        if nested and len(path) < _DEEPEST and not _NO_PATH.search(name):
            out |= _leaves(cast(dict[str, Json], inner), path, must)
        else:
            out[path] = (_type(inner), must)
    return out


def _type(schema: Json) -> str | None:
    kind = schema.get("type") if isinstance(schema, dict) else None
    kinds = [k for k in kind if k != "null"] if isinstance(kind, list) else [kind]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], str) else None


def column_names(leaves: Sequence[Leaf], longest: int | None = None) -> list[str]:
    """A column for each leaf, no two alike whatever their case. longest: bytes of a name that the database keeps."""
    taken: set[str] = set(META)
    names: list[str] = []
    for leaf in leaves:
        wanted = "_".join(map(snake_case, leaf.path)) or "_"
        name = cut(wanted, longest)
        number = 1
        while name.casefold() in taken:
            number += 1
            suffix = f"_{number}"
            name = cut(wanted, longest and longest - len(suffix)) + suffix
        taken.add(name.casefold())
        names.append(name)
    return names


def cut(name: str, longest: int | None) -> str:
    """As much of the name as fits into so many bytes of UTF-8: what a database makes of a longer one in a question, too."""
    return name if longest is None else name.encode()[:longest].decode(errors="ignore")


def _value(document: str, root: str, leaf: Leaf) -> str:
    *parents, name = leaf.path
    above = root + "".join(f'."{parent}"' for parent in parents)
    if not name or _NO_PATH.search(name):
        value = f"(SELECT value FROM json_each({document}, {literal(above)}) WHERE key = {literal(name)})"
    else:
        name_path = f'{above}."{name}"'
        value = f"json_extract({document}, {literal(name_path)})"
    affinity = _AFFINITY.get(leaf.type or "")
    return f"CAST({value} AS {affinity})" if affinity else value


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
