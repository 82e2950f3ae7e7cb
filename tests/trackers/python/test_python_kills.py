"""The short storm; `make kills-python` runs the long one."""

from pathlib import Path

import pytest

from tests.trackers.python.python_kills import storm


@pytest.mark.slow
def test_no_call_that_returned_is_lost_or_stored_twice(tmp_path: Path) -> None:
    report = storm(tmp_path, rounds=30, seed=7, longest_s=0.05)
    assert report.lost == []
    assert report.repeated == 0
    assert report.returned >= report.rounds  # one at least of each program; how many more is the machine's matter
