"""The short storm; `make access-log-kills` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.access_log_kills import storm


@pytest.mark.slow
def test_every_line_of_a_log_is_stored_once_whatever_is_killed(tmp_path: Path) -> None:
    report = storm(tmp_path, rounds=6, seed=3)
    assert (report.lost, report.repeated) == (0, 0)
    assert report.written > 500
    assert sum(report.killed.values()) == 6
