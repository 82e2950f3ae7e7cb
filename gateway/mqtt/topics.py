"""A topic -> the path whose adapter understands its messages -> RawPayload. Pure.

Never refuses a message for what it holds: bytes that are no text are kept as they came and fail in the enrichment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from protocol.devices import COMPACT_PATH, DEVICE_HEADER, NAME, RETAIN_HEADER, TOPIC_HEADER, TP1_PATH, TP2_PATH
from protocol.seams import ConfigurationError, RawPayload

OWN: Mapping[str, str] = {"spoorway/+/tp1": TP1_PATH, "spoorway/+/tp2": TP2_PATH, "spoorway/+/c": COMPACT_PATH}

# Devices that publish in a form of their own, and the mappings in enrich/mappings that understand it.
READY: Mapping[str, str] = {
    "zigbee2mqtt/+": "/io.spoorway.zigbee2mqtt/v1",
    "zigbee2mqtt/+/availability": "/io.spoorway.zigbee2mqtt/v1",
    "tele/+/SENSOR": "/io.spoorway.tasmota/v1",
    "tele/+/STATE": "/io.spoorway.tasmota/v1",
    "tele/+/LWT": "/io.spoorway.tasmota/v1",
    "stat/+/RESULT": "/io.spoorway.tasmota/v1",
    "stat/+/STATUS10": "/io.spoorway.tasmota/v1",
    "+/sensor/+/state": "/io.spoorway.esphome/v1",
    "+/binary_sensor/+/state": "/io.spoorway.esphome/v1",
    "+/text_sensor/+/state": "/io.spoorway.esphome/v1",
    "+/switch/+/state": "/io.spoorway.esphome/v1",
    "+/light/+/state": "/io.spoorway.esphome/v1",
    "+/number/+/state": "/io.spoorway.esphome/v1",
}

_BINARY = "application/octet-stream"
_LONGEST = 65_535  # bytes of a topic. Source: MQTT 5.0, 1.5.4
_PATH = re.compile(r"(?:/i|/[^/?#\s]+/[^/?#\s]+)(?:\?[^#\s]*)?")


class _Route(NamedTuple):
    levels: tuple[str, ...]
    path: str
    query: str


class Topics:
    """Which topics are taken, and as what. Of several filters that match a topic, ours come first, then the order given."""

    def __init__(self, foreign: Mapping[str, str] = READY) -> None:
        """foreign: topic filter (with + and #) -> path of an adapter, with a query string where it needs one.

        Raises ConfigurationError.
        """
        self._routes: list[_Route] = []
        for topic_filter, target in {**OWN, **foreign}.items():
            check_filter(topic_filter)
            if not _PATH.fullmatch(target):
                raise ConfigurationError(
                    f"topics: {topic_filter}: expected a path such as /com.acme/v1, or one with a query string, not {target!r}"
                )
            path, _, query = target.partition("?")
            self._routes.append(_Route(tuple(topic_filter.split("/")), path, query))
        self._known = lru_cache(maxsize=1024)(self._look_up)  # a device names the same topic again and again

    def payload(
        self,
        *,
        id: str,
        received_ms: int,
        transport: str,
        topic: str,
        body: bytes,
        retain: bool,
        device: str | None = None,
        ip: str | None = None,
    ) -> RawPayload | None:
        """None: nobody takes this topic. device: the one that proved its identity, never the one the topic names.

        Headers: the topic, the device it names (a claim), and that the broker had kept the message, if it had.
        """
        route, headers = self._known(topic)
        if route is None:
            return None
        if retain:
            headers = (*headers, (RETAIN_HEADER, "1"))
        _, path, query = route
        if path == TP1_PATH:
            try:
                text = body.decode()
            except UnicodeDecodeError:  # no query string can hold it: it fails, with its bytes beside it
                pass
            else:
                query = f"{query}&{text}" if query else text
                return RawPayload(id, received_ms, transport, path, query, None, None, headers, ip, None, None, device)
        content_type = _BINARY if path in (TP1_PATH, COMPACT_PATH) else "application/json"
        return RawPayload(id, received_ms, transport, path, query, body, content_type, headers, ip, None, None, device)

    def _look_up(self, topic: str) -> tuple[_Route | None, tuple[tuple[str, str], ...]]:
        """The route of a topic, and the headers that follow from it."""
        levels = topic.split("/")
        route = next((route for route in self._routes if _matches(route.levels, levels)), None)
        claimed = self.device(topic)
        named = ((TOPIC_HEADER, topic),)
        return route, named if claimed is None else (*named, (DEVICE_HEADER, claimed))

    def device(self, topic: str) -> str | None:
        """DEVICE of spoorway/DEVICE/…: a claim; None for other topics and for what is no device name."""
        levels = topic.split("/")
        named = len(levels) == 3 and levels[0] == "spoorway" and NAME.fullmatch(levels[1])
        return levels[1] if named else None


def check_filter(topic_filter: str) -> None:
    """Raises ConfigurationError for what no broker would take. Source: MQTT 5.0, 4.7."""
    levels = topic_filter.split("/")
    wrong = (
        not topic_filter
        or "\0" in topic_filter
        or len(topic_filter.encode()) > _LONGEST
        or any(len(level) > 1 and ("+" in level or "#" in level) for level in levels)
        or "#" in levels[:-1]
    )
    if wrong:
        raise ConfigurationError(f"topics: {topic_filter!r} is no topic filter: + stands for one level, # for all that follow")
    if levels[0] == "$share":
        raise ConfigurationError(f"topics: {topic_filter!r}: write the filter alone; the option group makes it a shared one")


def _matches(wanted: tuple[str, ...], levels: list[str]) -> bool:
    if levels[0].startswith("$") and wanted[0] in ("+", "#"):  # the broker's own topics
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)


__all__ = ["OWN", "READY", "Topics", "check_filter"]
