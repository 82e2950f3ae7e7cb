"""The outside of the enrichments: files that are watched, services, databases, processes, a clock.

The input and output that `enrich` must not do itself.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from enrich.enrichments import Remembered, Unanswered, WebAnswer, WebRequest
from protocol.seams import ConfigurationError
from spoorway.memory import Memory

log = logging.getLogger("spoorway.world")

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_LOOK_EVERY_S = 2.0
_LONGEST_REFUSAL_S = 10.0


class World:
    """An `enrich.enrichments.World`. clock: seconds that only go forward. memory: the file that outlives us; None = RAM."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, memory: Path | None = None) -> None:
        self._clock = clock
        self._memory = memory

    def watch(self, path: str, build: Callable[[bytes], T]) -> Callable[[], T]:
        file = Path(path).expanduser()
        try:
            seen, made = _stamp(file), build(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{file}: {error}") from None
        clock = self._clock
        looked = clock()

        def current() -> T:
            nonlocal seen, made, looked
            now = clock()
            if now - looked < _LOOK_EVERY_S:
                return made
            looked = now
            try:
                stamp = _stamp(file)
                if stamp != seen:
                    seen = stamp
                    made = build(file.read_bytes())
                    log.info("%s was read again", file)
            except (OSError, ValueError) as error:
                log.warning("%s: %s; what was read before stays in use", file, error)
            return made

        return current

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def cached(self, size: int, ttl_s: float, ask: Callable[[K], T]) -> Callable[[K], T]:
        if size <= 0 or ttl_s <= 0:
            return ask
        kept: OrderedDict[K, tuple[float, tuple[T] | None, str]] = OrderedDict()  # until, the answer if any, why not
        refusal_s = min(ttl_s / 10, _LONGEST_REFUSAL_S)

        def answer(key: K) -> T:
            now = self._clock()
            entry = kept.get(key)
            if entry is None or now >= entry[0]:
                entry = renewed(key, now, entry and entry[1])
                kept[key] = entry
                if len(kept) > size:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            _, found, why = entry
            if found is None:
                raise Unanswered(why)
            return found[0]

        def renewed(key: K, now: float, old: tuple[T] | None) -> tuple[float, tuple[T] | None, str]:
            try:
                return now + ttl_s, (ask(key),), ""
            except Unanswered as error:
                return now + refusal_s, old, str(error)

        return answer

    def web(self, timeout_s: float, most_bytes: int, per_second: float) -> Callable[[WebRequest], WebAnswer]:
        from spoorway.fetching import Web  # here and below: a Pi loads what its configuration names

        return Web(timeout_s, most_bytes, per_second)

    def database(
        self, address: str, query: str, values: int, timeout_s: float, most_rows: int
    ) -> Callable[[tuple[object, ...]], list[dict[str, object]]]:
        from spoorway.querying import postgres, sqlite

        open_ = postgres if address.startswith(("postgresql://", "postgres://")) else sqlite
        return open_(address, query, values, timeout_s, most_rows)

    def memory(self, name: str, remembered: Remembered[T], most: int) -> Memory[T]:
        return Memory(self._memory, name, remembered, most, self.now_ms)

    def apart(self, module: str, setup: bytes, timeout_s: float) -> Callable[[bytes], bytes]:
        from spoorway.apart import Apart

        return Apart(module, setup, timeout_s)


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
