"""`spoorway explore` in a real Chromium: the dashboards and the questions draw their charts, the map has its places."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from protocol.schemas import bundled
from protocol.seams import Position
from spoorway.exploring import metadata
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from tests.contracts.asked_events import EVENTS, FAILED
from tests.peers.browser_peer import ARGUMENTS

pytest_plugins = ["tests.peers.fixtures"]
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PERIOD = "since=2026-03-01&until=2026-03-16"
_WAIT_MS = 20_000
# Marks of Vega's scene, as SVG or, where it is drawn on a canvas, pixels that are neither white nor transparent.
DRAWN = """(place) => [...document.querySelectorAll(place)].filter((one) => one.tagName === "CANVAS"
  ? one.width > 0 && one.getContext("2d").getImageData(0, 0, one.width, one.height).data.some((v, at, all) =>
      at % 4 === 0 && all[at + 3] > 200 && Math.max(v, all[at + 1], all[at + 2]) - Math.min(v, all[at + 1], all[at + 2]) > 40)
  : one.querySelector(".mark-rect path, .mark-line path, .mark-symbol path")).length"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the explorer of the small world of March listens."""
    data = tmp_path_factory.mktemp("explored")
    target = Plugin(Config(str(data / "events.db")), bundled)
    target.commit(Batch(EVENTS, FAILED, {"lane": Position(1, 1, 1)}, 1))
    target.close()
    log = data / "explore.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "spoorway", "explore", "--data", str(data), "--http", ":0"],
            cwd=ROOT, stdout=out, stderr=out, env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
            assert time.monotonic() < end and process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.fixture(scope="module")
def page(address: str, chromium: str) -> Iterator[Page]:
    """Of a browser that knows no name and no address but loopback's."""
    with sync_playwright() as playwright:
        rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, rules])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        yield page
        browser.close()


def drawn(page: Page, place: str, at_least: int) -> None:
    page.wait_for_function(f"([place, most]) => ({DRAWN})(place) >= most", arg=[place, at_least], timeout=_WAIT_MS)


def test_a_dashboard_draws_each_of_its_charts(page: Page, address: str) -> None:
    page.goto(f"{address}/-/dashboards/game?{PERIOD}")
    drawn(page, "canvas, svg", len(metadata("events")["plugins"]["datasette-dashboards"]["game"]["charts"]))


def test_a_question_leads_to_its_chart(page: Page, address: str) -> None:
    page.goto(f"{address}/events")
    link = page.locator("a[href*='/events/levels']").first.get_attribute("href")
    assert link is not None
    way, _, fragment = link.partition("#")
    page.goto(f"{address}{way}?{PERIOD}#{fragment}")
    drawn(page, "canvas, svg", 1)


def test_the_map_has_its_places(page: Page, address: str) -> None:
    page.goto(f"{address}/events/places?{PERIOD}")
    page.wait_for_selector(".leaflet-marker-icon, path.leaflet-interactive", timeout=_WAIT_MS)


def test_no_facets_are_sought_unasked(address: str) -> None:
    with urllib.request.urlopen(f"{address}/-/settings.json", timeout=30) as answer:
        assert json.load(answer)["suggest_facets"] is False
