"""`spoorway explore`: the stored events in a browser, with ready questions, dashboards and a map. Loopback only; reads only."""

from __future__ import annotations

import argparse
import socket
from contextlib import suppress
from importlib import import_module
from typing import Any

from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, address, command, settings
from spoorway.console import host_text
from spoorway.exploring import application

_LONGEST_S = 86_400
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TILES = "https://tile.openstreetmap.org/{z}/{x}/{y}.png"


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "explore",
        "look at the stored events in a browser: tables, ready questions, dashboards, a map",
        "spoorway explore\nspoorway explore --http :8090 --limit 30\nspoorway explore --map osm",
    )
    parser.add_argument("--http", metavar="HOST:PORT", type=address, default=("127.0.0.1", 8002), help="default: 127.0.0.1:8002")
    parser.add_argument(
        "--limit", metavar="SECONDS", type=float, default=10.0, help="the longest a question may take (default: 10)"
    )
    parser.add_argument(
        "--map", choices=("none", "osm"), default="none", help="osm: the browser fetches map tiles (default: none)"
    )
    parser.set_defaults(do=_explore)


def _explore(args: argparse.Namespace) -> int:
    host, port = args.http
    if host not in _LOOPBACK:
        raise ConfigurationError(f"--http: {host} is no loopback address; put a proxy with a login before it to let others in")
    if not 0 < args.limit <= _LONGEST_S:
        raise ConfigurationError(f"--limit: expected more than 0 seconds, {_LONGEST_S:,} at most")
    app = application(building.database(settings(args)), args.limit, _TILES if args.map == "osm" else "")
    uvicorn: Any = import_module("uvicorn")
    with suppress(ModuleNotFoundError):  # where it is installed, Datasette prints pages of it for each mistyped question
        import_module("rich").reconfigure(quiet=True)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(f"--http: cannot listen on {host_text(host)}:{port}: {error.strerror}") from None
    with listener:
        print(f"http://{host_text(host)}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
    return 0
