"""How the contract of keepers treats the S3 target: in each format, and in both at once."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from protocol.tables import COLUMN_NAMES
from storage import lake
from tests.contracts.s3_bench import LakeBench


class KeepingBench(LakeBench):
    """form: both means that the TSV holds what the Parquet holds."""

    def ids(self) -> list[str]:
        place = COLUMN_NAMES.index("event_id")
        lines = [
            line
            for piece in lake.sorted_out(self.objects().list(f"{lake.TSV}/"))[0]
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
