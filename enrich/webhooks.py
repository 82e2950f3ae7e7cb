"""A document that no tracker made + a mapping -> the parameters of self-describing events; docs/webhooks.md has the grammar.

Pure. Mappings are handed in as parsed documents and compiled once; what is wrong with one is told then, by its place. What is
wrong with a document that was sent is a Reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from enrich.reasons import derived_id, reason
from protocol.iglu import InvalidUri, parse
from protocol.seams import ConfigurationError, Json, Reason

_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
_PATH = re.compile(r"/[^/?#]+/[^/?#]+")
_LEVEL = re.compile(r"\+|[+-][1-9]\d?")
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?\d*(Z|[+-]\d{2}:?\d{2})?")

_LEAST_MS = 100_000_000_000  # in 1973

# Columns a mapping may fill, and the parameters they travel in.
COLUMNS: Mapping[str, str] = {
    "app_id": "aid",
    "platform": "p",
    "user_id": "uid",
    "name_tracker": "tna",
    "true_tstamp": "ttm",
    "dvce_created_tstamp": "dtm",
    "dvce_sent_tstamp": "stm",
    "user_ipaddress": "ip",
    "useragent": "ua",
    "domain_userid": "duid",
    "network_userid": "nuid",
    "os_timezone": "tz",
    "page_url": "url",
    "page_title": "page",
    "page_referrer": "refr",
}


class _Unfit(ValueError):
    """A value that is not what the mapping says it is."""


def _time_ms(value: Json) -> Json:
    """Milliseconds since 1970 of ISO 8601 text, UTC where it names no zone; or a number of them, which seconds never reach."""
    if isinstance(value, int | float) and value >= _LEAST_MS:
        return int(value)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _Unfit("a time such as 2026-01-15T10:00:00.123Z")
    try:
        moment = datetime.fromisoformat(match[1] + (match[3] or "Z"))
    except ValueError:
        raise _Unfit("a time such as 2026-01-15T10:00:00.123Z") from None
    return int(moment.astimezone(UTC).timestamp()) * 1000 + int((match[2] or "0").ljust(3, "0")[:3])


def _number(value: Json) -> Json:
    if isinstance(value, str):
        try:
            value = cast(Json, orjson.loads(value.strip()))
        except orjson.JSONDecodeError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unfit("a number")
    return value


def _integer(value: Json) -> Json:
    number = cast(float, _number(value))
    if not float(number).is_integer():
        raise _Unfit("a whole number")
    return int(number)


def _text(value: Json) -> Json:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _lower(value: Json) -> Json:
    return cast(str, _text(value)).lower()


def _seconds(value: Json) -> Json:
    """Of a duration such as 0.056576s."""
    return _number(value.removesuffix("s") if isinstance(value, str) else value)


def _epoch_s(value: Json) -> Json:
    return round(cast(float, _number(value)) * 1000)


def _string(value: Json) -> Json:
    if not isinstance(value, str):
        raise _Unfit("a text")
    return value


def _object(value: Json) -> Json:
    if not isinstance(value, dict):
        raise _Unfit("an object")
    return value


_AS: Mapping[str, Callable[[Json], Json]] = {
    "text": _text,
    "lower": _lower,
    "number": _number,
    "integer": _integer,
    "seconds": _seconds,
    "time_ms": _time_ms,
    "epoch_s": _epoch_s,
    "string": _string,
    "object": _object,
}


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where pointers look: an element of an array, the document it is in, the query string, the topic."""

    item: Json
    top: Json
    query: Mapping[str, str]
    topic: str


_Get = Callable[[_Scope], Json]  # None = not there; raises _Failed


class _Failed(Exception):
    def __init__(self, why: Reason) -> None:
        super().__init__(why.message)
        self.why = why


# Mapping documents -> closures ------------------------------------------------------------------------------------------


def _bad(place: str, message: str) -> ConfigurationError:
    return ConfigurationError(f"{place}: {message}")


def _table(value: object, place: str, known: Sequence[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _bad(place, f"expected a table, not {value!r}")
    table = cast(Mapping[str, Any], value)
    for name in table:
        if known is not None and name not in known:
            raise _bad(place, f"unknown name {name!r}; there are {', '.join(known)}")
    return table


def _tables(value: object, place: str) -> list[tuple[str, object]]:
    if not isinstance(value, list):
        raise _bad(place, "expected a list of tables")
    return [(f"{place} {n}", item) for n, item in enumerate(cast(list[object], value), 1)]


def _pointer(text: object, place: str) -> _Get:
    """`/a/0/b` in the item, `^/a` in the whole document, `^` or "" themselves, `?name` in the query string. Source: RFC 6901.

    `+` is the topic, `+1` its first level, `-1` its last.
    """
    if isinstance(text, str) and _LEVEL.fullmatch(text):
        return _level(text)
    if isinstance(text, str) and text.startswith("?"):
        name = text[1:]
        return lambda scope: scope.query.get(name)
    path = text.removeprefix("^") if isinstance(text, str) else None
    if path is None or (path and not path.startswith("/")):
        raise _bad(place, f"expected a JSON pointer such as /a/0/b, ^/a, ?name or +1, not {text!r}")
    top = path != text
    keys = [key.replace("~1", "/").replace("~0", "~") for key in path.split("/")[1:]]

    def get(scope: _Scope) -> Json:
        found = scope.top if top else scope.item
        for key in keys:
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return None
        return found

    return get


def _level(text: str) -> _Get:
    if text == "+":
        return lambda scope: scope.topic or None
    place = int(text) - 1 if text[0] == "+" else int(text)

    def get(scope: _Scope) -> Json:
        levels = scope.topic.split("/") if scope.topic else []
        return levels[place] if -len(levels) <= place < len(levels) else None

    return get


def _pick(value: object, place: str, convert: Callable[[Json], Json] | None = None) -> _Get:
    """A pointer, a list of pointers (the first that is there), or a table: at, as or try, default; or value."""
    strict = True
    if isinstance(value, Mapping):
        table = _table(cast(object, value), place, ("value",) if "value" in value else ("at", "as", "try", "default"))
        if "value" in table:
            constant = cast(Json, table["value"])
            return lambda scope: constant
        if "at" not in table:
            raise _bad(place, "expected at = POINTER or value = CONSTANT")
        if "as" in table and "try" in table:
            raise _bad(place, "expected one of as and try")
        strict = "try" not in table
        if (name := table.get("as", table.get("try"))) is not None:
            if name not in _AS:
                raise _bad(place, f"{'as' if strict else 'try'}: no {name!r}; there are {', '.join(_AS)}")
            convert = _AS[name]
        default, value = cast(Json, table.get("default")), table["at"]
    else:
        default = None
    written = cast(list[object], value) if isinstance(value, list) else [value]
    pointers = [_pointer(text, place) for text in written]

    def get(scope: _Scope) -> Json:
        found = next((found for pointer in pointers if (found := pointer(scope)) is not None), None)
        if found is None:
            return default
        if convert is None:
            return found
        try:
            return convert(found)
        except _Unfit as error:
            if not strict:
                return default
            shown = orjson.dumps(found).decode()
            raise _Failed(reason("adapter", str(written[0]), f"expected {error} for {place}", shown)) from None

    return get


def _data(value: object, place: str) -> _Get:
    """An object of picks; a table in it that is no pick itself is an object again. What is not there is left out."""
    fields: dict[str, _Get] = {}
    for name, field in _table(value, place).items():
        nested = isinstance(field, Mapping) and "at" not in field and "value" not in field
        fields[name] = (_data if nested else _pick)(cast(object, field), f"{place}.{name}")

    def get(scope: _Scope) -> Json:
        found = {name: value for name, field in fields.items() if (value := field(scope)) is not None}
        return cast(Json, found) if found else None

    return get


def _schema(table: Mapping[str, Any], place: str) -> str:
    uri = table.get("schema")
    try:
        return parse(uri if isinstance(uri, str) else "").uri
    except InvalidUri:
        raise _bad(f"{place}.schema", f"expected iglu:vendor/name/jsonschema/1-0-0, not {uri!r}") from None


@dataclass(frozen=True, slots=True)
class _Entities:
    schema: str
    each: _Get
    data: _Get

    def of(self, scope: _Scope) -> Iterator[Json]:
        found = self.each(scope)
        for item in found if isinstance(found, list) else [found]:
            data = None if item is None else self.data(replace(scope, item=item))
            if data is not None:
                yield {"schema": self.schema, "data": data}


@dataclass(frozen=True, slots=True)
class _Rule:
    """One kind of event. present, equal: when it applies."""

    present: tuple[_Get, ...]
    equal: tuple[tuple[_Get, Json], ...]
    schema: str
    data: _Get
    columns: tuple[tuple[str, _Get], ...]
    identity: tuple[_Get, ...]
    entities: tuple[_Entities, ...]

    def fits(self, scope: _Scope) -> bool:
        return all(get(scope) is not None for get in self.present) and all(get(scope) == want for get, want in self.equal)

    def parameters(self, scope: _Scope, path: str) -> dict[str, str]:
        event = {"schema": self.schema, "data": self.data(scope) or {}}
        found = {"e": "ue", "tv": path[1:].replace("/", "-"), "p": "srv"}
        found["ue_pr"] = orjson.dumps({"schema": _UNSTRUCT, "data": event}).decode()
        for parameter, get in self.columns:
            if (value := get(scope)) is not None:
                found[parameter] = cast(str, _text(value))
        parts = [get(scope) for get in self.identity]
        if parts and all(part is not None for part in parts):
            # Of the document, not of the request: a webhook that is sent again is the same event again.
            found["eid"] = derived_id("webhook", path, self.schema, *(_text(part) for part in parts))
        if entities := [entity for each in self.entities for entity in each.of(scope)]:
            found["co"] = orjson.dumps({"schema": _CONTEXTS, "data": entities}).decode()
        return found


_TIMES = ("true_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp")


def _rule(value: object, place: str) -> _Rule:
    table = _table(value, place, ("if_present", "if_equal", "schema", "data", "columns", "id", "entities"))
    columns = _table(table.get("columns", {}), f"{place}.columns", tuple(COLUMNS))
    entities: list[_Entities] = []
    for where, item in _tables(table.get("entities", []), f"{place}.entities"):
        entity = _table(item, where, ("schema", "each", "data"))
        each = _pointer(entity.get("each", ""), f"{where}.each")
        entities.append(_Entities(_schema(entity, where), each, _data(entity.get("data", {}), f"{where}.data")))
    equal = _table(table.get("if_equal", {}), f"{place}.if_equal")
    data = table.get("data", {})
    return _Rule(
        tuple(_pointer(text, f"{place}.if_present") for text in table.get("if_present", ())),
        tuple((_pointer(text, f"{place}.if_equal"), cast(Json, want)) for text, want in equal.items()),
        _schema(table, place),
        _pick(data, f"{place}.data") if isinstance(data, str) else _data(data, f"{place}.data"),
        tuple((COLUMNS[n], _pick(v, f"{place}.columns.{n}", _time_ms if n in _TIMES else None)) for n, v in columns.items()),
        tuple(_pick(part, f"{place}.id") for part in table.get("id", ())),
        tuple(entities),
    )


def _choice(table: Mapping[str, Any], option: str, known: Sequence[str], name: str) -> str:
    """The first is the default."""
    value: object = table.get(option, known[0])
    if value not in known:
        raise _bad(f"{name}: {option}", f"expected {' or '.join(known)}, not {value!r}")
    return cast(str, value)


class WebhookMapping:
    """A compiled mapping file. path: the request path it takes.

    text: a body that is no JSON object or array is a text. retained: messages that a broker had kept are events as well.
    """

    def __init__(self, document: Mapping[str, Any], name: str) -> None:
        """name: what errors call it. Raises ConfigurationError."""
        table = _table(document, name, ("about", "path", "body", "retained", "each", "events"))
        path = table.get("path")
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise _bad(f"{name}: path", f"expected two segments such as /com.acme/v1, not {path!r}")
        self.path = path
        self.text = _choice(table, "body", ("json", "text"), name) == "text"
        self.retained = _choice(table, "retained", ("skip", "keep"), name) == "keep"
        self._each = _pointer(table.get("each", ""), f"{name}: each")
        self._rules = [_rule(item, place) for place, item in _tables(table.get("events", []), f"{name}: events")]
        if not self._rules:
            raise _bad(name, "expected at least one table [[events]]")

    def parameters(self, document: Json, query: Mapping[str, str], topic: str = "") -> Iterator[dict[str, str] | Reason]:
        """Of each item of the document: its event's parameters, or why there is none. topic: "" = it did not come over MQTT."""
        whole = _Scope(document, document, query, topic)
        found = self._each(whole)
        items = found if isinstance(found, list) else [found]
        if not items or items == [None]:
            yield reason("adapter", "body", "there is nothing where the mapping looks for events")
        for item in items:
            scope = replace(whole, item=item)
            rule = next((rule for rule in self._rules if rule.fits(scope)), None)
            if rule is None:
                shown = orjson.dumps(item).decode()
                yield reason("adapter", "body", f"none of the {len(self._rules)} kinds of event of this mapping fits", shown)
                continue
            try:
                yield rule.parameters(scope, self.path)
            except _Failed as error:
                yield error.why
