"""Where in an event a value is: a column, or a path inside its self-describing JSON.

Pure. A place is written `user_id`, or as three words: `contexts iglu:com.acme/device/jsonschema/1-*-* $.owner.id`. Of
JSONPath: `$`, `.name`, `["any name"]`, `[0]`, `[*]`, `.*` and `..name`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from protocol.iglu import InvalidUri, meets, parse
from protocol.seams import ConfigurationError, Event, Json, SelfDescribing
from protocol.tables import COLUMNS

JSON_COLUMNS = ("unstruct_event", "contexts", "derived_contexts")
_PLAIN = frozenset(column.name for column in COLUMNS if column.type != "json")
_STEP = re.compile(
    r"""\.\.(?P<deep>[^\s.\[\]'"*]+)|\.(?P<name>[^\s.\[\]'"*]+)|\[(?P<index>[0-9]{1,9})\]|(?P<every>\.\*|\[\*\])"""
    r"""|\["(?P<double>[^"]+)"\]|\['(?P<single>[^']+)'\]"""
)
_CRITERION = re.compile(r"iglu:[A-Za-z0-9\-_.]+/[A-Za-z0-9\-_]+/[A-Za-z0-9\-_]+(/([1-9][0-9]*|\*)-([0-9]+|\*)-([0-9]+|\*))")


class _Every(NamedTuple):
    """All members of an object or array."""


class _Deep(NamedTuple):
    """A member of that name, at any depth."""

    name: str


Path = tuple[str | int | _Every | _Deep, ...]


def parse_path(text: str) -> Path:
    """Raises ValueError."""
    if not text.startswith("$"):
        raise ValueError(f"a path begins with $, not {text!r}")
    steps: list[str | int | _Every | _Deep] = []
    at = 1
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"no path: {text!r} at {text[at:]!r}; there are .name, ['name'], [0], [*], .* and ..name")
        if match["every"]:
            steps.append(_Every())
        elif match["deep"]:
            steps.append(_Deep(match["deep"]))
        elif match["index"]:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] or match["double"] or match["single"])
        at = match.end()
    return tuple(steps)


def changed(value: Json, path: Path, change: Callable[[Json], Json]) -> Json:
    """`value` with what the path leads to replaced by `change` of it; copied where it differs, the same object if nowhere."""
    if not path:
        return change(value)
    step, rest = path[0], path[1:]
    if isinstance(step, _Deep):
        inner = _members(value, _Every(), lambda child: changed(child, path, change))
        return _members(inner, step.name, lambda child: changed(child, rest, change))
    return _members(value, step, lambda child: changed(child, rest, change))


def _members(value: Json, step: str | int | _Every, change: Callable[[Json], Json]) -> Json:
    keys: Any
    if isinstance(value, dict):
        keys = list(value) if isinstance(step, _Every) else (step,) if step in value else ()
    elif isinstance(value, list):
        keys = range(len(value)) if isinstance(step, _Every) else (step,) if isinstance(step, int) and step < len(value) else ()
    else:
        return value
    found = cast(Any, value)
    copied = False
    for key in keys:
        old = found[key]
        new = change(old)
        if new is not old:
            if not copied:
                found, copied = found.copy(), True
            found[key] = new
    return cast(Json, found)


def values(value: Json, path: Path) -> Iterator[Json]:
    """What the path leads to, in the document's order."""
    found: list[Json] = []

    def note(each: Json) -> Json:
        found.append(each)
        return each

    changed(value, path, note)
    return iter(found)


class Place(NamedTuple):
    """column: any; criterion and path: where the column is JSON, else "" and ()."""

    column: str
    criterion: str = ""
    path: Path = ()


def place(text: str, where: str) -> Place:
    """where: the option, for the message. Raises ConfigurationError."""
    words = text.split(None, 2)
    if len(words) == 1 and words[0] in _PLAIN:
        return Place(words[0])
    if len(words) != 3 or words[0] not in JSON_COLUMNS:
        raise ConfigurationError(
            f"{where}: {text!r} is neither a column nor '<{'|'.join(JSON_COLUMNS)}> <schema> <path>'"
            " such as 'contexts iglu:com.acme/device/jsonschema/1-*-* $.id'"
        )
    if not _CRITERION.fullmatch(words[1]):
        raise ConfigurationError(f"{where}: {words[1]!r} is no schema such as iglu:com.acme/device/jsonschema/1-*-*")
    try:
        return Place(words[0], words[1], parse_path(words[2]))
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def fits(entity: SelfDescribing, criterion: str) -> bool:
    try:
        return meets(parse(entity["schema"]), criterion)
    except (InvalidUri, KeyError, TypeError, AttributeError):
        return False


def first(event: Event, where: Place) -> object | None:
    """The first scalar there: text, number or boolean; None when there is none."""
    found = cast("dict[str, Any]", event).get(where.column)
    if found is None or not where.criterion:
        return found
    entities = cast(list[SelfDescribing], found if isinstance(found, list) else [found])
    for entity in entities:
        if fits(entity, where.criterion):
            for value in values(entity["data"], where.path):
                if isinstance(value, str | int | float):
                    return value
    return None
