"""Cuts the power of a journal at any moment, in a model of what a disk may lose, and looks whether an acknowledged payload went.

A random workload (appends, rotation, sealing, retention, failing syncs, restarts, kills) runs against real files through a
`Disk` that writes down every operation. Then, for cuts anywhere in it, the model decides what reached the medium: of a file's
writes since its last sync any subset of 4 KiB pieces, any of them torn, the length perhaps extended by zeros; of a folder's
creations, renames and removals since its last sync any subset. Each such state is laid out as files, recovered and read by the
real writer and reader, some of them cut a second time while recovering.

    python -m tests.faults.powercuts --states 10000 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gzip
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.journal import Damage, JournalBroken
from gateway.journal.disk import Disk
from gateway.journal.files import FileReader, FileWriter, Keeper, Options
from gateway.journal.lanes import lanes
from protocol.seams import Cursor, RawPayload

PAGE = 4096


class Killed(BaseException):
    """The process died here, as by kill -9: what it wrote is in the cache, nothing more is done."""


class Violation(AssertionError):
    """The promise was broken in some state."""


# --- recording ---------------------------------------------------------------------------------------------------


@dataclass
class Trace:
    """Operations and, between them, what the world was told."""

    root: Path
    operations: list[tuple[object, ...]] = field(default_factory=list)
    files: dict[Path, int] = field(default_factory=dict)  # path -> file number, as the cache sees it
    count: int = 0

    def note(self, *operation: object) -> None:
        self.operations.append(operation)

    def new_file(self, path: Path) -> int:
        self.count += 1
        self.files[path] = self.count
        return self.count


class RecordingDisk(Disk):
    """The real disk, writing down what it does. lies: syncs that are swallowed, to show that the model notices."""

    def __init__(self, trace: Trace, lies: frozenset[str] = frozenset(), lives: int | None = None) -> None:
        self.trace, self.lies, self.lives = trace, lies, lives
        self.descriptors: dict[int, Path] = {}
        self.reopened: set[int] = set()
        self.broken_syncs = 0
        self.dies_at_rename = False
        self.after_rename = False

    def step(self) -> None:
        if self.lives is not None:
            if self.lives <= 0:
                self.die()
                raise Killed
            self.lives -= 1

    def die(self) -> None:
        self.lives = 0
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()

    def open(self, path: Path, flags: int) -> int:
        self.step()
        known = path.exists()
        fd = super().open(path, flags)
        self.descriptors[fd] = path
        if known and path.suffix == ".ndjson":
            self.reopened.add(fd)
        else:
            self.reopened.discard(fd)
        if not known:
            self.trace.note("link", path.parent, path.name, self.trace.new_file(path))
        elif flags & os.O_TRUNC:
            self.trace.note("truncate", self.trace.files[path], 0)
        return fd

    def close(self, fd: int) -> None:
        if self.descriptors.pop(fd, None) is None:
            raise Killed
        super().close(fd)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self.step()
        return super().read(fd, size, offset)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self.step()
        written = super().write(fd, data, offset)
        self.trace.note("write", self.trace.files[self.descriptors[fd]], offset, bytes(data[:written]))
        return written

    def truncate(self, fd: int, size: int) -> None:
        self.step()
        super().truncate(fd, size)
        self.trace.note("truncate", self.trace.files[self.descriptors[fd]], size)

    def set_modified(self, fd: int, time_ns: int) -> None:
        self.step()
        super().set_modified(fd, time_ns)

    def sync_data(self, fd: int) -> None:
        self.step()
        path = self.descriptors[fd]
        if self.broken_syncs:
            self.broken_syncs -= 1
            raise OSError(errno.EIO, "input/output error")
        lie = "sync_sealed" if path.suffix == ".tmp" else "sync_recovered" if fd in self.reopened else "sync_data"
        if lie not in self.lies:
            self.trace.note("sync", self.trace.files[path])

    def sync_folder(self, path: Path) -> None:
        self.step()
        lie = "sync_folder_after_rename" if self.after_rename else "sync_folder"
        self.after_rename = False
        if lie not in self.lies:
            self.trace.note("sync_folder", path)

    def make_folder(self, path: Path) -> None:
        self.step()
        super().make_folder(path)
        self.trace.note("link", path.parent, path.name, 0)

    def rename(self, old: Path, new: Path) -> None:
        self.step()
        super().rename(old, new)
        self.trace.files[new] = self.trace.files.pop(old)
        self.trace.note("rename", new.parent, old.name, new.name, self.trace.files[new])
        self.after_rename = True
        if self.dies_at_rename:
            self.die()
            raise Killed

    def unlink(self, path: Path) -> None:
        self.step()
        # A sealed segment goes for good only by retention.
        lines = gzip.decompress(path.read_bytes()).splitlines() if path.suffix == ".gz" else []
        ids = [json.loads(line)["id"] for line in lines]
        super().unlink(path)
        self.trace.files.pop(path)
        if ids:
            self.trace.note("retired", ids)
        self.trace.note("unlink", path.parent, path.name)


# --- the workload ------------------------------------------------------------------------------------------------


@dataclass
class Workload:
    """A random life of a journal. Every random choice comes from `chance`, so a seed tells it again."""

    folder: Path
    chance: random.Random
    lies: frozenset[str] = frozenset()
    steps: int = 40

    async def run(self) -> Trace:
        trace, chance = Trace(self.folder.parent), self.chance
        options = Options(
            segment_bytes=chance.choice([3_000, 12_000, 40_000]),
            min_free_bytes=0,
            block_bytes=chance.choice([500, 4_000]),
            gzip_level=1,
        )
        reader, cursor, seen = FileReader(self.folder), dict[str, object](), list[str]()
        writers: list[tuple[FileWriter, RecordingDisk, Keeper]] = []
        now = chance.choice([0, 10**13])  # to the second, every lane without a writer has been left for long
        for _ in range(self.steps):
            now += 1_000_000
            what = chance.choices(
                ["append", "housekeep", "read", "close", "kill", "broken", "second"],
                [50, 14, 16, 5, 10, 5, 5 if len(writers) < 2 else 0],
            )[0]
            if not writers or what == "second":
                writers.append(self._open(trace, options))
            writer, disk, keeper = mine = chance.choice(writers)
            if what == "kill":
                what = chance.choice(["append", "housekeep"])
                if what == "housekeep" and chance.random() < 0.5:
                    disk.dies_at_rename = True
                else:
                    disk.lives = chance.randrange(12)
            if what == "broken":
                disk.broken_syncs = chance.choice([1, 1, 2])
                what = "append"
            try:
                if what == "append":
                    await self._append(trace, writer)
                elif what == "housekeep":
                    stops = chance.choice([False, False, False, True])
                    keep = chance.choice([None, None, 20_000])
                    keeper.housekeep(now_ms=now, stored=[cursor], keep_bytes=keep, pause=lambda _, stops=stops: stops)
                elif what == "read":
                    chunk = reader.read(cursor, max_payloads=chance.choice([1, 10, 1_000]))
                    cursor = dict(chunk.cursor)
                    seen = seen + [item.id for item in chunk.items if isinstance(item, RawPayload)]
                    trace.note("read", cursor, seen)
                elif what == "close":
                    writers.remove(mine)
                    await writer.close()
            except (Killed, JournalBroken):
                pass
            if disk.lives is not None:
                disk.die()
                if mine in writers:
                    writers.remove(mine)
                writer._thread.shutdown()
        for writer, _, _ in writers:
            await writer.close()
        reader.close()
        return trace

    def _open(self, trace: Trace, options: Options) -> tuple[FileWriter, RecordingDisk, Keeper]:
        while True:
            disk = RecordingDisk(trace, self.lies, lives=self.chance.choice([None, None, None, self.chance.randrange(20)]))
            try:
                writer = FileWriter.open(self.folder, options, disk)
            except Killed:
                continue
            disk.lives = None
            return writer, disk, Keeper(writer)

    async def _append(self, trace: Trace, writer: FileWriter) -> None:
        size = self.chance.choice([60, 60, 900, 6_000])
        payloads = [make_payload(self.chance, size) for _ in range(self.chance.randrange(1, 9))]
        before = writer.accepted()
        trace.note("given", payloads)
        for result in await asyncio.gather(*map(writer.append, payloads), return_exceptions=True):
            if result is not None:
                raise result
        trace.note("acked", writer.lane.name, before, payloads)


def make_payload(chance: random.Random, size: int) -> RawPayload:
    body = chance.randbytes(chance.randrange(1, size))
    return RawPayload(f"{chance.getrandbits(128):032x}", 1_700_000_000_000, "http", "/i", body=body)


# --- the model ---------------------------------------------------------------------------------------------------


@dataclass
class Promise:
    """What the world has been told up to the cut."""

    given: dict[str, RawPayload] = field(default_factory=dict)
    acked: dict[str, tuple[str, int]] = field(default_factory=dict)  # id -> lane, number
    retired: set[str] = field(default_factory=set)
    cursor: Cursor = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def hear(self, operation: tuple[object, ...]) -> None:
        match operation:
            case ("given", list(payloads)):
                self.given.update((payload.id, payload) for payload in payloads)
            case ("acked", str(lane), int(before), list(payloads)):
                self.acked.update((payload.id, (lane, before + i)) for i, payload in enumerate(payloads, 1))
            case ("retired", list(ids)):
                self.retired.update(ids)
            case ("read", dict(cursor), list(ids)):
                self.cursor, self.seen = cursor, set(ids)
            case _:
                pass


class Medium:
    """What is certain to be on the medium, and what may be."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes: dict[int, bytes] = {}
        self.pending: dict[int, list[tuple[object, ...]]] = {}
        self.names: dict[Path, dict[str, int]] = {}
        self.unsynced: dict[Path, list[tuple[object, ...]]] = {}

    def take(self, operation: tuple[object, ...]) -> None:
        match operation:
            case ("write" | "truncate", int(number), *_):
                self.pending.setdefault(number, []).append(operation)
            case ("sync", int(number)):
                self.bytes[number] = _written(self.bytes.get(number, b""), self.pending.pop(number, []))
            case ("link" | "rename" | "unlink", Path() as folder, *_):
                self.unsynced.setdefault(folder, []).append(operation)
            case ("sync_folder", Path() as folder):
                self.names[folder] = _named(self.names.get(folder, {}), self.unsynced.pop(folder, []))
            case _:
                pass

    def cut(self, chance: random.Random, target: Path) -> None:
        """Lays out one state that the medium may be in. target: a new folder in place of the root."""
        self._lay_out(self.root, chance, target)

    def _lay_out(self, folder: Path, chance: random.Random, target: Path) -> None:
        target.mkdir()
        kept = _some(self.unsynced.get(folder, []), chance)
        for name, number in _named(self.names.get(folder, {}), kept).items():
            if number:
                (target / name).write_bytes(self._content(number, chance))
            else:
                self._lay_out(folder / name, chance, target / name)

    def _content(self, number: int, chance: random.Random) -> bytes:
        sure, pending = self.bytes.get(number, b""), self.pending.get(number, [])
        data = _written(sure, list(_torn(_some(list(_pieces(pending)), chance), chance)))
        longest = max((len(sure), len(data), *(int(p[2]) + len(p[3]) for p in pending if p[0] == "write")))  # type: ignore[call-overload, arg-type]
        if chance.random() < 0.3 and not any(p[0] == "truncate" for p in pending):
            data += bytes(chance.randint(0, longest - len(data)))
        return data


def _some(operations: list[tuple[object, ...]], chance: random.Random) -> list[tuple[object, ...]]:
    match chance.randrange(4):
        case 0:
            return operations
        case 1:
            return operations[: chance.randint(0, len(operations))]
        case 2:
            return [operation for operation in operations if chance.random() < 0.5]
        case _:
            return []


def _pieces(operations: list[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    for operation in operations:
        match operation:
            case ("write", number, int(offset), bytes(data)):
                while data:
                    size = PAGE - offset % PAGE
                    yield "write", number, offset, data[:size]
                    offset, data = offset + size, data[size:]
            case _:
                yield operation


def _torn(operations: list[tuple[object, ...]], chance: random.Random) -> Iterator[tuple[object, ...]]:
    for operation in operations:
        match operation:
            case ("write", number, int(offset), bytes(data)) if chance.random() < 0.15:
                if chance.random() < 0.5:
                    yield "write", number, offset, data[: chance.randint(0, len(data))]
                else:
                    skipped = chance.randint(0, len(data))
                    yield "write", number, offset + skipped, data[skipped:]
            case _:
                yield operation


def _written(data: bytes, operations: list[tuple[object, ...]]) -> bytes:
    content = bytearray(data)
    for operation in operations:
        match operation:
            case ("write", _, int(offset), bytes(piece)):
                if not piece:
                    continue
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(piece)] = piece
            case ("truncate", _, int(size)):
                del content[size:]
            case _:
                raise TypeError(operation)
    return bytes(content)


def _named(names: dict[str, int], operations: list[tuple[object, ...]]) -> dict[str, int]:
    names = dict(names)
    for operation in operations:
        match operation:
            case ("link", _, str(name), int(number)):
                names[name] = number
            case ("unlink", _, str(name)):
                names.pop(name, None)
            case ("rename", _, str(old), str(new), int(number)):
                names.pop(old, None)
                names[new] = number
            case _:
                raise TypeError(operation)
    return names


# --- the check ---------------------------------------------------------------------------------------------------


def adopt(folder: Path) -> tuple[Trace, Medium]:
    """The state in `folder` as a medium that has everything, for a second cut."""
    trace = Trace(folder)
    medium = Medium(folder)
    for path in [folder, *(p for p in sorted(folder.rglob("*")) if p.is_dir())]:
        medium.names[path] = {}
        for child in path.iterdir():
            number = 0 if child.is_dir() else trace.new_file(child)
            medium.names[path][child.name] = number
            if number:
                medium.bytes[number] = child.read_bytes()
    return trace, medium


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def open_all(folder: Path, options: Options, disk: Disk | None = None) -> list[FileWriter]:
    """A writer on every lane: all are recovered."""
    return [FileWriter.open(folder, options, disk or Disk()) for _ in range(max(1, len(lanes(folder))))]


def read_all(folder: Path, cursor: Cursor, *, step: int = 1_000) -> tuple[list[RawPayload], Cursor, dict[str, tuple[str, int]]]:
    """(payloads, cursor after them, numbers by id when read one by one)."""
    reader = FileReader(folder)
    found: list[RawPayload] = []
    numbers: dict[str, tuple[str, int]] = {}
    while True:
        chunk = reader.read(cursor, max_payloads=step)
        for item in chunk.items:
            if isinstance(item, Damage):
                continue
            found.append(item)
            if step == 1:
                [lane] = [name for name in chunk.cursor if chunk.cursor[name] != cursor.get(name)]
                numbers[item.id] = lane, chunk.cursor[lane].sequence
        cursor = chunk.cursor
        if not chunk.items:
            left = reader.pending(cursor)
            reader.close()
            if left:
                raise Violation(f"{left} payloads pending that cannot be read")
            return found, cursor, numbers


def compare(promise: Promise, found: list[RawPayload], before: set[str], where: str) -> None:
    ids = [payload.id for payload in found]
    if len(set(ids)) != len(ids):
        raise Violation(f"{where}: a payload twice")
    if before & set(ids):
        raise Violation(f"{where}: a payload again after the reader's cursor had passed it")
    if missing := promise.acked.keys() - promise.retired - before - set(ids):
        raise Violation(f"{where}: {len(missing)} of {len(promise.acked)} acknowledged payloads are gone")
    for payload in found:
        if promise.given.get(payload.id) != payload:
            raise Violation(f"{where}: a payload that nobody sent, or not as it was sent")


async def check(root: Path, promise: Promise, chance: random.Random, *, second: int = 0) -> int:
    """Recovers the state below `root` and compares it with the promise; the number of states looked at."""
    folder, options, states = root / "journal", Options(segment_bytes=8_000, min_free_bytes=0, block_bytes=1_000), 1
    if second:
        trace, medium = adopt(root)
        disk = RecordingDisk(trace)
        for writer in open_all(folder, options, disk):
            await writer.close()
        disk.die()
        cuts = [0, *sorted(chance.randrange(1 + len(trace.operations)) for _ in range(second))]
        for start, end in itertools.pairwise(cuts):
            for operation in trace.operations[start:end]:
                medium.take(operation)
            with tempfile.TemporaryDirectory(dir=root.parent) as again:
                medium.cut(chance, Path(again, "cut"))
                states += await check(Path(again, "cut"), promise, chance)
    else:
        for writer in open_all(folder, options):
            await writer.close()
    recovered = snapshot(folder)
    writers = open_all(folder, options)
    if snapshot(folder) != recovered:
        raise Violation("recovering twice differs from recovering once")
    step = 1 if chance.random() < 0.1 else 1_000
    found, _, numbers = read_all(folder, {}, step=step)
    compare(promise, found, set(), "from the start")
    if step == 1 and any(numbers[key] != promise.acked[key] for key in numbers.keys() & promise.acked.keys()):
        raise Violation("a payload has another number than when it was acknowledged")
    found, cursor, _ = read_all(folder, promise.cursor)
    compare(promise, found, promise.seen, "from the cursor")
    fresh = [make_payload(chance, 500) for _ in writers]
    for writer, payload in zip(writers, fresh, strict=True):
        await writer.append(payload)
    after, cursor, _ = read_all(folder, cursor)
    if sorted(p.id for p in after) != sorted(p.id for p in fresh):
        raise Violation("what was appended after recovery is not what is read after it")
    if chance.random() < 0.3:
        Keeper(writers[0]).housekeep(now_ms=1, stored=[], pause=lambda _: False)
        found, _, _ = read_all(folder, {})
        promise = Promise(promise.given | {p.id: p for p in fresh}, promise.acked, promise.retired)
        compare(promise, found, set(), "sealed, from the start")
    for writer in writers:
        await writer.close()
    return states


def explore(states: int, seed: int, lies: frozenset[str] = frozenset(), per_workload: int = 120) -> int:
    """Looks at so many states and returns their number; raises Violation with the seed that shows it."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    done = 0
    while done < states:
        chance = random.Random(seed)
        try:
            with tempfile.TemporaryDirectory(dir=place, prefix="powercuts-") as name:
                done += asyncio.run(_explore_one(Path(name), chance, lies, min(per_workload, states - done)))
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}") from violation
        seed += 1
    return done


async def _explore_one(place: Path, chance: random.Random, lies: frozenset[str], states: int) -> int:
    root = place / "live"
    root.mkdir()
    trace = await Workload(root / "journal", chance, lies).run()
    medium, promise, done = Medium(root), Promise(), 0
    # Every second cut soon after an operation on names or lengths, which are few and where the danger is.
    rare = [index for index, operation in enumerate(trace.operations) if operation[0] in ("link", "rename", "unlink", "truncate")]
    cuts = sorted(
        chance.choice(rare) + chance.randint(1, 3) if chance.random() < 0.5 else chance.randint(0, len(trace.operations))
        for _ in range(states)
    )
    at = 0
    for cut in cuts:
        for operation in trace.operations[at:cut]:
            medium.take(operation)
            promise.hear(operation)
        at = cut
        target = place / "cut"
        medium.cut(chance, target)
        done += await check(target, promise, chance, second=3 if chance.random() < 0.1 else 0)
        shutil.rmtree(target)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description="Cut the power of a journal in many states.")
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        done = explore(arguments.states, arguments.seed)
    except Violation as violation:
        print(f"broken: {violation}", file=sys.stderr)
        return 1
    print(f"{done} states after a power cut: every acknowledged payload there, once ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
