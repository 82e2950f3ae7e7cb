"""What outlives an MQTT connection: which QoS 2 messages are not released yet, and what a client listens to. One SQLite file.

Keeps a packet identifier together with the id its payload has, or will have, before the payload is written: whoever sends the
message again after a crash gets the same payload id, and so the same ids of events that have none, which a target stores once.
One thread does every write; what is asked while it commits goes into the next commit. Nothing is done before it is on disk.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from protocol.seams import ConfigurationError, TransientError

T = TypeVar("T")

_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
  device TEXT NOT NULL, client TEXT NOT NULL, expiry_s INTEGER NOT NULL, left_ms INTEGER, topics TEXT NOT NULL DEFAULT '[]',
  PRIMARY KEY (device, client)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (
  device TEXT NOT NULL, client TEXT NOT NULL, packet INTEGER NOT NULL, payload TEXT NOT NULL, digest BLOB NOT NULL,
  certain INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (device, client, packet),
  FOREIGN KEY (device, client) REFERENCES sessions ON DELETE CASCADE) WITHOUT ROWID;
"""
NEVER = 0xFFFF_FFFF  # seconds: a session that does not expire. Source: MQTT 5.0, 3.1.2.11.2


class Key(NamedTuple):
    """Whose session: two devices with one client id do not meet. device: "" for those that proved nothing."""

    device: str
    client: str


class Held:
    """A QoS 2 message that is not released. digest: of topic and body. certain: its payload is on disk, or about to be."""

    __slots__ = ("certain", "digest", "payload_id")

    def __init__(self, payload_id: str, digest: bytes, certain: bool) -> None:
        self.payload_id, self.digest, self.certain = payload_id, digest, certain


class Kept:
    """The state of a session. present: it was there before this connection. stored: it outlives it."""

    __slots__ = ("held", "present", "stored", "topics")

    def __init__(self, present: bool = False, stored: bool = False, topics: Sequence[str] = ()) -> None:
        self.present, self.stored, self.topics = present, stored, set(topics)
        self.held: dict[int, Held] = {}


class Sessions:
    """Call order: open -> any of the others, from one event loop -> close. All of these wait for the disk and raise
    TransientError when it refuses: then nothing is kept."""

    def __init__(self, path: str, most: int, clock_ms: Callable[[], int]) -> None:
        """path: "" keeps everything in memory."""
        self._path, self._most, self._clock_ms = path, most, clock_ms
        self._thread = ThreadPoolExecutor(1, "mqtt-sessions")
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._busy: asyncio.Future[None] | None = None
        self._db: sqlite3.Connection | None = None
        self._keys: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    async def open(self) -> None:
        """Raises ConfigurationError."""
        try:
            self._keys = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except sqlite3.Error as error:
            raise ConfigurationError(f"mqtt: sessions: {self._path}: {error}") from error

    async def close(self) -> None:
        if self._waiting and self._db is not None:
            await self._do(lambda db: None)
        while self._busy is not None:
            await self._busy
        db, self._db = self._db, None
        if db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, db.close)
        self._thread.shutdown()

    async def resume(self, key: Key, expiry_s: int) -> Kept | None:
        """The session of a client that is here again, or a new one; None when there are too many."""
        now_ms, at_most = self._clock_ms(), self._most
        is_new = key not in self._keys

        def do(db: sqlite3.Connection) -> tuple[Kept | None, list[Key]]:
            gone = _expire(db, now_ms)
            if is_new and len(self._keys) - len(gone) >= at_most:
                oldest = "SELECT device, client FROM sessions WHERE left_ms IS NOT NULL ORDER BY left_ms LIMIT 1"
                if (row := db.execute(oldest).fetchone()) is None:
                    return None, gone
                db.execute("DELETE FROM sessions WHERE device = ? AND client = ?", row)
                gone.append(Key(*row))
            found = db.execute("SELECT topics FROM sessions WHERE device = ? AND client = ?", key).fetchone()
            db.execute(
                "INSERT INTO sessions (device, client, expiry_s) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET expiry_s = excluded.expiry_s, left_ms = NULL",
                (*key, expiry_s),
            )
            kept = Kept(found is not None, True, json.loads(found[0]) if found else ())
            for packet, *rest in db.execute(
                "SELECT packet, payload, digest, certain FROM held WHERE device = ? AND client = ?", key
            ):
                kept.held[packet] = Held(*rest)
            return kept, gone

        kept, gone = await self._do(do)
        self._keys.difference_update(gone)
        if kept is not None:
            self._keys.add(key)
        return kept

    async def leave(self, key: Key, expiry_s: int) -> None:
        """Its connection has ended; the time to its end runs."""
        await self._write(
            "UPDATE sessions SET left_ms = ?, expiry_s = ? WHERE device = ? AND client = ?", [(self._clock_ms(), expiry_s, *key)]
        )

    async def forget(self, key: Key) -> None:
        await self._write("DELETE FROM sessions WHERE device = ? AND client = ?", [key])
        self._keys.discard(key)

    async def listen(self, key: Key, topics: set[str]) -> None:
        await self._write("UPDATE sessions SET topics = ? WHERE device = ? AND client = ?", [(json.dumps(sorted(topics)), *key)])

    async def hold(self, key: Key, held: Sequence[tuple[int, Held]]) -> None:
        rows = [(*key, packet, each.payload_id, each.digest) for packet, each in held]
        await self._write("INSERT OR REPLACE INTO held (device, client, packet, payload, digest) VALUES (?, ?, ?, ?, ?)", rows)

    def taken(self, key: Key, packets: Sequence[int]) -> None:
        """Their payloads are on disk. Written down with whatever is next: when that is lost in a crash, a message that is sent
        again becomes a second payload with the same id."""
        rows = [(*key, packet) for packet in packets]

        def do(db: sqlite3.Connection) -> None:
            db.executemany("UPDATE held SET certain = 1 WHERE device = ? AND client = ? AND packet = ?", rows)

        nobody: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        nobody.cancel()
        self._waiting.append((do, nobody))

    async def free(self, key: Key, packets: Sequence[int]) -> None:
        rows = [(*key, packet) for packet in packets]
        await self._write("DELETE FROM held WHERE device = ? AND client = ? AND packet = ?", rows)

    async def _write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        def do(db: sqlite3.Connection) -> None:
            db.executemany(sql, rows)

        await self._do(do)

    def _do(self, do: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((do, future))
        if self._busy is None:
            self._busy = loop.create_future()
            loop.call_soon(self._kick)
        return future

    def _kick(self) -> None:
        waiting, self._waiting = self._waiting, []
        commit = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, [do for do, _ in waiting])
        commit.add_done_callback(lambda done: self._committed([future for _, future in waiting], done))

    def _committed(self, futures: list[asyncio.Future[Any]], commit: asyncio.Future[list[Any]]) -> None:
        error = commit.exception()
        results = [None] * len(futures) if error is not None else commit.result()
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(TransientError(f"mqtt sessions: {error}"))
        if self._waiting:
            self._kick()
            return
        assert self._busy is not None
        self._busy.set_result(None)
        self._busy = None

    # In the thread.

    def _open(self) -> set[Key]:
        self._db = db = sqlite3.connect(self._path or ":memory:", isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.executescript(_TABLES)
        # Those that were connected when the last gateway ended left at the latest now.
        db.execute("UPDATE sessions SET left_ms = ? WHERE left_ms IS NULL", (self._clock_ms(),))
        _expire(db, self._clock_ms())
        return {Key(*row) for row in db.execute("SELECT device, client FROM sessions")}

    def _commit(self, todo: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        assert self._db is not None
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [do(self._db) for do in todo]
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results


def _expire(db: sqlite3.Connection, now_ms: int) -> list[Key]:
    ended = "FROM sessions WHERE left_ms + expiry_s * 1000 <= ? AND expiry_s < ?"
    found = [Key(*row) for row in db.execute(f"SELECT device, client {ended}", (now_ms, NEVER))]
    if found:
        db.execute(f"DELETE {ended}", (now_ms, NEVER))
    return found
