"""`spoorway failed`: what could not be understood, why, and another try."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import Any

from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import Settings
from spoorway.console import printable, table, tracked
from spoorway.registry.comeback import picked


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "failed",
        help="list, show and replay failed events",
        description="List, show and replay failed events.",
        epilog="examples:\n  spoorway failed list\n  spoorway failed show ID\n  spoorway failed replay",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = command(
        actions,
        "list",
        "the failed events that wait, newest first",
        "spoorway failed list\nspoorway failed list --kind schema_violations --since 2026-01-31 --json",
    )
    show = command(actions, "show", "one failed event: every reason, and what was sent", "spoorway failed show ID")
    show.add_argument("id", metavar="ID", help="`failed list` has it")
    replay = command(
        actions,
        "replay",
        "try failed events again, after a schema was added, say",
        "spoorway failed replay\nspoorway failed replay --id ID",
    )
    replay.add_argument("--id", metavar="ID", help="only this one")
    for each, limit in ((listing, 50), (replay, 1_000_000_000)):
        each.add_argument("--kind", help="only this kind")
        each.add_argument("--since", metavar="TIME", help="only later ones, such as 2026-01-31 or '2026-01-31 12:00' (UTC)")
        each.add_argument("--limit", metavar="N", type=int, default=limit, help="at most so many")
    for each, do in ((listing, _list), (show, _show), (replay, _replay)):
        each.add_argument("--target", metavar="NAME", help="the target's name (default: the first)")
        each.add_argument("--json", action="store_true", help="one object a line")
        each.set_defaults(do=_failed, act=do)


def _failed(args: argparse.Namespace) -> int:
    found = settings(args)
    instance = building.target_instance(found, args.target)
    target = building.open_target(found, instance)
    if not hasattr(target, "list_failed"):
        raise ConfigurationError(f"target {instance.name}: {instance.use} does not list failed events")
    try:
        code: int = args.act(target, found, args)
        return code
    finally:
        target.close()


def _ms(since: str | None) -> int | None:
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigurationError(f"--since: expected a time such as 2026-01-31 or '2026-01-31 12:00', not {since!r}") from None
    if moment.tzinfo is None:  # times are UTC here, as in every column
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _list(target: Any, found: Settings, args: argparse.Namespace) -> int:
    rows = target.list_failed(kind=args.kind, since_ms=_ms(args.since), limit=args.limit)
    if args.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif rows:
        names = ["failed_tstamp", "kind", "app_id", "first_reason", "failed_id"]
        print(table(names, [[row[name] for name in names] for row in rows]))
    else:
        print("no failed events")
    return 0


def _show(target: Any, found: Settings, args: argparse.Namespace) -> int:
    shown = target.show_failed(args.id)
    if shown is None:
        raise ConfigurationError(f"there is no failed event {args.id}")
    row, payload = shown
    if args.json:
        body = None if payload is None or payload.body is None else payload.body.decode("utf-8", "backslashreplace")
        print(json.dumps({**row, "payload_body": body}, ensure_ascii=False))
        return 0
    print(f"{row['kind']}, {row['failed_tstamp']} UTC, from {row['v_tracker'] or 'an unknown tracker'}")
    for reason in row["reasons"]:
        value = f" (got {printable(reason['value'])})" if reason.get("value") is not None else ""
        where = f"{reason['step']} {reason.get('field', '')}".strip()
        print(f"  {where}: {printable(reason['message'])}{value}")
    if row["parameters"]:
        print("the event as it was sent:")
        print("\n".join(f"  {name} = {printable(str(value))}" for name, value in row["parameters"].items()))
    if payload is not None:
        body = payload.body or b""
        print(f"its payload: {payload.path}{'?' if payload.query else ''}{printable(payload.query)}, {len(body)} bytes of body")
        print("  " + printable(body[:2_000].decode("utf-8", "backslashreplace")))
    return 0


def _replay(target: Any, found: Settings, args: argparse.Namespace) -> int:
    pipeline = building.pipeline(found)
    rows = target.list_failed(kind=args.kind, since_ms=_ms(args.since), limit=args.limit)
    ids = [args.id] if args.id else [row["failed_id"] for row in rows]
    solved = 0
    for failed_id in tracked("replaying", ids):
        shown = target.show_failed(failed_id)
        if shown is None:
            raise ConfigurationError(f"there is no failed event {failed_id}")
        row, payload = shown
        if payload is None:
            continue
        now_ms = time.time_ns() // 1_000_000
        events, failed = picked(list(pipeline.outcomes(payload, now_ms)), row["event_index"])
        if (events or failed) and target.resolve(failed_id, events, failed, now_ms) is not None:
            solved += all(again.id != failed_id for again in failed)
    summary = {"tried": len(ids), "solved": solved, "still_failed": len(ids) - solved}
    print(json.dumps(summary) if args.json else f"{len(ids)} tried, {solved} solved, {len(ids) - solved} still failed")
    return 0
