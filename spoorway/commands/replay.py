"""`spoorway replay`: builds a target anew from the journal, or from the archive and what the journal in files still holds."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.journal import Reader
from gateway.journal.lanes import lanes, segments
from gateway.journal.reader import FileReader
from protocol.seams import ConfigurationError, PermanentError
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.console import Progress
from spoorway.files import Claim, cursor_file, journal_folder, prepare, replaying_file, write_cursor, write_json
from spoorway.loader import Loader
from spoorway.plugins import extra_of

if TYPE_CHECKING:
    from gateway.journal.kafka.reader import KafkaReader
    from gateway.journal.kinesis.reader import KinesisReader
    from spoorway.config import Instance, Settings

_LEFT_BEHIND_S = 86_400


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "replay",
        "empty a target and build it anew from the raw events",
        "spoorway replay --from journal --to sqlite\n"
        "spoorway replay --from archive\n"
        "spoorway replay --from archive --archive s3://events/site-7 --to sqlite",
    )
    parser.add_argument("--from", dest="source", choices=("journal", "archive"), default="journal", help="default: journal")
    parser.add_argument(
        "--archive",
        metavar="URL",
        help="another archive than the configured one, s3://BUCKET/PREFIX or a folder; also a copy of a journal folder",
    )
    parser.add_argument("--to", metavar="TARGET", help="the target's name (default: the first)")
    parser.add_argument("--partial", action="store_true", help="even if something of it is gone or damaged")
    parser.set_defaults(do=_replay)


def _replay(args: argparse.Namespace) -> int:
    found = settings(args)
    if args.archive is not None and args.source != "archive":
        raise ConfigurationError("replay: --archive belongs to --from archive")
    instance = building.target_instance(found, args.to)
    with _source(found, args) as reader:
        claim = Claim(found.data, instance.name)
        target = building.open_target(found, instance)
        try:
            if not hasattr(target, "wipe"):
                raise ConfigurationError(f"target {instance.name}: {instance.use} cannot be built anew")
            progress = Progress("replaying", reader.pending({}))
            # Retention believes this copy: it must not run ahead of a target that is empty.
            write_cursor(cursor_file(found.data, instance.name), {})
            # What comes after the place that a replay from the archive reaches may not be in the journal any more.
            if args.source == "archive" and not isinstance(reader, FileReader):
                write_json(replaying_file(found.data, instance.name), {"from": args.source})
            target.wipe()
            loader = Loader(instance.name, reader, building.pipeline(found), target, building.now_ms)
            before = 0
            while loader.step():
                progress.advance(loader.status.payloads - before)
                before = loader.status.payloads
            progress.close()
            write_cursor(cursor_file(found.data, instance.name), loader.cursor)
            replaying_file(found.data, instance.name).unlink(missing_ok=True)
            status = loader.status
            print(
                f"{status.payloads:,} payloads: {status.stored:,} events stored, "
                f"{status.failed:,} failed, {status.duplicate:,} duplicates"
            )
        finally:
            target.close()
            claim.release()
    return 0


@contextmanager
def _source(found: Settings, args: argparse.Namespace) -> Generator[Reader, None, None]:
    """What is read. Raises ConfigurationError, TransientError, PermanentError before anything is emptied."""
    journal = journal_folder(found.data)
    if args.source == "journal" and (remote := found.remote()) is not None:
        with closing(_on_servers(remote, args.partial)) as reader:
            yield reader
        return
    if args.source == "archive":
        url = args.archive or found.archive.url
        if not url:
            raise ConfigurationError("replay: no archive is configured; say --archive URL")
        if not (Path(url).is_dir() and lanes(Path(url))):
            with _archived(found, url, args.partial) as reader:
                yield reader
            return
        journal = Path(url)  # a copy of a journal
    if not journal.is_dir():
        raise ConfigurationError(f"replay: there is no journal in {journal}")
    if _begins_late(journal) and not args.partial:
        raise ConfigurationError(
            "replay: retention has deleted the beginning of this journal, so the target would lose what it has of it; "
            "use --from archive, or --partial to accept that"
        )
    yield FileReader(journal)


def _on_servers(remote: Instance, partial: bool) -> KafkaReader | KinesisReader:
    """All lanes of it. Raises ConfigurationError, TransientError, PermanentError."""
    with extra_of(remote.name):
        if remote.name == "kafka":
            from gateway.journal.kafka.reader import KafkaReader

            kafka = KafkaReader(remote.config)
            if not kafka.pending({}):
                raise ConfigurationError(f"replay: there is nothing in the topic {remote.config.topic!r}")
            late = f"{deleted:,} records of the topic were deleted" if (deleted := kafka.deleted()) else ""
            reader: KafkaReader | KinesisReader = kafka
        else:
            from gateway.journal.kinesis.reader import KinesisReader

            reader, late = KinesisReader.open(remote.config), "Kinesis does not tell how much of the stream it has forgotten"
    if late and not partial:
        reader.close()
        raise ConfigurationError(
            f"replay: {late}, so the target would lose what it has of that; use --from archive, or --partial to accept that"
        )
    return reader


@contextmanager
def _archived(found: Settings, url: str, partial: bool) -> Generator[Reader, None, None]:
    from spoorway.archiving import open_archive
    from spoorway.rebuilding import Rebuilding

    prepare(found.data)
    archive = open_archive(found.archive, url)
    for left in found.data.glob("replay-*"):  # by a kill; a running replay puts something new there all the time
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=found.data, prefix="replay-") as room:
        # Beside a journal on servers the one in files holds only what is on its way there.
        journal = journal_folder(found.data) if found.remote() is None else Path(room) / "no-journal"
        reader = Rebuilding(archive, journal, Path(room), _tell, partial=partial)
        if reader.empty():
            raise ConfigurationError(f"replay: there is no archive in {url}, and no journal")
        progress = Progress("verifying", reader.archived())
        wrong = reader.missing()
        for each in reader.damaged():
            progress.advance(1)
            wrong += [each] if each else []
        progress.close()
        for each in wrong:
            _tell(each)
        if wrong and not partial:
            raise PermanentError("replay: the target would lose what it has of that; --partial accepts it")
        try:
            yield reader
        finally:
            reader.close()


def _tell(message: str) -> None:
    print(message, file=sys.stderr)


def _begins_late(folder: Path) -> bool:
    """Whether a lane of the journal has lost its first segments."""
    for lane in lanes(folder):
        plain, sealed = segments(lane)
        if min((*plain, *sealed), default=1) > 1:
            return True
    return False
