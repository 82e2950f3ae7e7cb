"""The SQLite store -> a copy of one moment, and back: what came since is loaded from the journal, once.

The copy is one ordinary SQLite file. It holds the place in the journal up to which it is complete, because every commit holds
that; so nothing else is needed to go on from it. What is not in it can be had again or must not be: the journal itself, schemas,
the devices' secrets, what enrichments remember.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.journal.lanes import lanes
from gateway.journal.reader import FileReader
from protocol.seams import START, ConfigurationError, Cursor, PermanentError, Position
from spoorway.config import Settings
from spoorway.erasures import receipts
from spoorway.files import cursor_file, journal_folder, replaying_file, write_cursor
from storage.ddl import APPLICATION_ID, STEPS

_PAGES = 4_096  # copied between two reports

# Pages copied, pages in all.
Tell = Callable[[int, int], None]


def backup(store: Path, copy: Path, tell: Tell, *, quick: bool = False) -> dict[str, Any]:
    """Writes `copy`, which must not exist, and says what it holds. The store may be written meanwhile: the copy is of one moment.

    quick: see SQLite's quick_check. Raises ConfigurationError, PermanentError; then there is no copy.
    """
    if not store.exists():
        raise ConfigurationError(f"there is no {store}; say --data DIR")
    if copy.exists():
        raise ConfigurationError(f"{copy} exists already; name a new file")
    part = copy.with_name(f"{copy.name}.part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600))
        with closing(_reading(store)) as source, closing(sqlite3.connect(part, isolation_level=None)) as target:
            # A transaction holds the moment; without it, a commit of the loading process would begin the copy anew.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM totals").fetchone()
            source.backup(target, pages=_PAGES, progress=lambda _, rest, pages: tell(pages - rest, pages))
            source.execute("ROLLBACK")
            target.execute("PRAGMA journal_mode = DELETE")
            contents = checked(target, part, quick=quick)
        _sync(part)
        os.link(part, copy)  # never over a file that appeared meanwhile
        part.unlink()
        _sync(copy.parent)
    except sqlite3.Error as error:
        raise PermanentError(f"{store} -> {copy}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{copy}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return contents


def checked(db: sqlite3.Connection, path: Path, *, quick: bool) -> dict[str, Any]:
    """What a copy holds. Raises PermanentError when it is damaged or not ours, sqlite3.Error when it is no database."""
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if owner != APPLICATION_ID:
        raise PermanentError(f"{path}: not a store of Spoorway")
    if version > len(STEPS):
        raise PermanentError(f"{path}: written by a newer Spoorway: file version {version}, this one knows up to {len(STEPS)}")
    wrong = db.execute("PRAGMA quick_check" if quick else "PRAGMA integrity_check").fetchall()
    if wrong != [("ok",)]:
        raise PermanentError(f"{path} is damaged: {wrong[0][0]}")
    stored, failed = db.execute("SELECT stored, failed FROM totals").fetchone()
    (rows,) = db.execute("SELECT count(*) FROM events").fetchone()
    if rows != stored:
        raise PermanentError(f"{path} is damaged: {rows} events, {stored} were stored")
    return {"events": stored, "failed": failed}


def restore(settings: Settings, target: str, copy: Path, store: Path, *, partial: bool) -> dict[str, Any]:
    """Puts the copy in the store's place; the store there is kept beside it under another name. For who has the target's claim.

    partial: also when the journal has let go of payloads that came after the copy was made. Raises ConfigurationError,
    PermanentError; then nothing has changed.
    """
    fresh = store.with_name(f"{store.name}.restoring")
    try:
        if not copy.is_file():
            raise ConfigurationError(f"{copy}: no such file")
        for path in (fresh, *_beside(fresh)):
            path.unlink(missing_ok=True)
        store.parent.mkdir(parents=True, exist_ok=True)
        with closing(_reading(copy)) as source, closing(sqlite3.connect(fresh, isolation_level=None)) as made:
            source.backup(made)
            made.execute("PRAGMA journal_mode = DELETE")
            contents = checked(made, copy, quick=False)
            rows = made.execute('SELECT lane, segment, "offset", sequence FROM cursors').fetchall()
            known = {i for (i,) in made.execute("SELECT erasure_id FROM erasures")} if _has_erasures(made) else set[str]()
        cursor: Cursor = {lane: Position(*position) for lane, *position in rows}
        missing = _missing(journal_folder(settings.data), cursor)
        if missing and not partial:
            raise ConfigurationError(
                f"restore: {missing}; `spoorway replay --from archive` builds the store from the archive,"
                " --partial accepts the gap"
            )
        _sync(fresh)
        # Retention believes this copy of the cursor, so it must not run ahead of the store.
        write_cursor(cursor_file(settings.data, target), cursor)
        kept: list[str] = []
        aside = _free(store.with_name(f"{store.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}"))
        for old, new in zip((store, *_beside(store)), (aside, *_beside(aside)), strict=True):
            if old.exists():
                old.rename(new)
                kept.append(str(new))
        fresh.rename(store)
        _sync(store.parent)
        # What a replay from the archive had begun is out of the way; loading goes on from the copy's place.
        replaying_file(settings.data, target).unlink(missing_ok=True)
    except sqlite3.Error as error:
        raise PermanentError(f"{copy}: {error}") from error
    except OSError as error:
        raise PermanentError(f"{copy} -> {store}: {error}") from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
    reader = FileReader(journal_folder(settings.data))
    pending = reader.pending(cursor)
    reader.close()
    return {
        "restored": str(store),
        **contents,
        "payloads_to_load_from_the_journal": pending,
        "kept_before": kept,
        "erase_again": [receipt.id for receipt in receipts(settings.data) if receipt.id not in known],
    }


def _missing(journal: Path, cursor: Cursor) -> str:
    """What of the journal after the cursor is gone; "" = nothing."""
    names = [lane.name for lane in lanes(journal)]
    if lost := sorted(set(cursor) - set(names)):
        return f"the copy was made with another journal: its lane {lost[0]} is not here"
    nothing = {name: Position(sys.maxsize, 0, sys.maxsize) for name in names}
    reader = FileReader(journal)
    try:
        for name in names:
            at = cursor.get(name, START)
            found = reader.read({**nothing, name: at}, max_payloads=1).cursor[name]
            if (gone := found.sequence - at.sequence - 1) > 0:
                return f"retention has deleted {gone:,} payloads of lane {name} of the journal that the copy does not hold"
    finally:
        reader.close()
    return ""


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", 10, uri=True, isolation_level=None)


def _has_erasures(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'erasures'").fetchone() is not None


def _beside(store: Path) -> tuple[Path, Path]:
    return store.with_name(f"{store.name}-wal"), store.with_name(f"{store.name}-shm")


def _free(wanted: Path) -> Path:
    """A name that no store has yet, nor the files beside it."""
    free, number = wanted, 1
    while any(path.exists() for path in (free, *_beside(free))):
        number += 1
        free = wanted.with_name(f"{wanted.name}-{number}")
    return free


def _sync(path: Path) -> None:
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
