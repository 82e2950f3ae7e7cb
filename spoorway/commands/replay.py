"""`spoorway replay`: builds a target anew from the journal, or from an archived copy of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.journal.lanes import lanes, segments
from gateway.journal.reader import FileReader
from protocol.seams import ConfigurationError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.console import Progress
from spoorway.files import Claim, cursor_file, journal_folder, write_cursor
from spoorway.loader import Loader


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "replay",
        "empty a target and build it anew from the raw events",
        "spoorway replay --from journal --to sqlite\nspoorway replay --from archive --archive /mnt/backup/journal --to sqlite",
    )
    parser.add_argument("--from", dest="source", choices=("journal", "archive"), default="journal", help="default: journal")
    parser.add_argument("--archive", metavar="DIR", type=Path, help="a copy of a journal folder, for --from archive")
    parser.add_argument("--to", metavar="TARGET", help="the target's name (default: the first)")
    parser.add_argument("--partial", action="store_true", help="even if the beginning of the journal was deleted by retention")
    parser.set_defaults(do=_replay)


def _replay(args: argparse.Namespace) -> int:
    found = settings(args)
    if (args.source == "archive") != (args.archive is not None):
        raise ConfigurationError("replay: --from archive and --archive DIR belong together")
    folder = args.archive or journal_folder(found.data)
    if not folder.is_dir():
        raise ConfigurationError(f"replay: there is no journal in {folder}")
    instance = building.target_instance(found, args.to)
    claim = Claim(found.data, instance.name)
    target = building.open_target(found, instance)
    try:
        if not hasattr(target, "wipe"):
            raise ConfigurationError(f"target {instance.name}: {instance.use} cannot be built anew")
        if _begins_late(folder) and not args.partial:
            raise ConfigurationError(
                "replay: retention has deleted the beginning of this journal, so the target would lose what it has of it; "
                "use --from archive, or --partial to accept that"
            )
        reader = FileReader(folder)
        progress = Progress("replaying", reader.pending({}))
        # Retention believes this copy: it must not run ahead of a target that is empty.
        write_cursor(cursor_file(found.data, instance.name), {})
        target.wipe()
        loader = Loader(instance.name, reader, building.pipeline(found), target, building.now_ms)
        before = 0
        while loader.step():
            progress.advance(loader.status.payloads - before)
            before = loader.status.payloads
        progress.close()
        write_cursor(cursor_file(found.data, instance.name), loader.cursor)
        status = loader.status
        print(
            f"{status.payloads:,} payloads: {status.stored:,} events stored, "
            f"{status.failed:,} failed, {status.duplicate:,} duplicates"
        )
    finally:
        target.close()
        claim.release()
    return 0


def _begins_late(folder: Path) -> bool:
    """Whether a lane of the journal has lost its first segments."""
    for lane in lanes(folder):
        plain, sealed = segments(lane)
        if min((*plain, *sealed), default=1) > 1:
            return True
    return False
