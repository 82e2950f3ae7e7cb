"""The request's `Sec-CH-UA…` headers as an `http_client_hints` entity: what browsers now say instead of a long user agent.

Browsers say brands, platform and whether they are mobile unasked, over TLS; the rest only where a site asked for it. Without a
readable `Sec-CH-UA` and `Sec-CH-UA-Mobile` there is no entity, nor where the tracker sent one itself.
Source: RFC 8941 (lists of strings with parameters), User-Agent Client Hints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from enrich.enrichments import RawEvent, World
from protocol.seams import Event, Json, Reason

_SCHEMA = "iglu:org.ietf/http_client_hints/jsonschema/1-0-0"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_TEXT = re.compile(_STRING)
_BRAND = re.compile(rf'[ \t]*({_STRING})((?: *; *[a-z*][a-z0-9_.*-]*(?:={_STRING}|=[^;, "]*)?)*)[ \t]*(?:,|$)')
_VERSION = re.compile(rf" *; *v=({_STRING})")
_ESCAPED = re.compile(r'\\(["\\])')
_LONGEST, _LONGEST_VERSION = 4_096, 128
_FIELDS = (
    ("architecture", "sec-ch-ua-arch"),
    ("model", "sec-ch-ua-model"),
    ("platform", "sec-ch-ua-platform"),
    ("platformVersion", "sec-ch-ua-platform-version"),
    ("uaFullVersion", "sec-ch-ua-full-version"),
)


@dataclass(frozen=True, slots=True)
class Config:
    """No options."""


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        pass

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        headers = {name.lower(): value for name, value in raw.payload.headers if name[:9].lower() == "sec-ch-ua"}
        mobile, brands = headers.get("sec-ch-ua-mobile", ""), _brands(headers.get("sec-ch-ua", ""))
        if brands is None or mobile.strip() not in ("?0", "?1"):
            return {}
        if any(entity["schema"].startswith("iglu:org.ietf/http_client_hints/") for entity in event.get("contexts", ())):
            return {}
        listed: list[Json] = [{"brand": brand, "version": version} for brand, version in brands]
        data: dict[str, Json] = {"isMobile": mobile.strip() == "?1", "brands": listed}
        for field, name in _FIELDS:
            if (match := _TEXT.fullmatch(headers.get(name, "").strip())) and 0 < len(value := _plain(match[0])) <= _LONGEST:
                data[field] = value
        return {"derived_contexts": [{"schema": _SCHEMA, "data": data}]}


@lru_cache(maxsize=1_024)  # a browser's version says the same everywhere
def _brands(value: str) -> tuple[tuple[str, str], ...] | None:
    """Brands with their versions in the order sent; None for what is no such list. What is too long is left out."""
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(value):
        item = _BRAND.match(value, place)
        if item is None:
            return None
        place = item.end()
        if (match := _VERSION.search(item[2])) is None:
            continue
        brand, version = _plain(item[1]), _plain(match[1])
        if len(brand) <= _LONGEST and len(version) <= _LONGEST_VERSION:
            found.append((brand, version))
    return tuple(found) or None


def _plain(string: str) -> str:
    """A quoted string -> what it stands for."""
    return _ESCAPED.sub(r"\1", string[1:-1])
