"""The short storm; `make chaos-kinesis` runs a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kinesis_storm import storm
from tests.peers.kinesis_server import KEYS, Kinesalite, Moto


@pytest.mark.slow
def test_a_journal_in_kinesis_in_bad_weather_loses_nothing_doubles_nothing_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Kinesalite() as kinesis, Moto() as moto:
        places = {"AWS_ENDPOINT_URL_KINESIS": kinesis.endpoint, "AWS_ENDPOINT_URL_DYNAMODB": moto.endpoint}
        for name, value in (KEYS | places).items():
            monkeypatch.setenv(name, value)
        report = storm(tmp_path, kinesis, moto, seed=3, rounds=1)
    assert report.wrong == []
    assert report.sent > 40
    assert report.shards > 2
