"""The tracker in a real Chromium: the vectors, the official tracker beside it, its time on the main thread, its entry points."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from tests.conformance import test_trackers as vectors
from tests.peers import programs
from tests.peers.browser_peer import ARGUMENTS

ROOT = Path(__file__).parents[3]
JS = ROOT / "trackers" / "js"
ADAPTER = ROOT / "tests" / "conformance" / "adapters" / "js_answer.mjs"
SITE = "http://localhost"
GATEWAY = "http://127.0.0.1:9"
SCHEMA = "iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh build."""
    if shutil.which("node") is None or not (JS / "node_modules" / "terser").is_dir():
        programs.missing("npm packages of trackers/js (tools/runtimes)")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["node", "build.mjs", folder], cwd=JS, check=True, timeout=120, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(programs.CHROMIUM).exists():
        programs.missing("chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=programs.CHROMIUM, args=[*ARGUMENTS])


class Visit:
    """A page of a site whose files are `files`, and the parameters of every event that it sent."""

    def __init__(self, context: BrowserContext, files: dict[str, bytes | str]) -> None:
        self.sent: list[dict[str, str]] = []
        self._files = files
        context.set_default_timeout(60_000)
        context.route("**/*", self._answer)
        self.page: Page = context.new_page()

    def _answer(self, route: Route) -> None:
        path = urlsplit(route.request.url).path
        if route.request.url.startswith(GATEWAY):
            if route.request.method == "POST":
                self.sent += json.loads(route.request.post_data or "")["data"]
            cors = {
                "Access-Control-Allow-Origin": SITE,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Allow-Headers": "Content-Type, SP-Anonymous",
            }
            route.fulfill(status=200, body="ok", headers=cors)
        elif path in self._files:
            kind = "text/javascript" if path.endswith("js") else "text/html"
            route.fulfill(status=200, body=self._files[path], content_type=f"{kind}; charset=utf-8")
        else:
            route.fulfill(status=404, body="")

    def open(self, path: str = "/", referer: str = "http://forum.example/thread?id=7") -> Page:
        self.page.goto(SITE + path, referer=referer)
        return self.page

    def wait(self, count: int) -> list[dict[str, str]]:
        for _ in range(600):
            if len(self.sent) >= count:
                return self.sent
            self.page.wait_for_timeout(20)
        raise AssertionError(f"{len(self.sent)} of {count} events: {[event['e'] for event in self.sent]}")


PAGE = "<!doctype html><meta charset=utf-8><title>Beds &amp; “borders” ☂</title><body style='height:3000px'>"
TAGGED = PAGE + "<script src=/sp.js></script>"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1105, "height": 690}, locale="nl-NL", timezone_id="Europe/Amsterdam")
    yield made
    made.close()


def test_the_gateway_serves_what_a_fresh_build_gives(dist: Path) -> None:
    served = ROOT / "gateway" / "http" / "script"
    assert (dist / "spoorway.js").read_bytes() == (served / "spoorway.js").read_bytes(), "run: node trackers/js/build.mjs"
    # In another line the browser does not see it, and compiles in the page's task.
    assert (served / "spoorway.js").read_bytes().startswith(b"//# allFunctionsCalledOnLoad\n")
    digest = base64.b64encode(hashlib.sha384((served / "spoorway.js").read_bytes()).digest()).decode()
    assert (served / "integrity.txt").read_text() == f"sha384-{digest}\n"
    assert json.loads((dist / "integrity.json").read_text())["spoorway.js"] == f"sha384-{digest}"


def test_no_part_is_heavier_than_its_limit(dist: Path) -> None:
    done = subprocess.run(["node", "sizes.mjs", dist], cwd=JS, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "core (index.js)" in done.stdout


def test_every_vector_holds_in_chromium(context: BrowserContext, dist: Path) -> None:
    (adapter,) = (each for each in vectors.ALL if each.name == "js")
    cases = [case for case in vectors.CASES if case.file not in adapter.unsupported]
    script = "import {newTracker} from '/index.js'; import * as more from '/more.js'; import {answer} from '/answer.mjs';"
    run = "window.one = (line) => answer(newTracker, more, line);"
    files: dict[str, bytes | str] = {
        "/": f"{PAGE}<script type=module>{script}{run}</script>",
        "/index.js": (dist / "index.js").read_bytes(),
        "/more.js": (dist / "more.js").read_bytes(),
        "/answer.mjs": ADAPTER.read_bytes(),
    }
    page = Visit(context, files).open()
    all_of_them = "async (lines) => { const out = []; for (const line of lines) out.push(await one(line)); return out }"
    answers = page.evaluate(all_of_them, [vectors.line_of(case) for case in cases])
    found = {
        case.id: differences
        for case, answer in zip(cases, answers, strict=True)
        if (differences := vectors.differences(case, answer, adapter.tracker_version))
    }
    assert found.keys() == adapter.differences.keys(), found


# Parameter -> why ours and the official tracker's may differ in one page.
BY_NATURE = {
    "eid": "random",
    "dtm": "not the same moment",
    "stm": "not the same moment",
    "duid": "each keeps its own",
    "sid": "each keeps its own",
    "tv": "who it is",
    "tna": "each has its own name",
}
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("trackPageView", {}),
    ("trackStructEvent", {"category": "shop", "action": "add", "label": "DUCK-1", "property": "size M", "value": 49.95}),
    ("trackStructEvent", {"category": "shop", "action": "zero", "value": 0}),
    ("trackSelfDescribingEvent", {"event": {"schema": SCHEMA, "data": {"targetUrl": "https://a.example/é?b=1&c=“"}}}),
    ("trackPageView", {"title": "Other", "context": [{"schema": SCHEMA, "data": {"targetUrl": "https://b.example/"}}]}),
    ("trackStructEvent", {"category": "a", "action": "at", "timestamp": 1_700_000_000_123}),
    ("trackStructEvent", {"category": "a", "action": "true time", "timestamp": {"type": "ttm", "value": 1_700_000_000_123}}),
)


def test_parameters_are_those_of_the_official_tracker(context: BrowserContext, dist: Path, tmp_path: Path) -> None:
    programs.install()
    official = programs.bundle("newest.js", tmp_path / "official.js").read_bytes()
    visit = Visit(
        context,
        {
            "/beds/": f"{TAGGED}<script src=/official.js></script>",
            "/sp.js": (dist / "spoorway.js").read_bytes(),
            "/official.js": official,
        },
    )
    page = visit.open("/beds/?q=a%20b&utm_source=news#top")
    page.evaluate(
        """(url) => {
          snowplow("newTracker", "ours", url, { appId: "shop", contexts: { webPage: true } });
          peer.newTracker("theirs", url, {
            appId: "shop", encodeBase64: false, contexts: { webPage: true }, stateStorageStrategy: "localStorage",
          });
          for (const each of [(...a) => snowplow(...a), (verb, ...a) => peer[verb](...a)]) {
            each("setUserId", "jon.doe@example.com");
            each("addGlobalContexts", [
              { schema: "iglu:com.acme/always/jsonschema/1-0-0", data: { a: 1 } },
              [({ eventType }) => eventType == "se", [{ schema: "iglu:com.acme/se/jsonschema/1-0-0", data: { b: [1, "é"] } }]],
            ]);
          }
        }""",
        GATEWAY,
    )
    for verb, event in CALLS:
        page.evaluate("([verb, event]) => { snowplow(verb, event); peer[verb](event) }", [verb, event])
    sent = visit.wait(2 * len(CALLS))
    ours = sorted((event for event in sent if event["tna"] == "ours"), key=lambda event: int(event["stm"]))
    theirs = [event for event in sent if event["tna"] == "theirs"]
    differences = [
        f"{verb} {a['e']} {name}: ours {a.get(name)!r}, theirs {b.get(name)!r}"
        for (verb, _), a, b in zip(CALLS, ours, theirs, strict=True)
        for name in sorted(a.keys() | b.keys())
        if (name not in BY_NATURE or (name in a) != (name in b)) and not _same(name, a.get(name), b.get(name))
    ]
    # A true time stands beside the time of the call here, so that the order of events survives; there it replaces it.
    assert [d.partition(": ")[0] for d in differences] == ["trackStructEvent se dtm"], differences
    assert ours[5]["dtm"] == theirs[5]["dtm"] == "1700000000123"


def _same(name: str, ours: str | None, theirs: str | None) -> bool:
    if name != "co" or ours is None or theirs is None:
        return ours == theirs

    def entities(text: str) -> list[str]:
        """Without their order and the page view's random id."""
        found = json.loads(text)
        assert found["schema"] == "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1" or "1-0-0" in found["schema"]
        for one in found["data"]:
            if "/web_page/" in one["schema"]:
                one["data"] = {"id": len(one["data"]["id"])}
        return sorted(json.dumps(one, sort_keys=True) for one in found["data"])

    return entities(ours) == entities(theirs)


def test_a_call_costs_the_same_however_many_events_wait(context: BrowserContext, dist: Path) -> None:
    """What it takes of local storage is counted; how long that is, benchmarks/measures/tracker_js.py tells."""
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate(
        """(url) => {
          localStorage.setItem("spq " + url + "/a/tp2", Date.now() + 3e6 + " 9"); // a pause: nothing is sent meanwhile
          snowplow("newTracker", "sp", url, { postPath: "/a/tp2", maxLocalStorageQueueSize: 5000 });
        }""",
        GATEWAY,
    )
    costs: list[dict[str, int]] = page.evaluate(
        """() => {
          const counted = {}, real = localStorage;
          const count = (name, work) => (...given) => (counted[name] = (counted[name] || 0) + 1, work(...given));
          Object.defineProperty(window, "localStorage", { value: new Proxy(real, {
            get: count("get", (at, key) => real[key]), set: count("set", (at, key, value) => (real[key] = value, true)),
            ownKeys: count("list", () => Reflect.ownKeys(real)), deleteProperty: count("delete", (at, key) => delete real[key]),
          }) });
          snowplow("newTracker", "counted", "http://127.0.0.1:9", { postPath: "/b/tp2", maxLocalStorageQueueSize: 5000 });
          real.setItem("spq http://127.0.0.1:9/b/tp2", Date.now() + 3e6 + " 9");
          return [1, 1000].map((waiting) => {
            for (let n = 0; n < waiting; n++) snowplow("trackStructEvent:counted", { category: "a", action: "b", value: n });
            for (const name in counted) delete counted[name];
            snowplow("trackStructEvent:counted", { category: "a", action: "b" });
            return { ...counted };
          });
        }"""
    )
    assert costs[0] == costs[1] == {"set": 1}, (
        "a later call of a task writes its event; nothing is read, the visit is written after the task"
    )


# Counts how often the page lists the names in local storage, from here on.
COUNT_LISTS = """() => {
  const real = localStorage;
  window.lists = 0;
  Object.defineProperty(window, "localStorage", { value: new Proxy(real, {
    get: (at, key) => real[key], set: (at, key, value) => (real[key] = value, true),
    deleteProperty: (at, key) => delete real[key],
    ownKeys: () => (lists++, Reflect.ownKeys(real)),
  }) });
}"""


def leave_events(page: Page, count: int) -> None:
    """Tracked by a page that sends nothing because the gateway wants a pause; its own page view is the first."""
    page.evaluate(
        """([url, count]) => {
          localStorage.setItem("spq " + url + "/a/tp2", Date.now() + 3e6 + " 9");
          snowplow("newTracker", "sp", url, { postPath: "/a/tp2" });
          snowplow("trackPageView");
          for (let n = 1; n < count; n++) snowplow("trackStructEvent", { category: "a", action: "b", value: n });
        }""",
        [GATEWAY, count],
    )


def test_a_page_that_loads_looks_at_what_earlier_pages_left_later_and_sends_it_first(context: BrowserContext, dist: Path) -> None:
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    leave_events(visit.open(), 300)
    page = visit.open()
    page.evaluate("(url) => localStorage.removeItem('spq ' + url + '/a/tp2')", GATEWAY)
    page.evaluate(COUNT_LISTS)
    kept, lists = page.evaluate(
        """(url) => {
          snowplow("newTracker", "sp", url, { postPath: "/a/tp2" });
          const id = snowplow("trackPageView");
          return [Object.values(localStorage).filter((value) => value.includes(id)).length, lists - 1];
        }""",
        GATEWAY,
    )
    assert (kept, lists) == (1, 0)
    sent = visit.wait(301)
    times = [int(event["dtm"]) for event in sent]
    assert (times, sent[-1]["e"], len({event["eid"] for event in sent})) == (sorted(times), "pv", 301)
    assert page.evaluate("lists") > 1


def test_what_a_tab_that_crashed_left_is_found_when_the_network_comes_back_and_by_a_flush(
    context: BrowserContext, dist: Path
) -> None:
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate(COUNT_LISTS)
    page.evaluate("(url) => { snowplow('newTracker', 'sp', url, { postPath: '/a/tp2' }) }", GATEWAY)
    page.wait_for_function("lists > 1")  # for its ids, and for what earlier pages left: nothing
    page.evaluate(
        """(url) => {
          window.leave = (id) => (localStorage["spq " + url + "/a/tp2 1700000000000" + id] = ' {"e":"pv","eid":"' + id + '"}');
          leave("first");
          dispatchEvent(new Event("online"));
        }""",
        GATEWAY,
    )
    visit.wait(1)
    page.wait_for_function("lists > 5")  # it is sent, and the tab looked once more: nothing is there
    assert page.evaluate("leave('second'), snowplow('flushBuffer')") is True
    assert [event["eid"] for event in visit.sent] == ["first", "second"]


def test_what_earlier_pages_left_counts_towards_the_limit_also_in_a_pause(context: BrowserContext, dist: Path) -> None:
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    leave_events(visit.open(), 1000)
    page = visit.open()
    page.evaluate(COUNT_LISTS)
    page.evaluate("(url) => { snowplow('newTracker', 'sp', url, { postPath: '/a/tp2' }) }", GATEWAY)
    page.wait_for_function("lists")
    assert page.evaluate("snowplow('trackPageView')") is None


@pytest.mark.parametrize("browser_of", ["now", "before Temporal"])
def test_the_time_zone_is_told_and_intl_is_used_only_where_it_must_be(
    context: BrowserContext, dist: Path, browser_of: str
) -> None:
    """A page's first use of Intl is its longest task while it loads."""
    if browser_of == "before Temporal":
        context.add_init_script("delete globalThis.Temporal")
    context.add_init_script("window.asked = 0; const real = Intl.DateTimeFormat; Intl.DateTimeFormat = () => (asked++, real())")
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate("(url) => { snowplow('newTracker', 'sp', url); snowplow('trackPageView') }", GATEWAY)
    assert visit.wait(1)[0]["tz"] == "Europe/Amsterdam"
    assert page.evaluate("asked") == (browser_of == "before Temporal")


def test_the_official_loaders_name_of_the_function_is_taken(context: BrowserContext, dist: Path) -> None:
    loader = """<script>
      window.GlobalSnowplowNamespace = ["shop"];
      window.shop = function () { (shop.q = shop.q || []).push(arguments) };
      document.head.append(Object.assign(document.createElement("script"), { src: "/sp.js" }));
      shop("newTracker", "sp", "%s"); shop("trackPageView");
    </script>"""
    visit = Visit(context, {"/": PAGE + loader % GATEWAY, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    assert [event["e"] for event in visit.wait(1)] == ["pv"]
    assert page.evaluate("[typeof snowplow, GlobalSnowplowNamespace]") == ["undefined", []]


CONSUMER = """
import { newTracker, type Tracker } from "./index.js";
import { enableScrollTracking } from "./scroll.js";
const tracker: Tracker = newTracker("sp", "https://events.example.com", { appId: "shop", consent: true });
const id: string | undefined = tracker.trackStructEvent({ category: "a", action: "b", value: 1 });
const end: () => void = enableScrollTracking(tracker, { depths: [50] });
// @ts-expect-error a structured event has an action
tracker.trackStructEvent({ category: "a" });
export { id, end };
"""


def test_the_types_hold_for_who_uses_them(dist: Path, tmp_path: Path) -> None:
    shutil.copytree(dist, tmp_path / "dist")
    (tmp_path / "dist" / "use.ts").write_text(CONSUMER)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"]
    compiler = JS / "node_modules" / ".bin" / "tsc"
    done = subprocess.run(
        [compiler, *options, "use.ts"], cwd=tmp_path / "dist", capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout


def events_of(visit: Visit) -> list[str]:
    found: list[str] = []
    for event in visit.sent:
        inner: Any = json.loads(event["ue_pr"])["data"] if event["e"] == "ue" else None
        found.append(inner["schema"].split("/")[1] if inner else event["e"])
    return found


def test_entry_points_see_what_a_visitor_does(context: BrowserContext, dist: Path) -> None:
    body = """<a id=next href='#there'><b>There</b></a><form id=f onsubmit='return false'><input name=mail>
      <input type=password name=secret>
      <select name=colour><option>red<option>blue</select><button>Go</button></form>"""
    visit = Visit(context, {"/": TAGGED + body, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate(
        """(url) => {
          snowplow("newTracker", "sp", url, { contexts: { session: true } });
          snowplow("enableLinkClickTracking", { trackContent: true });
          snowplow("enableFormTracking");
          snowplow("enableErrorTracking");
          snowplow("enableRouteTracking");
          snowplow("enableScrollTracking");
          snowplow("enableWebVitals");
          snowplow("enableActivityTracking", { minimumVisitLength: 1, heartbeatDelay: 1 });
          snowplow("trackPageView");
        }""",
        GATEWAY,
    )
    page.click("#next b")
    page.fill("[name=mail]", "zoë@example.org")
    page.fill("[name=secret]", "hush")
    page.select_option("select", "blue")
    page.click("button")
    page.evaluate("setTimeout(() => { throw new TypeError('oh no') }); undefined")
    page.evaluate("history.pushState({}, '', '/shop'); undefined")
    page.mouse.wheel(0, 5000)
    page.evaluate(
        """() => snowplow("trackTransaction", { transaction_id: "t1", revenue: 10, currency: "EUR", payment_method: "card",
          products: [{ id: "p", category: "c", price: 5, currency: "EUR", quantity: 2 }] })"""
    )
    visit.wait(12)
    page.wait_for_timeout(2500)
    page.evaluate(  # opening another tab hides nothing in a headless browser
        """() => {
          Object.defineProperty(document, "visibilityState", { value: "hidden" });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    page.wait_for_timeout(500)
    names = events_of(visit)
    wanted = (
        "pv",
        "pp",
        "se",
        "link_click",
        "focus_form",
        "change_form",
        "submit_form",
        "application_error",
        "snowplow_ecommerce_action",
        "web_vitals",
    )
    assert [name for name in wanted if name not in names] == []
    assert names.count("pv") == 2
    assert "hush" not in json.dumps(visit.sent)
    second = [event for event in visit.sent if event["e"] == "pv"][1]
    assert (second["url"], second["refr"]) == (f"{SITE}/shop", f"{SITE}/#there")


def test_nothing_is_stored_or_sent_before_consent_and_nothing_is_left_after_refusal(context: BrowserContext, dist: Path) -> None:
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate("(url) => { snowplow('newTracker', 'sp', url, { consent: false }); snowplow('trackPageView') }", GATEWAY)
    page.wait_for_timeout(300)
    assert (visit.sent, page.evaluate("Object.keys(localStorage)"), page.evaluate("document.cookie")) == ([], [], "")
    page.evaluate("snowplow('optIn')")
    visit.wait(1)
    assert page.evaluate("Object.keys(localStorage).some((key) => key.startsWith('_sp_id'))")
    # The visit is written after the task: not when it was forgotten in that task.
    page.evaluate("snowplow('trackPageView'); snowplow('optOut'); snowplow('trackPageView')")
    page.wait_for_timeout(300)
    assert len(visit.sent) == 1
    assert page.evaluate("Object.keys(localStorage)") == []


def test_an_official_visitors_cookie_is_kept_up(context: BrowserContext, dist: Path) -> None:
    user, session = "6de9024e-17b9-4026-bd4d-efec50ae84cb", "9c65e7f3-8e8e-470d-b243-910b5b300da0"
    context.add_cookies([{"name": "_sp_id.1fff", "value": f"{user}.1700000000.4.1700000100.1700000050.{session}.", "url": SITE}])
    visit = Visit(context, {"/": TAGGED, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate(
        """(url) => {
          snowplow("newTracker", "sp", url, { stateStorageStrategy: "cookie" });
          for (let n = 0; n < 3; n++) snowplow("trackPageView"); // one task: the cookie is written once, after it
        }""",
        GATEWAY,
    )
    event, *others = visit.wait(3)
    assert (event["duid"], event["vid"]) == (user, "5")
    assert {(other["duid"], other["vid"], other["sid"]) for other in others} == {(user, "5", event["sid"])}
    values = {cookie["name"]: cookie["value"].split(".") for cookie in context.cookies()}  # type: ignore[index]
    kept = values["_sp_id.1fff"]
    assert (kept[0], kept[1], kept[2], kept[4], kept[6], kept[7], kept[9]) == (
        user,
        "1700000000",
        "5",
        "1700000100",
        session,
        event["eid"],
        "3",
    )
    assert values["_sp_ses.1fff"] == ["*"]


def test_the_smallest_build_tells_of_page_views_alone(context: BrowserContext, dist: Path) -> None:
    module = f"import {{ pageViews }} from '/lite.js'; window.view = pageViews('{GATEWAY}', {{ appId: 'shop' }});"
    visit = Visit(context, {"/": f"{PAGE}<script type=module>{module}</script>", "/lite.js": (dist / "lite.js").read_bytes()})
    page = visit.open()
    ids = page.evaluate("[view(), view()]")
    sent = visit.wait(2)
    assert [event["eid"] for event in sent] == ids
    shown = {name: sent[0][name] for name in ("e", "aid", "p", "url", "page", "refr", "vp", "lang", "tz")}
    assert shown == {
        "e": "pv",
        "aid": "shop",
        "p": "web",
        "url": f"{SITE}/",
        "page": "Beds & “borders” ☂",
        "refr": "http://forum.example/thread?id=7",
        "vp": "1105x690",
        "lang": "nl-NL",
        "tz": "Europe/Amsterdam",
    }
    assert page.evaluate("[Object.keys(localStorage), document.cookie]") == [[], ""]


# Two seconds of silence, as a WAV file.
SILENCE = """() => {
  const rate = 8000, bytes = new DataView(new ArrayBuffer(44 + 2 * rate));
  const text = (at, s) => [...s].forEach((c, n) => bytes.setUint8(at + n, c.charCodeAt(0)));
  text(0, "RIFF"); text(8, "WAVEfmt "); text(36, "data");
  bytes.setUint32(4, 36 + 2 * rate, true); bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate, true); bytes.setUint32(28, rate, true); bytes.setUint16(32, 1, true); bytes.setUint16(34, 8, true);
  bytes.setUint32(40, 2 * rate, true);
  for (let n = 44; n < bytes.byteLength; n++) bytes.setUint8(n, 128);
  document.querySelector("audio").src = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
}"""


def test_a_recording_tells_how_far_it_was_heard(context: BrowserContext, dist: Path) -> None:
    body = "<audio id=song></audio><button onclick='song.play()'>Play</button>"
    visit = Visit(context, {"/": TAGGED + body, "/sp.js": (dist / "spoorway.js").read_bytes()})
    page = visit.open()
    page.evaluate(
        """(url) => {
          snowplow("newTracker", "sp", url);
          snowplow("enableMediaTracking", document.querySelector("audio"), { boundaries: [25, 50] });
        }""",
        GATEWAY,
    )
    page.evaluate(SILENCE)
    page.click("button")
    page.wait_for_function("document.querySelector('audio').ended", timeout=30_000)
    visit.wait(6)
    page.wait_for_timeout(200)
    told = [json.loads(event["ue_pr"])["data"] for event in visit.sent]
    names = [one["schema"].split("/")[1].removesuffix("_event") for one in told]
    assert sorted(names) == ["end", "pause", "percent_progress", "percent_progress", "play", "ready"]
    assert [one["data"]["percentProgress"] for one in told if "percentProgress" in one["data"]] == [25, 50]
    entities = json.loads(visit.sent[-1]["co"])["data"]
    (player,) = [one["data"] for one in entities if "/media_player/" in one["schema"]]
    assert (player["duration"], player["mediaType"], player["label"], player["volume"]) == (2, "audio", "song", 100)


def sample(kind: str) -> str:
    """The first sample of that language in docs/javascript.md."""
    text = (ROOT / "docs" / "javascript.md").read_text("utf-8")
    found = text.partition(f"```{kind}\n")[2].partition("```")[0]
    assert found
    return found.replace('"sp", "https://events.example.com"', f'"sp", "{GATEWAY}"')


def test_the_documented_tag_tracks(context: BrowserContext, dist: Path) -> None:
    visit = Visit(context, {"/": PAGE + sample("html"), "/sp.js": (dist / "spoorway.js").read_bytes()})
    visit.open()
    assert [event["e"] for event in visit.wait(1)] == ["pv"]


def test_the_documented_modules_track(context: BrowserContext, dist: Path) -> None:
    imports = {"@spoorway/browser": "/index.js", "@spoorway/browser/activity": "/activity.js"}
    page = f"<script type=importmap>{json.dumps({'imports': imports})}</script><script type=module>{sample('js')}</script>"
    files: dict[str, bytes | str] = {f"/{file.name}": file.read_bytes() for file in dist.glob("*.js")}
    visit = Visit(context, {**files, "/": PAGE + page})
    visit.open()
    (event,) = visit.wait(1)
    assert (event["e"], event["aid"]) == ("pv", "shop")
