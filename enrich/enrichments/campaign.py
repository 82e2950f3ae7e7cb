"""Campaign columns from the query string of the page's URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from enrich.conversions import text
from enrich.enrichments import RawEvent, World
from protocol.seams import Event, Reason
from protocol.wire import parse_query


@dataclass(frozen=True, slots=True)
class Config:
    """For each column the names that may carry it, the first that is present wins. click_ids: parameter -> network."""

    medium: tuple[str, ...] = ("utm_medium",)
    source: tuple[str, ...] = ("utm_source",)
    term: tuple[str, ...] = ("utm_term",)
    content: tuple[str, ...] = ("utm_content",)
    campaign: tuple[str, ...] = ("utm_campaign",)
    click_ids: Mapping[str, str] = field(
        default_factory=lambda: {"gclid": "Google", "msclkid": "Microsoft", "dclid": "DoubleClick"}
    )


_NOTHING = Event()
_MOST_KEPT = 1_000  # queries; those of one campaign come again and again


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._columns = (
            ("mkt_medium", config.medium),
            ("mkt_source", config.source),
            ("mkt_term", config.term),
            ("mkt_content", config.content),
            ("mkt_campaign", config.campaign),
        )
        self._click_ids = dict(config.click_ids)

        self._found_in = lru_cache(_MOST_KEPT)(self._find)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        query = event.get("page_urlquery")
        return _NOTHING if query is None else self._found_in(query)

    def _find(self, query: str) -> Event:
        found = Event()
        parameters = parse_query(query)
        for column, names in self._columns:
            name = next((n for n in names if n in parameters), None)
            if name is not None and (value := text(parameters[name] or "")):
                found[column] = value  # type: ignore[literal-required]  # a column name from the table above
        for name, network in self._click_ids.items():
            if name in parameters:
                if value := text(parameters[name] or ""):
                    found["mkt_clickid"] = value
                found["mkt_network"] = network
                break
        return found
