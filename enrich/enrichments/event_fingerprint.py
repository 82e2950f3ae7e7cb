"""A digest of what the tracker sent: tells the same event again from another event with the same id.

Over the raw text parameters, not the columns. Source: tracker protocol, "event_fingerprint"; vectors enrich/fingerprint-*.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from enrich.enrichments import RawEvent, World
from protocol.seams import Event, Reason


@dataclass(frozen=True, slots=True)
class Config:
    """exclude: parameters that change from one sending to the next."""

    algorithm: Literal["md5", "sha1", "sha256", "sha384", "sha512"] = "md5"
    exclude: tuple[str, ...] = ("eid", "nuid", "stm", "cv")


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._digest = getattr(hashlib, config.algorithm)
        self._exclude = frozenset(config.exclude)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        sent, exclude = raw.parameters, self._exclude
        text = "".join([f"{name}\x1f{sent[name]}\x1f" for name in sorted(sent) if name not in exclude])
        digest: str = self._digest(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
        return {"event_fingerprint": digest}
