"""The loading process: a thread per target, each with its own reader, pipeline and place in the journal; one for the archive.

With `readers` it is one of several that load the same targets (spoorway/working.py): then it claims nothing, publishes no cursor,
and ends after the batch under way instead of at the journal's end.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from gateway.journal import Chunk, GroupReader, Reader
from gateway.journal.reader import FileReader
from protocol.seams import ConfigurationError, Cursor, PermanentError
from spoorway import building
from spoorway.config import Instance, Settings
from spoorway.files import Claim, cursor_file, journal_folder, replaying_file, write_cursor
from spoorway.housework import Housework
from spoorway.loader import Loader, collect_seldom
from spoorway.registry.comeback import ComeBack
from spoorway.registry.lookup import LOOK_EVERY_S

if TYPE_CHECKING:
    from spoorway.archiving import Archiving
    from spoorway.archiving_remote import GroupArchiving

log = logging.getLogger("spoorway.loading")

_TELL_EVERY_S = 0.25
_CURSOR_EVERY_S = 2.0
# The loader of a gateway that was killed may still be finishing.
_CLAIM_S = 15.0


class Loading:
    """Call order: `Loading(settings)` opens everything -> `run` until a signal -> exit code."""

    def __init__(
        self,
        settings: Settings,
        supervised: bool,
        instances: Sequence[Instance] | None = None,
        readers: Callable[[str], GroupReader] | None = None,
        archiving: GroupArchiving | None = None,
    ) -> None:
        """supervised: a parent reads our standard output and closes our input at its end.

        instances: the targets; by default all that are configured. readers: of the group that shares the journal, by target;
        archiving: among these. Raises ConfigurationError.
        """
        self._settings, self._supervised, self._readers = settings, supervised, readers
        self._stop, self._finish = threading.Event(), threading.Event()
        instances = settings.targets() if instances is None else instances
        if not instances and not settings.archive.url:
            raise ConfigurationError("storage.targets: none is configured, nothing to load")
        claimed = instances if readers is None else ()
        self._claims = [Claim(settings.data, instance.name, _CLAIM_S if supervised else 0) for instance in claimed]
        self._lookup = building.schema_lookup(settings)
        templates = building.templates(settings)
        self._targets = [building.open_target(settings, instance, self._lookup) for instance in instances]
        self.archiving = _archiving(settings) if readers is None else archiving
        self.loaders: list[Loader] = []
        self._opened: list[Opened] = []
        for instance, target in zip(instances, self._targets, strict=True):
            if getattr(instance.module, "TAKES", "events") == "payloads":
                reader = self._reader(instance.name)
                house = Housework(settings, instance.name, target, reader, building.now_ms)
                self.loaders.append(Loader(instance.name, reader, None, target, building.now_ms, beside=house.step))
                continue
            pipeline = building.pipeline(settings, self._lookup, known=templates)
            replays = settings.enrich.resolver.come_back
            come_back = ComeBack(self._lookup, pipeline, target, building.now_ms, replays=replays, templates=templates)
            reader = self._reader(instance.name)
            files = reader if readers is None else _NoFiles()
            house = Housework(settings, instance.name, target, files, building.now_ms)
            beside = _one_after_the_other(house, come_back)
            self.loaders.append(Loader(instance.name, reader, pipeline, target, building.now_ms, beside=beside))

    def run(self, once: bool = False) -> int:
        """0 when every target reached the end of the journal, or was loaded until the end of us; 1 when one gave up.

        once: do not wait for more.

        The archive is waited for with `once`, and where it is one of a group; else, what it has begun to copy it copies again at
        the next start.
        """
        if once:
            self._finish.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN if self._supervised else self._on_signal)
        if self._supervised:
            threading.Thread(target=self._await_parent, name="parent", daemon=True).start()
        threads = [
            threading.Thread(target=self._load, args=(loader, reader), name=f"load-{loader.status.target}")
            for loader, reader in zip(self.loaders, self._opened, strict=True)
        ]
        if self.archiving is not None:
            arguments = {"stop": self._stop, "finish": self._finish, "once": once}
            archiver = threading.Thread(target=self.archiving.run, kwargs=arguments, name="archive", daemon=True)
            if once or not threads or self._readers is not None:
                threads.append(archiver)
            else:
                archiver.start()
        threading.Thread(target=self._watch_schemas, name="schemas", daemon=True).start()
        collect_seldom()
        for thread in threads:
            thread.start()
        tell = self._teller()
        while any(thread.is_alive() for thread in threads):
            self._finish.wait(_TELL_EVERY_S)
            if self._finish.is_set():
                time.sleep(0.01)
            tell()
        tell()
        self._publish()
        for target in self._targets:
            target.close()
        if self._readers is not None:
            return 1 if any(loader.status.state == "stopped" for loader in self.loaders) else 0
        archived = self.archiving is None or not once or self.archiving.status.state == "finished"
        return 0 if archived and all(loader.status.state == "finished" for loader in self.loaders) else 1

    def end(self) -> None:
        """Asks to finish: what the journal holds is loaded first. One among several leaves the rest to the others."""
        if self._readers is not None:
            self._stop.set()
        self._finish.set()

    def _load(self, loader: Loader, reader: Opened) -> None:
        try:
            loader.run(self._stop, self._finish)
        except Exception as error:  # the thread's rim: a target that nobody loads must not look as if it were loaded
            log.exception("loading %s broke", loader.status.target)
            loader.status.state, loader.status.message = "stopped", f"a fault in the loader: {type(error).__name__}: {error}"
        finally:
            reader.close()  # its lanes are another's at once

    def _watch_schemas(self) -> None:
        enrich = self._settings.enrich
        if not enrich.registries:  # then HTTP and TLS are not loaded: 100 ms of a start
            while not self._finish.wait(LOOK_EVERY_S):
                self._lookup.look()
            return
        from spoorway.registry.fetching import Fetching
        from spoorway.registry.remote import fetch

        cache = building.schema_cache(self._settings)
        Fetching(self._lookup, cache, enrich.registries, enrich.resolver, fetch, building.now_ms).run(self._finish)

    def _on_signal(self, number: int, frame: object) -> None:
        # The first signal asks to finish; one from a person who does not want to wait ends it at once.
        if self._finish.is_set():
            self._stop.set()
        self.end()

    def _await_parent(self) -> None:
        """Ends when the parent closes our standard input: because it finishes, or because it is gone."""
        sys.stdin.read()
        self.end()

    def _teller(self) -> Callable[[], None]:
        told: dict[str, str] = {}
        published = 0.0

        def tell() -> None:
            nonlocal published
            if time.monotonic() - published > _CURSOR_EVERY_S:
                published = time.monotonic()
                self._publish()
            if not self._supervised:
                return
            statuses = {loader.status.target: loader.status.as_dict() for loader in self.loaders}
            if self.archiving is not None:
                statuses[""] = self.archiving.status.as_dict()
            for name, status in statuses.items():
                line = json.dumps(status)
                if told.get(name) != line:
                    told[name] = line
                    try:
                        print(line, flush=True)
                    except BrokenPipeError:
                        # The parent is gone; what Python flushes at exit must not complain about it again.
                        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  lives as long as the process
                        self.end()

        return tell

    def _reader(self, target: str) -> Opened:
        reader = self._journal(target)
        self._opened.append(reader)
        return reader

    def _journal(self, target: str) -> Opened:
        if self._readers is not None:
            return self._readers(target)
        if replaying_file(self._settings.data, target).exists():
            return _CutShort()
        return FileReader(journal_folder(self._settings.data))

    def _publish(self) -> None:
        if self._readers is not None:  # the journal here is not the one they read
            return
        for loader in self.loaders:
            if replaying_file(self._settings.data, loader.status.target).exists():
                continue  # what is there already was not all there was before it
            if not loader.opened:
                continue  # out of reach since the start: what is known of it stays
            write_cursor(cursor_file(self._settings.data, loader.status.target), loader.cursor)


class Opened(Reader, Protocol):
    def close(self) -> None: ...


class _CutShort:
    """The journal of a target whose replay from the archive was cut short: going on would leave out what lies between."""

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        raise PermanentError("`spoorway replay --from archive` was cut short; run it again, nothing is loaded before it is done")

    def pending(self, cursor: Cursor) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


class _NoFiles:
    """Of a reader of a group: an erasure replaces no file that it has open, and to close it would be to leave the group."""

    def close(self) -> None:
        """Nothing is open."""


def _one_after_the_other(house: Housework, come_back: ComeBack) -> Callable[[], bool]:
    return lambda: house.step() or come_back.step()


def _archiving(settings: Settings) -> Archiving | None:
    """None when there is no archive. Raises ConfigurationError."""
    if not settings.archive.url:
        return None
    from spoorway.archiving import Archiving, open_archive

    return Archiving(settings.data, open_archive(settings.archive), settings.archive.url, building.now_ms)
