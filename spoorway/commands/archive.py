"""`spoorway archive`: what is archived, whether it is whole, and a round at once."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.seams import START, ConfigurationError, Cursor
from spoorway import building
from spoorway.commands import Subparsers, command, settings
from spoorway.console import Progress, complain, table
from spoorway.files import archive_file, journal_folder, prepare, read_archived
from spoorway.plugins import extra_of

if TYPE_CHECKING:
    from gateway.journal import GroupReader
    from gateway.journal.kinesis.reader import KinesisReader
    from spoorway.config import Instance, Settings
    from storage.archive import Archive, Entry

_AT_ONCE = 8
_LOOK_EVERY_S = 0.2


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "archive",
        "list and check what is archived, or archive now what the journal holds",
        "spoorway archive list\n"
        "spoorway archive list --archive s3://events/site-7 --json\n"
        "spoorway archive verify\n"
        "spoorway archive now",
    )
    parser.add_argument("action", choices=("list", "verify", "now"), help="now: also what is not sealed or gathered yet")
    parser.add_argument(
        "--archive", metavar="URL", help="another archive than the configured one, s3://BUCKET/PREFIX or a folder"
    )
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--wait", metavar="SECONDS", type=float, default=60.0, help="now: for a gateway to seal (default: 60)")
    parser.set_defaults(do=_archive)


def _archive(args: argparse.Namespace) -> int:
    from spoorway.archiving import open_archive

    found = settings(args)
    url = args.archive or found.archive.url
    if not url:
        raise ConfigurationError("archive: none is configured; set [archive] url, or say --archive URL")
    if args.action == "now" and url != found.archive.url:  # the journal's retention waits for the configured one alone
        raise ConfigurationError("archive now: copies into the configured archive; set [archive] url")
    archive = open_archive(found.archive, url)
    if args.action == "now":
        return _now(found, archive, args.wait, args.json)
    if args.action == "list":
        return _list(archive, args.json)
    _mounted(url)
    return _verify(archive, read_archived(archive_file(found.data), url) or {}, args.json)


def _list(archive: Archive, as_json: bool) -> int:
    entries = archive.entries()
    if as_json:
        for entry in entries:
            print(json.dumps(_flat(entry)))
        return 0
    rows = [
        (e.lane, e.segment, e.contents.payloads, e.size, _moment(e.contents.first_ms), _moment(e.contents.last_ms), e.object)
        for e in entries
    ]
    print(table(["lane", "segment", "payloads", "bytes", "first received", "last received", "object"], rows))
    return 0


def _mounted(url: str) -> None:
    """Raises ConfigurationError for a folder that is not there: it would be found empty, and so without a fault."""
    folder = Path(url.removeprefix("file://")).expanduser()
    if not url.startswith("s3://") and not folder.is_dir():
        raise ConfigurationError(f"archive: there is no folder {folder}; mount it, or say --archive URL")


def _verify(archive: Archive, known: Cursor, as_json: bool) -> int:
    """1 when anything is not as it was archived. known: read before, how far each lane was archived from here."""
    entries = list(archive.entries())
    bad = 0
    for each in chain(_gone(entries, known), _wrongs(archive, entries)):
        bad += 1
        print(json.dumps(each, ensure_ascii=False) if as_json else each["wrong"], flush=True)
    unlisted = archive.unlisted({entry.object for entry in entries})
    payloads = sum(entry.contents.payloads for entry in entries)
    if as_json:
        print(json.dumps({"segments": len(entries), "payloads": payloads, "wrong": bad, "unlisted": unlisted}))
    else:
        for name in unlisted:
            print(f"{name}: not listed; a copy was cut short, or is being made")
        print(f"{len(entries):,} segments with {payloads:,} payloads: {f'{bad:,} wrong' if bad else 'all as they were archived'}")
    return 1 if bad else 0


def _gone(entries: list[Entry], known: Cursor) -> Iterator[dict[str, Any]]:
    """Each lane whose last segment, as this data folder knows it, is not listed any more."""
    listed = {(entry.lane, entry.segment) for entry in entries}
    for lane, reached in sorted(known.items()):
        if (lane, reached.segment) not in listed:
            about = f"lane {lane}: archived up to segment {reached.segment}, which the archive does not list any more"
            yield {"lane": lane, "segment": reached.segment, "wrong": about}


def _wrongs(archive: Archive, entries: list[Entry]) -> Iterator[dict[str, Any]]:
    """Each damaged or missing segment, and each lane in which a number is missing."""
    progress = Progress("verifying", len(entries))
    with ThreadPoolExecutor(_AT_ONCE, "verify") as pool:
        before: Entry | None = None
        for entry, wrong in zip(entries, pool.map(archive.wrong, entries), strict=True):
            progress.advance(1)
            if wrong:
                yield {"lane": entry.lane, "segment": entry.segment, "wrong": wrong}
            if before is not None and before.lane == entry.lane and before.contents.last_number and not before.contents.damaged:
                lost = entry.contents.first_number - before.contents.last_number - 1
                if entry.contents.first_number and lost > 0:
                    about = f"lane {entry.lane}: {lost:,} payloads before segment {entry.segment} are not archived"
                    yield {"lane": entry.lane, "segment": entry.segment, "wrong": about}
            before = entry
    progress.close()


def _now(found: Settings, archive: Archive, wait_s: float, as_json: bool) -> int:
    """1 when something could not be archived, or a gateway did not seal in time."""
    from gateway.journal.erasing import ask_to_seal, ends
    from spoorway.archiving import Archiving, waiting

    prepare(found.data)
    if (remote := found.remote()) is not None:
        return _now_on_servers(found, remote, archive, as_json)
    folder = journal_folder(found.data)
    until, end = ends(folder), time.monotonic() + wait_s
    while (lanes := ask_to_seal(folder, until, found.journal)) and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
    archiving = Archiving(found.data, archive, found.archive.url, building.now_ms)
    archiving.run(threading.Event(), threading.Event(), once=True)
    status = archiving.status
    left = sum(1 for _ in waiting(folder, archiving.cursor))
    if as_json:
        print(json.dumps(status.as_dict() | {"unsealed_lanes": lanes}))
    else:
        print(f"{status.segments:,} segments with {status.payloads:,} payloads archived, {left:,} wait")
    if status.message:
        complain(status.message)
    for lane in lanes:
        complain(f"lane {lane}: the gateway has not sealed its segment within {wait_s:g} s")
    return 1 if status.message or lanes else 0


def _now_on_servers(found: Settings, remote: Instance, archive: Archive, as_json: bool) -> int:
    """Of all partitions or shards, whoever has them. Raises ConfigurationError, TransientError, PermanentError."""
    from spoorway.archiving_remote import GroupArchiving

    reader, reached = _servers(remote)
    archiving = GroupArchiving(reader, archive, found.archive.url, found.data, found.journal, building.now_ms)
    with closing(archiving):
        progress = Progress("archiving", reader.pending(archiving.places()))
        archiving.now(reached, progress.advance)
        progress.close()
    status = archiving.status
    if as_json:
        print(json.dumps(status.as_dict()))
    else:
        print(f"{status.segments:,} segments with {status.payloads:,} payloads archived")
    return 0


def _servers(remote: Instance) -> tuple[GroupReader, Callable[[Cursor], bool]]:
    """A reader of all of it, and whether places of its lanes are as far as it goes now."""
    with extra_of(remote.name):
        if remote.name == "kafka":
            from gateway.journal.kafka.reader import KafkaReader

            kafka = KafkaReader(remote.config)
            ends = kafka.newest(0)
            return kafka, lambda at: all(at.get(lane, START) >= end for lane, end in ends.items())
        from gateway.journal.kinesis.reader import KinesisReader

        kinesis = KinesisReader.open(remote.config, ahead=True)
        return kinesis, _calm(kinesis)


def _calm(kinesis: KinesisReader) -> Callable[[Cursor], bool]:
    """Whether it has said at two looks that no shard has more. At the second it has told which of them are closed, and at the
    next there would be those they were split into."""
    looks = 0

    def reached(at: Cursor) -> bool:
        nonlocal looks
        lanes, lag = kinesis.lanes(), kinesis.lag()
        calm = len(lag) == len(lanes) and not any(lag.values()) and not any(lanes.values()) and not kinesis.pending(at)
        looks = looks + 1 if calm else 0
        return looks > 1

    return reached


def _flat(entry: Entry) -> dict[str, Any]:
    flat: dict[str, Any] = asdict(entry)
    contents: dict[str, Any] = flat.pop("contents")
    origin = {"origin": flat.pop("origin")}
    return flat | contents | (origin if entry.origin else {})


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
