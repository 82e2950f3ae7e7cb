"""The short storm; `make chaos-cluster` runs ten minutes of it."""

from pathlib import Path

import pytest

from tests.faults.cluster import storm


@pytest.mark.slow
def test_a_cluster_in_bad_weather_loses_nothing_doubles_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    report = storm(tmp_path, seed=7, rounds=1)
    assert report.wrong == []
    assert report.weather == dict.fromkeys(("broker", "worker", "gateway", "stall", "leave"), 1)
    assert report.accepted >= report.acknowledged > 500
    assert set(report.stores) == {"sqlite", "postgres", "s3"}
