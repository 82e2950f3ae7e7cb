"""A digest of what the tracker sent: tells the same event again from another event with the same id.

Over the raw text parameters, not the columns. Source: tracker protocol, "event_fingerprint"; vectors enrich/fingerprint-*.
An event with a device_clock may come again by another transport, spelled otherwise; of such a one it is over what it means:
what happened, at which uptime, without the parameters that the transport or its template adds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from enrich.device_clock import CLOCK_FAMILY, DeviceClock, device_clock
from enrich.enrichments import RawEvent, World
from enrich.lengths import values_of
from protocol.devices import QUEUE_HEALTH
from protocol.seams import Event, Json, Reason


@dataclass(frozen=True, slots=True)
class Config:
    """exclude: parameters that change from one sending to the next."""

    algorithm: Literal["md5", "sha1", "sha256", "sha384", "sha512"] = "md5"
    exclude: tuple[str, ...] = ("eid", "nuid", "stm", "cv")


_MOST_SHAPES = 2_000
# Sorted names, an empty place behind each and one at the end; what puts the values of an event into those places.
_Shape = tuple[list[str], Callable[[Mapping[str, str]], tuple[str, ...]]]
# What is not of the event itself but of its way here; the self-describing parts are taken as they were understood.
_OF_THE_WAY = frozenset({"p", "tv", "tna", "aid", "uid", "dtm", "ue_pr", "ue_px", "co", "cx"})
_TOLD_AT_SENDING = (CLOCK_FAMILY, QUEUE_HEALTH.removesuffix("0-0"))


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._empty = hashlib.new(config.algorithm, usedforsecurity=False)  # copied: OpenSSL is slow to make a new one
        self._exclude = frozenset(config.exclude)
        # Names in the order they were sent -> what is told of them: trackers send the same sets again and again.
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        if "contexts" in event and (clock := device_clock(event, raw.payload)) is not None:
            return {"event_fingerprint": self._of_a_device(event, raw.parameters, clock)}
        sent = raw.parameters
        names = tuple(sent)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._shaped(names)
        told, values = shape[0].copy(), shape[1]
        told[1::2] = values(sent)
        digest = self._empty.copy()
        digest.update("\x1f".join(told).encode("utf-8", "replace"))
        return {"event_fingerprint": digest.hexdigest()}

    def _of_a_device(self, event: Event, sent: Mapping[str, str], clock: DeviceClock) -> str:
        entities = [one for one in event.get("contexts", ()) if not one["schema"].startswith(_TOLD_AT_SENDING)]
        digest = self._empty.copy()
        digest.update(b"%d\n%d\n%d" % (clock.boot_id, clock.sequence, clock.uptime_ms))
        left_out = self._exclude | _OF_THE_WAY
        for part in ({n: v for n, v in sent.items() if n not in left_out}, event.get("unstruct_event"), entities):
            digest.update(b"\n" + _canonical(part))
        return digest.hexdigest()

    def _shaped(self, names: tuple[str, ...]) -> _Shape:
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        kept = tuple(name for name in sorted(names) if name not in self._exclude)
        self._shapes[names] = shape = [part for name in kept for part in (name, "")] + [""], values_of(kept)
        return shape


# How a float that is a whole number may be written; other texts may hold it too.
_WHOLE_FLOAT = re.compile(rb"\.0|[0-9]e")


def _canonical(value: object) -> bytes:
    """JSON that two spellings of the same value share: keys in order, 5.0 as 5."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS) if _WHOLE_FLOAT.search(text) else text
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        return json.dumps(_plain(value), sort_keys=True).encode()


def _plain(value: Any) -> Json:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(Sequence[Any], value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value
