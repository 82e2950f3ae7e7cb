"""The JavaScript tracker beside the official one in Chromium: what a call and a load cost, also while a thousand events wait.

Each is asked twice: of a browser that slows itself down, and of one that does not, whose times are multiplied. The second way
also knows the processor time of the page's main thread, from the browser's trace.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table
from tests.peers import programs
from tests.peers.browser_peer import ARGUMENTS

_ROOT = Path(__file__).parents[2]
_SITE, _GATEWAY = "http://localhost", "http://127.0.0.1:9"
_SLOWER = 4
_QUEUED = 1_000
_CALLS = 500
_LOADS = 3
_LONG = 50  # ms: what the browser calls a long task
_CATEGORIES = ("toplevel", "blink.user_timing")
_BYTES = 650  # of our event as it is kept
_PRIORITY = dict.fromkeys((os.SCHED_FIFO, os.SCHED_RR), ", this measurement at real-time priority before the others")


@dataclass(frozen=True, slots=True)
class _Subject:
    """start: makes the page's function `track`. kept: how many events wait then."""

    label: str
    script: str
    start: str
    kept: str


def _subjects(ours: str, official: str) -> tuple[_Subject, ...]:
    keys = "Object.keys(localStorage).filter((key) => /^spq \\S+ /.test(key)).length"
    return (
        _Subject(
            "@spoorway/browser",
            ours,
            """(url) => {
              localStorage.setItem("spq " + url + "/a/tp2", Date.now() + 3e6 + " 9");
              snowplow("newTracker", "sp", url, { postPath: "/a/tp2", maxLocalStorageQueueSize: 5000 });
              window.track = (event) => snowplow("trackStructEvent", event);
            }""",
            keys,
        ),
        _Subject(
            "@snowplow/browser-tracker 4.10.1",
            official,
            """(url) => {
              const kept = { stateStorageStrategy: "localStorage", maxLocalStorageQueueSize: 5000 };
              peer.newTracker("sp", url, { ...kept, postPath: "/a/tp2" });
              window.track = (event) => peer.trackStructEvent(event);
            }""",
            """Object.keys(localStorage).filter((key) => key.startsWith("snowplowOutQueue") && !key.endsWith(".expires"))
              .reduce((sum, key) => sum + JSON.parse(localStorage[key]).length, 0)""",
        ),
        _Subject(
            "floor: one localStorage.setItem of such an event",
            "",
            f"""() => {{
              const text = "x".repeat({_BYTES});
              let n = 1e12;
              window.track = () => localStorage.setItem("spq floor " + n++, text);
            }}""",
            keys,
        ),
        _Subject("floor: a call that does nothing", "", "() => { window.n = 0; window.track = () => void n++; }", "n"),
    )


_FILL = "(n) => { for (let i = 0; i < n; i++) track({ category: 'a', action: 'b', value: i }); }"
# The place for the times is there before, so that while it times the harness makes no rubbish but the event itself.
_TIMES = """async ([n, marked]) => {
  const times = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const event = { category: "a", action: "b", value: i };
    if (marked) performance.mark("began");
    const start = performance.now();
    track(event);
    times[i] = performance.now() - start;
    if (marked) performance.mark("ended");
    if (i % 50 == 49) await new Promise((done) => setTimeout(done, 0, performance.clearMarks()));
  }
  return [...times];
}"""
# The browser takes a tenth of a second or more until it makes itself slower: by pauses, 20 in 10 ms.
_SLOWED = """new Promise((done) => {
  const look = () => {
    const start = performance.now();
    let last = start, pauses = 0;
    while (last - start < 8) {
      const now = performance.now();
      if (now - last > 0.1) pauses++;
      last = now;
    }
    if (pauses < 8) setTimeout(look, 8);
    else done();
  };
  look();
})"""
# A new process of the browser is traced a moment after it began.
_TRACED = "new Promise((done) => setTimeout(done, 400))"
_PAGE = "<!doctype html><title>Beds</title><body><script src=/tracker.js></script>"
_LOADED = """<!doctype html><title>Beds</title><body><script>
  window.long = READY.then(() => {
    performance.mark("began");
    const began = performance.now(), found = [];
    const keep = (entry) => entry.startTime >= began && found.push(entry.duration);
    new PerformanceObserver((list) => list.getEntries().forEach(keep)).observe({ type: "longtask" });
    const script = Object.assign(document.createElement("script"), { src: "/tracker.js" });
    script.onload = () => (CALLS);
    document.body.append(script);
    return new Promise((done) => setTimeout(() => (performance.mark("ended"), done(found)), 1500));
  });
</script>"""
_LOOK = "localStorage.length"
_OURS_CALLS = f"""[{_LOOK}, window.own = performance.now(),
  snowplow("newTracker", "sp", "{_GATEWAY}", {{ postPath: "/a/tp2" }}), snowplow("trackPageView"),
  window.own = performance.now() - window.own]"""
_OFFICIAL_CALLS = f"""[{_LOOK}, window.own = performance.now(),
  peer.newTracker("sp", "{_GATEWAY}", {{ stateStorageStrategy: "localStorage" }}), peer.trackPageView(),
  window.own = performance.now() - window.own]"""


@dataclass(frozen=True, slots=True)
class _Load:
    """own_ms: what the tracker took to start and to track, None without one. tasks_ms: how long each task held the page up.

    Slowed down the browser tells of tasks from 50 ms on; not slowed down of those from 1 ms on, and of their processor time.
    """

    own_ms: float | None
    tasks_ms: list[float]
    processor_ms: list[float]


def measure(effort: Effort) -> Result:
    programs.install()
    subjects = _subjects(
        (_ROOT / "gateway/http/script/spoorway.js").read_text("utf-8"),
        programs.bundle("newest.js", effort.folder / "official.js").read_text("utf-8"),
    )
    ours, official, floor, _ = subjects
    waiting = f"{_QUEUED:,} events of earlier pages wait"
    visits: dict[str, tuple[str, _Subject, bool]] = {
        "floor: no tracker": ("", floor, False),
        "floor: no tracker, local storage is looked at once": (_LOOK, floor, False),
        ours.label: (_OURS_CALLS, ours, False),
        official.label: (_OFFICIAL_CALLS, official, False),
        f"floor: local storage is looked at once, {waiting}": (_LOOK, ours, True),
        f"{ours.label}, {waiting}": (_OURS_CALLS, ours, True),
    }
    times: dict[str, list[list[float]]] = {subject.label: [] for subject in subjects}
    free: dict[str, list[tuple[list[float], list[float]]]] = {subject.label: [] for subject in subjects}
    loads: dict[str, list[_Load]] = {name: [] for name in visits}
    free_loads: dict[str, list[_Load]] = {name: [] for name in visits}
    load: list[float] = []
    policy = os.sched_getscheduler(0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=programs.CHROMIUM, args=[*ARGUMENTS])
        for _ in range(effort.rounds):
            for subject in subjects:
                times[subject.label].append(_called(browser, subject, _SLOWER)[0])
                free[subject.label].append(_called(browser, subject, 1))
            for name, (calls, subject, full) in visits.items():
                for _ in range(_LOADS):
                    loads[name].append(_loaded(browser, calls, subject, full, _SLOWER))
                    free_loads[name].append(_loaded(browser, calls, subject, full, 1))
            load.append(os.getloadavg()[0])
        browser.close()
    return Result(
        "what the JavaScript tracker costs the page",
        f"Chromium with its processor made {_SLOWER} times slower; {_QUEUED:,} structured events wait in local storage, then "
        f"{_CALLS} calls are timed one by one, {effort.rounds} rounds, all taking turns. No server answers.",
        "trackStructEvent with a category, an action and a value; both trackers keep 5,000 events.",
        [
            Table("One call, slowed down", [_call_row(label, rounds) for label, rounds in times.items()]),
            Table(f"One call, not slowed down, times {_SLOWER}", [_free_row(label, rounds) for label, rounds in free.items()]),
            Table("Loading a page that tracks its view, slowed down", [_load_row(name, each) for name, each in loads.items()]),
            Table(
                f"Loading a page that tracks its view, not slowed down, times {_SLOWER}",
                [_free_load_row(name, each) for name, each in free_loads.items()],
            ),
        ],
        [
            f"The machine's load was {min(load):.1f} to {max(load):.1f} on {os.cpu_count()} cores{_PRIORITY.get(policy, '')}.",
            "The browser makes itself slower by holding its main thread up for most of each millisecond: any call may "
            "meet such a pause, or another process, and a short one may fall between two. The floors show it; where the floor's "
            "p99 is above a goal, only the other way can tell whether it is met.",
            f"Not slowed down: every time is what was measured, times {_SLOWER}. Processor time is the main thread's own, from "
            "the browser's trace: neither another process nor waiting for one counts. That of a call includes a mark in the "
            "trace, as the call that does nothing shows; tracing makes all of it a little slower.",
            "The first look into local storage waits for another process of the browser and for the disk; every tracker that "
            "keeps something there pays for it. What the tracker itself takes is timed after it.",
            "The page is isolated across origins, so its clock has steps of 5 µs. A long task is one of more than 50 ms.",
        ],
        {
            "ms": {label: [[round(ms, 4) for ms in one] for one in rounds] for label, rounds in times.items()},
            "not slowed down, ms": {label: [[round(ms, 4) for ms in one] for one, _ in rounds] for label, rounds in free.items()},
            "not slowed down, processor ms": {label: [one for _, one in rounds] for label, rounds in free.items()},
            "loads": {name: [asdict(one) for one in each] for name, each in loads.items()},
            "loads not slowed down": {name: [asdict(one) for one in each] for name, each in free_loads.items()},
        },
    )


def _call_row(label: str, rounds: list[list[float]]) -> Row:
    times = sorted(ms for one in rounds for ms in one)
    return {
        "what": label,
        "median ms": statistics.median(times),
        "p99 ms": _p99(times),
        "p99 of the quietest round ms": min(_p99(sorted(one)) for one in rounds),
        "longest ms": times[-1],
        "calls": len(times),
    }


def _free_row(label: str, rounds: list[tuple[list[float], list[float]]]) -> Row:
    times = sorted(_SLOWER * ms for one, _ in rounds for ms in one)
    processor = sorted(_SLOWER * ms for _, one in rounds for ms in one)
    return {
        "what": label,
        "median ms": statistics.median(times),
        "p99 ms": _p99(times),
        "processor, median ms": statistics.median(processor),
        "processor, p99 ms": _p99(processor),
        "processor, longest ms": processor[-1],
        "calls": len(times),
    }


def _p99(times: list[float]) -> float:
    return times[len(times) * 99 // 100]


def _load_row(name: str, loads: list[_Load]) -> Row:
    own = [one.own_ms for one in loads if one.own_ms is not None]
    longest = [max(one.tasks_ms, default=0.0) for one in loads]
    return {
        "what": name,
        "loads": len(loads),
        "the tracker's own ms, median": statistics.median(own) if own else None,
        "its longest": max(own) if own else None,
        "loads without a long task": longest.count(0.0),
        "longest task ms": max(longest),
    }


def _free_load_row(name: str, loads: list[_Load]) -> Row:
    own = [_SLOWER * one.own_ms for one in loads if one.own_ms is not None]
    longest = [_SLOWER * max(one.tasks_ms, default=0.0) for one in loads]
    processor = [_SLOWER * max(one.processor_ms, default=0.0) for one in loads]
    return {
        "what": name,
        "loads": len(loads),
        "the tracker's own ms, median": statistics.median(own) if own else None,
        "longest task ms, median": statistics.median(longest),
        "its processor ms, median": statistics.median(processor),
        "longest of all": max(processor),
        f"loads with less than {_LONG} ms of it in each": sum(ms < _LONG for ms in processor),
    }


def _called(browser: Browser, subject: _Subject, slower: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each call; and, where nothing is slowed down, of the processor."""
    context, page = _open(browser, lambda: _PAGE, subject)
    _fill(page, subject)
    if slower > 1:
        _slow_down(context, page, slower)
        page.evaluate(_SLOWED)
        times: list[float] = page.evaluate(_TIMES, [_CALLS, False])
        _slow_down(context, page, 1)
        processor: list[float] = []
    else:
        browser.start_tracing(page=page, categories=[*_CATEGORIES])
        times = page.evaluate(_TIMES, [_CALLS, True])
        marks = _main_thread(browser.stop_tracing())[0]
        processor = [(end["tts"] - start["tts"]) / 1000 for start, end in zip(marks[::2], marks[1::2], strict=True)]
    kept, isolated = page.evaluate(subject.kept), page.evaluate("crossOriginIsolated")
    context.close()
    if kept != _QUEUED + _CALLS or not isolated:
        raise RuntimeError(f"{subject.label}: {kept} of {_QUEUED + _CALLS} events are kept; isolated: {isolated}")
    return times, processor


def _loaded(browser: Browser, calls: str, subject: _Subject, full: bool, slower: int) -> _Load:
    text = _PAGE
    context, page = _open(browser, lambda: text, subject)
    if full:
        _fill(page, subject)
        page.evaluate("(url) => localStorage.removeItem('spq ' + url + '/a/tp2')", _GATEWAY)  # the pause
    page.close()
    page = context.new_page()  # a renderer of its own
    text = _LOADED.replace("CALLS", calls or "0").replace("READY", _SLOWED if slower > 1 else _TRACED)
    if slower > 1:
        _slow_down(context, page, slower)
    else:
        browser.start_tracing(page=page, categories=[*_CATEGORIES])
    page.goto(_SITE)
    long: list[float] = page.evaluate("long")
    own: float | None = page.evaluate("window.own")
    if slower > 1:
        found = _Load(own, long, [])
    else:
        (began, ended), tasks = _main_thread(browser.stop_tracing())
        inside = [
            one for one in tasks if began["ts"] <= one["ts"] and one["ts"] + one["dur"] <= ended["ts"] and one["dur"] >= 1000
        ]
        found = _Load(own, [one["dur"] / 1000 for one in inside], [one["tdur"] / 1000 for one in inside])
    context.close()
    return found


def _main_thread(trace: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Marks and tasks of the page's main thread, in their order. Times are microseconds: ts, dur; of the processor tts, tdur."""
    events = json.loads(trace)["traceEvents"]
    marks = sorted((one for one in events if one["name"] in ("began", "ended") and "tts" in one), key=lambda one: one["ts"])
    thread = marks[0]["pid"], marks[0]["tid"]
    names = ["began", "ended"] * (len(marks) // 2)
    if [one["name"] for one in marks] != names or any((one["pid"], one["tid"]) != thread for one in marks):
        raise RuntimeError("the browser's trace has other marks than the page made")
    tasks = [one for one in events if one["name"].endswith("::RunTask") and (one["pid"], one["tid"]) == thread and "tdur" in one]
    return marks, tasks


def _open(browser: Browser, text: Callable[[], str], subject: _Subject) -> tuple[BrowserContext, Page]:
    context = browser.new_context()
    context.set_default_timeout(120_000)
    context.route("**/*", lambda route: _answer(route, text(), subject.script))
    page = context.new_page()
    page.goto(_SITE)
    return context, page


def _fill(page: Page, subject: _Subject) -> None:
    page.evaluate(subject.start, _GATEWAY)
    page.evaluate(_FILL, _QUEUED)


def _slow_down(context: BrowserContext, page: Page, times: int) -> None:
    session: Any = context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": times})


def _answer(route: Route, page: str, script: str) -> None:
    if route.request.url.startswith(_GATEWAY):
        route.abort()
        return
    isolating = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    is_script = route.request.url.endswith(".js")
    kind = "text/javascript" if is_script else "text/html"
    route.fulfill(status=200, body=script if is_script else page, content_type=f"{kind}; charset=utf-8", headers=isolating)
