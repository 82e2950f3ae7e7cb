"""How the contract of targets treats the S3 target: in a folder, and in a bucket of a real S3 server."""

from __future__ import annotations

import gzip
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protocol.schemas import bundled
from protocol.seams import TransientError
from storage import lake
from storage.objects import Objects, open_objects
from storage.targets import Batch, s3
from tests.peers.s3_server import S3Server


class Refusing:
    """Objects of which one call, counted from here, fails: before it is done, or as if its answer were lost."""

    def __init__(self, objects: Objects) -> None:
        self.objects, self.fail_at, self.done = objects, 0, False
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.objects, name)
        if name not in ("put_new", "put", "delete"):
            return call

        def counted(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls != self.fail_at:
                return call(*arguments)
            if self.done:
                call(*arguments)
            raise TransientError(f"{name}: told to fail")

        return counted


def in_folder(folder: Path, request: pytest.FixtureRequest) -> LakeBench:
    return LakeBench(folder)


def in_bucket(folder: Path, request: pytest.FixtureRequest) -> LakeBench:
    """The test module has a fixture `s3`, and in its environment what boto3 needs."""
    server: S3Server = request.getfixturevalue("s3")
    return LakeBench(folder, f"{server.bucket(f'lake-{uuid.uuid4()}')}/site", server.endpoint)


class LakeBench:
    """url: a folder, or a bucket's. A folder's state lies beside it, as in DATA."""

    def __init__(self, folder: Path, url: str = "", endpoint: str = "", form: Any = "parquet") -> None:
        self.config = s3.Config(
            url or str(folder / "lake"), endpoint, "us-east-1", format=form, every_s=0, state=str(folder / "s3.db")
        )
        self.target: s3.Plugin | None = None
        self._opened = cache(open_objects)  # a client of S3 takes a tenth of a second to make

    def open(self) -> s3.Plugin:
        if self.target:
            self.target.close()
        with patch.object(s3, "open_objects", self._opened):
            self.target = s3.Plugin(self.config, bundled)
        self.target.totals()  # the store is asked, and checked: what is counted below begins with a commit
        return self.target

    def another(self) -> s3.Plugin:
        """With an index of its own, as on another machine."""
        with patch.object(s3, "open_objects", self._opened):
            return s3.Plugin(replace(self.config, state=f"{self.config.state}.another"), bundled)

    def objects(self) -> Objects:
        assert self.target
        found = self.target._objects
        return found.objects if isinstance(found, Refusing) else found

    def rows(self) -> Iterator[dict[str, Any]]:
        live, superseded = lake.sorted_out(self.objects().list("events/"))
        assert not superseded
        for piece in live:
            yield from pq.read_table(pa.BufferReader(self.objects().get(piece.name))).to_pylist()

    def ids(self) -> list[str]:
        return [row["event_id"] for row in self.rows()]

    def event(self, event_id: str) -> dict[str, Any]:
        (row,) = [row for row in self.rows() if row["event_id"] == event_id]
        return row

    def failed(self) -> list[dict[str, Any]]:
        live, _ = lake.sorted_out(self.objects().list("failed/"))
        lines = [line for piece in live for line in gzip.decompress(self.objects().get(piece.name)).splitlines()]
        return [json.loads(line) for line in lines]

    def failed_ids(self) -> list[str]:
        return [row["failed_id"] for row in self.failed() if not row["replayed_tstamp"]]

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        """Before and inside: the PUT that is the commit is not done. after: it is, but its answer is lost, or a later call's."""
        assert self.target
        refusing = Refusing(self.target._objects)
        self.target._objects = refusing  # type: ignore[assignment]
        refusing.fail_at = chance.randrange(1, 4) if moment == "after" else 1
        refusing.done = moment == "after" and (refusing.fail_at == 1 or chance.random() < 0.5)
        try:
            self.target.commit(batch)
        finally:
            self.target._objects = refusing.objects
        if moment == "after":
            raise TransientError("the answer was lost")
