"""Drives an official browser tracker in a real Chromium and prints as JSON what a visitor did and what the browser showed.

    python tests/peers/browser_peer.py http://127.0.0.1:8080 --bundle peer.js \
        [--generation v3|v4|newest] [--method get|post|beacon] [--base64 on|off] [--anonymous]

The pages are at http://shop.test/, which only this browser knows; every other name but the collector's address is unknown
to it. Calls that calls.json describes are made with its arguments; what a person does (links, forms, scrolling) is done
with a mouse and a keyboard. Nothing here knows a wire parameter but the event's id.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
HOST = "shop.test"
_SECONDS = 15

START = """(options) => {
  const tracked = { afterTrack: (payload) => window.tracked(payload.eid) };
  const configuration = {
    appId: options.app_id, encodeBase64: options.base64, eventMethod: options.method,
    cookieSecure: false, cookieSameSite: "Lax",  // the page is plain HTTP
    anonymousTracking: options.anonymous ? { withServerAnonymisation: true } : false,
    contexts: { webPage: true, session: true },
    plugins: [...peer.plugins(), tracked],
  };
  window.tracker = peer.newTracker(options.namespace, options.url, configuration);
  if (!options.anonymous) peer.setUserId(options.user_id);
  if (peer.enableLinkClickTracking) peer.enableLinkClickTracking({ trackContent: true });
  if (peer.enableFormTracking) peer.enableFormTracking();
}"""
QUEUED = """() => Object.entries(localStorage)
  .filter(([name, value]) => name.startsWith("snowplowOutQueue") && !name.endsWith(".expires") && value !== "[]").length"""


class Visit:
    """The page, and which event ids each step of the visit got."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.steps: list[dict[str, Any]] = []
        self.tracked: list[str] = []
        page.expose_function("tracked", self._note)  # pyright: ignore[reportUnknownMemberType]

    def _note(self, event_id: str) -> None:
        self.tracked.append(event_id)

    def step(self, name: str, act: Callable[[], object], events: int = 1, leaves: bool = False) -> None:
        """Does one thing and waits for the events that it makes. leaves: the events belong to the page that it leaves."""
        before, facts = len(self.tracked), self.facts() if leaves else None
        act()
        deadline = time.monotonic() + _SECONDS
        while len(self.tracked) < before + events:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name}: {len(self.tracked) - before} of {events} events")
            self.page.wait_for_timeout(10)
        self.steps.append({"name": name, "event_ids": self.tracked[before:], "facts": facts or self.facts()})

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.page.evaluate("({ ...facts(), page_view_id: tracker.getPageViewId() })")
        return facts

    def call(self, name: str, method: str, argument: object, events: int = 1) -> None:
        """One call of the tracker's own interface."""
        self.step(name, lambda: self.page.evaluate("([name, argument]) => peer[name](argument)", [method, argument]), events)


def walk(visit: Visit, options: dict[str, Any], calls: dict[str, Any], generation: str) -> None:
    """The whole visit. calls: those of calls.json, by name."""
    _arrive(visit, options)
    for name in ("struct", "struct_bare"):
        visit.call(name, "trackStructEvent", _arguments(calls, name))
    described = calls["self_describing"]
    visit.call(
        "self_describing",
        "trackSelfDescribingEvent",
        {
            "event": described["arguments"]["event"],
            "context": described["arguments"]["entities"],
            "timestamp": {"type": "ttm", "value": described["true_timestamp_ms"]},
        },
    )
    if generation == "newest":  # the rest needs plugins
        return
    _fill_in(visit)
    (_shop_v4 if generation == "v4" else _shop_v3)(visit, calls)
    _leave(visit, options)


def _arguments(calls: dict[str, Any], name: str, **renamed: str) -> dict[str, Any]:
    arguments: dict[str, Any] = calls[name]["arguments"]
    return {renamed.get(name, name): value for name, value in arguments.items() if value is not None}


def _arrive(visit: Visit, options: dict[str, Any]) -> None:
    page = visit.page
    page.goto(f"http://{HOST}/beds/?q=a%20b&utm_source=news#top", referer="http://forum.example/thread?id=7")
    page.evaluate(START, options)
    page.evaluate("peer.enableActivityTracking({ minimumVisitLength: 1, heartbeatDelay: 1 })")
    visit.call("page_view", "trackPageView", {})
    page.mouse.move(200, 200)
    page.mouse.wheel(0, 300)
    visit.step("page_ping", lambda: None)  # a second one may slip in before the next line
    page.evaluate("peer.disableActivityTracking()")


def _fill_in(visit: Visit) -> None:
    page = visit.page
    visit.step("focus", lambda: page.focus("#email"))
    page.keyboard.type("zoë@example.org")
    visit.step("change_and_focus", lambda: page.focus("#colour"), events=2)
    visit.step("choose", lambda: page.select_option("#colour", "blue"))
    page.evaluate("document.activeElement.blur()")
    visit.step("submit", lambda: page.click("#sign-up button"))


def _shop_v4(visit: Visit, calls: dict[str, Any]) -> None:
    search = _arguments(calls, "site_search", total_results="totalResults", page_results="pageResults")
    visit.call("site_search", "trackSiteSearch", search)
    visit.call("social_interaction", "trackSocialInteraction", _arguments(calls, "social_interaction"))
    product = {"id": "WC-10", "name": "Watering can 10 l", "category": "watering", "price": 24.95, "currency": "EUR"}
    bought = {"currency": "EUR", "products": [product | {"quantity": 2}]}
    visit.call("product_view", "trackProductView", product)
    visit.call("shop_add_to_cart", "trackAddToCart", bought | {"total_value": 49.9})
    order = {"transaction_id": "order/77", "revenue": 56.85, "payment_method": "card", "shipping": 6.95}
    visit.call("shop_transaction", "trackTransaction", bought | order)


def _shop_v3(visit: Visit, calls: dict[str, Any]) -> None:
    page = visit.page
    visit.call("add_to_cart", "trackAddToCart", _arguments(calls, "add_to_cart", unit_price="unitPrice"))
    visit.call("remove_from_cart", "trackRemoveFromCart", _arguments(calls, "remove_from_cart", unit_price="unitPrice"))
    order = _arguments(calls, "transaction", order_id="orderId")
    items = order.pop("items")
    page.evaluate("(order) => peer.addTrans(order)", order)
    for item in items:
        page.evaluate("(item) => peer.addItem(item)", item | {"orderId": order["orderId"], "currency": order["currency"]})
    visit.step("transaction", lambda: page.evaluate("peer.trackTrans()"), events=3)
    product = {"id": "WC-10", "name": "Watering can 10 l", "price": 24.95, "quantity": 2, "currency": "EUR"}
    page.evaluate("(product) => peer.addEnhancedEcommerceProductContext(product)", product)
    visit.call("enhanced_action", "trackEnhancedEcommerceAction", {"action": "add"})


def _leave(visit: Visit, options: dict[str, Any]) -> None:
    """The link leaves the page: its event has to survive that, in the queue or in a request that outlives the page."""
    page = visit.page

    def follow() -> None:
        with page.expect_navigation():
            page.click("#next")
        page.evaluate(START, options)

    visit.step("link_click", follow, leaves=True)
    visit.call("next_page_view", "trackPageView", {})


@contextmanager
def site(script: Path) -> Generator[int]:
    """The pages on a free loopback port: page.html under every path, the tracker under /peer.js."""
    page, code = (FOLDER / "browser" / "page.html").read_bytes(), script.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_script = self.path == "/peer.js"
            body = code if is_script else page if self.path != "/favicon.ico" else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript" if is_script else "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the collector, http://127.0.0.1:port")
    parser.add_argument("--bundle", type=Path, required=True, help="the tracker as a classic script (esbuild)")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--generation", choices=("v3", "v4", "newest"), default="v4")
    parser.add_argument("--method", choices=("get", "post", "beacon"), default="post")
    parser.add_argument("--base64", choices=("on", "off"), default="off")
    parser.add_argument("--anonymous", action="store_true")
    options = parser.parse_args()
    table = json.loads((FOLDER / "calls.json").read_text("utf-8"))
    started = {
        "url": options.url,
        "app_id": table["tracker"]["app_id"],
        "namespace": table["tracker"]["namespace"],
        "user_id": table["subject"]["user_id"],
        "method": options.method,
        "base64": options.base64 == "on",
        "anonymous": options.anonymous,
    }
    collector = urlsplit(str(options.url)).hostname
    with site(options.bundle) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium,
            args=[*ARGUMENTS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1:{port}, MAP * ~NOTFOUND, EXCLUDE {collector}"],
        )
        context = browser.new_context(
            viewport={"width": 1105, "height": 690}, locale="nl-NL", timezone_id="Europe/Amsterdam", reduced_motion="reduce"
        )
        page = context.new_page()
        console: list[str] = []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        made = Visit(page)
        walk(made, started, {call["name"]: call for call in table["calls"]}, options.generation)
        page.wait_for_function(f"({QUEUED})() === 0", timeout=_SECONDS * 1000)
        browser.close()
    print(json.dumps({"steps": made.steps, "tracked": made.tracked, "console": console}))


if __name__ == "__main__":
    main()
