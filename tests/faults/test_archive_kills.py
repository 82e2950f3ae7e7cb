"""The short storm over the archive; `make archive-kills` runs the long one."""

from pathlib import Path

import pytest

from tests.faults.archive_kills import storm
from tests.peers.s3_server import S3Server


@pytest.mark.slow
def test_a_kill_lists_nothing_that_is_not_there_and_nothing_twice(tmp_path: Path) -> None:
    report = storm(tmp_path, rounds=5, segments=40, seed=3)
    assert (report.listed, report.payloads) == (40, 41 * 6)
    assert report.seen > 0 and report.deleted > 0


@pytest.mark.slow
def test_a_kill_in_s3(tmp_path: Path) -> None:
    with S3Server() as server, server.in_environment():
        report = storm(tmp_path, rounds=2, segments=14, seed=5, s3=server)
    assert (report.listed, report.payloads) == (14, 15 * 6)
    assert report.seen > 0
