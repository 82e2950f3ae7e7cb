"""What signed messages were taken, across restarts and kill -9: a checkpoint now and then, and the journal's tail after it.

Every signed payload in the journal says which message it was, so nothing has to be written for a message besides its payload.
A checkpoint is all windows and a place in the journal that they include; what follows that place is read again at the start.
Taking a message twice changes nothing, so a place that is too early does no harm.

One process per data folder keeps the windows: two could each take the same message. The lock says which.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from gateway.devices.credentials import give_to_owner
from gateway.devices.window import TAG_BYTES, Window
from gateway.journal import Damage
from gateway.journal.disk import DISK
from gateway.journal.lanes import lanes, open_record, published
from gateway.journal.reader import FileReader
from protocol.devices import BOOT_HEADER, SEQUENCE_HEADER, SIGNATURE_HEADER
from protocol.seams import START, Cursor, PermanentError, Position, RawPayload, TransientError

# Which of its keys a device signed with: a new key begins a new window, whatever messages of the old one are in the journal.
GENERATION_HEADER = "Spoorway-Generation"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS windows (
  device TEXT PRIMARY KEY, generation INTEGER NOT NULL, messages BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursor (
  lane TEXT PRIMARY KEY, segment INTEGER NOT NULL, "offset" INTEGER NOT NULL, sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Messages:
    """The window of one generation of a device's key."""

    __slots__ = ("generation", "window")

    def __init__(self, generation: int, window: Window | None = None) -> None:
        self.generation, self.window = generation, window or Window()


class Loaded(NamedTuple):
    """messages: by device. cursor: the place in the journal they include.

    changed: devices of which the checkpoint did not know all. payloads: read after it.
    """

    messages: dict[str, Messages]
    cursor: Cursor
    changed: set[str]
    payloads: int


class Seen:
    """Call order: `open` -> `load` -> `save` now and then -> `close`. From one thread at a time."""

    def __init__(self, db: sqlite3.Connection, lock: IO[bytes], journal: Path) -> None:
        """For `open`."""
        self._db, self._lock, self._journal = db, lock, journal

    @classmethod
    def open(cls, data: Path) -> Seen | None:
        """None while another process has it. Raises PermanentError."""
        path = _file(data)
        try:
            lock = data.joinpath("device-seen.lock").open("ab")
            give_to_owner(data / "device-seen.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return None
            return cls(_connect(path), lock, _journal(data))
        except (OSError, sqlite3.Error) as error:
            raise PermanentError(f"{path}: {error}") from error

    def load(self) -> Loaded:
        """Reads what follows the checkpoint; where there is none, the whole journal. Raises PermanentError."""
        try:
            rows = self._db.execute("SELECT device, generation, messages FROM windows").fetchall()
            found = {device: Messages(generation, Window.unpack(packed)) for device, generation, packed in rows}
            places = self._db.execute('SELECT lane, segment, "offset", sequence FROM cursor').fetchall()
        except (sqlite3.Error, ValueError) as error:
            raise PermanentError(f"the checkpoint of the devices' messages cannot be read: {error}") from error
        cursor: Cursor = {lane: Position(*position) for lane, *position in places}
        reader, changed, count = FileReader(self._journal), set[str](), 0
        while True:
            chunk = reader.read(cursor)
            if not chunk.items and chunk.cursor == cursor:
                reader.close()
                return Loaded(found, cursor, changed, count)
            cursor, count = chunk.cursor, count + len(chunk.items)
            for item in chunk.items:
                if not isinstance(item, Damage) and item.device is not None and _take(found, item.device, item):
                    changed.add(item.device)

    def save(self, windows: Mapping[str, tuple[int, bytes]], cursor: Cursor) -> None:
        """Device -> (generation, packed window), of those that changed. Raises TransientError: the last checkpoint holds."""
        try:
            with self._db:
                self._db.execute("BEGIN")
                rows = [(device, generation, packed) for device, (generation, packed) in windows.items()]
                self._db.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?, ?)", rows)
                _put_cursor(self._db, cursor)
        except sqlite3.Error as error:
            raise TransientError(f"the devices' messages: {error}") from error

    def close(self) -> None:
        self._db.close()
        self._lock.close()


def begin(data: Path) -> None:
    """For a register that is being made: what the journal holds by now is of no device. Raises PermanentError."""
    path = _file(data)
    if path.exists():
        return
    try:
        db = _connect(path)
        with db:
            db.execute("BEGIN")
            _put_cursor(db, ends(data))
        db.close()
    except (OSError, sqlite3.Error) as error:
        raise PermanentError(f"{path}: {error}") from error


def ends(data: Path) -> Cursor:
    """How far each lane of the journal is durable by now. Raises OSError."""
    found: dict[str, Position] = {}
    for lane in lanes(_journal(data)):
        record = open_record(lane, DISK)
        if record is None:
            continue
        try:
            found[lane.name] = published(DISK, record) or START
        finally:
            DISK.close(record)
    return found


def kept_headers(boot: int, sequence: int, signature: bytes, generation: int) -> tuple[tuple[str, str], ...]:
    """What the payload of a signed message keeps; `load` reads it."""
    return (
        (BOOT_HEADER, str(boot)),
        (SEQUENCE_HEADER, str(sequence)),
        (SIGNATURE_HEADER, signature.hex()),
        (GENERATION_HEADER, str(generation)),
    )


def _take(found: dict[str, Messages], device: str, payload: RawPayload) -> bool:
    """False when it was not signed: it is of a device that logged in."""
    headers = dict(reversed(payload.headers))  # ours are the first
    try:
        boot, sequence = int(headers[BOOT_HEADER]), int(headers[SEQUENCE_HEADER])
        tag, generation = bytes.fromhex(headers[SIGNATURE_HEADER])[:TAG_BYTES], int(headers[GENERATION_HEADER])
    except (KeyError, ValueError):
        return False
    take(found, device, generation, boot, sequence, tag)
    return True


def take(found: dict[str, Messages], device: str, generation: int, boot: int, sequence: int, tag: bytes) -> None:
    """This message is on disk."""
    messages = found.get(device)
    if messages is None or messages.generation < generation:
        messages = found[device] = Messages(generation)
    if messages.generation == generation:
        messages.window.take(boot, sequence, tag)


def _file(data: Path) -> Path:
    return data / "device-seen.db"


def _journal(data: Path) -> Path:
    return data / "journal"


def _connect(path: Path) -> sqlite3.Connection:
    """Made where there is none. A power cut may cost the last checkpoints, as wholes, never the file."""
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        give_to_owner(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
    return db


def _put_cursor(db: sqlite3.Connection, cursor: Cursor) -> None:
    db.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)", ((lane, *at) for lane, at in cursor.items()))
