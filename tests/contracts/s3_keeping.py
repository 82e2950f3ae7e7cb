"""How the contract of keepers treats the S3 target: what was asked of a store of failed events is read in the files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import payloads
from protocol.schemas import bundled
from protocol.seams import Json, RawPayload
from protocol.tables import COLUMN_NAMES
from storage import lake
from storage.targets import s3
from tests.contracts.s3_bench import LakeBench


class Readable(s3.Plugin):
    """With the failed events that its files hold. They cannot be solved there."""

    def rows(self) -> Iterator[dict[str, Any]]:
        for piece in self.live(lake.FAILED):
            for line in gzip.decompress(self._objects.get(piece.name)).decode().splitlines():
                yield json.loads(line)

    def live(self, kind: str) -> list[lake.Piece]:
        live, superseded = lake.sorted_out(self._objects.list(f"{kind}/"))
        assert not superseded
        return live

    def failed_ids(self) -> list[str]:
        return [row["failed_id"] for row in self.rows()]

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        for row in self.rows():
            if row["failed_id"] == failed_id:
                return row, payloads.from_json(row["payload"].encode())
        return None


class KeepingBench(LakeBench):
    """form: both means that the TSV holds what the Parquet holds."""

    def open(self) -> Any:
        if self.target:
            self.target.close()
        self.target = Readable(self.config, bundled)
        return self.target

    def ids(self) -> list[str]:
        assert isinstance(self.target, Readable)
        place = COLUMN_NAMES.index("event_id")
        lines = [
            line
            for piece in self.target.live(lake.TSV)
            for line in gzip.decompress(self.objects().get(piece.name)).decode().splitlines()
        ]
        in_tsv = [line.split("\t")[place] for line in lines]
        if self.config.format == "tsv":
            return in_tsv
        found = super().ids()
        assert self.config.format == "parquet" or sorted(in_tsv) == sorted(found)
        return found


def both(folder: Path, request: pytest.FixtureRequest) -> KeepingBench:
    return KeepingBench(folder, form="both")


def tsv(folder: Path, request: pytest.FixtureRequest) -> KeepingBench:
    return KeepingBench(folder, form="tsv")
