"""`spoorway micro`: the test server, until a signal."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from spoorway import __version__
from spoorway.commands import Subparsers, address, command

if TYPE_CHECKING:
    from spoorway.config import Settings
    from spoorway.micro.records import Record

_HTTP = "gateway.transports.http"
# Where it listens is never the configuration's, which says where the real gateway does.
_LISTEN = ("127.0.0.1", 9090)
# What tests written for Micro rely on, unless the configuration says otherwise: an id for every visitor, every header kept.
_DEFAULTS: dict[str, Any] = {f"{_HTTP}.cookie.enabled": True, f"{_HTTP}.stored_headers": ["*"], f"{_HTTP}.stop_timeout_s": 1.0}
# A request that waits for events is answered after 60 s at most; this is when the gateway would give up on it.
_ACCEPT_TIMEOUT_S = 90.0


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "micro",
        "a test server: takes events as the gateway does, keeps them in memory, answers /micro/good and /micro/bad",
        "spoorway micro\nspoorway micro --http 127.0.0.1:0 --json --schemas ./schemas\n"
        "curl http://127.0.0.1:9090/micro/all\ncurl 'http://127.0.0.1:9090/micro/good?app_id=shop&wait=2'",
    )
    parser.add_argument("--http", metavar="HOST:PORT", type=address, default=_LISTEN, help="default: 127.0.0.1:9090")
    parser.add_argument(
        "--schemas",
        metavar="DIR",
        action="append",
        default=[],
        help="your schemas, VENDOR/NAME/jsonschema/VERSION; may be repeated",
    )
    parser.add_argument("--insecure-cookie", action="store_true", help="without Secure, SameSite=Lax: for tests over plain HTTP")
    parser.add_argument("--cookie-name", metavar="NAME", help="default: sp")
    parser.add_argument("--cors", action="store_true", help="let pages of other origins read /micro")
    parser.add_argument("--max-events", metavar="N", type=_positive, help="keep so many at most (default: 10000)")
    parser.add_argument("--max-bytes", metavar="N", type=_positive, help="of JSON, at most (default: 67108864)")
    parser.add_argument("--json", action="store_true", help="say when it is ready in one line of JSON")
    parser.add_argument("--quiet", action="store_true", help="no line per event on standard error")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input is closed")
    parser.set_defaults(do=_micro)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def _micro(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return asyncio.run(_serve(args, settings(args)))


def settings(args: argparse.Namespace) -> Settings:
    """The configuration as the test server reads it. Raises ConfigurationError."""
    from spoorway.config import load

    config: Path | None = args.config
    given: dict[str, Any] = {"data": args.data, f"{_HTTP}.cookie.name": args.cookie_name}
    configured = load(config, given)
    flags = {place: value for place, value in _DEFAULTS.items() if place not in configured.sources} | given
    flags |= {f"{_HTTP}.host": args.http[0], f"{_HTTP}.port": args.http[1], f"{_HTTP}.reuse_port": False}
    flags[f"{_HTTP}.accept_timeout_s"] = _ACCEPT_TIMEOUT_S
    if args.insecure_cookie:
        flags |= {f"{_HTTP}.cookie.secure": False, f"{_HTTP}.cookie.same_site": "Lax"}
    if args.schemas:
        flags["enrich.schemas"] = [*configured.enrich.schemas, *args.schemas]
    return load(config, flags)


async def _serve(args: argparse.Namespace, found: Settings) -> int:
    from spoorway.building import now_ms
    from spoorway.micro.records import Recorder
    from spoorway.micro.server import Micro
    from spoorway.micro.store import Bounds, Store

    http = next(instance.config for instance in found.transports() if instance.name == "http")
    bounds = Bounds()
    store = Store(Bounds(args.max_events or bounds.max_events, args.max_bytes or bounds.max_bytes))
    micro = Micro(http, Recorder(found), store, now_ms, None if args.quiet else _say, cors=args.cors)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    if args.with_parent:
        Thread(target=_await_parent, args=(loop, ending), name="parent", daemon=True).start()
    await micro.start()
    try:
        _announce(micro.http.addresses, args.json)
        await ending.wait()
    finally:
        await micro.stop()
    return 0


def _await_parent(loop: asyncio.AbstractEventLoop, ending: asyncio.Event) -> None:
    """Sets `ending` when our standard input is closed: its other end is finished with us, or gone."""
    while os.read(0, 4096):  # not sys.stdin: a thread inside it at our own end would stop the interpreter from ending
        pass
    with suppress(RuntimeError):  # we are ending already
        loop.call_soon_threadsafe(ending.set)


def _announce(addresses: list[tuple[str, int]], as_json: bool) -> None:
    host, port = addresses[0]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        print(json.dumps({"url": url, "pid": os.getpid(), "version": __version__}), flush=True)
        return
    print(f"spoorway micro {__version__}, a test server: nothing is written to disk")
    print(f"  events  {url}   POST /com.snowplowanalytics.snowplow/tp2, GET /i")
    print(f"  answers {url}/micro/all   /micro/good, /micro/bad, /micro/reset")
    print("ready", flush=True)


def _say(record: Record) -> None:
    from spoorway.console import printable

    print(printable(record.label)[:1_000], file=sys.stderr)
