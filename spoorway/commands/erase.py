"""`spoorway erase`: everything of a person or a device, out of the journal, the archive and every target, with a receipt."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, fields
from typing import Any

from protocol.persons import Person
from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.confirming import confirm
from spoorway.console import complain
from spoorway.erasing import Erasing, would_erase
from spoorway.erasures import Receipt, asked_file, open_ones, receipt_file

_OPTIONS = {
    "user": "user_id, as the tracker sent it",
    "domain-user": "domain_userid, the first-party cookie of the JavaScript tracker",
    "network-user": "network_userid, the gateway's cookie",
    "device": "the name of a device, proven or claimed",
}


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "erase",
        "erase everything of a person or a device: journal, archive, targets; leaves a receipt",
        "spoorway erase --user u-4711 --dry-run\n"
        "spoorway erase --user u-4711 --domain-user 4b0dfa75-da8c-46a1-9728-1a49c54360bf\n"
        "spoorway erase --device kitchen --yes\nspoorway erase --resume",
    )
    for option, about in _OPTIONS.items():
        parser.add_argument(f"--{option}", metavar="ID", action="append", default=[], help=f"{about}; may be repeated")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only tell what would be erased")
    how.add_argument("--resume", action="store_true", help="finish what was begun and cut short")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="the receipt, or what would be erased, as one object")
    parser.set_defaults(do=_erase)


def _erase(args: argparse.Namespace) -> int:
    found = settings(args)
    who = Person(**{f.name: frozenset(getattr(args, f.name)) for f in fields(Person)})
    if args.resume == bool(who.values()) or "" in who.values():
        raise ConfigurationError("erase: say whom, such as --user ID, or --resume")
    building.data_folder(found)
    if args.dry_run:
        print(
            json.dumps(would_erase(found, who, building.now_ms()))
            if args.json
            else _dry(would_erase(found, who, building.now_ms()))
        )
        return 0
    if args.resume:
        begun = open_ones(found.data)
        if not begun:
            print("[]" if args.json else "nothing was cut short")
            return 0
        return max(_run(Erasing.resume(found, asked, _tell), args) for asked in begun)
    if not args.yes:
        everything = f"erase everything of {', '.join(sorted(who.values()))}?"
        confirm(everything, "erase: it cannot be taken back", "nothing was erased")
    return _run(Erasing.begin(found, who, building.now_ms(), _tell), args)


def _run(erasing: Erasing, args: argparse.Namespace) -> int:
    data, erasure_id = settings(args).data, erasing.receipt.id
    try:
        receipt = erasing.run()
    except BaseException:
        if asked_file(data, erasure_id).exists():
            complain(f"erasure {erasure_id} is still open; `spoorway erase --resume` goes on with it")
        raise
    path = receipt_file(data, receipt.id)
    left = {name: store["message"] for name, store in receipt.stores.items() if store["state"] != "done"}
    if args.json:
        print(json.dumps(asdict(receipt)))
    else:
        print(_summary(receipt))
        print(f"receipt: {path}")
    for name, message in left.items():
        print(f"target {name}: {message}", file=sys.stderr)
    return 1 if left else 0


def _summary(receipt: Receipt) -> str:
    lines: list[str] = []
    for where, segments in (("journal", receipt.journal), ("archive", receipt.archive)):
        events, others = (sum(one[key] for one in segments.values()) for key in ("events", "others"))
        more = f", {others:,} of others among them that could not be told apart" if others else ""
        lines.append(f"{where}: {events:,} events in {len(segments)} segments{more}")
    for name, store in receipt.stores.items():
        if store["state"] == "done":
            lines.append(f"target {name}: {store['events']:,} events, {store['failed']:,} failed events")
    return "\n".join(lines)


def _dry(would: dict[str, Any]) -> str:
    journal = would["journal"]
    lines = [f"journal: {journal['events']:,} events in {journal['payloads']:,} payloads would be erased"]
    for name, store in would["stores"].items():
        counts = f"{store['events']:,} events, {store['failed']:,} failed events" if "events" in store else "cannot erase"
        lines.append(f"target {name}: {counts}")
    return "\n".join(lines)


_last = ""


def _tell(text: str) -> None:
    """Progress, each line once."""
    global _last
    if text != _last:
        _last = text
        print(text, file=sys.stderr)
