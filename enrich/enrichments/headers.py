"""Request headers -> one `org.ietf/http_header` entity each.

Only headers that the gateway keeps can be found: `gateway.transports.http.stored_headers`. Never fails an event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from enrich.enrichments import RawEvent, World
from protocol.seams import ConfigurationError, Event, Reason, SelfDescribing

_HEADER = "iglu:org.ietf/http_header/jsonschema/1-0-0"
_LONGEST = 4_096  # of a name or value, in the schema; what is longer is left out


@dataclass(frozen=True, slots=True)
class Config:
    """pattern: a regular expression that all of a header's name must match, in whatever case."""

    pattern: str = ".*"


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        try:
            self._matches = re.compile(config.pattern, re.IGNORECASE).fullmatch
        except re.error as error:
            raise ConfigurationError(f"headers.pattern: {error}") from None

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        found: list[SelfDescribing] = [
            {"schema": _HEADER, "data": {"name": name, "value": value}}
            for name, value in raw.payload.headers
            if len(name) <= _LONGEST and len(value) <= _LONGEST and self._matches(name)
        ]
        return {"derived_contexts": found} if found else {}
