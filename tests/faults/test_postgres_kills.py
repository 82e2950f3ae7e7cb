"""The short storm; `make postgres-kills` runs the long one."""

from pathlib import Path

import pytest

from tests.faults.postgres_kills import TROUBLES, storm


@pytest.mark.slow
def test_no_acknowledged_event_is_lost_or_doubled_whatever_happens_to_postgresql(tmp_path: Path) -> None:
    beside, report = storm(tmp_path, rounds=len(TROUBLES), seed=20, partition="month")
    for one in (beside, report):
        assert one.lost == []
        assert one.repeated == 0
        assert one.stored >= one.acknowledged > 100
    assert report.killed == dict.fromkeys(TROUBLES, 1)
