"""Masks the end of `user_ipaddress`: on by default, so that no stored row holds a full address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from enrich.enrichments import RawEvent, World
from protocol.seams import ConfigurationError, Event, Reason


@dataclass(frozen=True, slots=True)
class Config:
    """How many octets of an IPv4 address and 16-bit segments of an IPv6 address become "x"."""

    octets: int = 1
    segments: int = 5


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        if not 1 <= config.octets <= 4:
            raise ConfigurationError("anon_ip.octets: expected 1 to 4")
        if not 1 <= config.segments <= 8:
            raise ConfigurationError("anon_ip.segments: expected 1 to 8")
        self._kept, self._hidden = 4 - config.octets, ["x"] * config.octets
        self._segments = config.segments
        self._last, self._found = "", Event()  # the events of one payload share their address

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        text = event.get("user_ipaddress", "unknown")
        if text != self._last:
            self._last, self._found = text, self._mask(text)
        return self._found

    def _mask(self, text: str) -> Event:
        octets = text.split(".")
        if len(octets) == 4 and ":" not in text:
            return {"user_ipaddress": ".".join(octets[: self._kept] + self._hidden)}
        try:
            address = ipaddress.IPv6Address(text.partition("%")[0])  # a link's own address may name its interface
        except ValueError:  # "unknown", or whatever a tracker sent as `ip`
            return {}
        segments = [segment.lstrip("0") or "0" for segment in address.exploded.split(":")]
        return {"user_ipaddress": ":".join(segments[: 8 - self._segments] + ["x"] * self._segments)}
