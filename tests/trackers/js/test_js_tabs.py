"""Short storms of tabs; `make chaos-js` runs the long ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Running
from tests.faults import js_tabs
from tests.peers.programs import CHROMIUM, missing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not Path(CHROMIUM).exists():
        missing("chromium")
    running = Running(tmp_path_factory.mktemp("js") / "data", [])
    yield running
    running.stop()


def test_no_kept_event_is_lost_or_stored_twice_whatever_happens_to_tabs_and_network(gateway: Running) -> None:
    report = asyncio.run(js_tabs.tabs(gateway, schedules=20, seed=7))
    assert report.lost == []
    assert report.repeated == 0
    assert report.leftover == []
    assert report.tracked > 200 and report.done["crash"] > 5 and report.done["without locks"] > 2


def test_the_last_event_of_a_page_arrives_or_is_sent_again(gateway: Running) -> None:
    report = asyncio.run(js_tabs.navigations(gateway, 25))
    assert report.tracked == 25
    assert report.lost == []
    assert report.repeated == 0


def test_an_outage_sees_three_requests_in_ten_seconds_however_many_tabs_track(gateway: Running) -> None:
    assert max(asyncio.run(js_tabs.outage(gateway))) <= 3
