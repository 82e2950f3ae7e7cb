"""One file per enrichment; file name = name in the configuration, which lists them in the order they run.

An enrichment is a pure function of the event so far: it returns only the columns to add or replace, or a Reason why it
could not, and then the event fails with that reason among its others. It never raises for a value it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from protocol.seams import Event, RawPayload, Reason


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as the tracker sent it, before any conversion. index: 0-based place in its payload."""

    payload: RawPayload
    index: int
    parameters: Mapping[str, str]


class Enrichment(Protocol):
    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason: ...


DEFAULT = ("campaign", "event_fingerprint", "anon_ip")
"""What runs, in this order, where the configuration names no enrichments."""


def defaults() -> list[Enrichment]:
    """The default enrichments with their default options."""
    plugins = [import_module(f"{__name__}.{name}") for name in DEFAULT]
    return [plugin.Plugin(plugin.Config()) for plugin in plugins]
