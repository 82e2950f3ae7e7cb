"""Records the demo's website visits: real people's clicks in real Chromium, tracked by an official browser tracker.

    python -m tools.record_visit [--out examples/demo/website-visit.ndjson] [--screenshots DIR]

The demo shop (examples/demo/site) and a capture server (tests/peers/capture.py) run on loopback behind made-up names and a
throw-away certificate; a scripted person walks through the shop; every request that the tracker makes becomes one payload
line. What is made up: the visitors' addresses (documentation ranges), their user agents, and the hour: the browser's own
clock is set and wound forward between the steps, so that minutes of reading do not take minutes. One visitor's clock is
wrong on purpose. Needs node, npm, openssl and Chromium; reaches nothing but loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import ssl
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from protocol.payloads import to_json
from protocol.seams import RawPayload
from tests.peers import capture, programs
from tests.peers.browser_peer import ARGUMENTS

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "examples" / "demo" / "site"
SHOP, COLLECTOR = "www.glassandloam.example", "collector.glassandloam.example"
KEPT_HEADERS = {"user-agent", "referer", "origin", "accept-language", "content-type", "sp-anonymous"}

DESKTOP = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36"
PHONE = "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Mobile Safari/537.36"


@dataclass
class Visitor:
    """One person with one browser. clock_error: how far their device's clock is ahead of the true time."""

    ip: str
    agent: str
    locale: str
    timezone: str
    size: tuple[int, int]
    arrives: datetime
    walk: Callable[[Walker], Awaitable[None]]
    clock_error: timedelta = timedelta()
    anonymous: bool = False


class Walker:
    """What a person does in the shop; time passes while they read."""

    def __init__(self, page: Page, visitor: Visitor, chance: random.Random) -> None:
        self.page, self._visitor, self._chance = page, visitor, chance

    async def arrive(self, path: str, referrer: str | None = None) -> None:
        await self.page.goto(f"https://{SHOP}/{path}", referer=referrer)
        await self._ready()

    async def read(self, seconds: int) -> None:
        """Look around for a while: the mouse moves and the page scrolls, as the activity tracking wants to see."""
        width, height = self._visitor.size
        for _ in range(max(1, seconds // 10)):
            await self.page.mouse.move(self._chance.randrange(40, width - 40), self._chance.randrange(120, height - 40))
            await self.page.mouse.wheel(0, self._chance.choice((0, 120, 240, 400, -200)))
            await self.page.clock.run_for(min(seconds, 10) * 1000 + self._chance.randrange(900))

    async def follow(self, selector: str) -> None:
        """Click a link and wait for the page behind it."""
        async with self.page.expect_navigation():
            await self.page.click(selector)
        await self._ready()

    async def click(self, selector: str) -> None:
        await self.page.click(selector)
        await self.page.clock.run_for(self._chance.randrange(800, 2_500))

    async def write(self, selector: str, text: str) -> None:
        await self.page.click(selector)
        await self.page.keyboard.type(text)
        await self.page.clock.run_for(self._chance.randrange(3_000, 9_000))

    async def choose(self, selector: str, value: str) -> None:
        await self.page.focus(selector)
        await self.page.select_option(selector, value)
        await self.page.clock.run_for(self._chance.randrange(900, 3_000))

    async def later(self, pause: timedelta) -> None:
        """Closes the page and comes back another time."""
        await self.page.goto("about:blank")
        await self.page.clock.fast_forward(int(pause.total_seconds() * 1000))

    async def _ready(self) -> None:
        await self.page.wait_for_selector("html[data-ready]")
        await self.page.clock.run_for(self._chance.randrange(300, 1_500))


# ---- the people -----------------------------------------------------------------------------------------------------


async def buys_after_the_letter(w: Walker) -> None:
    """Comes from the monthly letter, buys, and returns next evening to sign up a friend."""
    letter = "utm_source=letter&utm_medium=email&utm_campaign=march&utm_content=seed-table"
    await w.arrive(f"index.html?{letter}")
    await w.read(20)
    await w.follow("#hero")
    await w.read(30)
    await w.follow("a[href='products.html?category=seeds']")
    await w.read(10)
    await w.follow("#products a[data-sku='TS-2']")
    await w.read(40)
    await w.choose("#quantity", "3")
    await w.click("#buy button")
    await w.follow("#others a[data-sku='PT-24']")
    await w.read(20)
    await w.click("#buy button")
    await w.follow("#checkout")
    await w.read(10)
    for name, text in (
        ("name", "Ada Green"),
        ("email", "ada@example.org"),
        ("street", "Potters Row 4"),
        ("postcode", "1012 AB"),
        ("town", "Amsterdam"),
    ):
        await w.write(f"#{name}", text)
    await w.choose("#delivery", "bicycle")
    async with w.page.expect_navigation(url="**/thanks.html"):
        await w.page.click("#order button")
    await w.page.wait_for_selector("html[data-ready]")
    await w.read(10)
    await w.later(timedelta(hours=33, minutes=12))
    await w.arrive("sign-up.html")
    await w.read(20)
    await w.write("#name", "Bea")
    await w.write("#email", "bea@example.net")
    await w.choose("#plot", "greenhouse")
    await w.click("#agree")
    await w.click("#sign-up button")
    await w.read(10)


async def searches_on_a_phone(w: Walker) -> None:
    """Comes from a post, searches twice, fills a basket and leaves it. Their clock is seven minutes fast."""
    await w.arrive(
        "product.html?sku=CF-90&utm_source=fediverse&utm_medium=social&utm_campaign=cold-frames", "https://social.example/@frames"
    )
    await w.read(30)
    await w.follow("header nav a[href='search.html']")
    await w.write("#q", "glas house")
    await w.follow("#search button")
    await w.read(10)
    await w.page.fill("#q", "")
    await w.write("#q", "glass")
    await w.follow("#search button")
    await w.read(20)
    await w.follow("#found a[data-sku='CF-90']")
    await w.read(20)
    await w.click("#buy button")
    await w.follow("#checkout")
    await w.read(20)
    await w.write("#name", "C")


async def looks_around_unknown(w: Walker) -> None:
    """Asked not to be known: no ids, no address. Comes from a search engine and follows a link out of the shop."""
    await w.arrive("index.html", "https://search.example/?q=max+min+thermometer")
    await w.read(20)
    await w.follow("#favourites a[data-sku='TH-1']")
    await w.read(30)
    await w.follow("header nav a[href='products.html']")
    await w.read(20)
    await w.follow("a[href='products.html?category=tools']")
    await w.read(10)
    await w.click("#to-wiki")


async def compares_and_collects(w: Walker) -> None:
    """Looks at three things in one sitting, orders the bench and the shears for collection, comes back to look again."""
    await w.arrive("products.html?category=frames&gclid=Cj0KCQiA-demo", "https://search.example/")
    await w.read(20)
    for sku, seconds in (("CF-90", 30), ("PB-1", 40)):
        await w.follow(f"#products a[data-sku='{sku}']")
        await w.read(seconds)
        if sku == "PB-1":
            await w.click("#buy button")
        await w.follow("header nav a[href='products.html']")
        await w.read(10)
    await w.follow("#products a[data-sku='SH-7']")
    await w.read(20)
    await w.choose("#quantity", "2")
    await w.click("#buy button")
    await w.follow("#checkout")
    for name, text in (
        ("name", "Dov"),
        ("email", "dov@example.com"),
        ("street", "Lehmweg 9"),
        ("postcode", "20251"),
        ("town", "Hamburg"),
    ):
        await w.write(f"#{name}", text)
    await w.choose("#delivery", "collect")
    await w.choose("#payment", "invoice")
    async with w.page.expect_navigation(url="**/thanks.html"):
        await w.page.click("#order button")
    await w.page.wait_for_selector("html[data-ready]")
    await w.later(timedelta(hours=2))
    await w.arrive("product.html?sku=SH-7")
    await w.read(20)


def visitors() -> list[Visitor]:
    def at(day: int, hour: int, minute: int) -> datetime:
        return datetime(2026, 3, day, hour, minute, 11, tzinfo=UTC)

    return [
        Visitor("198.51.100.23", DESKTOP, "nl-NL", "Europe/Amsterdam", (1280, 860), at(2, 8, 14), buys_after_the_letter),
        Visitor(
            "203.0.113.187",
            PHONE,
            "en-GB",
            "Europe/London",
            (390, 844),
            at(2, 11, 47),
            searches_on_a_phone,
            clock_error=timedelta(minutes=7, seconds=3),
        ),
        Visitor("192.0.2.61", DESKTOP, "fr-FR", "Europe/Paris", (1440, 900), at(2, 19, 2), looks_around_unknown, anonymous=True),
        Visitor("2001:db8:42:7::1c", WINDOWS, "de-DE", "Europe/Berlin", (1366, 768), at(3, 17, 31), compares_and_collects),
    ]


# ---- the recording --------------------------------------------------------------------------------------------------


def sent_ms(payload: RawPayload) -> int:
    """When the visitor's browser says that it sent the request."""
    if payload.body is None:
        return int(parse_qs(payload.query)["stm"][0])
    return max(int(event["stm"]) for event in json.loads(payload.body)["data"])


def as_received(payload: RawPayload, visitor: Visitor, chance: random.Random) -> RawPayload:
    """The payload as the visitor's own collector would have seen it: true time, their address, no header beyond those kept."""
    error = int(visitor.clock_error.total_seconds() * 1000)
    return replace(
        payload,
        received_ms=sent_ms(payload) - error + chance.randrange(18, 140),
        headers=tuple((name, value) for name, value in payload.headers if name.lower() in KEPT_HEADERS),
        ip=None if visitor.anonymous else visitor.ip,
        host=COLLECTOR,
    )


def shop(script: str) -> web.Application:
    app = web.Application()

    async def tracker(_: web.Request) -> web.Response:
        return web.Response(text=script, content_type="text/javascript")

    app.router.add_get("/tracker.js", tracker)
    app.router.add_static("/", SITE)
    return app


async def visit(browser: Browser, visitor: Visitor, chance: random.Random, screenshots: Path | None) -> None:
    context: BrowserContext = await browser.new_context(
        user_agent=visitor.agent,
        locale=visitor.locale,
        timezone_id=visitor.timezone,
        viewport={"width": visitor.size[0], "height": visitor.size[1]},
        ignore_https_errors=True,  # the certificate is our own
        service_workers="block",
    )
    context.set_default_timeout(15_000)
    page = await context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    await page.clock.install(time=visitor.arrives + visitor.clock_error)
    walker = Walker(page, visitor, chance)
    await visitor.walk(walker)
    if screenshots is not None:
        await page.screenshot(path=screenshots / f"{visitor.walk.__name__}.png")
    await page.clock.run_for(2_000)
    await page.wait_for_timeout(300)  # of the page's own clock; the requests under way are answered in between
    await context.close()
    if troubles:
        raise RuntimeError(f"{visitor.walk.__name__}: {troubles}")


def throw_away_tls(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate of its own that nobody else knows."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=glassandloam.example"]
    subprocess.run([*request, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls


@asynccontextmanager
async def serving(tls: ssl.SSLContext, *apps: web.Application) -> AsyncGenerator[list[int]]:
    """The ports of the running applications, on loopback."""
    runners = [web.AppRunner(app) for app in apps]
    ports: list[int] = []
    try:
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            ports.append(runner.addresses[0][1])
        yield ports
    finally:
        for runner in runners:
            await runner.cleanup()


async def record(tls: ssl.SSLContext, bundle: str, screenshots: Path | None) -> list[RawPayload]:
    """Every visitor's requests, in the order in which they were received. bundle: the tracker as a classic script."""
    chance = random.Random(1987)
    received: list[RawPayload] = []
    async with async_playwright() as playwright:
        for visitor in visitors():
            options = {
                # The browser keeps a cookie's life by the true hour, not by the one it was told.
                "stateStorageStrategy": "localStorage",
                "anonymousTracking": {"withServerAnonymisation": True} if visitor.anonymous else False,
            }
            tracking = json.dumps({"collector": f"https://{COLLECTOR}", "options": options})
            captured: list[RawPayload] = []
            apps = (shop(f"{bundle}\nwindow.tracking = {tracking};"), capture.application(captured.append))
            async with serving(tls, *apps) as (shop_port, collector_port):
                rules = f"MAP {SHOP} 127.0.0.1:{shop_port}, MAP {COLLECTOR} 127.0.0.1:{collector_port}, MAP * ~NOTFOUND"
                browser = await playwright.chromium.launch(
                    executable_path=programs.CHROMIUM, args=[*ARGUMENTS, f"--host-resolver-rules={rules}"]
                )
                await visit(browser, visitor, chance, screenshots)
                await browser.close()
            received += [as_received(payload, visitor, chance) for payload in captured]
    return sorted(received, key=lambda payload: payload.received_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "demo" / "website-visit.ndjson")
    parser.add_argument("--screenshots", type=Path, help="a folder for one picture of each visitor's last page")
    options = parser.parse_args()
    programs.install()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = programs.bundle("v4.js", Path(scratch, "tracker.js")).read_text("utf-8")
        received = asyncio.run(record(throw_away_tls(Path(scratch)), bundle, options.screenshots))
    options.out.write_bytes(b"".join(to_json(payload) + b"\n" for payload in received))
    print(f"{len(received)} payloads in {options.out}")


if __name__ == "__main__":
    main()
