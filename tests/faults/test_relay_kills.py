"""The short storm over two gateways; `make relay-kills` runs the long one."""

from pathlib import Path

import pytest

from tests.faults.relay_kills import storm


@pytest.mark.slow
def test_nothing_is_lost_or_stored_twice_on_the_way_upstream(tmp_path: Path) -> None:
    report, cuts = storm(tmp_path, rounds=6, seed=7, pause_s=0.4)
    assert (report.lost, report.repeated) == ([], 0)
    assert report.acknowledged > 200
    assert sum(report.killed.values()) == 6
    assert cuts > 0
