"""`spoorway retain`: the rules of [storage.retention], now; the loading process does the same once a day by itself."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import Instance, Settings
from spoorway.console import complain, table
from spoorway.files import Claim
from spoorway.retention import Expiry, ask, kept, request_file, rules_of, would_expire
from storage.targets import Rule

_POLL_S = 0.2


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "retain",
        "remove what the rules of [storage.retention] keep no longer, now instead of once a day",
        "spoorway retain --dry-run\nspoorway retain\nspoorway retain --target sqlite --json",
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    parser.add_argument("--target", metavar="NAME", help="only in this target (default: in each that has rules)")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(do=_retain)


def _retain(args: argparse.Namespace) -> int:
    found = settings(args)
    if not found.rules:
        raise ConfigurationError("retain: there are no rules; see [storage.retention] in `spoorway config --sample`")
    building.data_folder(found)
    instances = [building.target_instance(found, args.target)] if args.target else list(found.targets())
    rows: list[dict[str, Any]] = []
    refused = False
    for instance in instances:
        if (told := _in_one(found, instance, args.dry_run)) is None:
            refused = True
            complain(
                f"target {instance.name}: the process that loads it knows other rules, or none, and removed nothing by these;"
                " restart it, then `spoorway retain`"
            )
        rows += told or []
    if args.json:
        for row in rows:
            print(json.dumps(row))
    else:
        print(table(["target", "rule", "events", "failed"], [list(row.values()) for row in rows]))
    return 1 if refused else 0


def _in_one(found: Settings, instance: Instance, dry: bool) -> list[dict[str, Any]] | None:
    """None: who loads it has not these rules."""
    rules = rules_of(found.rules, instance.name)
    if not rules or not hasattr(instance.module.Plugin, "expire"):
        return []
    if dry:
        target = building.open_target(found, instance)
        try:
            now_ms = building.now_ms()
            removed: dict[str, Any] | None = {name: would_expire(target, rule, now_ms)._asdict() for name, rule in rules.items()}
        finally:
            target.close()
    else:
        _now(found, instance, rules)
        removed = kept(found.data, instance.name, rules)
    if removed is None:
        return None
    return [{"target": instance.name, "rule": name, **counts} for name, counts in removed.items()]


def _now(found: Settings, instance: Instance, rules: Mapping[str, Rule]) -> None:
    """Asks for it; who loads the target does it, and when nobody does, we do."""
    asked = request_file(found.data, instance.name)
    ask(found.data, instance.name, rules)
    while asked.exists():
        try:
            claim = Claim(found.data, instance.name)
        except ConfigurationError:
            time.sleep(_POLL_S)
            continue
        try:
            target = building.open_target(found, instance)
            try:
                expiry = Expiry(found.data, instance.name, target, rules)
                while expiry.step(building.now_ms()):
                    pass
            finally:
                target.close()
        finally:
            claim.release()
