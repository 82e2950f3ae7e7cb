"""One connection to PostgreSQL, opened when it is needed and again when it was lost; libpq's errors -> ours.

Every transaction that writes holds one advisory lock of the schema, so that writers of one schema take turns. A commit whose
outcome is not known raises TransientError like any other; who offers the same batch again is told what happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import conninfo, sql

from protocol.seams import ConfigurationError, PermanentError, TransientError

Connection = psycopg.Connection[tuple[Any, ...]]

OLDEST = 140_000  # window functions and starts_with as the views use them
_LONGEST_SCHEMA = 50  # bytes of the 63 that PostgreSQL keeps of a name
# Classes of SQLSTATE that another attempt may not meet again: connection, transaction rolled back, resources, operator, system;
# and 25, which a server that became a standby answers with.
_PASSING = {"08", "40", "53", "57", "58", "25"}
_PASSING_CODES = {"55P03", "23505"}  # a lock was not to be had; another writer was there first


@dataclass(frozen=True, slots=True)
class Config:
    """dsn: libpq's URI or key=value text; the other parts go before it. What is empty everywhere is libpq's own default.

    password_file: its text is the password, read anew for each connection. schema: where the tables are.
    partition: "month" = a table of events per month of collector_tstamp, decided when the tables are made.
    busy_ms: how long to wait for another writer. timeout_s: how long to wait for a server that does not answer.
    remember_days: so long an event that was erased or has expired is known as a duplicate when it comes again.
    """

    dsn: str = ""
    host: str = ""
    port: int = 0
    database: str = ""
    user: str = ""
    password_file: str = ""
    schema: str = "atomic"
    partition: Literal["", "month"] = ""
    busy_ms: int = 10_000
    timeout_s: float = 30.0
    remember_days: float = 7.0


def translated(schema: str, error: Exception) -> TransientError | PermanentError:
    """To be raised in its place."""
    code = getattr(error, "sqlstate", None)
    # Without a code it is the connection: not made, or lost.
    passing = code is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    passing = passing or (code is not None and (code[:2] in _PASSING or code in _PASSING_CODES))
    text = " ".join(str(error).split()) or type(error).__name__
    if code == "55P03":
        text = f"another writer or a reader's lock is in the way ({text})"
    elif code == "42501":
        text += "; grant it, or name another schema or user"
    return (TransientError if passing else PermanentError)(f"postgres {schema}: {text}")


class Link:
    """Call order: `Link(config, prepare)` -> `transaction` repeatedly -> `close`. One thread at a time.

    prepare: called with each new connection before anything else. Nothing connects before the first transaction.
    """

    def __init__(self, config: Config, prepare: Callable[[Connection], None]) -> None:
        """Raises ConfigurationError."""
        if not config.schema or len(config.schema.encode()) > _LONGEST_SCHEMA or "\0" in config.schema:
            raise ConfigurationError(f"postgres: schema needs a name of 1 to {_LONGEST_SCHEMA} bytes, not {config.schema!r}")
        if config.schema.startswith("pg_") or config.schema == "information_schema":
            raise ConfigurationError(f"postgres: schema {config.schema!r} is PostgreSQL's own; name another")
        self._config, self._prepare = config, prepare
        self._db: Connection | None = None
        conninfo_of(config)

    @contextmanager
    def transaction(self, *, writes: bool) -> Generator[Connection]:
        """Commits at its end, or has changed nothing. Raises TransientError, PermanentError."""
        try:
            with ExitStack() as stack:
                db = self._begun(stack)
                if writes:
                    take_turns(db, self._config.schema)
                yield db
        except psycopg.Error as error:
            raise translated(self._config.schema, error) from error
        except ConfigurationError as error:  # the file with the password is gone, which passes
            raise TransientError(str(error)) from error
        finally:
            if self._db is not None and (self._db.closed or self._db.broken):
                self.close()

    def close(self) -> None:
        if self._db is not None:
            with suppress(psycopg.Error):
                self._db.close()
            self._db = None

    def _begun(self, stack: ExitStack) -> Connection:
        """Inside a transaction. That a kept connection was lost meanwhile shows here, and does no harm."""
        kept = self._db is not None
        try:
            stack.enter_context((db := self._connected()).transaction())
        except psycopg.OperationalError:
            if not kept:
                raise
            self.close()
            stack.enter_context((db := self._connected()).transaction())
        return db

    def _connected(self) -> Connection:
        if self._db is None:
            db = connect(self._config)
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db


def take_turns(db: Connection, schema: str) -> None:
    """Until the end of the transaction no other writer of this schema is inside one."""
    db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"spoorway {schema}",))


def connect(config: Config, *, read_only: bool = False) -> Connection:
    """A connection whose names mean the tables of the schema. read_only: its transactions cannot write, and see one state.

    Raises psycopg.Error, ConfigurationError, PermanentError.
    """
    # autocommit: a transaction is begun where it is written. Of those that write, the level is what the lock above relies on:
    # each statement sees what was committed before it began.
    db = psycopg.connect(conninfo_of(config), autocommit=True, client_encoding="UTF8")
    try:
        levels = psycopg.IsolationLevel
        db.isolation_level = levels.REPEATABLE_READ if read_only else levels.READ_COMMITTED
        db.read_only = read_only
        if db.info.server_version < OLDEST:
            raise PermanentError(f"postgres: the server is version {db.info.server_version // 10_000}; 14 or later is needed")
        encoding = db.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise PermanentError(f"postgres: the database is encoded as {encoding}; make one with ENCODING 'UTF8'")
        settings = {
            "search_path": sql.Identifier(config.schema).as_string(db),
            "lock_timeout": str(config.busy_ms),
            "timezone": "UTC",
            "datestyle": "ISO, YMD",
            "standard_conforming_strings": "on",
            # Should this machine vanish, the server lets go of its locks.
            "idle_in_transaction_session_timeout": "60s",
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }
        db.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given(name, value)"
            # A commit that a power cut may take back is none: the journal may be gone by then.
            " UNION ALL SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
            (list(settings), list(settings.values())),
        )
    except BaseException:
        db.close()
        raise
    return db


def conninfo_of(config: Config) -> str:
    """What libpq is handed. Raises ConfigurationError."""
    parts: dict[str, Any] = {
        name: value
        for name, value in (
            ("host", config.host),
            ("port", config.port),
            ("dbname", config.database),
            ("user", config.user),
            ("password", _password(config.password_file)),
        )
        if value
    }
    try:
        given = conninfo.conninfo_to_dict(config.dsn)
    except psycopg.Error as error:
        raise ConfigurationError(f"postgres: dsn: {str(error).strip()}") from None
    own: dict[str, Any] = {
        "application_name": "spoorway",
        "connect_timeout": max(2, math.ceil(config.timeout_s)),  # libpq takes no less
        "tcp_user_timeout": math.ceil(config.timeout_s * 1_000),
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    return conninfo.make_conninfo("", **(own | given | parts))


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"postgres: password_file: {path}: {getattr(error, 'strerror', None) or error}") from None
