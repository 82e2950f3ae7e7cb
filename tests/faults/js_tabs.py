"""Tabs that open, crash and close in bad weather: every event that a browser kept is in SQL exactly once.

A real Chromium with the JavaScript tracker, a real gateway, and between them a network that refuses, hangs, breaks off and
goes away. Each schedule is a profile of its own with several tabs. At its end the visitor comes back an hour later in good
weather; what he had tracked must then all be stored.

    python -m tests.faults.js_tabs --schedules 200 --navigations 500 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp
import orjson
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, Playwright, async_playwright
from playwright.async_api import Error as BrowserError

from tests.end_to_end.conftest import Running
from tests.peers.browser_peer import ARGUMENTS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "gateway" / "http" / "script" / "spoorway.js"
TP2 = "/com.snowplowanalytics.snowplow/tp2"
CHROMIUM = "/usr/bin/chromium"
LATER = "const now = Date.now; Date.now = () => now() + 3600000;"
NO_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });"
# How long the gateway wants a pause is seen in the other tabs 300 ms late, as on a busy computer.
LATE_NEWS = """{
  const real = localStorage, old = {}, fresh = (key) => !(old[key]?.[1] > performance.now());
  addEventListener("storage", ({ key, oldValue }) => (old[key] = [oldValue, performance.now() + 300]));
  Object.defineProperty(window, "localStorage", { value: new Proxy(real, {
    get: (at, key) => (/^spq \\S+[^!]$/.test(key) && !fresh(key) ? old[key][0] : real[key]),
    set: (at, key, value) => (delete old[key], (real[key] = value), true),
    deleteProperty: (at, key) => (delete old[key], delete real[key]),
    ownKeys: () => Reflect.ownKeys(real),
  }) });
}"""
WEATHERS = ("fine", "fine", "busy", "busy_told", "too_fast", "hang", "slow", "lost", "cut", "reset", "small")
DRAIN_S = 40

PAGE = """<!doctype html><meta charset="utf-8"><title>tab</title><script>
  window.snowplow = function () { (snowplow.q = snowplow.q || []).push(arguments) };
  const at = new URLSearchParams(location.search);
  const queue = () => Object.keys(localStorage).filter((key) => /^spq \\S+ /.test(key));
  snowplow("newTracker", "sp", at.get("to"), {
    appId: "chaos", postPath: at.get("path"), connectionTimeout: 1500, contexts: { session: true },
    maxPostBytes: 6000,
  });
  const go = (count, label) => Array.from({ length: count }, (_, n) =>
    snowplow("trackStructEvent", { category: "chaos", action: label, property: String(n) }));
  // Events of a page that is being left: their ids are kept where the events are.
  addEventListener("pagehide", () => {
    if (at.get("leave")) for (const id of go(1, "leave")) localStorage.setItem("left " + id, "");
  });
</script><script src="/spoorway.js"></script>"""


@dataclass
class Weather:
    """What the network does to one profile's requests."""

    kind: str = "fine"
    requests: list[float] = field(default_factory=list[float])
    asked: set[str] = field(default_factory=set[str])  # ids of events that were sent, whatever became of them
    reached: Counter[str] = field(default_factory=Counter[str])  # event id -> how often the gateway got it


@dataclass
class Report:
    schedules: int = 0
    tracked: int = 0
    lost: list[str] = field(default_factory=list[str])
    repeated: int = 0  # rows beyond the first of an id
    resent: int = 0  # copies that the gateway got beyond the first: who asked for its answer was gone, or never got it
    done: Counter[str] = field(default_factory=Counter[str])
    leftover: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        what = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
        return (
            f"{self.schedules} schedules ({what}): {self.tracked} events, {len(self.lost)} lost, {self.repeated} stored twice, "
            f"{self.resent} copies received beyond the first"
        )


class Network:
    """The page's site, and the way to the gateway. A profile's requests have a path of their own."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self.weathers: dict[str, Weather] = {}
        self.url = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[Network]:
        app = web.Application()
        app.router.add_get("/page", self._page)
        app.router.add_get("/spoorway.js", self._script)
        app.router.add_route("*", "/{profile}/tp2", self._pass_on)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as self._session:
            yield self
        await runner.cleanup()

    def page(self, profile: str, leave: bool = False) -> str:
        """On another origin than the gateway, so that answers need their CORS headers."""
        site = self.url.replace("127.0.0.1", "localhost")
        return f"{site}/page?to={self.url}&path=/{profile}/tp2{'&leave=1' if leave else ''}"

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _script(self, _: web.Request) -> web.Response:
        return web.Response(body=SCRIPT.read_bytes(), content_type="text/javascript")

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        weather = self.weathers[request.match_info["profile"]]
        kind = weather.kind
        if request.method == "OPTIONS":
            return await self._forward(request, b"")
        weather.requests.append(time.monotonic())
        body = await request.read()
        ids = [event["eid"] for event in orjson.loads(body)["data"]]
        weather.asked.update(ids)
        open_to = {
            "Access-Control-Allow-Origin": request.headers.get("Origin", "*"),
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        match kind:
            case "busy":
                return web.Response(status=503, headers=open_to)
            case "busy_told":
                return web.Response(status=503, headers={**open_to, "Retry-After": "2"})
            case "too_fast":
                return web.Response(status=429, headers=open_to)
            case "hang":
                while weather.kind == "hang" and request.transport is not None:  # noqa: ASYNC110 - no event tells of either
                    await asyncio.sleep(0.05)
                return self._break(request)
            case "reset":
                return self._break(request)
            case "small" if len(ids) > 1:
                return web.Response(status=413, headers=open_to)
            case "slow":
                await asyncio.sleep(0.7)
            case _:
                pass
        weather.reached.update(ids)
        answer = await self._forward(request, body)
        if kind in ("lost", "cut"):
            if kind == "cut":
                broken = web.StreamResponse(status=answer.status, headers={**open_to, "Content-Length": "100"})
                await broken.prepare(request)
                await broken.write(b"o")
            return self._break(request)
        return answer

    def _break(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
        async with self._session.request(request.method, self.gateway + TP2, data=body, headers=headers) as answer:
            kept = {n: v for n, v in answer.headers.items() if n.startswith("Access-Control") or n == "Retry-After"}
            return web.Response(status=answer.status, headers=kept, body=await answer.read(), content_type="text/plain")


class Visitor:
    """One profile: what its schedule does, and which events must arrive."""

    def __init__(self, browser: Browser, network: Network, report: Report, name: str, seed: int) -> None:
        self.browser, self.network, self.report, self.name = browser, network, report, name
        self.chance = random.Random(seed)
        self.weather = network.weathers.setdefault(name, Weather())
        self.tracked: set[str] = set()
        self.tabs: list[Page] = []

    async def run(self) -> None:
        context = await self.browser.new_context()
        if self.chance.random() < 0.4:
            self.report.done["without locks"] += 1
            await context.add_init_script(NO_LOCKS)
        most = self.chance.choice((2, 2, 2, 3, 3, 4, 8))
        for _ in range(most):
            await self._open(context)
        for _ in range(self.chance.randint(5, 10)):
            await self._step(context, most)
        await self._come_back(context)
        await context.close()
        self.report.schedules += 1

    async def _open(self, context: BrowserContext) -> None:
        page = await context.new_page()
        await page.goto(self.network.page(self.name, leave=True))
        self.tabs.append(page)

    async def _step(self, context: BrowserContext, most: int) -> None:
        chance = self.chance
        tab = chance.choice(self.tabs) if self.tabs else None
        step = chance.choices(
            ("track", "weather", "wait", "crash", "close", "leave", "offline", "open"), (8, 4, 3, 2, 2, 2, 1, 2)
        )[0]
        if tab is None or (step == "open" and len(self.tabs) < most):
            await self._open(context)
        elif step in ("track", "crash", "close", "leave"):
            # Killed a moment after they were tracked: what had its id is kept.
            self.tracked |= set(await tab.evaluate("([n, label]) => go(n, label)", [chance.randint(1, 6), step]))
            if step == "crash":
                self.tabs.remove(tab)
                await self._crash(tab)
            elif step == "close":
                self.tabs.remove(tab)
                await self._close(tab)
            elif step == "leave":
                await tab.goto(self.network.page(self.name, leave=True))
        elif step == "weather":
            self.weather.kind = chance.choice(WEATHERS)
        elif step == "wait":
            await asyncio.sleep(chance.uniform(0.05, 0.4))
        elif step == "offline":
            await context.set_offline(True)
            self.tracked |= set(await tab.evaluate("([n, label]) => go(n, label)", [chance.randint(1, 4), step]))
            await asyncio.sleep(0.1)
            await context.set_offline(False)
        self.report.done[step] += 1

    async def _close(self, tab: Page) -> None:
        if self.chance.random() < 0.5:
            await tab.close()
            return
        async with asyncio.timeout(10), _event(tab, "close"):
            await tab.close(run_before_unload=True)

    async def _crash(self, tab: Page) -> None:
        session = await tab.context.new_cdp_session(tab)
        async with asyncio.timeout(10), _event(tab, "crash"):
            kill = asyncio.ensure_future(session.send("Page.crash"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownVariableType]
        kill.cancel()
        await asyncio.wait([kill])  # pyright: ignore[reportUnknownArgumentType]
        with contextlib.suppress(BrowserError):
            await tab.close()

    async def _come_back(self, context: BrowserContext) -> None:
        for tab in self.tabs:
            await self._close(tab)
        self.weather.kind = "fine"
        page = await context.new_page()
        await page.add_init_script(LATER)
        await page.goto(self.network.page(self.name))
        self.tracked |= {key[5:] for key in await page.evaluate("Object.keys(localStorage)") if key.startswith("left ")}
        try:
            await page.wait_for_function("queue().length == 0", timeout=DRAIN_S * 1000)
        except BrowserError:
            self.report.leftover.append(f"{self.name}: {await page.evaluate('queue().length')} wait")
        await page.wait_for_timeout(100)
        self.report.resent += self.weather.reached.total() - len(self.weather.reached)
        self.report.tracked += len(self.tracked)


@contextlib.asynccontextmanager
async def _event(tab: Page, name: Literal["close", "crash"]) -> AsyncGenerator[None]:
    """Waits at its end until that has happened to the tab."""
    happened = asyncio.Event()
    tab.on(name, lambda _: happened.set())  # type: ignore[call-overload]
    yield
    await happened.wait()


async def launch(playwright: Playwright) -> Browser:
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])


def verdict(running: Running, tracked: set[str], report: Report) -> None:
    """Compares what was tracked with what is stored; waits for the gateway's loader."""

    def stored() -> dict[str, int]:
        rows = running.query("SELECT event_id, count(*) AS n FROM atomic.events WHERE app_id = 'chaos' GROUP BY 1")
        return {row["event_id"]: row["n"] for row in rows}

    end = time.monotonic() + DRAIN_S
    while tracked - (found := stored()).keys() and time.monotonic() < end:
        time.sleep(0.2)
    report.lost = sorted(tracked - found.keys())
    report.repeated = sum(found.values()) - len(found)


async def tabs(running: Running, schedules: int, seed: int, at_once: int = 3) -> Report:
    report, tracked = Report(), set[str]()
    gate = asyncio.Semaphore(at_once)
    async with Network(running.url).open() as network, async_playwright() as playwright:
        browser = await launch(playwright)

        async def one(number: int) -> None:
            async with gate:
                visitor = Visitor(browser, network, report, f"v{number}", seed * 1_000_003 + number)
                await visitor.run()
                tracked.update(visitor.tracked)

        async with asyncio.TaskGroup() as group:
            for number in range(schedules):
                group.create_task(one(number), name=f"schedule {number}")
        await browser.close()
    await asyncio.to_thread(verdict, running, tracked, report)
    return report


async def navigations(running: Running, count: int) -> Report:
    """The last event of each of so many pages, tracked while the page is left for the next one; the server is slow."""
    report = Report()
    async with Network(running.url).open() as network, async_playwright() as playwright:
        browser = await launch(playwright)
        weather = network.weathers.setdefault("n", Weather(kind="slow"))
        context = await browser.new_context()
        page = await context.new_page()
        for _ in range(count):
            await page.goto(network.page("n", leave=True))
        before_return = set(weather.asked)
        weather.kind = "fine"
        await page.goto(network.page("n"))
        left = {key[5:] for key in await page.evaluate("Object.keys(localStorage)") if key.startswith("left ")}
        await page.wait_for_function("queue().length == 0", timeout=DRAIN_S * 1000)
        report.schedules, report.tracked = count, len(left)
        report.done["events sent before the last page"] = len(left & before_return)
        await browser.close()
    await asyncio.to_thread(verdict, running, left, report)
    return report


async def outage(running: Running, seconds: float = 10, count: int = 4) -> list[int]:
    """Requests that so many tabs, all tracking, make in the first seconds of an outage.

    Three visitors' figures: told to wait, without an answer, and told to wait in a browser without Web Locks.
    """
    async with Network(running.url).open() as network, async_playwright() as playwright:
        browser = await launch(playwright)
        visitors = {"locks-busy": "busy", "locks-reset": "reset", "lease-busy": "busy"}
        pages: list[Page] = []
        for visitor in visitors:
            network.weathers[visitor] = Weather()
            context = await browser.new_context()
            await context.add_init_script(LATE_NEWS)
            if visitor.startswith("lease"):
                await context.add_init_script(NO_LOCKS)
            for _ in range(count):
                page = await context.new_page()
                await page.goto(network.page(visitor))
                pages.append(page)
        for visitor, kind in visitors.items():
            network.weathers[visitor].kind = kind
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for page in pages:
                await page.evaluate("go(2, 'outage')")
            await asyncio.sleep(0.05)
        await browser.close()
        found: list[int] = []
        for visitor in visitors:
            times = network.weathers[visitor].requests
            found.append(sum(1 for each in times if each < times[0] + seconds))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--navigations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder) / "data", [])
        try:
            storm = asyncio.run(tabs(running, options.schedules, options.seed))
            print(storm, *storm.leftover, sep="\n")
            left = asyncio.run(navigations(running, options.navigations))
            print(left)
            most = asyncio.run(outage(running))
            print(
                f"requests of four tabs in the first 10 s: {most[0]} while told to wait ({most[2]} without Web Locks), "
                f"{most[1]} without an answer"
            )
        finally:
            running.stop()
    if storm.lost or storm.repeated or storm.leftover or left.lost or left.repeated or max(most) > 3:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
