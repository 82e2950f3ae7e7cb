"""Where the visitor came from: `refr_medium`, `refr_source` and `refr_term` from the referrer's host, path and query.

Never fails an event and changes no other column. Source: tracker protocol, "Referrer"; vectors enrich/referer-*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from enrich.bundled import watched
from enrich.conversions import text
from enrich.enrichments import RawEvent, World
from enrich.lengths import LIMITS, fitting
from protocol.seams import Event, Reason
from protocol.wire import parse_query

_SCHEMES = frozenset({"http", "https", "android-app"})
# What "{}" stands for at the end of a domain in the list: a country, with or without a second level that many use.
_COUNTRY = re.compile(r"(?:\.(?:com|org|net|co|it|edu))?\.[a-z]{2}$")
_NOTHING = Event()
_MOST_KEPT = 1_000  # referrers: few pages send most of the visitors
_SEPARATOR = re.compile("[&;]")


@dataclass(frozen=True, slots=True)
class Config:
    """internal_domains: hosts that are yours besides the page's own; "*.shop.example" stands for every host below it.

    database: a file to use in place of the list that comes with the package; "" = that one.
    """

    internal_domains: tuple[str, ...] = ()
    database: str = ""


class Referer(NamedTuple):
    """parameters: those of the query string that may hold the words somebody searched for."""

    medium: str
    source: str
    parameters: frozenset[str]


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        domains = [domain.lower() for domain in config.internal_domains]
        self._internal = frozenset(domain for domain in domains if not domain.startswith("*."))
        self._below = tuple(domain[1:] for domain in domains if domain.startswith("*."))
        self._table = watched(world, config.database, "referers.json", read)
        self._known_of = self._table()
        self._known = lru_cache(_MOST_KEPT)(self._look_up)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        host = event.get("refr_urlhost")
        if not host:
            return _NOTHING
        host = host.lower().rstrip(".")
        if not host or event.get("refr_urlscheme", "").lower() not in _SCHEMES:
            return _NOTHING
        if host in self._internal or host == event.get("page_urlhost", "").lower() or host.endswith(self._below):
            return {"refr_medium": "internal"}
        table = self._table()
        if table is not self._known_of:  # the list has changed
            self._known_of = table
            self._known.cache_clear()
        return self._known(host, event.get("refr_urlpath", ""), event.get("refr_urlquery", ""))

    def _look_up(self, host: str, path: str, query: str) -> Event:
        found = _find(self._known_of, host, path)
        if found is None or found.medium == "unknown":
            return {"refr_medium": "unknown"}
        columns = Event(refr_medium=found.medium, refr_source=found.source)
        if found.parameters and (term := _term(query, found.parameters)):
            columns["refr_term"] = term
        return fitting(columns)


def read(data: bytes) -> Mapping[str, Referer]:
    """A list of referrers -> domain, or domain and path, -> what it is. Raises ValueError with what is wrong."""
    table: dict[str, Referer] = {}
    try:
        media: dict[str, Any] = orjson.loads(data)["media"]
        for medium, sources in media.items():
            for source, facts in sources.items():
                found = Referer(
                    _fitting(medium, "refr_medium"), _fitting(source, "refr_source"), frozenset(facts.get("parameters", ()))
                )
                table.update(dict.fromkeys(facts["domains"], found))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a list of referrers: {error!r}") from None
    return table


def _fitting(name: str, column: str) -> str:
    if not name or len(name) > LIMITS[column]:
        raise ValueError(f"{name!r} does not fit into {column}")
    return name


def _find(table: Mapping[str, Referer], host: str, path: str) -> Referer | None:
    names = _names(host)
    first = "/" + path[1:].partition("/")[0]
    for ending in (path.rstrip("/"), first, ""):
        for name in names:
            if (found := table.get(name + ending)) is not None:
                return found
    return None


@lru_cache(maxsize=4_096)
def _names(host: str) -> tuple[str, ...]:
    """Under which domains a list may hold this host, the nearest first."""
    country = _COUNTRY.search(host)
    return (*_shortened(host), *(_shortened(f"{host[: country.start()]}.{{}}") if country else ()))


def _shortened(host: str) -> Iterator[str]:
    """The host, then the host with ever fewer labels in front, down to two."""
    while "." in host:
        yield host
        host = host.partition(".")[2]


def _term(query: str, names: frozenset[str]) -> str | None:
    """The value of the first parameter that is one of `names`."""
    for pair in _SEPARATOR.split(query):
        for name, value in parse_query(pair).items():
            if name in names:
                return text(value or "")
    return None
