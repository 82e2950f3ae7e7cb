"""What a device keeps, loses and sends of what happened: a profile and a seed -> messages, and the truth to compare with.

Pure: `now_ms` and `uptime` come from whoever sends. Faults happen to a device by its own seed, so that a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

import orjson

from protocol.devices import DEVICE_CLOCK, device_event_id
from protocol.seams import Json
from spoorway.simulate.profiles import PROFILES, Happened

_PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"

# What can happen, in words for --help.
FAULTS = {
    "gap": "one event in fifty is lost on the device: its number is used up",
    "duplicate": "one message in ten is sent twice",
    "reorder": "messages leave in another order",
    "reboot": "the device starts again, three times",
    "offline": "the connection is cut now and then in mid-flight; what was not acknowledged is sent again",
    "clock": "the device's clock is wrong by years",
}
_BOOTS = 4
_WRONG_BY_MS = 20 * 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Tracked:
    """An event as the device keeps it. elapsed_ms: since its first boot; boots follow each other without a pause."""

    boot: int
    sequence: int
    uptime_ms: int
    elapsed_ms: int
    what: Happened


@dataclass(slots=True)
class Truth:
    """What a device did, to compare the store with. lost: (boot, sequence) of events it lost; resent: messages sent again."""

    device: str
    tracked: int = 0
    boots: int = 1
    lost: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    resent: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """Events of one boot that go together. twice: sent a second time although it was acknowledged."""

    boot: int
    events: tuple[Tracked, ...]
    twice: bool = False


class Device:
    """One device's past, made when it is built. number: tells devices of one seed apart."""

    def __init__(self, profile: str, number: int, seed: int, events: int, batch: int, faults: frozenset[str]) -> None:
        self.profile = PROFILES[profile]
        self.name = f"{profile}-{number}"
        self.app_id = profile
        self.truth = Truth(self.name)
        assert events > 0 and batch > 0
        self._wrong_by_ms = _WRONG_BY_MS if "clock" in faults else 0
        random = Random(f"{seed} {self.name}")
        self.messages = self._messages(random, events, batch, faults)
        newest = max((m.events[-1] for m in self.messages), key=lambda event: event.elapsed_ms)
        self.last_boot, self._uptime_ms, self._elapsed_ms = newest.boot, newest.uptime_ms, newest.elapsed_ms

    def _messages(self, random: Random, count: int, batch: int, faults: frozenset[str]) -> Sequence[Message]:
        happened = list(islice(self.profile.events(Random(random.random())), count))
        boots = min(_BOOTS, count) if "reboot" in faults else 1
        self.truth.boots, self.truth.tracked = boots, count
        starts = [count * boot // boots for boot in range(boots + 1)]
        messages: list[Message] = []
        began_ms = 0
        for boot in range(1, boots + 1):
            uptime_ms, kept = random.uniform(500, 5_000), list[Tracked]()
            part = happened[starts[boot - 1] : starts[boot]]
            for sequence, what in enumerate(part, 1):
                uptime_ms += 1000 * self.profile.interval_s * random.uniform(0.98, 1.02)
                # the first and last of a boot stay, so that every loss lies between two events that arrive
                if "gap" in faults and 1 < sequence < len(part) and random.random() < 0.02:
                    self.truth.lost.append((boot, sequence))
                else:
                    kept.append(Tracked(boot, sequence, int(uptime_ms), began_ms + int(uptime_ms), what))
            began_ms += int(uptime_ms)
            for start in range(0, len(kept), batch):
                twice = "duplicate" in faults and random.random() < 0.1
                messages.append(Message(boot, tuple(kept[start : start + batch]), twice))
                self.truth.resent += twice
        if "reorder" in faults:
            random.shuffle(messages)
        return messages

    def body(self, message: Message, now_ms: int) -> bytes:
        """payload_data of the message, sent now: the device's newest event happened this instant."""
        return orjson.dumps({"schema": _PAYLOAD_DATA, "data": [self._sent(event, now_ms) for event in message.events]})

    def _sent(self, event: Tracked, now_ms: int) -> dict[str, str]:
        clock: dict[str, Json] = {
            "device_id": self.name,
            "boot_id": event.boot,
            "sequence": event.sequence,
            "uptime_ms": event.uptime_ms,
            "clock": "rtc" if self.profile.clock else "none",
        }
        sent = {
            "tv": "simulate-1",
            "p": self.profile.platform,
            "aid": self.app_id,
            **event.what.parameters,
            "co": orjson.dumps(
                {"schema": _CONTEXTS, "data": [{"schema": DEVICE_CLOCK, "data": clock}, *event.what.entities]}
            ).decode(),
        }
        if self.profile.clock:
            clock_ms = now_ms - self._wrong_by_ms
            sent["dtm"] = str(clock_ms - (self._elapsed_ms - event.elapsed_ms))
            sent["stm"] = str(clock_ms)
            sent["eid"] = device_event_id(self.name, event.boot, event.sequence)
        else:
            sent["dtm"] = str(event.uptime_ms)
            if event.boot == self.last_boot:
                sent["stm"] = str(self._uptime_ms)
        return sent
