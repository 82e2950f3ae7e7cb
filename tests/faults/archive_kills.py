"""kill -9 of whoever archives, in the midst of it: the manifest lists every segment once, and only what is there.

Two archivers at once copy a journal of many segments and are killed again and again, while retention deletes what is archived;
then the running product, under load, with its archive. In the end a rebuild has every acknowledged event exactly once.

    python -m tests.faults.archive_kills --rounds 200 --product-rounds 30 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.journal.keeping import Keeper, retire
from gateway.journal.options import Options
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol.seams import Cursor, RawPayload
from spoorway.archiving import Archiving
from spoorway.database import open_read_only
from spoorway.files import archive_file, journal_folder, read_archived
from spoorway.rebuilding import Rebuilding
from storage.archive import Archive, Entry
from storage.objects import open_objects
from tests.faults.kills import SENDERS, Product, Sender
from tests.peers.s3_server import S3Server

ROOT = Path(__file__).parents[2]
DRAIN_S = 120
PER_SEGMENT = 6

ARCHIVER = """
import os, sys, threading
from pathlib import Path
from spoorway.archiving import Archiving
from storage.archive import Archive
from storage.objects import open_objects
url, endpoint = sys.argv[2:]
def clock():  # asked once a segment
    os.write(1, b"x")
    os.read(0, 1)
    return 1
archiving = Archiving(Path(sys.argv[1]), Archive(open_objects(url, endpoint=endpoint)), url, clock)
archiving.run(threading.Event(), threading.Event(), once=True)
"""


@dataclass
class Report:
    """listed: segments in the manifest in the end. seen: kills after which some of them were listed, but not all. deleted: by
    retention, meanwhile."""

    listed: int = 0
    kills: int = 0
    seen: int = 0
    deleted: int = 0
    payloads: int = 0


def fill(data: Path, segments: int) -> list[str]:
    """A journal of so many sealed segments and an open one; the ids of its payloads."""
    ids: list[str] = []

    async def run() -> None:
        writer = FileWriter.open(journal_folder(data), Options(min_free_bytes=0, segment_bytes=1))
        for number in range(segments + 1):
            made = [f"{number:016x}{place:016x}" for place in range(PER_SEGMENT)]
            await writer.append_all([RawPayload(i, 1_768_478_400_000 + number, "http", "/i", query="e=pv" * 40) for i in made])
            ids.extend(made)
        Keeper(writer).housekeep(now_ms=0, stored=[{}], pause=lambda _: False)
        await writer.close()

    asyncio.run(run())
    return ids


def storm(folder: Path, rounds: int, segments: int, seed: int, s3: S3Server | None = None) -> Report:
    """Raises AssertionError when the manifest ever lists what is not there, or something is lost."""
    chance, report, data = random.Random(seed), Report(), folder / "data"
    ids = fill(data, segments)
    url, endpoint = (s3.bucket(f"kills-{seed}"), s3.endpoint) if s3 else (str(folder / "store"), "")
    archive = Archive(open_objects(url, endpoint=endpoint))
    known: set[str] = set()
    everything = FileReader(journal_folder(data)).read({}, max_payloads=10**9, max_bytes=10**12).cursor
    for _ in range(rounds):
        _killed(data, url, endpoint, chance)
        report.kills += 1
        entries = list(archive.entries())
        report.seen += 0 < len(entries) < segments
        _check(archive, data, url, entries, known)
        stored: list[Cursor] = [everything, read_archived(archive_file(data), url) or {}]
        deleted = retire(journal_folder(data), older_than_ms=None, max_bytes=0, stored=stored, now_ms=0)
        report.deleted += len(deleted)
        if len(entries) == segments:
            break
    Archiving(data, archive, url, lambda: 0).step(threading.Event())
    entries = list(archive.entries())
    _check(archive, data, url, entries, set())
    assert [entry.segment for entry in entries] == list(range(1, segments + 1)), "segments are missing in the manifest"
    assert archive.unlisted({entry.object for entry in entries}) == []
    report.listed = len(entries)
    (folder / "room").mkdir()
    reader = Rebuilding(archive, journal_folder(data), folder / "room", print, partial=False)
    assert reader.missing() == []
    chunk = reader.read({})
    found: list[str] = []
    while chunk.items:
        found += [item.id for item in chunk.items if isinstance(item, RawPayload)]
        chunk = reader.read(chunk.cursor)
    assert found == ids, "the rebuild differs from what was appended"
    report.payloads = len(found)
    return report


def _killed(data: Path, url: str, endpoint: str, chance: random.Random) -> None:
    """Two archivers at once, killed at some moment after one of them has archived a few."""
    command = [sys.executable, "-c", ARCHIVER, str(data), url, endpoint]
    children = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) for _ in range(2)]
    few = chance.randint(1, 4)
    for child in children:  # however late we are, they are not done before
        assert child.stdin is not None
        child.stdin.write(b"." * (few + 6))
    assert children[0].stdout is not None
    for _ in range(few):
        children[0].stdout.read(1)
    time.sleep(chance.uniform(0, 0.02))
    for child in children:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        child.stdout.close()


def _check(archive: Archive, data: Path, url: str, entries: list[Entry], known: set[str]) -> None:
    """What is listed is there and whole (known: what was so before); what the record says is listed."""
    wrong = [archive.wrong(entry) for entry in entries if entry.object not in known]
    assert not any(wrong), wrong
    known |= {entry.object for entry in entries}
    listed = {(entry.lane, entry.segment) for entry in entries}
    assert len(listed) == len(entries)
    for lane, position in (read_archived(archive_file(data), url) or {}).items():
        assert {(lane, number) for number in range(1, position.segment + 1)} <= listed, "the record ran ahead of the archive"


def product_storm(folder: Path, rounds: int, seed: int, pause_s: float = 0.8) -> Report:
    """The product itself, with senders. Raises AssertionError when an acknowledged event is not there once after a rebuild."""
    chance, report, data = random.Random(seed), Report(), folder / "data"
    config = folder / "spoorway.toml"
    journal = "[journal]\nsegment_bytes = 30000\n[retention]\njournal_bytes = 1\n"
    config.write_text(f'{journal}[archive]\nurl = "{folder / "store"}"\n')
    product, ending = Product(data, "--config", str(config)), threading.Event()
    product.start()
    senders = [Sender(product, ending) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for _ in range(rounds):
        time.sleep(chance.uniform(0.05, pause_s))
        product.kill(chance.choice(("gateway", "loader", "loader", "both")))
        report.kills += 1
    ending.set()
    for sender in senders:
        sender.join(30)
    acknowledged = {i for sender in senders for i in sender.acknowledged}
    archive = Archive(open_objects(str(folder / "store")))
    end = time.monotonic() + DRAIN_S
    while _stored(data) < len(acknowledged):
        assert time.monotonic() < end, f"{_stored(data)} of {len(acknowledged)} stored"
        time.sleep(0.2)
    _spoorway("archive", "now", "--data", str(data), "--config", str(config))
    assert product.stop() == 0
    entries = list(archive.entries())
    wrong = [archive.wrong(entry) for entry in entries]
    assert not any(wrong), wrong
    before = _ids(data)
    _spoorway("replay", "--data", str(data), "--config", str(config), "--from", "archive")
    after = _ids(data)
    assert after == before and set(after) >= acknowledged and len(after) == len(set(after))
    report.listed, report.payloads = len(entries), sum(entry.contents.payloads for entry in entries)
    report.deleted = report.listed - sum(path.name.endswith(".gz") for path in journal_folder(data).rglob("*"))
    return report


def _stored(data: Path) -> int:
    return len(_ids(data))


def _ids(data: Path) -> list[str]:
    with contextlib.closing(open_read_only(data / "events.db")) as db:
        return sorted(row[0] for row in db.execute("SELECT event_id FROM atomic.events"))


def _spoorway(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "spoorway", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--product-rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("folder", "s3", "product"):
            (folder / name).mkdir()
        in_folder = storm(folder / "folder", args.rounds, args.rounds * 2, args.seed)
        print(f"folder: {in_folder}")
        with S3Server() as server:
            os.environ.update(server.environment)
            in_s3 = storm(folder / "s3", args.rounds // 4, args.rounds, args.seed, server)
        print(f"S3: {in_s3}")
        print(f"product: {product_storm(folder / 'product', args.product_rounds, args.seed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
