"""`spoorway compact`: merges the small files of an S3 target's past days into large ones, while it is loaded and read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from protocol.seams import ConfigurationError, TransientError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import Instance, Settings
from spoorway.console import tracked
from spoorway.files import Claim
from storage import lake
from storage.lake import commits, merging, removal
from storage.objects import Objects, open_objects

_KEPT_COMMITS = 10_000


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "compact",
        "merge the small files of an S3 target's past days into large ones",
        "spoorway compact\nspoorway compact --target lake --before 2026-02-01 --max-mb 256\nspoorway compact --dry-run --json",
    )
    parser.add_argument("--target", metavar="NAME", help="the target's name (default: the first s3 target)")
    parser.add_argument("--before", metavar="DAY", help="only days before that one (default: today, in UTC)")
    parser.add_argument("--max-mb", metavar="N", type=int, default=128, help="of a merged file (default: 128)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be merged")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.set_defaults(do=_compact)


def _compact(args: argparse.Namespace) -> int:
    if args.max_mb < 1:
        raise ConfigurationError(f"--max-mb {args.max_mb}: it must be at least 1")
    found = settings(args)
    instance = lake_instance(found, args.target)
    claim = Claim(found.data, f"{instance.name}.compact")
    try:
        objects = lake_objects(instance)
        newest, _ = commits.newest(objects)
        plan = merging.plan(objects, lake.SUFFIXES, _day(args.before), args.max_mb << 20, newest.placed)
        told = {"files": plan.files, "merged": sum(map(len, plan.merges)), "into": len(plan.merges), "deleted": len(plan.tidy)}
        if not args.dry_run:
            state = building.placed(found, instance).state
            objects.delete(plan.tidy)
            for members in tracked("compacting", plan.merges):
                with removal.alone(state):
                    merge(objects, members)
            told["deleted"] += told["merged"]
            commits.prune(objects, _KEPT_COMMITS)
    finally:
        claim.release()
    if args.json:
        print(json.dumps(told))
    else:
        would = "would merge" if args.dry_run else "merged"
        print(f"{plan.files:,} files; {would} {told['merged']:,} of them into {told['into']:,}")
    return 0


def merge(objects: Objects, members: Sequence[lake.Piece]) -> None:
    """Only within `removal.alone`. Raises TransientError."""
    newest, _ = commits.newest(objects)
    if newest.replaced and not newest.settled:  # it names files that would be merged into another now
        raise TransientError(f"{objects.url(lake.EVENTS)}: what was cut off there is finished when the target is loaded again")
    merging.merge(objects, members)


def lake_instance(found: Settings, name: str | None) -> Instance:
    """The s3 target of that name, or the first one. Raises ConfigurationError."""
    instances = [instance for instance in found.targets() if instance.use == "s3"]
    if name is not None:
        instance = building.target_instance(found, name)
        if instance.use != "s3":
            raise ConfigurationError(f"--target {name}: it is a {instance.use} target; this is for s3")
        return instance
    if not instances:
        raise ConfigurationError("storage.targets: no s3 target is configured")
    return instances[0]


def lake_objects(instance: Instance) -> Objects:
    """Where it keeps its files."""
    config = instance.config
    return open_objects(config.url, endpoint=config.endpoint, region=config.region, profile=config.profile)


def _day(text: str | None) -> str:
    if text is None:
        return f"{datetime.now(UTC):%Y-%m-%d}"
    try:
        return str(datetime.strptime(text, "%Y-%m-%d").date())  # noqa: DTZ007  a day has no zone
    except ValueError:
        raise ConfigurationError(f"--before: expected a day such as 2026-01-31, not {text!r}") from None
