"""What a web service knows about the event -> an entity or columns.

The event's values go into the URL encoded and into the body as JSON values: they can name no other host or path. Where a
value is missing, nothing is asked. Answers are remembered; a service that does not answer rests.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from enrich import answers
from enrich.answers import Unusable
from enrich.enrichments import RawEvent, Unanswered, WebRequest, World
from enrich.enrichments.sql_lookup import checked_columns, checked_schema
from enrich.parsing import NotJson, parse_json
from enrich.places import first, parse_path, place, values
from enrich.reasons import reason
from protocol.seams import ConfigurationError, Decimal, Event, Json, Reason

_SLOT = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_LONGEST_URL = 8_000
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Config:
    """url: http(s), with {{name}} after the host for each of `inputs`. body: JSON with {{name}} for whole values; "" = GET.

    inputs: name -> column, or place such as 'contexts iglu:com.acme/device/jsonschema/1-*-* $.id'. path: what of the answer
    is taken. schema: of the entity it becomes. columns: event column -> path from there. nothing_status: such as [404].
    max_per_second: more new questions than that wait; 0 = no limit.
    """

    url: str = ""
    body: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    username: str = ""
    password: str = ""
    token: str = ""
    path: str = "$"
    schema: str = ""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    nothing_status: tuple[int, ...] = ()
    timeout_s: float = 1
    max_bytes: int = 100_000
    max_per_second: float = 0
    cache_size: int = 10_000
    cache_ttl_s: float = 600


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._url, self._body, self._headers = _url(config), _body(config), _headers(config)
        self._inputs = {name: place(text, f"http_lookup.inputs.{name}") for name, text in config.inputs.items()}
        used = set(_SLOT.findall(config.url + config.body))
        if strange := used ^ self._inputs.keys():
            raise ConfigurationError(f"http_lookup: {', '.join(sorted(strange))}: in inputs or in {{{{…}}}}, but not in both")
        self._schema = checked_schema(config.schema, "http_lookup.schema")
        if not self._schema and not config.columns:
            raise ConfigurationError("http_lookup: say what becomes of the answer: schema, columns or both")
        try:
            self._path = parse_path(config.path)
            self._columns = [(name, parse_path(p)) for name, p in checked_columns(config.columns, "http_lookup.columns")]
        except ValueError as error:
            raise ConfigurationError(f"http_lookup: {error}") from None
        self._nothing = frozenset(config.nothing_status)
        self._web = world.web(config.timeout_s, config.max_bytes, config.max_per_second)
        self._ask = world.cached(config.cache_size, config.cache_ttl_s, self._asked)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        given: dict[str, Json] = {}
        for name, where in self._inputs.items():
            value = first(event, where)
            if value is None:
                return {}
            given[name] = str(value) if isinstance(value, Decimal) else value  # type: ignore[assignment]  # a scalar
        url = _filled_url(self._url, given)
        if url is None:
            return reason("http_lookup", "", "a value is no part of a URL", str(given))
        try:
            return self._ask((url, _filled_body(self._body, given))).copy()
        except Unanswered as error:
            return reason("http_lookup", "", str(error))

    def _asked(self, question: tuple[str, str]) -> Event:
        url, body = question
        answer = self._web(WebRequest(url, body.encode() if body else None, self._headers))
        if answer.status in self._nothing or answer.status == 204:
            return {}
        if not 200 <= answer.status < 300:
            raise Unanswered(f"status {answer.status}")
        try:
            return self._added(parse_json(answer.body))
        except NotJson as error:
            raise Unanswered(f"not JSON: {error}") from None
        except Unusable as error:
            raise Unanswered(f"{error.field}: {error}") from None

    def _added(self, document: Json) -> Event:
        found = next(values(document, self._path), None)
        if found is None:
            return {}
        columns = {name: next(values(found, path), None) for name, path in self._columns}
        added = answers.added(columns)
        if self._schema:
            added["derived_contexts"] = [{"schema": self._schema, "data": answers.json(found)}]
        return added


def _filled_url(template: str, given: Mapping[str, Json]) -> str | None:
    url = _SLOT.sub(lambda slot: quote(_text(given[slot[1]]).encode("utf-8", "replace"), safe=""), template)
    # Encoding leaves dots alone, and a service would climb up by them.
    if len(url) > _LONGEST_URL or not {".", ".."}.isdisjoint(urlsplit(url).path.split("/")):
        return None
    return url


def _filled_body(template: str, given: Mapping[str, Json]) -> str:
    return _SLOT.sub(lambda slot: orjson.dumps(_sendable(given[slot[1]])).decode(), template)


def _sendable(value: Json) -> Json:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _url(config: Config) -> str:
    parts = urlsplit(config.url)
    try:
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or "@" in parts.netloc:
        raise ConfigurationError("http_lookup.url: expected http://host/… or https://host/…, without user and password")
    if _SLOT.search(parts.scheme + parts.netloc) or "{" in parts.netloc:
        raise ConfigurationError("http_lookup.url: an event must not choose the host")
    if re.search(r"[\x00-\x20\x7f-\U0010ffff]", _SLOT.sub("", config.url)):
        raise ConfigurationError("http_lookup.url: expected an encoded URL, without spaces")
    return config.url.partition("#")[0]


def _body(config: Config) -> str:
    if config.body:
        try:
            orjson.loads(_SLOT.sub("null", config.body))
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(f"http_lookup.body: no JSON once {{{{…}}}} stand for values: {error}") from None
    return config.body


def _headers(config: Config) -> tuple[tuple[str, str], ...]:
    found: dict[str, Any] = dict(config.headers)
    if config.body:
        found.setdefault("Content-Type", "application/json")
    if config.token:
        found["Authorization"] = f"Bearer {config.token}"
    elif config.username or config.password:
        found["Authorization"] = "Basic " + b64encode(f"{config.username}:{config.password}".encode()).decode()
    for name, value in found.items():
        if not _HEADER.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ConfigurationError(f"http_lookup.headers: {name!r} is no header that can be sent")
    return tuple(found.items())
