"""How the contract of targets treats the Redshift target: each case in a schema of its own, in one double of Redshift."""

from __future__ import annotations

import json
import random
import uuid
from pathlib import Path
from typing import Any

import pytest

from protocol.schemas import bundled
from storage.duplicates import DUPLICATE
from storage.targets import Batch, redshift
from tests.peers.redshift_double import DATABASE, PASSWORD, ROLE, USER, Cut, RedshiftDouble

BUCKET = "redshift-loads"


def tables(folder: Path, request: pytest.FixtureRequest) -> RedshiftBench:
    """The test module has a fixture `redshift`: a double whose S3 has BUCKET and is in the environment."""
    return RedshiftBench(request.getfixturevalue("redshift"))


def config_of(double: RedshiftDouble, **options: Any) -> redshift.Config:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": double.port, "database": DATABASE, "user": USER, "password": PASSWORD}
    given |= {"tls": False, "url": f"s3://{BUCKET}/in", "endpoint": double.s3.endpoint, "role": ROLE, "timeout_s": 60.0}
    return redshift.Config(**(given | options))


class RedshiftBench:
    """Its schema's name is one that needs quoting."""

    def __init__(self, double: RedshiftDouble, **options: Any) -> None:
        self.double = double
        self.config = config_of(double, **({"schema": f'atomic "{uuid.uuid4().hex[:12]}"'} | options))
        self.target: redshift.Plugin | None = None

    def open(self) -> redshift.Plugin:
        if self.target:
            self.target.close()
        self.target = redshift.Plugin(self.config, bundled)
        return self.target

    def another(self) -> redshift.Plugin:
        return redshift.Plugin(self.config, bundled)

    def rows(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        with self.double.query() as db:
            db.execute("SELECT set_config('search_path', quote_ident(%s), false)", (self.config.schema,))
            rows: list[tuple[Any, ...]] = db.execute(question.encode(), values).fetchall()
            return rows

    def ids(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT event_id FROM events")]

    def failed_ids(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT failed_id FROM failed_events WHERE replayed_tstamp IS NULL")]

    def event(self, event_id: str) -> dict[str, Any]:
        """derived_contexts: what the table of such entities has of it."""
        ((row,),) = self.rows("SELECT to_jsonb(e) FROM events AS e WHERE event_id = %s", event_id)
        table, found = "com_snowplowanalytics_snowplow_duplicate_1", list[tuple[Any, ...]]()
        if self.rows("SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = %s", self.config.schema, table):
            found = self.rows(f"SELECT original_event_id FROM {table} WHERE root_id = %s", event_id)
        entities = [{"schema": DUPLICATE, "data": {"originalEventId": original}} for (original,) in found]
        return {**row, "derived_contexts": json.dumps(entities)}

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        assert self.target
        cuts = {
            "before": Cut("^begin"),
            "inside": Cut("^(?!begin|commit)", after=chance.random() < 0.5, nth=chance.randrange(1, 14)),
            "after": Cut("^commit", after=True),
        }
        self.double.cuts = [cuts[moment]]
        try:
            self.target.commit(batch)
        finally:
            self.double.cuts = []
