"""Browser, system and device from the user agent: a `ua_parser_context` entity and the br_, os_ and dvce_ columns.

The rules are those of the ua-parser project; what they do not know is "Other" in the entity and no column. Never fails an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from enrich.conversions import text
from enrich.enrichments import RawEvent, World
from enrich.lengths import fitting
from protocol.seams import ConfigurationError, Event, Json, Reason

_SCHEMA = "iglu:com.snowplowanalytics.snowplow/ua_parser_context/jsonschema/1-0-0"
# The rest of a longer one adds nothing, and may be made to be slow to read.
_LONGEST_AGENT = 1_000
_MAKERS = {
    "Android": "Google Inc.",
    "Chrome OS": "Google Inc.",
    "Mac OS X": "Apple Inc.",
    "Windows": "Microsoft Corporation",
    "iOS": "Apple Inc.",
    "tvOS": "Apple Inc.",
    "watchOS": "Apple Inc.",
}
_COMPUTERS = frozenset(
    {"Chrome OS", "Debian", "Fedora", "FreeBSD", "Linux", "Mac OS X", "OpenBSD", "Red Hat", "Ubuntu", "Windows"}
)
_PHONES = frozenset({"BlackBerry OS", "Firefox OS", "KaiOS", "Symbian OS", "Windows Phone"})


@dataclass(frozen=True, slots=True)
class Config:
    """columns: fill the br_, os_ and dvce_ columns besides the entity. cache: user agents whose result is kept."""

    columns: bool = True
    cache: int = 5_000


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        try:
            import ua_parser
        except ModuleNotFoundError:
            raise ConfigurationError("user_agent needs the package ua_parser; install spoorway[ua]") from None
        self._parse = ua_parser.parse
        self._columns = config.columns
        self._known = lru_cache(max(0, config.cache))(self._look_up)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        agent = event.get("useragent")
        if not agent:
            return {}
        return self._known(agent[:_LONGEST_AGENT])

    def _look_up(self, agent: str) -> Event:
        parsed = self._parse(agent).with_defaults()
        browser, system, device = parsed.user_agent, parsed.os, parsed.device
        version = _joined(browser.major, browser.minor, browser.patch)
        data: dict[str, Json] = {
            "useragentFamily": browser.family,
            "useragentMajor": browser.major,
            "useragentMinor": browser.minor,
            "useragentPatch": browser.patch,
            "useragentVersion": f"{browser.family} {version}".rstrip(),
            "osFamily": system.family,
            "osMajor": system.major,
            "osMinor": system.minor,
            "osPatch": system.patch,
            "osPatchMinor": system.patch_minor,
            "osVersion": f"{system.family} {_joined(system.major, system.minor, system.patch, system.patch_minor)}".rstrip(),
            "deviceFamily": device.family,
        }
        columns = Event()
        if self._columns:
            if browser.family != "Other":
                _put(columns, "br_family", browser.family)
                _put(columns, "br_name", f"{browser.family} {browser.major or ''}".rstrip())
                _put(columns, "br_version", version)
            if system.family != "Other":
                _put(columns, "os_family", system.family)
                _put(columns, "os_name", f"{system.family} {system.major or ''}".rstrip())
                _put(columns, "os_manufacturer", _MAKERS.get(system.family, ""))
            if (kind := _device_type(system.family, device.family, agent)) is not None:
                columns["dvce_type"], columns["dvce_ismobile"] = kind, kind in ("Mobile", "Tablet")
        return {**fitting(columns), "derived_contexts": [{"schema": _SCHEMA, "data": data}]}


def _joined(*parts: str | None) -> str:
    """The parts there are, with full stops between."""
    return ".".join(part for part in parts if part)


def _put(columns: Event, name: str, value: str) -> None:
    if cleaned := text(value):
        columns[name] = cleaned  # type: ignore[literal-required]  # one of the columns named above


def _device_type(system: str, device: str, agent: str) -> str | None:
    """None where the user agent does not tell, and for robots, which have no device."""
    if device == "Spider":
        return None
    if system == "iOS":
        return "Tablet" if device.startswith("iPad") else "Mobile"
    if system == "Android":
        return "Mobile" if "Mobile" in agent else "Tablet"
    if system in _COMPUTERS:
        return "Computer"
    return "Mobile" if system in _PHONES else None
