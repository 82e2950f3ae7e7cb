"""`spoorway ask`: the questions of the SQL pack, with their charts in the terminal. Reads only."""

from __future__ import annotations

import argparse
import json

from protocol.seams import ConfigurationError
from spoorway import asking, building, charting, stores
from spoorway.commands import Subparsers, command, settings
from spoorway.console import table, write_rows
from storage.sql import GROUPS, Question, questions, render
from storage.sql.dialects import DIALECTS


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "ask",
        help="ready questions to the stored events: visits, funnels, emails, levels, sensors, what failed",
        description="Ready questions to the stored events: visits, funnels, emails, levels, sensors, what failed.",
        epilog="examples:\n  spoorway ask list\n  spoorway ask show sessions\n  spoorway ask run sessions --since 30d --chart",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = command(actions, "list", "the questions there are", "spoorway ask list\nspoorway ask list --group game --json")
    listed.add_argument("--group", choices=tuple(GROUPS), help="of one group")
    listed.add_argument("--json", action="store_true", help="one object a line")
    listed.set_defaults(do=_list)
    shown = command(
        actions,
        "show",
        "one question: what it answers, its parameters and columns, and its SQL",
        "spoorway ask show sessions\nspoorway ask show sessions --dialect postgres",
    )
    shown.add_argument("name", metavar="NAME", help="`ask list` has it")
    shown.add_argument("--dialect", choices=tuple(DIALECTS), default="sqlite", help="of the SQL (default: sqlite)")
    shown.add_argument("--json", action="store_true", help="as one object")
    shown.set_defaults(do=_show)
    run = command(
        actions,
        "run",
        "ask one question",
        "spoorway ask run sessions --since 30d --chart\n"
        "spoorway ask run sensor_series --since 24h --set field=humidity_percent --set step_s=900 --json\n"
        "spoorway ask run pages --on 'exports/*.parquet' --format csv",
    )
    run.add_argument("name", metavar="NAME", help="`ask list` has it")
    run.add_argument("--since", metavar="TIME", help="received then or later: 30m, 24h, 7d, 4w ago, or 2026-01-31 (UTC)")
    run.add_argument("--until", metavar="TIME", help="received earlier than that (default: now)")
    run.add_argument("--app", metavar="ID", help="only this application")
    run.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="another parameter; may be repeated")
    run.add_argument(
        "--on", metavar="STORE", default="sqlite", help="sqlite, a target's name, files, postgresql://… (default: sqlite)"
    )
    run.add_argument("--chart", action="store_true", help="draw it")
    run.add_argument("--format", choices=("table", "json", "csv"), default="table", help="json: one object a line")
    run.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    run.set_defaults(do=_run)


def _list(args: argparse.Namespace) -> int:
    known = [one for one in questions().values() if args.group in (None, one.group)]
    if args.json:
        for one in known:
            print(json.dumps(_described(one), ensure_ascii=False))
        return 0
    sections = [(title, [one for one in known if one.group == name]) for name, title in GROUPS.items()]
    print("\n\n".join(_section(title, found) for title, found in sections if found))
    return 0


def _section(title: str, known: list[Question]) -> str:
    widest = max(len(name) for name in questions())
    return "\n".join([title, *(f"  {one.name.ljust(widest)}  {one.about}" for one in known)])


def _described(question: Question) -> dict[str, object]:
    return {
        "name": question.name,
        "group": question.group,
        "about": question.about,
        "parameters": [{"name": p.name, "kind": p.kind, "default": p.default, "about": p.about} for p in question.parameters],
        "columns": [{"name": column.name, "about": column.about} for column in question.columns],
    }


def _show(args: argparse.Namespace) -> int:
    question = asking.named(args.name)
    sql = render(question, DIALECTS[args.dialect])
    if args.json:
        print(json.dumps(_described(question) | {"dialect": args.dialect, "sql": sql}, ensure_ascii=False))
        return 0
    print(question.about)
    if question.notes:
        print(f"\n{question.notes}")
    print("\n" + table(("parameter", "kind", "default", ""), [(p.name, p.kind, p.default, p.about) for p in question.parameters]))
    print("\n" + table(("column", ""), [(column.name, column.about) for column in question.columns]))
    print(f"\n{sql}")
    return 0


def _run(args: argparse.Namespace) -> int:
    question = asking.named(args.name)
    given: dict[str, str] = {}
    for option in args.set:
        name, sign, value = option.partition("=")
        if not sign:
            raise ConfigurationError(f"--set: expected NAME=VALUE, not {option!r}")
        given[name] = value
    given |= {name: getattr(args, name) for name in ("since", "until", "app") if getattr(args, name) is not None}
    if args.chart and (question.chart is None or args.format != "table"):
        raise ConfigurationError(f"--chart: {question.name} has none" if question.chart is None else "--chart: not with --format")
    store = stores.opened(args.on, lambda: settings(args))
    try:
        answer = asking.ask(store, question, given, building.now_ms())
    finally:
        store.close()
    if args.chart and question.chart is not None:
        print(charting.drawn(question.chart, answer.names, answer.rows))
    else:
        write_rows(answer.names, answer.rows, args.format)
    return 0
