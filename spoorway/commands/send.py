"""`spoorway send`: one event from the command line, through the same door as any tracker's."""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import Any

from protocol.seams import ConfigurationError
from spoorway import __version__
from spoorway.commands import Subparsers, command, settings
from spoorway.files import read_json, running

_PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
_UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
_CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
_TIMEOUT_S = 10


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "send",
        "send one event",
        "spoorway send --app shed --category door --action open\n"
        "spoorway send --app shed --schema iglu:com.acme/reading/jsonschema/1-0-0 --json '{\"value\": 21.5}'\n"
        "spoorway send --app site --page-url https://example.com/ --title Home",
    )
    parser.add_argument("--app", required=True, help="application id")
    parser.add_argument("--url", help="the gateway (default: the one that runs on the data folder)")
    parser.add_argument("--platform", default="srv", help="web, mob, pc, srv, app, tv, cnsl, iot or headset (default: srv)")
    parser.add_argument("--user", help="user id")
    parser.add_argument("--schema", help="Iglu URI of a self-describing event")
    parser.add_argument("--json", metavar="JSON", help="its data; - reads standard input")
    parser.add_argument("--entity", action="append", default=[], metavar="JSON", help='{"schema": …, "data": …}; may be repeated')
    for name, about in (("category", "structured event"), ("action", "structured event"), ("label", ""), ("property", "")):
        parser.add_argument(f"--{name}", help=about or argparse.SUPPRESS)
    parser.add_argument("--value", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--page-url", help="page view")
    parser.add_argument("--title", help="page title")
    parser.set_defaults(do=_send)


def _send(args: argparse.Namespace) -> int:
    event = _event(args)
    url = args.url or _running_url(args)
    body = json.dumps({"schema": _PAYLOAD_DATA, "data": [event]}).encode()
    path, headers = "/com.snowplowanalytics.snowplow/tp2", {"Content-Type": "application/json; charset=utf-8"}
    try:
        request = urllib.request.Request(url.rstrip("/") + path, body, headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            print(event["eid"])
            return 0
    except urllib.error.HTTPError as error:
        with error:
            why = f"{error.code} {error.reason}"
    except (OSError, ValueError, HTTPException) as error:
        why = str(getattr(error, "reason", error))
    raise ConfigurationError(f"{url} did not take the event: {why}")


def _event(args: argparse.Namespace) -> dict[str, str]:
    now = str(time.time_ns() // 1_000_000)
    event = {"eid": str(uuid.uuid4()), "dtm": now, "stm": now, "aid": args.app, "p": args.platform, "tv": f"cli-{__version__}"}
    if args.user:
        event["uid"] = args.user
    if args.schema:
        event |= {
            "e": "ue",
            "ue_pr": json.dumps({"schema": _UNSTRUCT, "data": {"schema": args.schema, "data": _data(args.json)}}),
        }
    elif args.page_url:
        event |= {"e": "pv", "url": args.page_url} | ({"page": args.title} if args.title else {})
    elif args.category and args.action:
        event |= {"e": "se", "se_ca": args.category, "se_ac": args.action}
        event |= {"se_la": args.label} if args.label else {}
        event |= {"se_pr": args.property} if args.property else {}
        event |= {"se_va": repr(args.value)} if args.value is not None else {}
    else:
        raise ConfigurationError("say what happened: --schema and --json, --category and --action, or --page-url")
    if args.entity:
        event["co"] = json.dumps({"schema": _CONTEXTS, "data": [_parsed(text, "--entity") for text in args.entity]})
    return event


def _data(text: str | None) -> Any:
    return _parsed(sys.stdin.read() if text == "-" else text or "{}", "--json")


def _parsed(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: not JSON: {error}") from None


def _running_url(args: argparse.Namespace) -> str:
    data: Path = settings(args).data
    state = read_json(running(data))
    urls = (state or {}).get("urls", {}).get("http", [])
    if not urls:
        raise ConfigurationError(f"no gateway runs on {data}; start `spoorway run`, or say --url")
    return str(urls[0])
