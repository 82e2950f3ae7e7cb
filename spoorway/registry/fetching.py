"""What was looked up in vain -> asked of the registries, in the background; what they answer goes into the cache.

One thread. A registry in trouble is put aside for a while and the others are asked; a schema that none has is asked for
again later and later. A document that was fetched is asked for again when it is old, and serves meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event as Signal

from protocol.iglu import SchemaKey
from spoorway.registry.cache import Cache, Cached
from spoorway.registry.lookup import LOOK_EVERY_S, Lookup
from spoorway.registry.options import Remote, Resolver
from spoorway.registry.remote import Answer, Down, Refused

log = logging.getLogger("spoorway.registry")

Fetch = Callable[[Remote, SchemaKey, str | None], Answer]

_FIRST_ASIDE_S, _LONGEST_ASIDE_S = 1.0, 300.0
_BURST = 20  # questions at once before max_per_minute is felt


@dataclass(slots=True)
class _Registry:
    name: str
    remote: Remote
    aside_until: float = 0
    aside_s: float = 0
    next: float = 0

    def free(self, now: float) -> bool:
        return now >= self.aside_until and self.next - now <= _BURST * 60 / self.remote.max_per_minute

    def used(self, now: float) -> None:
        self.next = max(self.next, now) + 60 / self.remote.max_per_minute


@dataclass(slots=True)
class _Try:
    due: float = 0
    wait_s: float = 0


class Fetching:
    """clock: milliseconds since 1970, for what is kept. timer: seconds, monotonic, for what is waited for."""

    def __init__(
        self,
        lookup: Lookup,
        cache: Cache,
        remotes: Mapping[str, Remote],
        options: Resolver,
        fetch: Fetch,
        clock: Callable[[], int],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup, self._cache, self._options, self._fetch = lookup, cache, options, fetch
        self._clock, self._timer = clock, timer
        self._registries = [_Registry(name, remote) for name, remote in remotes.items()]
        self._tries: dict[SchemaKey, _Try] = {}
        self._stop = Signal()

    def run(self, stop: Signal) -> None:
        self._stop = stop
        while not stop.wait(LOOK_EVERY_S):
            try:
                self.round()
            except Exception:  # the loop's rim: without it no schema would ever come again
                log.exception("looking for schemas broke")

    def round(self) -> None:
        """Looks at the files, asks for what is unknown and due, asks again for what is old."""
        self._lookup.look()
        if not self._registries:
            return
        wanted = self._lookup.unknown()
        for key in sorted(wanted, key=lambda key: self._tries.get(key, _Try()).wait_s):  # the newest names first
            self._ask(key, None)
        kept = self._lookup.fetched()
        for key in kept:
            cached = self._cache.get(key)
            if cached is not None and not 0 <= self._clock() - cached.checked_ms <= self._options.refresh_s * 1000:
                self._ask(key, cached)
        self._tries = {key: tried for key, tried in self._tries.items() if key in {*wanted, *kept}}
        self._lookup.look()

    def _ask(self, key: SchemaKey, cached: Cached | None) -> None:
        tried = self._tries.setdefault(key, _Try())
        if self._stop.is_set() or self._timer() < tried.due:
            return
        asked_all = True
        for registry in self._order(key.vendor):
            if not registry.free(self._timer()):
                asked_all = False
                continue
            same = cached if cached is not None and cached.registry == registry.remote.url else None
            try:
                answer = self._fetch(registry.remote, key, same.etag if same else None)
            except Down as error:
                asked_all = False
                self._put_aside(registry, error)
                continue
            except Refused as error:
                log.warning("registry %s: %s cannot be used: %s", registry.name, key.uri, error)
                self._answered(registry)
                continue
            self._answered(registry)
            document = same.document if same and answer.status == "same" else answer.document
            if document is not None:
                etag = answer.etag or (same.etag if same and answer.status == "same" else None)
                if self._cache.put(key, Cached(document, registry.remote.url, etag, self._clock())):
                    self._tries.pop(key, None)
                    return
        if asked_all:
            tried.wait_s = min(max(tried.wait_s * 2, self._options.retry_s), self._options.longest_retry_s)
            tried.due = self._timer() + tried.wait_s

    def _order(self, vendor: str) -> list[_Registry]:
        """Those meant for the vendor, then by priority; the others are asked last."""
        fitting = [r for r in self._registries if r.remote.fits(vendor) or not r.remote.exclusive]
        return sorted(fitting, key=lambda r: (not r.remote.fits(vendor), r.remote.priority))

    def _answered(self, registry: _Registry) -> None:
        if registry.aside_s:
            log.info("registry %s answers again", registry.name)
        registry.aside_s = 0
        registry.used(self._timer())

    def _put_aside(self, registry: _Registry, error: Down) -> None:
        registry.aside_s = min(max(registry.aside_s * 2, _FIRST_ASIDE_S), _LONGEST_ASIDE_S)
        registry.aside_until = self._timer() + registry.aside_s
        log.warning("registry %s is left alone for %.0f s: %s", registry.name, registry.aside_s, error)
