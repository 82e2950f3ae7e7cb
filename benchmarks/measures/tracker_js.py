"""The JavaScript tracker beside the official one in Chromium: what a call costs the page while a thousand events wait."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Route, sync_playwright

from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from tests.peers import programs
from tests.peers.browser_peer import ARGUMENTS

_ROOT = Path(__file__).parents[2]
_SITE, _GATEWAY = "http://localhost", "http://127.0.0.1:9"
_SLOWER = 4
_QUEUED = 1_000
_CALLS = 500

_START = {
    "ours": """(url) => {
      localStorage.setItem("spq " + url + "/a/tp2", Date.now() + 3e6 + " 9");
      snowplow("newTracker", "sp", url, { postPath: "/a/tp2", maxLocalStorageQueueSize: 5000 });
      window.track = (event) => snowplow("trackStructEvent", event);
    }""",
    "official": """(url) => {
      peer.newTracker("sp", url, { stateStorageStrategy: "localStorage", maxLocalStorageQueueSize: 5000, postPath: "/a/tp2" });
      window.track = (event) => peer.trackStructEvent(event);
    }""",
}
_KEPT = {
    "ours": "Object.keys(localStorage).filter((key) => /^spq \\S+ /.test(key)).length",
    "official": """Object.keys(localStorage).filter((key) => key.startsWith("snowplowOutQueue") && !key.endsWith(".expires"))
      .reduce((sum, key) => sum + JSON.parse(localStorage[key]).length, 0)""",
}
_FILL = "(n) => { for (let i = 0; i < n; i++) track({ category: 'a', action: 'b', value: i }); }"
_TIMES = """async (n) => {
  const times = [];
  for (let i = 0; i < n; i++) {
    const start = performance.now();
    track({ category: "a", action: "b", value: i });
    times.push(performance.now() - start);
    if (i % 50 == 49) await new Promise((done) => setTimeout(done));
  }
  return times;
}"""
_LONG = """() => new Promise((done) => {
  const found = [];
  const observer = new PerformanceObserver((list) => found.push(...list.getEntries().map((entry) => entry.duration)));
  observer.observe({ type: "longtask", buffered: true });
  setTimeout(() => done(found), 1500);
})"""
_PAGE = "<!doctype html><title>Beds</title><body><script src=/tracker.js></script>"
_LOADED = _PAGE + '<script>snowplow("newTracker", "sp", "http://127.0.0.1:9"); snowplow("trackPageView")</script>'


def measure(effort: Effort) -> Result:
    programs.install()
    scripts = {
        "ours": (_ROOT / "gateway/http/script/spoorway.js").read_text("utf-8"),
        "official": programs.bundle("newest.js", effort.folder / "official.js").read_text("utf-8"),
    }
    times: dict[str, list[float]] = {name: [] for name in scripts}
    long: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=programs.CHROMIUM, args=[*ARGUMENTS])
        for _ in range(effort.rounds):
            for name, script in scripts.items():
                times[name] += _called(browser, name, script)
            long += _long_tasks(browser, scripts["ours"])
        browser.close()
    rows: list[Row] = [_row(label, sorted(times[name])) for name, label in _LABELS.items()]
    return Result(
        "what a call of the JavaScript tracker costs the page",
        f"Chromium with its processor made {_SLOWER} times slower; {_QUEUED:,} structured events wait in local storage, then "
        f"{_CALLS} calls are timed one by one, {effort.rounds} rounds, the trackers taking turns. No server answers.",
        "trackStructEvent with a category, an action and a value; both trackers keep 5,000 events.",
        [Table("One call", rows)],
        [
            f"Tasks longer than 50 ms while a page with our tracker loads and tracks a page view: {len(long)}"
            + (f", the longest {max(long):.0f} ms." if long else "."),
            "The page is isolated across origins, so its clock has steps of 5 µs.",
        ],
        {"ms": {name: [round(ms, 4) for ms in each] for name, each in times.items()}, "long_tasks_ms": long},
    )


_LABELS = {"ours": "@spoorway/browser", "official": "@snowplow/browser-tracker 4.10.1"}


def _row(label: str, times: list[float]) -> Row:
    return {
        "what": label,
        "median ms": statistics.median(times),
        "p99 ms": times[len(times) * 99 // 100],
        "longest ms": times[-1],
        "calls": len(times),
    }


def _called(browser: Browser, name: str, script: str) -> list[float]:
    context = browser.new_context()
    context.set_default_timeout(120_000)
    context.route("**/*", lambda route: _answer(route, _PAGE, script))
    page = context.new_page()
    page.goto(_SITE)
    page.evaluate(_START[name], _GATEWAY)
    page.evaluate(_FILL, _QUEUED)
    slower: Any = context.new_cdp_session(page)
    slower.send("Emulation.setCPUThrottlingRate", {"rate": _SLOWER})
    times: list[float] = page.evaluate(_TIMES, _CALLS)
    slower.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    kept, isolated = page.evaluate(_KEPT[name]), page.evaluate("crossOriginIsolated")
    context.close()
    if kept != _QUEUED + _CALLS or not isolated:
        raise RuntimeError(f"{name}: {kept} of {_QUEUED + _CALLS} events are kept; isolated: {json.dumps(isolated)}")
    return times


def _long_tasks(browser: Browser, script: str) -> list[float]:
    context = browser.new_context()
    context.route("**/*", lambda route: _answer(route, _LOADED, script))
    page = context.new_page()
    slower: Any = context.new_cdp_session(page)
    slower.send("Emulation.setCPUThrottlingRate", {"rate": _SLOWER})
    page.goto(_SITE)
    found: list[float] = page.evaluate(_LONG)
    context.close()
    return found


def _answer(route: Route, page: str, script: str) -> None:
    if route.request.url.startswith(_GATEWAY):
        route.abort()
        return
    isolating = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    is_script = route.request.url.endswith(".js")
    kind = "text/javascript" if is_script else "text/html"
    route.fulfill(status=200, body=script if is_script else page, content_type=f"{kind}; charset=utf-8", headers=isolating)
