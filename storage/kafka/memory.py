"""What the newest commits stored, by id: so far back a copy is known. Pure.

Each commit says it in records of the state topic, in parts; what a part says is forgotten, and its record deleted, when newer
parts hold as many ids as are wanted. So every loader that reads the topic knows the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import orjson

_PART = 5_000  # ids of one record, 400 KB at most


class Memory:
    """remember: ids that are known at least; a few more are. 0 = none."""

    def __init__(self, remember: int) -> None:
        self._remember = remember
        self._parts: dict[str, tuple[list[list[str | None]], list[str]]] = {}
        self.count = 0
        self.events: dict[str, str | None] = {}  # event_id -> event_fingerprint
        self.failed: set[str] = set()

    def parts(self, key: str, events: Sequence[tuple[str, str | None]], failed: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Keys and values of the records that say what a commit stored. key: its own, of all commits."""
        for number, start in enumerate(range(0, max(len(events), len(failed)), _PART) if self._remember else ()):
            part = (events[start : start + _PART], failed[start : start + _PART])
            yield f"{key}.{number}", orjson.dumps(part)

    def learn(self, key: str, value: bytes | None) -> None:
        """A record of the state topic."""
        self._forget(key)
        if value is not None:
            events, failed = self._parts[key] = orjson.loads(value)
            self.events.update((event_id, fingerprint) for event_id, fingerprint in events)
            self.failed.update(failed)
            self.count += len(events) + len(failed)

    def outdated(self, coming: int) -> list[str]:
        """Keys of parts that nobody needs once so many ids more are known: their records are to be deleted, then learnt of."""
        found: list[str] = []
        count = self.count + coming
        for key, (events, failed) in self._parts.items():
            count -= len(events) + len(failed)
            if count < self._remember:
                break
            found.append(key)
        return found

    def enough(self) -> bool:
        """Whether as many ids are known as are to be remembered."""
        return self.count >= self._remember

    def _forget(self, key: str) -> None:
        events, failed = self._parts.pop(key, ((), ()))
        for event_id, _ in events:
            self.events.pop(str(event_id), None)
        self.failed.difference_update(failed)
        self.count -= len(events) + len(failed)

    def stored(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """As storage.duplicates wants it."""
        return {event_id: self.events[event_id] for event_id in ids if event_id in self.events}


__all__ = ["Memory"]
