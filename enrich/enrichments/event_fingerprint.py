"""A digest of what the tracker sent: tells the same event again from another event with the same id.

Over the raw text parameters, not the columns. Source: tracker protocol, "event_fingerprint"; vectors enrich/fingerprint-*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from enrich.enrichments import RawEvent, World
from protocol.seams import Event, Reason


@dataclass(frozen=True, slots=True)
class Config:
    """exclude: parameters that change from one sending to the next."""

    algorithm: Literal["md5", "sha1", "sha256", "sha384", "sha512"] = "md5"
    exclude: tuple[str, ...] = ("eid", "nuid", "stm", "cv")


_MOST_SHAPES = 2_000


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._digest = getattr(hashlib, config.algorithm)
        self._exclude = frozenset(config.exclude)
        # Names in the order they were sent -> where each value goes: trackers send the same sets again and again.
        self._shapes: dict[tuple[str, ...], tuple[str, Callable[[Mapping[str, str]], object]]] = {}

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        sent = raw.parameters
        names = tuple(sent)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._shaped(names)
        template, values = shape
        digest: str = self._digest((template % values(sent)).encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
        return {"event_fingerprint": digest}

    def _shaped(self, names: tuple[str, ...]) -> tuple[str, Callable[[Mapping[str, str]], object]]:
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        kept = [name for name in sorted(names) if name not in self._exclude]
        template = "".join(f"{name.replace('%', '%%')}\x1f%s\x1f" for name in kept)
        # One name gives its value itself, several a tuple; none must still be a tuple for "%".
        values: Callable[[Mapping[str, str]], object] = itemgetter(*kept) if kept else lambda sent: ()
        self._shapes[names] = template, values
        return template, values
