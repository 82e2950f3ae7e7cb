"""The register's file: one row per device, and the claim codes that are out. Every change is one transaction, on the medium.

The command line and running gateways write it, each by a connection of its own; a gateway asks often for what changed since.
Holds hashes and states, never a key, a password or a claim code. A row is never deleted: its generation must not come again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from gateway.devices.credentials import give_to_owner
from gateway.devices.limits import Limits
from protocol.seams import ConfigurationError, PermanentError, TransientError

# hmac: signs. password: logs in. both. certificate: neither, a TLS certificate with its name is enough (and for the others too).
Kind = Literal["both", "hmac", "password", "certificate"]
# waiting: its claim code was not redeemed yet.
State = Literal["active", "waiting", "revoked"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE devices (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, generation INTEGER NOT NULL, password TEXT NOT NULL,
  payloads_per_s REAL, bytes_per_s REAL, payloads_per_day REAL,
  created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_revision ON devices (revision);
CREATE TABLE claims (
  digest BLOB PRIMARY KEY, device TEXT NOT NULL REFERENCES devices, expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class Record(NamedTuple):
    """A device. generation: of its secrets, counted up by each rotation; 0 = it never had any. password: as it is kept, or "".

    revision: of the register, when this row was last changed. Times in milliseconds since 1970.
    """

    name: str
    kind: Kind
    state: State
    generation: int
    password: str
    limits: Limits
    created_ms: int
    changed_ms: int
    revision: int

    @property
    def signs(self) -> bool:
        return self.kind in ("both", "hmac")

    @property
    def logs_in(self) -> bool:
        return self.kind in ("both", "password")


class Book:
    """An open register. From one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when there is none, or it is not ours."""
        self.path = path
        try:
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise ConfigurationError(f"{path}: {error}") from None
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            self._db.close()
            raise ConfigurationError(f"{path}: {error}") from None
        if version != 1:
            self._db.close()
            raise ConfigurationError(f"{path}: a register of version {version}, not 1; another Spoorway made it")

    @classmethod
    def make(cls, path: Path) -> Book:
        """A new one where there is none yet, readable by its owner only. Raises ConfigurationError."""
        if path.exists():
            return cls(path)
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            give_to_owner(fresh)
            db = sqlite3.connect(fresh)
            with db:
                db.executescript(_SCHEMA)
            db.close()
            with suppress(FileExistsError):  # another process was quicker
                os.link(fresh, path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"cannot make {path}: {error}") from None
        finally:
            fresh.unlink(missing_ok=True)
        return cls(path)

    def close(self) -> None:
        self._db.close()

    def data_version(self) -> int:
        """Another number whenever another connection has changed the file. Raises TransientError."""
        with self._translating():
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            return int(version)

    def records(self, since: int = 0) -> list[Record]:
        """Those changed after that revision, by name. Raises TransientError."""
        with self._translating():
            rows = self._db.execute("SELECT * FROM devices WHERE revision > ? ORDER BY name", (since,))
            return [_record(row) for row in rows]

    def record(self, name: str) -> Record | None:
        """Raises TransientError."""
        with self._translating():
            row = self._db.execute("SELECT * FROM devices WHERE name = ?", (name,)).fetchone()
            return None if row is None else _record(row)

    def claims(self, now_ms: int) -> dict[str, int]:
        """Device -> when the last of its claim codes that are out expires. Raises TransientError."""
        with self._translating():
            rows = self._db.execute("SELECT device, max(expires_ms) FROM claims WHERE expires_ms > ? GROUP BY device", (now_ms,))
            return dict(rows.fetchall())

    def fact(self, name: str) -> str | None:
        """Raises TransientError."""
        with self._translating():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else str(row[0])

    @contextmanager
    def changing(self) -> Generator[Change, None, None]:
        """One transaction: done as a whole when the block ends, not at all when it raises. Raises TransientError."""
        with self._translating():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                (last,) = self._db.execute("SELECT coalesce(max(revision), 0) FROM devices").fetchone()
                yield Change(self._db, last + 1)
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translating(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise TransientError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise PermanentError(f"{self.path}: {error}") from error


class Change:
    """What may be done within a transaction."""

    def __init__(self, db: sqlite3.Connection, revision: int) -> None:
        self._db, self._revision = db, revision

    def put(self, record: Record) -> None:
        values = (*record[:5], *record.limits, *record[6:8], self._revision)
        self._db.execute(f"INSERT OR REPLACE INTO devices VALUES ({', '.join('?' * len(values))})", values)

    def put_claim(self, digest: bytes, device: str, expires_ms: int) -> None:
        self._db.execute("INSERT INTO claims VALUES (?, ?, ?)", (digest, device, expires_ms))

    def claim(self, digest: bytes, now_ms: int) -> str | None:
        """The device a code was made for; None when there is no such code (any more). `end_claims` uses it up."""
        self._db.execute("DELETE FROM claims WHERE expires_ms <= ?", (now_ms,))
        row = self._db.execute("SELECT device FROM claims WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else str(row[0])

    def end_claims(self, devices: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM claims WHERE device = ?", ((device,) for device in devices))

    def put_fact(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _record(row: Sequence[Any]) -> Record:
    name, kind, state, generation, password, *limits, created_ms, changed_ms, revision = row
    return Record(name, kind, state, generation, password, Limits(*limits), created_ms, changed_ms, revision)


def signing(records: Iterable[Record]) -> Iterator[Record]:
    """Those whose messages need the master key."""
    return (record for record in records if record.signs and record.state == "active")
