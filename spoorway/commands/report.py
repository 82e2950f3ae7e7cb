"""`spoorway report`: what the stored events say, as one HTML page with charts and tables. Reads only."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from protocol.seams import ConfigurationError
from spoorway import asking, building, stores
from spoorway.commands import Subparsers, command, settings
from spoorway.console import complain, tracked
from spoorway.reporting import Asked, page
from storage.rows import timestamp
from storage.sql import GROUPS, questions


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "report",
        "write one HTML page with charts and tables of everything that was asked",
        "spoorway report\n"
        "spoorway report --since 30d --app shop --group web --group shop --output shop.html\n"
        "spoorway report --on 'exports/*.parquet'",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, default=Path("report.html"), help="default: report.html, replaced")
    parser.add_argument("--title", default="What the events say", help="at the top of the page")
    parser.add_argument("--since", metavar="TIME", help="for every question: 24h, 7d, 4w ago, or 2026-01-31 (default: its own)")
    parser.add_argument("--until", metavar="TIME", help="received earlier than that (default: now)")
    parser.add_argument("--app", metavar="ID", help="only this application")
    parser.add_argument("--group", choices=tuple(GROUPS), action="append", help="only this group; may be repeated")
    parser.add_argument("--on", metavar="STORE", default="sqlite", help="as of `ask run`")
    parser.add_argument("--json", action="store_true", help="say what was written as one object")
    parser.set_defaults(do=_report)


def _report(args: argparse.Namespace) -> int:
    given = {name: getattr(args, name) for name in ("since", "until", "app") if getattr(args, name) is not None}
    now_ms = building.now_ms()
    wanted = [one for one in questions().values() if not args.group or one.group in args.group]
    asked: list[Asked] = []
    unanswered: list[str] = []
    store = stores.opened(args.on, lambda: settings(args))
    try:
        for question in tracked("asking", wanted):
            period = asking.bound(question, given, now_ms)
            try:
                answer = asking.ask(store, question, given, now_ms)
            except ConfigurationError as error:  # a store without failed events, one question that takes too long: not all of it
                complain(f"{question.name}: {error}")
                unanswered.append(question.name)
                continue
            if not answer.rows:
                unanswered.append(question.name)
            command_again = again(question.name, given, args.on)
            asked.append(Asked(answer, str(period["since"])[:16], str(period["until"])[:16], command_again))
    finally:
        store.close()
    text = page(args.title, asked, unanswered, (timestamp(now_ms) or "")[:16])
    fresh = args.output.with_name(f"{args.output.name}.new")
    try:
        fresh.write_text(text, "utf-8")
        os.replace(fresh, args.output)
    except OSError as error:
        raise ConfigurationError(f"{args.output}: {error.strerror}") from None
    answered = len(wanted) - len(unanswered)
    if args.json:
        print(json.dumps({"file": str(args.output), "answered": answered, "unanswered": unanswered, "bytes": len(text.encode())}))
    else:
        print(f"{args.output}: {answered} questions answered, {len(unanswered)} with nothing to say")
    return 0


def again(name: str, given: Mapping[str, str], on: str) -> str:
    """The command that asks it again. A page is handed around: where a database is, and its password, is not told on it."""
    words = ["spoorway", "ask", "run", name]
    for option, value in given.items():
        words += [f"--{option}", value]
    if on != "sqlite":
        words += ["--on", "postgresql://…" if "://" in on or "=" in on else on]
    return shlex.join(words)
