"""Everything of a person, everywhere it is kept: journal, archive, targets, what enrichments remember. With a receipt.

In this order, each step done or not done at any moment, and done again does no harm: the journal first, so that nothing reads
them anew; then the archive; then each target, by the process that loads it (this one, if none runs). What is asked lies in
DATA/erasures/ID.asked until the end, so that it can go on after a crash; the receipt DATA/erasures/ID.json knows the
identifiers only as hashes.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from gateway.journal.erasing import Rewritten, ask_to_seal, checksum, ends, rewrite, sealed_segments
from gateway.journal.lanes import sealed
from protocol.persons import COLUMNS, Person
from protocol.seams import ConfigurationError, Cursor, Event, PermanentError, RawPayload
from spoorway import building
from spoorway.config import Instance, Settings
from spoorway.cutting import Cutting, suspect
from spoorway.erasures import (
    Asked,
    Receipt,
    asked_file,
    events_file,
    folder,
    iso,
    part_file,
    part_of,
    receipt_file,
    write_private,
)
from spoorway.files import Claim, journal_folder, read_json, write_json
from storage.targets import Erasure, Removed

_POLL_S = 0.2
_SEAL_S = 120.0

Tell = Callable[[str], None]


def cutting(settings: Settings, who: Person, until_ms: int) -> Cutting:
    """Without enrichments: what was sent counts. Raises ConfigurationError."""
    from enrich.pipeline import Pipeline

    return Cutting(Pipeline(building.enrich_options(settings), building.schema_lookup(settings), []), who, until_ms)


def erasure_of(settings: Settings, asked: Asked) -> Erasure:
    """What a target is asked. Raises ConfigurationError."""
    cut = cutting(settings, asked.who, asked.until_ms)
    events: set[tuple[str, int]] = set()
    failed: set[str] = set()
    with suppress(FileNotFoundError), events_file(settings.data, asked.id).open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # cut short by a crash; then its segment is read again
            event_id, received_ms = json.loads(line)
            if received_ms is None:
                failed.add(event_id)
            else:
                events.add((event_id, received_ms))
    return Erasure(asked.id, asked.who, asked.until_ms, events, failed, cut.left)


def as_stored(settings: Settings, who: Person) -> Person:
    """The identifiers, and what the enrichment `pii` makes of them before they are stored. Raises ConfigurationError."""
    from enrich.enrichments import RawEvent
    from spoorway.world import World

    world = World(memory=None)
    nobody = RawEvent(RawPayload("", 0, "", ""), 0, {})
    for instance in settings.enrichments():
        if instance.use != "pii":
            continue
        plugin = instance.plugin(world)
        hashed: dict[str, set[str]] = {kind: set() for kind in COLUMNS}
        for kind, names in COLUMNS.items():
            for value in getattr(who, kind):
                for name in names:
                    changed = plugin(cast(Event, {name: value}), nobody)
                    if isinstance(changed, dict) and name in changed:
                        hashed[kind].add(str(cast(dict[str, Any], changed)[name]))
        who = who.merged(Person(**{kind: frozenset(values) for kind, values in hashed.items()}))
    return who


class Erasing:
    """One at a time in a data folder. Call order: `begin` or `resume` -> `run`."""

    def __init__(self, settings: Settings, asked: Asked, receipt: Receipt, lock: IO[str], tell: Tell) -> None:
        """For `begin` and `resume`."""
        self._settings, self._data, self._asked, self.receipt, self._lock, self._tell = (
            settings,
            settings.data,
            asked,
            receipt,
            lock,
            tell,
        )

    @classmethod
    def begin(cls, settings: Settings, who: Person, now_ms: int, tell: Tell) -> Erasing:
        """Raises ConfigurationError, also when another one is under way."""
        erasure_id = f"{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        salt, moment = secrets.token_hex(16), iso(now_ms)
        targets = [instance.name for instance in settings.targets()]
        stored = as_stored(settings, who)
        asked = Asked(erasure_id, now_ms, stored, ends(journal_folder(settings.data)), targets, salt)
        receipt = Receipt(erasure_id, "journal", moment, moment, salt, who.hashed(salt))
        lock = _locked(settings.data)
        try:
            asked.write(asked_file(settings.data, erasure_id))
            return cls(settings, asked, receipt, lock, tell)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def resume(cls, settings: Settings, asked: Asked, tell: Tell) -> Erasing:
        """Raises ConfigurationError."""
        moment = iso(asked.until_ms)
        receipt = Receipt(asked.id, "journal", moment, moment, asked.salt, asked.who.hashed(asked.salt))
        if found := read_json(receipt_file(settings.data, asked.id)):
            receipt = Receipt(**found)
        return cls(settings, asked, receipt, _locked(settings.data), tell)

    def run(self) -> Receipt:
        """Raises TransientError, PermanentError, ConfigurationError; then it can be resumed."""
        try:
            if not self._asked.ready:
                self._journal()
                self._asked.ready = True
                self._asked.write(asked_file(self._data, self._asked.id))
            self._archive()
            self._stores()
            self._archive()  # what was on its way there meanwhile
            self.receipt.remembered += _forget(self._data / "memory.db", self._asked.who)
            self.receipt.finished = iso(building.now_ms())
            self._state("done")
            for path in folder(self._data).glob(f"{self._asked.id}.*"):
                if path.suffix != ".json":
                    path.unlink()
            return self.receipt
        finally:
            self._lock.close()

    # Journal and archive ----------------------------------------------------------------------------------------------

    def _journal(self) -> None:
        asked, options, journal = self._asked, self._settings.journal, journal_folder(self._data)
        self._state("journal")
        seal(journal, asked.ends, self._settings, self._tell)
        look, cut = suspect(asked.who), cutting(self._settings, asked.who, asked.until_ms)
        for lane, number in list(sealed_segments(journal, asked.ends)):
            told = self.receipt.journal.get(f"{lane.name}/{number:08d}")
            if told is not None and told["after"] == checksum(lane, number):
                continue  # done before a crash
            self._tell(f"journal: {lane.name}/{number:08d}")
            rewrite(lane, number, look, cut, self._about_to_rewrite, options)

    def _about_to_rewrite(self, done: Rewritten) -> None:
        self._note(done)
        self.receipt.journal[f"{done.lane}/{done.segment:08d}"] = _told(done)
        self._write()

    def _note(self, done: Rewritten) -> None:
        """The ids first: once the segment is another, nobody can tell them any more."""
        path = events_file(self._data, self._asked.id)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            for cut in done.cuts:
                file.writelines(json.dumps(one) + "\n" for one in cut.events)
                file.writelines(json.dumps([one, None]) + "\n" for one in cut.failed)
            file.flush()
            os.fsync(file.fileno())

    def _archive(self) -> None:
        if not self._settings.archive.url:
            return
        from spoorway.archiving import contents, open_archive

        self._state("archive")
        asked, archive = self._asked, open_archive(self._settings.archive)
        look, cut = suspect(asked.who), cutting(self._settings, asked.who, asked.until_ms)
        for entry in archive.entries():
            place = f"{entry.lane}/{entry.segment:08d}"
            end = asked.ends.get(entry.lane)
            told = self.receipt.journal.get(place) or self.receipt.archive.get(place)
            ours = entry.origin is not None or (end is not None and entry.segment <= end.segment)  # gathered ones are everybody's
            if not ours or (told is not None and told["after"] == entry.sha256):
                continue
            here = sealed(journal_folder(self._data) / entry.lane, entry.segment)
            if told is not None and checksum(here.parent, entry.segment) == told["after"]:
                self._tell(f"archive: {place}")
                self.receipt.archive[place] = told | {"before": entry.sha256}
                self._write()  # first: after a crash nobody can tell any more what it was
                archive.replace(entry.lane, entry.segment, here, contents(here))
            elif not here.exists():  # the journal has let go of it
                self._archived_only(archive, entry, look, cut)

    def _archived_only(self, archive: Any, entry: Any, look: Callable[[bytes], bool], cut: Cutting) -> None:
        from spoorway.archiving import contents
        from storage.archive import DamagedObject

        with tempfile.TemporaryDirectory(dir=folder(self._data)) as scratch:
            lane = Path(scratch) / entry.lane
            lane.mkdir()
            path = sealed(lane, entry.segment)
            try:
                archive.fetch(entry, path)
                changed = rewrite(lane, entry.segment, look, cut, self._about_to_replace, self._settings.journal) is not None
            except DamagedObject:  # or cut short between the object and its entry
                told = self.receipt.archive.get(f"{entry.lane}/{entry.segment:08d}")
                changed = told is not None and told["after"] == checksum(lane, entry.segment)
                if not changed:
                    raise
            if changed:
                self._tell(f"archive: {entry.lane}/{entry.segment:08d}")
                archive.replace(entry.lane, entry.segment, path, contents(path))

    def _about_to_replace(self, done: Rewritten) -> None:
        self._note(done)
        self.receipt.archive[f"{done.lane}/{done.segment:08d}"] = _told(done)
        self._write()

    # Stores -----------------------------------------------------------------------------------------------------------

    def _stores(self) -> None:
        self._state("stores")
        instances = {instance.name: instance for instance in self._settings.targets()}
        for name in self._asked.targets:
            if name not in instances:
                self.receipt.stores[name] = {"state": "gone", "message": "it is not configured any more"}
            elif self.receipt.stores.get(name, {}).get("state") != "done":
                self._store(name, instances[name])
            self._write()

    def _store(self, name: str, instance: Instance) -> None:
        part = part_file(self._data, self._asked.id, name)
        while (done := read_json(part)) is None:
            try:
                claim = Claim(self._data, name)
            except ConfigurationError:  # who loads it erases in it, between two commits
                self._tell(f"target {name}: waiting for the process that loads it")
                time.sleep(_POLL_S)
                continue
            try:
                target = building.open_target(self._settings, instance)
                try:
                    write_json(part, erased_in(target, erasure_of(self._settings, self._asked), lambda: True))
                finally:
                    target.close()
            finally:
                claim.release()
        self.receipt.stores[name] = done

    def _state(self, state: str) -> None:
        self.receipt.state = state
        self._write()

    def _write(self) -> None:
        write_private(receipt_file(self._data, self._asked.id), asdict(self.receipt))


def erased_in(target: Any, erasure: Erasure, go_on: Callable[[], bool]) -> dict[str, Any]:
    """The part of a receipt that a target makes. go_on: asked between two pieces."""
    if not hasattr(target, "erase"):
        return {
            "state": "cannot",
            "message": "this kind of target cannot erase; empty it and build it anew with `spoorway replay`",
        }
    removed, after = target.erase(erasure, None)
    while after is not None and go_on():
        removed, after = target.erase(erasure, after)
    return part_of(removed)


def seal(journal: Path, until: Cursor, settings: Settings, tell: Tell) -> None:
    """Returns when what the journal held until there is in sealed segments, by us or by who writes them.

    Raises PermanentError when that does not come.
    """
    end = time.monotonic() + _SEAL_S
    while busy := ask_to_seal(journal, until, settings.journal):
        if time.monotonic() > end:
            raise PermanentError(
                f"the process that writes lane {busy[0]} of the journal does not finish its segment; see why, or stop it"
            )
        tell("journal: waiting for the gateway to finish its segment")
        time.sleep(_POLL_S)


def would_erase(settings: Settings, who: Person, now_ms: int) -> dict[str, Any]:
    """What an erasure would find now; nothing is changed. Of the journal, what is in sealed segments and in open ones."""
    from gateway.journal import Damage
    from gateway.journal.reader import FileReader

    stored = as_stored(settings, who)
    cut = cutting(settings, stored, now_ms)
    reader, cursor = FileReader(journal_folder(settings.data)), cast(Cursor, {})
    payloads = events = 0
    known: set[tuple[str, int]] = set()
    failed: set[str] = set()
    while (chunk := reader.read(cursor)).items or chunk.cursor != cursor:
        cursor = chunk.cursor
        for item in chunk.items:
            if not isinstance(item, Damage) and (found := cut(item)) is not None:
                payloads, events = payloads + 1, events + found.places
                known.update(found.events)
                failed.update(found.failed)
    reader.close()
    erasure = Erasure("dry-run", stored, now_ms, known, failed, cut.left)
    stores: dict[str, Any] = {}
    for instance in settings.targets():
        target = building.open_target(settings, instance)
        try:
            stores[instance.name] = {"state": "cannot"} if not hasattr(target, "erase") else _counted(target, erasure)
        finally:
            target.close()
    return {"journal": {"payloads": payloads, "events": events}, "stores": stores}


def _counted(target: Any, erasure: Erasure) -> dict[str, int]:
    counts, after = Removed(), None
    while True:
        removed, after = target.erase(erasure, after, dry=True)
        counts = Removed(counts.events + removed.events, counts.failed + removed.failed)
        if after is None:
            return counts._asdict()


def _told(done: Rewritten) -> dict[str, Any]:
    return {key: value for key, value in asdict(done).items() if key not in ("cuts", "lane", "segment")}


def _forget(path: Path, who: Person) -> int:
    """Takes a device out of what enrichments remember; how many entries that were."""
    if not who.device or not path.exists():
        return 0
    keys = [f"{how}:{device}" for device in sorted(who.device) for how in ("proven", "claimed")]
    try:
        with closing(sqlite3.connect(path, 10)) as db, db:
            return sum(db.execute("DELETE FROM memory WHERE key = ?", (key,)).rowcount for key in keys)
    except sqlite3.Error as error:
        raise PermanentError(f"{path}: {error}") from error


def _locked(data: Path) -> IO[str]:
    try:
        folder(data).mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder(data) / "lock").open("a")
    except OSError as error:
        raise ConfigurationError(
            f"erase: cannot write in {folder(data)}: {error.strerror}; run it as the user that runs the gateway"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConfigurationError("erase: another erasure is under way in this data folder") from None
    return lock
