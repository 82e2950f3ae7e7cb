"""Labels events of robots with the rule that says so; never drops one and never fails one.

Three things may say so: the user agent, held against a dated list; the browser's own tests (the tracker's
`client_side_bot_detection` entity); the address's network (`likelyBot` of the `asn` entity that geo_ip makes, if it runs before).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from enrich.bundled import watched
from enrich.enrichments import RawEvent, World
from protocol.seams import Event, Json, Reason, SelfDescribing

_SCHEMA = "iglu:io.spoorway/bot_label/jsonschema/1-0-0"
_CLIENT_SIDE = "iglu:com.snowplowanalytics.snowplow/client_side_bot_detection/"
_ASN = "iglu:com.snowplowanalytics.snowplow/asn/"
_KEPT = 5_000
# Robots name themselves early; the rest of a longer user agent may be made to be slow to read.
_LONGEST_AGENT = 1_000
_LONGEST_RULE = 255


@dataclass(frozen=True, slots=True)
class Config:
    """platforms: only events of these are looked at: in an app or on a server an HTTP library is no robot. None sent = web.

    ignore: rules of the list that are not to apply. database: a file in place of the list that comes along; "" = that one.
    """

    platforms: tuple[str, ...] = ("web",)
    ignore: tuple[str, ...] = ()
    database: str = ""


class Rule(NamedTuple):
    """text: found in the user agent as it stands. pattern: a regular expression, for the few that need one."""

    text: str
    pattern: re.Pattern[str] | None
    kind: str | None


class Rules(NamedTuple):
    date: str
    first: Callable[[str], Rule | None]


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._platforms = frozenset(config.platforms)
        ignore = frozenset(config.ignore)
        self._rules = watched(world, config.database, "bots.json", lambda data: read(data, ignore))

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        if event.get("platform", "web") not in self._platforms:
            return {}
        labels: list[SelfDescribing] = []
        if agent := event.get("useragent"):
            rules = self._rules()
            if (rule := rules.first(agent[:_LONGEST_AGENT])) is not None:
                labels.append(_label("useragent", rule.text, rule.kind, rules.date))
        for entity in event.get("contexts", ()):
            if entity["schema"].startswith(_CLIENT_SIDE) and _says(entity, "bot"):
                labels.append(_label("browser", "client_side_bot_detection", _text(entity, "kind"), None))
        for entity in event.get("derived_contexts", ()):
            if entity["schema"].startswith(_ASN) and _says(entity, "likelyBot"):
                labels.append(_label("network", "asn", _text(entity, "organization"), None))
        return {"derived_contexts": labels} if labels else {}


def read(data: bytes, ignore: frozenset[str] = frozenset()) -> Rules:
    """A list of rules -> the look-up of the longest, the most exact, that fires. Raises ValueError with what is wrong."""
    rules: list[Rule] = []
    try:
        document: dict[str, Any] = orjson.loads(data)
        date = str(document["date"])
        for fields in document["rules"]:
            pattern: str | None = fields.get("pattern")
            name: str = fields["text"] if pattern is None else pattern
            if not 0 < len(name) <= _LONGEST_RULE:
                raise ValueError(f"{name!r}: too long a rule, or none")
            if name not in ignore:
                rules.append(Rule(name, None if pattern is None else re.compile(pattern), fields.get("kind")))
    except (AttributeError, KeyError, TypeError, re.error) as error:
        raise ValueError(f"not a list of robots: {error!r}") from None
    rules.sort(key=lambda rule: -len(rule.text))

    @lru_cache(maxsize=_KEPT)
    def first(agent: str) -> Rule | None:
        for rule in rules:
            if rule.text in agent if rule.pattern is None else rule.pattern.search(agent):
                return rule
        return None

    return Rules(date, first)


def _label(source: str, rule: str, kind: str | None, list_date: str | None) -> SelfDescribing:
    data: dict[str, Json] = {"source": source, "rule": rule, "kind": kind, "listDate": list_date}
    return {"schema": _SCHEMA, "data": data}


def _says(entity: SelfDescribing, field: str) -> bool:
    return isinstance(entity["data"], dict) and entity["data"].get(field) is True


def _text(entity: SelfDescribing, field: str) -> str | None:
    value = entity["data"].get(field) if isinstance(entity["data"], dict) else None
    return value[:_LONGEST_RULE] if isinstance(value, str) else None
