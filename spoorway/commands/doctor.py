"""`spoorway doctor`: is everything as it must be? One line per check, and the next step where it is not."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.journal import Damage, Reader
from gateway.journal.erasing import ends
from gateway.journal.overflow import handed_over
from gateway.journal.reader import FileReader
from protocol.seams import START, ConfigurationError, Cursor, PermanentError, RawPayload, TransientError
from spoorway import archiving, building, devices, erasures
from spoorway.commands import Subparsers, command, settings
from spoorway.commands.compact import lake_objects
from spoorway.commands.config import effective
from spoorway.config import Instance, Settings
from spoorway.console import Progress
from spoorway.database import open_read_only
from spoorway.files import journal_folder, read_json, replaying_file, running
from storage.lake import commits

_AT_ONCE = 2_000  # payloads of a read

ROOMS = ("protocol", "gateway", "enrich", "storage", "spoorway")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """state: ok, warning or wrong."""

    check: str
    state: str
    message: str


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "doctor",
        "check the installation, the configuration, the disk and that no event is missing",
        "spoorway doctor\nspoorway doctor --quick      # without counting the journal again\nspoorway doctor --json",
    )
    parser.add_argument("--quick", action="store_true", help="do not read the whole journal")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.set_defaults(do=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    findings: list[Finding] = []
    marks = {"ok": "✓", "warning": "!", "wrong": "✗"}
    for finding in _checks(args):
        findings.append(finding)
        if args.json:
            print(json.dumps(dataclasses.asdict(finding), ensure_ascii=False), flush=True)
        else:
            print(f"{marks[finding.state]} {finding.check}: {finding.message}", flush=True)
    return 1 if any(finding.state == "wrong" for finding in findings) else 0


def _checks(args: argparse.Namespace) -> Iterator[Finding]:
    yield from _imports()
    try:
        found = settings(args)
        options = list(effective(found))
    except ConfigurationError as error:
        yield Finding("configuration", "wrong", str(error))
        return
    yield Finding("configuration", "ok", f"{len(found.sources)} options set, {len(options)} in all")
    yield from _folder(found)
    yield from _exposure(found)
    yield from _connections(found)
    yield from _links(found)
    yield from _lakes(found)
    for state, message in devices.findings(found):
        yield Finding("devices", state, message)
    if found.archive.url:
        gathered = found.remote() is not None
        for state, message in archiving.findings(found.data, found.archive, building.now_ms(), gathered=gathered):
            yield Finding("archive", state, message)
    yield from _enrichments(found)
    yield from _order(found)
    if found.data.is_dir():
        yield from _unfinished(found)
        yield from _identity(found, quick=args.quick)


def _imports() -> Iterator[Finding]:
    """Our packages have short names; another distribution may own one of them."""
    owners = importlib.metadata.packages_distributions()
    for room in ROOMS:
        others = sorted(set(owners.get(room, [])) - {"spoorway"})
        spec = importlib.util.find_spec(room)
        ours = spec is not None and spec.origin is not None and Path(spec.origin).parent.parent == Path(__file__).parents[2]
        if others or not ours:
            who = ", ".join(others) or str(spec.origin if spec else None)
            yield Finding(
                "packages", "wrong", f"the import name {room} belongs to {who}; install spoorway in an environment of its own"
            )
            return
    yield Finding("packages", "ok", f"{', '.join(ROOMS)} are ours")


def _folder(found: Settings) -> Iterator[Finding]:
    data = found.data
    if not data.exists():
        yield Finding("data", "warning", f"{data} does not exist yet; `spoorway run` makes it")
        return
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data", "wrong", f"no permission to write in {data}")
        return
    if data.stat().st_mode & 0o002:
        yield Finding("data", "warning", f"everybody on this machine may write in {data}; chmod o-w {data}")
    usage = shutil.disk_usage(data)
    floor = found.journal.min_free_bytes
    state = "wrong" if usage.free < floor else "warning" if usage.free < 4 * floor else "ok"
    hint = "" if state == "ok" else f"; below {floor >> 20:,} MiB nothing is taken"
    yield Finding("disk", state, f"{usage.free >> 20:,} MiB free of {usage.total >> 20:,} MiB{hint}")
    state_file = read_json(running(data))
    if state_file is None:
        yield Finding("process", "ok", "nothing runs on this data folder now")
    elif Path(f"/proc/{state_file['pid']}").exists():
        yield Finding("process", "ok", f"runs as process {state_file['pid']}")
    else:
        yield Finding("process", "warning", f"process {state_file['pid']} ended without saying so; the next start recovers")


def _exposure(found: Settings) -> Iterator[Finding]:
    for instance in found.transports():
        host = getattr(instance.config, "host", "127.0.0.1")
        plain = not getattr(instance.config, "tls_certificate", "")
        if plain and host not in ("127.0.0.1", "::1", "localhost"):
            yield Finding(
                instance.name, "warning", f"listens on {host} without TLS; set tls_certificate, or put a proxy before it"
            )
    if found.admin.enabled and found.admin.host not in ("127.0.0.1", "::1", "localhost"):
        yield Finding("admin", "warning", f"metrics are readable from {found.admin.host}; 127.0.0.1 keeps them here")


def _links(found: Settings) -> Iterator[Finding]:
    for instance in found.targets():
        url = urlsplit(getattr(instance.config, "url", ""))
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            yield Finding(
                f"target {instance.name}", "warning", f"sends to {url.hostname} without TLS; everybody between can read"
            )


def _lakes(found: Settings) -> Iterator[Finding]:
    """Where an S3 target keeps its files, as whom, and whether what lies there can be listed."""
    for instance in found.targets():
        if instance.use == "s3":
            try:
                objects = lake_objects(instance)
                about = objects.about()
                next(objects.list(commits.PREFIX), None)
            except (ConfigurationError, PermanentError, TransientError) as error:
                yield Finding(f"target {instance.name}", "wrong", f"{error}; the journal keeps what comes")
            else:
                yield Finding(f"target {instance.name}", "ok", f"{about}: answers")


def _connections(found: Settings) -> Iterator[Finding]:
    """A transport that connects to something has a function `check(config)`, which says what is wrong; "" = nothing."""
    for instance in found.transports():
        check = getattr(instance.module, "check", None)
        if check is not None:
            try:
                wrong = check(instance.config)
            except ConfigurationError as error:
                wrong = str(error)
            yield Finding(instance.name, "wrong" if wrong else "ok", wrong or "connects")


def _enrichments(found: Settings) -> Iterator[Finding]:
    """Whether all that they need is there: files, scripts, packages."""
    try:
        building.pipeline(found, remember=False)
    except ConfigurationError as error:
        yield Finding("enrichments", "wrong", str(error))
    else:
        names = ", ".join(instance.name for instance in found.enrichments())
        yield Finding("enrichments", "ok", f"{names or 'none'}: what they need is there")


def _order(found: Settings) -> Iterator[Finding]:
    """What reads the client's address must come before what masks it."""
    uses = [instance.use for instance in found.enrichments()]
    for reader in ("geo_ip", "bots"):
        if reader in uses and "anon_ip" in uses[: uses.index(reader)]:
            yield Finding("enrichments", "warning", f"{reader} comes after anon_ip and sees masked addresses; put it before")


def _unfinished(found: Settings) -> Iterator[Finding]:
    """What somebody began, and has to do again or to end."""
    for instance in found.targets():
        if replaying_file(found.data, instance.name).exists():
            message = (
                "`spoorway replay --from archive` was cut short, or goes on now: nothing is loaded before it is done; "
                "run it again, or `spoorway restore FILE`"
            )
            yield Finding(f"replay of {instance.name}", "wrong", message)
    for asked in sorted(erasures.folder(found.data).glob("*.asked")):
        message = f"{asked.stem} is not finished, and {asked} holds whom it is about; `spoorway erase --resume` ends it"
        yield Finding("erasures", "warning", message)


def _identity(found: Settings, *, quick: bool) -> Iterator[Finding]:
    """accepted = stored + failed + duplicate + pending: counted from the journal on one side, from the rows on the other."""
    try:
        reader, where = _journal(found)
        if found.remote() is not None:
            yield Finding("journal", *_remote_journal(found, reader, where))
    except (ConfigurationError, TransientError) as error:
        yield Finding("journal", "wrong", str(error))
        reader, where = None, "is not within reach"
    for instance in found.targets():
        name = f"target {instance.name}"
        if getattr(instance.module, "TAKES", "events") == "payloads":
            yield from _relayed(name, found, instance, reader)
        if instance.use not in ("sqlite", "postgres"):
            continue
        try:
            db = _opened(found, instance)
        except ConfigurationError as error:
            yield Finding(name, "warning", str(error))
            continue
        except (PermanentError, TransientError) as error:
            yield Finding(name, "wrong", f"{error}; the journal keeps what comes")
            continue
        with db:
            yield from _rows_and_totals(name, db)
            if reader is None:
                yield Finding(name, "warning", f"the journal {where}: nothing was counted")
            elif quick:
                pending = reader.pending(_cursor(db))
                yield Finding(name, "ok", f"{pending:,} payloads pending (the journal was not counted again)")
            else:
                yield from _journal_and_rows(name, db, reader, found)
        db.close()


def _journal(found: Settings) -> tuple[Reader | None, str]:
    """What can be counted, and where it is. Raises ConfigurationError."""
    remote, folder = found.remote(), journal_folder(found.data)
    if remote is None:
        return (FileReader(folder), f"in {folder}") if folder.is_dir() else (None, f"is not in {folder}")
    if remote.name != "kafka":
        return None, f"is in {remote.name}, which counts nothing"
    try:
        from gateway.journal.kafka.reader import KafkaReader
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"journal.kafka needs {error.name}; install spoorway[kafka]") from None
    return KafkaReader(remote.config), f"in the topic {remote.config.topic!r} of {', '.join(remote.config.brokers)}"


def _remote_journal(found: Settings, reader: Reader | None, where: str) -> tuple[str, str]:
    """(state, message). Raises TransientError."""
    there = f"{reader.pending({}):,} payloads ever {where}" if reader is not None else f"the journal {where}"
    folder = journal_folder(found.data)
    here = FileReader(folder)
    waiting = here.pending(handed_over(folder))
    here.close()
    if waiting:
        return "warning", f"{there}; {waiting:,} wait on this machine's disk and are handed over by `spoorway gateway`"
    return "ok", f"{there}; none wait on this machine's disk"


def _opened(found: Settings, instance: Instance) -> Any:
    """The target's tables, to be read. They answer the same questions in both databases."""
    if instance.use == "sqlite":
        return open_read_only(Path(instance.config.path or found.data / "events.db"))
    from spoorway import postgres

    return postgres.open_read_only(instance.config)


def _relayed(name: str, found: Settings, instance: Instance, reader: Reader | None) -> Iterator[Finding]:
    """Counted in payloads, because nothing here knows what they become."""
    try:
        target: Any = building.open_target(found, instance)
    except (ConfigurationError, PermanentError) as error:
        yield Finding(name, "wrong", str(error))
        return
    try:
        unreachable = target.probe()
        contact, (cursor, totals) = target.contact(), target.account()
        if unreachable:
            last = f"; it last answered {_moment(contact.contact_ms)}" if contact.contact_ms else "; it never answered yet"
            yield Finding(name, "wrong", f"the upstream cannot be reached: {unreachable}{last}; the journal keeps what comes")
        elif contact.error and contact.error_ms >= contact.contact_ms:
            yield Finding(name, "wrong", f"the upstream answers, but at {_moment(contact.error_ms)}: {contact.error}")
        else:
            yield Finding(name, "ok", "the upstream answers")
        if totals.failed:
            listed = f"`spoorway failed list --target {instance.name}`"
            yield Finding(name, "warning", f"{totals.failed:,} payloads were refused for good; {listed}")
        if reader is not None:
            # What was accepted before the place in the journal is numbered; whatever comes meanwhile is pending.
            taken, pending = sum(position.sequence for position in cursor.values()), reader.pending(cursor)
            parts = {part: getattr(totals, part) for part in ("forwarded", "failed", "dropped", "duplicate")}
            told = " + ".join(f"{part} {n:,}" for part, n in parts.items() if n or part in ("forwarded", "failed"))
            sentence = f"accepted {taken + pending:,} payloads = {told} + pending {pending:,}"
            if taken == sum(parts.values()):
                yield Finding("identity", "ok", sentence)
            else:  # a damaged place may have been any number of payloads
                damaged = "journal_damage" in {row["kind"] for row in target.list_failed(limit=1_000)}
                state = "warning" if damaged else "wrong"
                yield Finding("identity", state, sentence.replace(" = ", " is not "))
    finally:
        target.close()


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _cursor(db: Any) -> Cursor:
    from protocol.seams import Position

    rows = db.execute('SELECT lane, segment, "offset", sequence FROM cursors')
    return {lane: Position(*position) for lane, *position in rows}


def _rows_and_totals(name: str, db: Any) -> Iterator[Finding]:
    db.execute("BEGIN")  # one state of rows and totals, while the loader goes on
    (stored, failed) = db.execute("SELECT stored, failed FROM totals").fetchone()
    (rows,) = db.execute("SELECT count(*) FROM events").fetchone()
    (failed_rows,) = db.execute("SELECT count(*) FROM failed_events WHERE replayed_tstamp IS NULL").fetchone()
    db.execute("COMMIT")
    if (rows, failed_rows) == (stored, failed):
        yield Finding(name, "ok", f"{rows:,} events and {failed_rows:,} failed events, as counted when they were stored")
    else:
        yield Finding(
            name,
            "wrong",
            f"{rows:,} events and {failed_rows:,} failed events, but {stored:,} and {failed:,} were stored; "
            f"`spoorway replay` builds it anew from the journal",
        )


def _journal_and_rows(name: str, db: Any, reader: Reader, found: Settings) -> Iterator[Finding]:
    db.execute("BEGIN")  # one state of totals and cursor, while the loader goes on
    rows = db.execute("SELECT * FROM totals")
    totals = dict(zip([name for name, *_ in rows.description], rows.fetchone(), strict=True))
    payloads, stored, failed, duplicate = (totals[name] for name in ("payloads", "stored", "failed", "duplicate"))
    # A file of an older version has not all of them until it is opened to write.
    gone = {name: totals.get(name, 0) for name in ("dropped", "erased", "expired")}
    (solved,) = db.execute("SELECT count(*) FROM failed_events WHERE replayed_tstamp IS NOT NULL").fetchone()
    taken = _cursor(db)
    db.execute("COMMIT")
    # Both are counted up to places that are known before: while this goes on, the journal grows.
    parts = _parts(reader, found)
    here = [{lane: taken.get(lane, START) for lane in last} for _, last in parts]
    had, pending = _Counted(), _Counted()
    for (part, last), start in zip(parts, here, strict=True):
        _count(part, {}, start, found, had)
        _count(part, start, last, found, pending)
        if part is not reader:
            part.close()
    if damaged := had.damaged + pending.damaged:
        yield Finding("journal", "warning", f"{damaged} damaged places; what they held is in the failed events")
    numbered = sum(position.sequence for start in here for position in start.values())
    if had.payloads < numbered:
        # Retention deleted segments that the target has: what they held can be counted no more, the payloads can.
        retired, accepted = numbered - had.payloads, numbered + pending.payloads
        sentence = f"accepted {accepted:,} payloads = taken {payloads:,} + pending {pending.payloads:,}"
        holds = accepted == payloads + pending.payloads
        yield Finding("journal", "ok", f"{retired:,} payloads are retired from the journal; payloads are counted, not events")
    else:
        more, accepted = "".join(f" + {name} {n:,}" for name, n in gone.items() if n), had.events + pending.events
        sentence = (
            f"accepted {accepted:,} = stored {stored:,} + failed {failed:,} + duplicate {duplicate:,}{more} "
            f"+ pending {pending.events:,}"
        )
        holds = had.events == stored + failed + duplicate + sum(gone.values())
    if holds:
        yield Finding("identity", "ok", sentence)
    elif solved:
        # A payload that failed whole and was solved later became several events.
        yield Finding("identity", "warning", f"{sentence} does not hold, and {solved} failed events were replayed since")
    else:
        yield Finding("identity", "wrong", sentence.replace(" = ", " is not ") + "; `spoorway replay` builds the target anew")


@dataclasses.dataclass(slots=True)
class _Counted:
    payloads: int = 0
    events: int = 0
    damaged: int = 0


def _parts(reader: Reader, found: Settings) -> list[tuple[Any, Cursor]]:
    """Readers of the whole journal, each with where its lanes end by now. Raises OSError, TransientError."""
    if isinstance(reader, FileReader):  # which does not say whose an item is: one for each lane
        folder = journal_folder(found.data)
        return [(FileReader(folder, only=lane), {lane: end}) for lane, end in ends(folder).items()]
    kafka: Any = reader
    return [(kafka, kafka.newest(0))]


def _count(reader: Reader, cursor: Cursor, until: Cursor, found: Settings, counted: _Counted) -> None:
    """Adds what the journal holds between two cursors: payloads, and the events and failed events they become."""
    pipeline = building.pipeline(found, remember=False)
    progress = Progress("counting", max(0, reader.pending(cursor) - reader.pending(until)))
    for item in _between(reader, cursor, until):
        progress.advance(1)
        damaged = isinstance(item, Damage)
        counted.payloads += 1
        counted.damaged += damaged
        counted.events += 1 if isinstance(item, Damage) else len(item.erased) + sum(1 for _ in pipeline.outcomes(item, 0))
    progress.close()


def _between(reader: Reader, cursor: Cursor, until: Cursor) -> Iterator[RawPayload | Damage]:
    """What lies before `until` in each of its lanes; what follows there is passed over."""
    most = _AT_ONCE
    while any(cursor.get(lane, START)[:2] < end[:2] for lane, end in until.items()):
        chunk = reader.read(cursor, max_payloads=most)
        if not chunk.items and chunk.cursor == cursor:
            return
        moved = [lane for lane, position in chunk.cursor.items() if position != cursor.get(lane, START)]
        shares = chunk.lanes or tuple((lane, len(chunk.items)) for lane in moved)
        within = {lane: cursor.get(lane, START)[:2] < until.get(lane, START)[:2] for lane in moved}
        beyond = {lane: chunk.cursor[lane][:2] > until.get(lane, START)[:2] for lane in moved}
        if most > 1 and any(within[lane] and beyond[lane] for lane in moved):
            most //= 2  # until the place lies between two reads
            continue
        items = iter(chunk.items)
        for lane, payloads in shares:
            share = list(islice(items, payloads))
            yield from share if not beyond[lane] else ()
        cursor, most = chunk.cursor, min(_AT_ONCE, most * 2)
