"""How the contract of targets treats the PostgreSQL target: each case in a schema of its own, in one real server."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from psycopg.rows import dict_row

from protocol.schemas import bundled
from protocol.seams import TransientError
from storage.postgres.connection import take_turns
from storage.targets import Batch, postgres
from tests.peers.postgres_server import PostgresServer


def plain(folder: Path, request: pytest.FixtureRequest) -> PostgresBench:
    """The test module has a fixture `postgres`."""
    server: PostgresServer = request.getfixturevalue("postgres")
    return PostgresBench(server.dsn)


def by_month(folder: Path, request: pytest.FixtureRequest) -> PostgresBench:
    server: PostgresServer = request.getfixturevalue("postgres")
    return PostgresBench(server.dsn, "month")


class PostgresBench:
    """Its schema's name is one that needs quoting."""

    def __init__(self, dsn: str, partition: Literal["", "month"] = "") -> None:
        self.config = postgres.Config(dsn, schema=f'Atomic "{uuid.uuid4().hex[:12]}"', partition=partition, busy_ms=20)
        self.target: postgres.Plugin | None = None

    def open(self) -> postgres.Plugin:
        if self.target:
            self.target.close()
        self.target = postgres.Plugin(self.config, bundled)
        return self.target

    def another(self) -> postgres.Plugin:
        return postgres.Plugin(self.config, bundled)

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        db = psycopg.connect(self.config.dsn, autocommit=True, row_factory=dict_row)
        db.execute("SELECT set_config('search_path', quote_ident(%s), false)", (self.config.schema,))
        return db

    def rows(self, question: str, *values: object) -> list[dict[str, Any]]:
        with self.connect() as db:
            return db.execute(question.encode(), values).fetchall()

    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows("SELECT event_id::text AS id FROM events")]

    def failed_ids(self) -> list[str]:
        return [row["failed_id"] for row in self.rows("SELECT failed_id FROM failed_events WHERE replayed_tstamp IS NULL")]

    def event(self, event_id: str) -> dict[str, Any]:
        (row,) = self.rows("SELECT *, derived_contexts::text FROM events WHERE event_id = %s", event_id)
        return row

    def cut(self) -> None:
        """The server ends the target's session, and it is gone when this returns."""
        assert self.target
        db = self.target._link._db
        if db is None:
            return
        pid = db.info.backend_pid
        with psycopg.connect(self.config.dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
            end = time.monotonic() + 20
            while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
                assert time.monotonic() < end
                time.sleep(0.002)

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        assert self.target
        if moment == "before":
            self.cut()  # it connects again, and comes no farther
            with psycopg.connect(self.config.dsn) as other:
                take_turns(other, self.config.schema)
                self.target.commit(batch)
        elif moment == "inside":
            with self.cut_at(chance.randrange(2, 8)):
                self.target.commit(batch)
        else:
            self.target.commit(batch)
            self.cut()
            raise TransientError("the answer was lost")

    @contextmanager
    def cut_at(self, moment: int | str) -> Iterator[None]:
        """Before the so-many-th statement of a transaction, or before the one that begins so; a commit of any event has eight."""
        assert self.target
        self.target.totals()  # connected
        db: Any = self.target._link._db
        execute, calls = db.execute, 0

        def counted(statement: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment or (isinstance(moment, str) and str(statement).startswith(moment)):
                self.cut()
            return execute(statement, *arguments, **options)

        db.execute = counted
        try:
            yield
        finally:
            del db.execute
