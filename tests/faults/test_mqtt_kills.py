"""The short storm over MQTT; `make kills` runs the long one."""

from pathlib import Path

import pytest

from tests.faults.mqtt_kills import storm


@pytest.mark.slow
def test_no_acknowledged_publish_is_lost_or_stored_twice(tmp_path: Path) -> None:
    report, exactly = storm(tmp_path, rounds=6, seed=5, pause_s=0.4)
    assert report.lost == []
    assert report.repeated == 0
    assert report.acknowledged > 500
    assert (exactly["lost"], exactly["twice"]) == (0, 0)
    assert exactly["acknowledged"] > 200
    assert exactly["resent"] > 0
