"""Labels each opening and each click of an email: its reader or a machine, with the rule that says so. Drops and fails nothing.

Looks at what the request says of itself (method, headers, user agent, address), at when it came, and at what else of the same
copy was followed. What is known of user agents and networks is a dated list; docs/email.md is the text of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

import orjson

from enrich.bundled import watched
from enrich.enrichments import RawEvent, Remembered, World, bots
from protocol.seams import ConfigurationError, Event, Json, RawPayload, Reason, SelfDescribing

SCHEMA = "iglu:io.spoorway/email_agent/jsonschema/1-0-0"
_OPEN, _CLICK = "iglu:io.spoorway/email_open/", "iglu:io.spoorway/email_click/"
_REDIRECT = "iglu:com.snowplowanalytics.snowplow/uri_redirect/"
_KEPT = 5_000  # user agents and addresses whose rule is remembered
_LONGEST_AGENT = 1_000
_TRAP = "\x00"  # stands for a honeypot among the links that were followed; no link is called so
_FOLLOWED = 16  # links of a copy that are remembered


@dataclass(frozen=True, slots=True)
class Config:
    """soon_s: no reader is so quick after sent_ms. burst_links different links within burst_s: no reader is so quick either.

    honeypot_s: so long before and after it, who followed the link that nobody sees followed the others too.
    also: beginnings of the URIs of other schemas whose events are clicks. copies: that are remembered. database: a list in place
    of ours; "" = that one.
    """

    soon_s: float = 5.0
    burst_links: int = 3
    burst_s: float = 2.0
    honeypot_s: float = 60.0
    also: tuple[str, ...] = ()
    copies: int = 100_000
    database: str = ""

    def __post_init__(self) -> None:
        if min(self.soon_s, self.burst_s, self.honeypot_s) < 0 or self.burst_links < 2 or self.copies < 1:
            raise ConfigurationError("email_agent: times are 0 or more, burst_links is 2 or more, copies 1 or more")


class Verdict(NamedTuple):
    label: str
    rule: str
    provider: str | None = None
    fetched_at: str | None = None
    dated: bool = False


class Rules(NamedTuple):
    """agent, network: what the list says of a user agent, of an address. header: of a header's name and value, in lower case."""

    date: str
    agent: Callable[[str], Verdict | None]
    network: Callable[[str], Verdict | None]
    header: Callable[[str, str], Verdict | None]


class Followed(NamedTuple):
    ms: int
    link: str


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._config = config
        # Most installations never see an email: the lists are read when the first one comes.
        robots = cache(lambda: watched(world, "", "bots.json", bots.read)())
        if config.database:
            self._rules = watched(world, config.database, "", lambda data: read(data, lambda agent: robots().first(agent)))
        else:
            self._rules = cache(lambda: watched(world, "", "email_agents.json", lambda data: read(data, robots().first))())
        remembered = Remembered(_written, _read, _merged)
        self._memory = world.memory("email_agent", remembered, config.copies)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        told = event.get("unstruct_event")
        if told is None:
            return {}
        schema = told["schema"]
        click = schema.startswith(_CLICK) or (bool(self._config.also) and schema.startswith(self._config.also))
        if not click and not schema.startswith(_OPEN):
            return {}
        data: dict[str, Any] = told["data"] if isinstance(told["data"], dict) else {}
        rules = self._rules()
        verdict = self._verdict(event, raw.payload, data, click, rules)
        found: dict[str, Json] = {
            "label": verdict.label,
            "rule": verdict.rule[:255],
            "provider": verdict.provider,
            "fetched_at": verdict.fetched_at,
            "list_date": rules.date if verdict.dated else None,
        }
        return {"derived_contexts": [{"schema": SCHEMA, "data": found}]}

    def _verdict(self, event: Event, payload: RawPayload, data: dict[str, Any], click: bool, rules: Rules) -> Verdict:
        """The first rule that fires, the surest first."""
        trap = data.get("honeypot") is True
        near = self._near(event, payload, data, trap) if click else None
        if trap:
            return Verdict("scanner", "honeypot")
        agent = event.get("useragent", "")[:_LONGEST_AGENT]
        listed = rules.agent(agent)
        if click and listed and listed.label == "privacy_proxy":  # those fetch pictures and follow no links
            listed = listed._replace(label="scanner", fetched_at=None)
        machine = (
            self._request(payload, rules)
            or (listed if listed and listed.label != "human_likely" else None)
            or (rules.network(payload.ip) if payload.ip else None)
        )
        if machine:
            return machine
        sent = data.get("sent_ms")
        if isinstance(sent, int) and 0 <= payload.received_ms - sent < self._config.soon_s * 1000:
            return Verdict("scanner" if click else "prefetch", "too_soon")
        return near or listed or Verdict("unknown", "no_rule" if agent else "no_useragent")

    def _request(self, payload: RawPayload, rules: Rules) -> Verdict | None:
        for name, value in payload.headers:
            lowered = name.lower()
            if lowered == ":method" and value == "HEAD":  # a reader's program wants what it asks for
                return Verdict("scanner", "head")
            if (verdict := rules.header(lowered, value.lower())) is not None:
                return verdict
        return None

    def _near(self, event: Event, payload: RawPayload, data: dict[str, Any], trap: bool) -> Verdict | None:
        """What else of the same copy was followed about then; None where nothing speaks against a reader."""
        copy = data.get("message")
        if not isinstance(copy, str) or not copy:
            return None
        key = f"{event.get('app_id', '')}\n{data.get('campaign', '')}\n{copy}"
        now, link = payload.received_ms, _TRAP if trap else _link(event, data)
        before = self._memory.get(key) or frozenset()
        after = _latest({*before, Followed(now, link)})
        if after != before:
            self._memory.put(key, after)
        if any(one.link == _TRAP and abs(one.ms - now) <= self._config.honeypot_s * 1000 for one in after):
            return Verdict("scanner", "honeypot_nearby")
        links = {one.link for one in after if abs(one.ms - now) <= self._config.burst_s * 1000}
        return Verdict("scanner", "burst") if len(links) >= self._config.burst_links else None


def read(data: bytes, robot: Callable[[str], bots.Rule | None]) -> Rules:
    """A list -> its rules. robot: what a list of robots says where this one is silent. Raises ValueError with what is wrong."""
    try:
        document: dict[str, Any] = orjson.loads(data)
        date = str(document["date"])
        exact = {one["exact"]: _listed("useragent", one["exact"], one) for one in document["agents"] if "exact" in one}
        texts = [(one["text"], _listed("useragent", one["text"], one)) for one in document["agents"] if "text" in one]
        readers = re.compile("|".join(re.escape(one) for one in document["readers"]))
        networks = [(ip_network(one["network"]), _listed("network", one["network"], one)) for one in document["networks"]]
        headers = {(one["name"], one["value"]): _listed("header", one["name"], one) for one in document["headers"]}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a list of email agents: {error!r}") from None
    texts.sort(key=lambda item: -len(item[0]))
    names = frozenset(name for name, _ in headers)

    @lru_cache(maxsize=_KEPT)
    def agent(text: str) -> Verdict | None:
        if (verdict := exact.get(text)) is not None:
            return verdict
        for part, verdict in texts:
            if part in text:
                return verdict
        if text and (found := robot(text)) is not None:
            return Verdict("scanner", f"useragent: {found.text}", None, None, True)
        if (reader := readers.search(text)) is not None:
            return Verdict("human_likely", f"useragent: {reader[0]}", None, "opening", True)
        return None

    @lru_cache(maxsize=_KEPT)
    def network(text: str) -> Verdict | None:
        return _containing(networks, text)

    def header(name: str, value: str) -> Verdict | None:
        if name not in names:
            return None
        return next((verdict for (own, part), verdict in headers.items() if own == name and part in value), None)

    return Rules(date, agent, network, header)


def _listed(kind: str, name: str, fields: dict[str, Any]) -> Verdict:
    label = str(fields["label"])
    if label not in ("human_likely", "privacy_proxy", "prefetch", "scanner", "unknown"):
        raise ValueError(f"{name}: no label {label!r}")
    return Verdict(label, f"{kind}: {name}", fields.get("provider"), fields.get("fetched_at"), True)


def _containing(networks: list[tuple[IPv4Network | IPv6Network, Verdict]], text: str) -> Verdict | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return next((verdict for network, verdict in networks if address in network), None)


def _link(event: Event, data: dict[str, Any]) -> str:
    """Where the click led, else the link's name."""
    for entity in event.get("contexts", ()):
        if entity["schema"].startswith(_REDIRECT) and (uri := _text(entity, "uri")):
            return uri
    return str(data.get("link", ""))


def _text(entity: SelfDescribing, field: str) -> str:
    value = entity["data"].get(field) if isinstance(entity["data"], dict) else None
    return value if isinstance(value, str) else ""


def _latest(followed: Iterable[Followed]) -> frozenset[Followed]:
    return frozenset(sorted(followed)[-_FOLLOWED:])


def _merged(one: frozenset[Followed], other: frozenset[Followed]) -> frozenset[Followed]:
    return _latest(one | other)


def _written(followed: frozenset[Followed]) -> bytes:
    return orjson.dumps([(one.ms, one.link) for one in sorted(followed)])


def _read(text: bytes) -> frozenset[Followed]:
    return frozenset(Followed(*one) for one in orjson.loads(text))
