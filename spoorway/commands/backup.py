"""`spoorway backup` and `spoorway restore`: the SQLite store as it is at one moment, also while it is loaded; and back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

from protocol.seams import ConfigurationError
from spoorway import backups, building
from spoorway.commands import Subparsers, command, settings
from spoorway.config import Settings
from spoorway.console import Progress
from spoorway.files import Claim


def add(subparsers: Subparsers) -> None:
    backup = command(
        subparsers,
        "backup",
        "copy the SQLite store as it is at one moment, while it is loaded",
        "spoorway backup /mnt/usb/events-2026-01-31.db\nspoorway backup backup.db --quick --json",
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="must not exist yet")
    backup.add_argument("--quick", action="store_true", help="check the copy's structure only, not each index against its table")
    backup.set_defaults(do=_backup)
    restore = command(
        subparsers,
        "restore",
        "put a backup in the place of the SQLite store; what came since is loaded from the journal",
        "spoorway restore /mnt/usb/events-2026-01-31.db",
    )
    restore.add_argument("file", metavar="FILE", type=Path, help="what `spoorway backup` wrote")
    restore.add_argument("--partial", action="store_true", help="even if the journal has let go of what came since")
    restore.set_defaults(do=_restore)
    for parser in (backup, restore):
        parser.add_argument("--target", metavar="NAME", help="the target's name (default: the first of SQLite)")
        parser.add_argument("--json", action="store_true", help="one object")


def _store(found: Settings, name: str | None) -> tuple[str, Path]:
    """(target, its file). Raises ConfigurationError."""
    instances = [building.target_instance(found, name)] if name else [i for i in found.targets() if i.use == "sqlite"]
    if not instances or instances[0].use != "sqlite":
        raise ConfigurationError("only a target of SQLite has a file to back up; others have backups of their own")
    return instances[0].name, Path(instances[0].config.path or found.data / "events.db")


def _backup(args: argparse.Namespace) -> int:
    found = settings(args)
    _, path = _store(found, args.target)
    progress: Progress | None = None
    done = 0

    def tell(copied: int, pages: int) -> None:
        nonlocal progress, done
        progress = progress or Progress("copying", pages)
        progress.advance(copied - done)
        done = copied

    contents = backups.backup(path, args.file, tell, quick=args.quick)
    if progress is not None:
        progress.close()
    _print(args, {"file": str(args.file), "bytes": args.file.stat().st_size, **contents})
    return 0


def _restore(args: argparse.Namespace) -> int:
    found = settings(args)
    name, path = _store(found, args.target)
    claim = Claim(found.data, name)
    try:
        report = backups.restore(found, name, args.file, path, partial=args.partial)
    finally:
        claim.release()
    _print(args, report)
    return 0


def _print(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        if isinstance(value, list):
            value = ", ".join(cast(list[str], value)) or "none"
        print(f"{name.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}")
