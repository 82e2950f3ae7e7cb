"""`spoorway failed`: what could not be understood, why, another try, a copy for other tools, an end."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson

from enrich.enrichments import RawEvent
from enrich.pipeline import Pipeline
from protocol.seams import ConfigurationError, Event, FailedEvent, RawPayload
from spoorway import building
from spoorway.badrows import bad_rows
from spoorway.commands import Subparsers, command, moment_ms, settings
from spoorway.config import Settings
from spoorway.confirming import confirm
from spoorway.console import Progress, complain, printable, table, tracked
from spoorway.mending import Mending, Unmended, assignments, script
from spoorway.registry.comeback import picked
from storage.targets import FailedStore

_ALL = 1_000_000_000
_AT_ONCE = 500  # drops in one transaction: other writers wait no longer than that
_SOLVED_AT_ONCE, _BYTES_AT_ONCE = 100, 1 << 20  # likewise; of payloads


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "failed",
        help="list, show, replay, export and drop failed events",
        description="List, show, replay, export and drop failed events.",
        epilog="examples:\n  spoorway failed list\n  spoorway failed show ID\n  spoorway failed replay --set aid=shop\n"
        "  spoorway failed export > bad_rows.ndjson\n  spoorway failed drop --kind adapter_failures",
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
        "spoorway failed replay\nspoorway failed replay --id ID --set aid=shop --set uid=\n"
        "spoorway failed replay --kind schema_violations --script mend.lua",
    )
    replay.add_argument(
        "--set",
        metavar="PARAMETER=VALUE",
        action="append",
        default=[],
        help="change a parameter first; nothing after = takes it away",
    )
    replay.add_argument("--script", metavar="FILE", type=Path, help="a Lua script that changes the parameters (spoorway[lua])")
    export = command(
        actions,
        "export",
        "write failed events as the bad rows that other tools read, one a line",
        "spoorway failed export > bad_rows.ndjson\nspoorway failed export --kind schema_violations --output bad_rows.ndjson",
    )
    export.add_argument("--output", metavar="FILE", type=Path, help="default: standard output")
    drop = command(
        actions,
        "drop",
        "give failed events up for good; that they were stays in the account",
        "spoorway failed drop --id ID\nspoorway failed drop --kind adapter_failures --yes\nspoorway failed drop --all",
    )
    drop.add_argument("--all", action="store_true", help="every failed event that waits")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    for each in (replay, export, drop):
        each.add_argument("--id", metavar="ID", action="append", default=[], help="only this one; may be repeated")
    for each, limit in ((listing, 50), (replay, _ALL), (export, _ALL), (drop, _ALL)):
        each.add_argument("--kind", help="only this kind")
        each.add_argument("--since", metavar="TIME", help="only later ones, such as 2026-01-31 or '2026-01-31 12:00' (UTC)")
        each.add_argument("--limit", metavar="N", type=int, default=limit, help="at most so many")
    for each, do in ((listing, _list), (show, _show), (replay, _replay), (export, _export), (drop, _drop)):
        each.add_argument("--target", metavar="NAME", help="the target's name (default: the first)")
        each.set_defaults(do=_failed, act=do)
    for each in (listing, show, replay, drop):
        each.add_argument("--json", action="store_true", help="one object a line")


def _failed(args: argparse.Namespace) -> int:
    found = settings(args)
    building.data_folder(found)
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
    return None if since is None else moment_ms(since, "--since")


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


def _chosen(target: FailedStore, args: argparse.Namespace) -> list[str]:
    """The ids of the failed events that the options name. Raises ConfigurationError for an id that is unknown."""
    for failed_id in args.id:
        if target.show_failed(failed_id) is None:
            raise ConfigurationError(f"there is no failed event {failed_id}")
    return list(dict.fromkeys(args.id)) or target.failed_ids(kind=args.kind, since_ms=_ms(args.since), limit=args.limit)


def _replay(target: Any, found: Settings, args: argparse.Namespace) -> int:
    if args.set and args.script:
        raise ConfigurationError("--set and --script: one of the two")
    if hasattr(target, "send_again"):
        return _send_again(target, args)
    mending = script(args.script) if args.script else assignments(args.set) if args.set else None
    pipeline = building.pipeline(found)
    ids = _chosen(target, args)
    solved = before = size = 0
    made: list[tuple[str, list[Event], list[FailedEvent]]] = []
    refused: Counter[str] = Counter()
    for failed_id in tracked("replaying", ids):
        shown = target.show_failed(failed_id)
        if shown is None:  # dropped meanwhile
            continue
        row, payload = shown
        if payload is None or row["replayed_tstamp"] is not None:
            before += 1
            continue
        now_ms = building.now_ms()
        try:
            events, failed = _again(pipeline, row, payload, now_ms, mending)
        except Unmended as error:
            refused[str(error)] += 1
            continue
        if events or failed:
            made.append((failed_id, events, failed))
            size += len(payload.body or b"") + len(payload.query)
        if len(made) >= _SOLVED_AT_ONCE or size > _BYTES_AT_ONCE:
            solved += target.resolve_all(made, now_ms)
            made, size = [], 0
    if made:
        solved += target.resolve_all(made, building.now_ms())
    for why, count in refused.most_common(5):
        complain(f"{count} not tried: {printable(why)}")
    if before:
        complain(f"{before} not tried: solved before")
    tried = len(ids) - before
    summary = {"tried": tried, "solved": solved, "still_failed": tried - solved}
    print(json.dumps(summary) if args.json else f"{tried} tried, {solved} solved, {tried - solved} still failed")
    return 0


def _send_again(target: Any, args: argparse.Namespace) -> int:
    """To the upstream that refused them; unchanged, because nothing here looks into them."""
    if args.set or args.script:
        raise ConfigurationError("a relay sends payloads as they came: neither --set nor --script")
    ids = _chosen(target, args)
    solved = sum(target.send_again(failed_id) for failed_id in tracked("sending", ids))
    summary = {"tried": len(ids), "solved": solved, "still_failed": len(ids) - solved}
    print(json.dumps(summary) if args.json else f"{len(ids)} tried, {solved} taken, {len(ids) - solved} still refused")
    return 0


def _again(
    pipeline: Pipeline, row: dict[str, Any], payload: RawPayload, now_ms: int, mending: Mending | None
) -> tuple[list[Event], list[FailedEvent]]:
    """What a failed event becomes now. Raises Unmended."""
    index = row["event_index"]
    if mending is None:
        return picked(list(pipeline.outcomes(payload, now_ms)), index)

    def mend(parameters: Mapping[str, str]) -> Mapping[str, str]:
        return mending(parameters, row["event"])

    if index is None:
        return picked(list(pipeline.outcomes(payload, now_ms, mend)), None)
    # From the parameters as they were stored: what was refused in its batch has no others.
    return picked([pipeline.outcome(RawEvent(payload, index, mend(row["parameters"])), now_ms)], None)


def _export(target: Any, found: Settings, args: argparse.Namespace) -> int:
    ids = _chosen(target, args)
    written = 0
    try:
        with nullcontext(sys.stdout.buffer) if args.output is None else args.output.open("xb") as out:
            for failed_id in tracked("exporting", ids):
                shown = target.show_failed(failed_id)
                if shown is None or shown[1] is None:
                    continue
                for bad_row in bad_rows(*shown):
                    out.write(orjson.dumps(bad_row) + b"\n")
                    written += 1
    except FileExistsError:
        raise ConfigurationError(f"{args.output} exists already; nothing was changed") from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ConfigurationError(f"{args.output}: {error.strerror}") from None
    if args.output is not None:
        print(f"{written:,} bad rows of {len(ids):,} failed events in {args.output}")
    return 0


def _drop(target: Any, found: Settings, args: argparse.Namespace) -> int:
    if not hasattr(target, "drop"):
        raise ConfigurationError("this target does not drop failed events")
    if not (args.id or args.kind or args.since or args.all):
        raise ConfigurationError("say which: --id, --kind, --since, or --all")
    ids = _chosen(target, args)
    if ids and not args.yes:
        these = f"{len(ids):,} failed events"
        confirm(f"drop {these} for good?", f"{these} would be dropped for good", "nothing was dropped")
    dropped = 0
    progress = Progress("dropping", len(ids))
    for begin in range(0, len(ids), _AT_ONCE):
        dropped += target.drop(ids[begin : begin + _AT_ONCE], building.now_ms())
        progress.advance(min(_AT_ONCE, len(ids) - begin))
    progress.close()
    print(json.dumps({"dropped": dropped}) if args.json else f"{dropped:,} failed events dropped, and counted as such")
    return 0
