"""The short storm; `make kills` runs the long one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kills import storm


@pytest.mark.slow
def test_no_acknowledged_event_is_lost_or_stored_twice(tmp_path: Path) -> None:
    report = storm(tmp_path, rounds=12, seed=20)
    assert report.lost == []
    assert report.repeated == 0
    assert report.acknowledged > 500
    assert sum(report.killed.values()) == 12
