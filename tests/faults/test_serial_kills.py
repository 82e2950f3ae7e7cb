"""The short storm over serial ports; `make kills` runs the long one."""

from pathlib import Path

import pytest

from tests.faults.serial_kills import storm


@pytest.mark.slow
def test_no_acknowledged_message_is_lost_or_stored_twice(tmp_path: Path) -> None:
    report, boards = storm(tmp_path, rounds=6, seed=3, pause_s=0.4)
    assert report.lost == []
    assert report.repeated == 0
    assert report.acknowledged > 200
    for board in boards:
        assert board.strange == []
        assert len(board.acknowledged) == len(board.given)  # a device that waits is answered in the end
