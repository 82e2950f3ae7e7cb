"""Chosen cookies of the request -> one `org.ietf/http_cookie` entity each.

Only if the gateway keeps the header: `gateway.transports.http.stored_headers` must name "Cookie". Never fails an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from enrich.enrichments import RawEvent, World
from protocol.seams import ConfigurationError, Event, Reason, SelfDescribing

_COOKIE = "iglu:org.ietf/http_cookie/jsonschema/1-0-0"
_LONGEST = 4_096  # of a name or value, in the schema; what is longer is left out


@dataclass(frozen=True, slots=True)
class Config:
    """cookies: their names, exactly as they are set."""

    cookies: tuple[str, ...] = ()


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        if not config.cookies:
            raise ConfigurationError("cookies.cookies: name at least one cookie")
        self._names = frozenset(config.cookies)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        found: list[SelfDescribing] = []
        for header, text in raw.payload.headers:
            if header.lower() != "cookie":
                continue
            for pair in text.split(";"):
                name, equals, value = pair.partition("=")
                name, value = name.strip(" \t"), value.strip(" \t")
                if equals and name in self._names and len(name) <= _LONGEST and len(value) <= _LONGEST:
                    found.append({"schema": _COOKIE, "data": {"name": name, "value": value}})
        return {"derived_contexts": found} if found else {}
