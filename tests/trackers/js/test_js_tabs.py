"""Short storms of tabs; `make chaos-js` runs the long ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Running
from tests.faults import js_tabs
from tests.peers.programs import CHROMIUM, missing

pytestmark = pytest.mark.slow


Storms = tuple[js_tabs.Report, js_tabs.Report, list[int]]


@pytest.fixture(scope="module")
def storms(tmp_path_factory: pytest.TempPathFactory) -> Storms:
    """All three at once: they wait more than they work."""
    if not Path(CHROMIUM).exists():
        missing("chromium")
    running = Running(tmp_path_factory.mktemp("js") / "data", [])

    async def blow() -> Storms:
        tabs, left, outage = js_tabs.tabs(running, 20, seed=7), js_tabs.navigations(running, 25), js_tabs.outage(running)
        return await asyncio.gather(tabs, left, outage)

    try:
        return asyncio.run(blow())
    finally:
        running.stop()


def test_no_kept_event_is_lost_or_stored_twice_whatever_happens_to_tabs_and_network(storms: Storms) -> None:
    report = storms[0]
    assert report.lost == []
    assert report.repeated == 0
    assert report.leftover == []
    assert report.tracked > 200 and report.done["crash"] > 5 and report.done["without locks"] > 2


def test_the_last_event_of_a_page_arrives_or_is_sent_again(storms: Storms) -> None:
    report = storms[1]
    assert report.tracked == 25
    assert report.lost == []
    assert report.repeated == 0


def test_an_outage_sees_three_requests_in_ten_seconds_however_many_tabs_track(storms: Storms) -> None:
    assert 1 <= min(storms[2]) <= max(storms[2]) <= 3
