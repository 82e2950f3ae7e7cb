"""Runs in MicroPython: lives of a board on littlefs whose power fails at each program and erase in turn, with the real gateway.

Prints `+ID` for every event that was on flash when track_… returned, and a line of JSON at the end. Answers of the gateway
get lost, too: then the events are sent again.
argv: the package's folder, the gateway's URL, cuts, seed, and the name of a planted fault or "".
"""

import json
import random
import sys

import vfs

sys.path.insert(0, sys.argv[1])
import spoor
from spoor import files, http

URL, CUTS, SEED = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
FAULT = sys.argv[5]
BLOCK, BLOCKS = 512, 160  # small blocks: the metadata is compacted more often


class Cut(BaseException):
    """The power is off. Not an Exception: nothing on the board can catch it."""


class Flash:
    """NOR flash in RAM. At program or erase number `cut` the power fails: a part of it is done, one byte is garbage."""

    def __init__(self):
        self.data = bytearray(b"\xff" * (BLOCK * BLOCKS))
        self.cut = 0
        self.done = self.erases = 0
        self.off = False

    def readblocks(self, block, buffer, offset=0):
        if self.off:
            raise Cut
        at = block * BLOCK + offset
        buffer[:] = self.data[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset  # bits that are 0 stay so: only an erase makes them 1
        self._change(at, bytes([old & new for old, new in zip(self.data[at : at + len(buffer)], buffer)]))

    def ioctl(self, op, block):
        if self.off:
            raise Cut
        if op == 4:
            return BLOCKS
        if op == 5:
            return BLOCK
        if op == 6:
            self.erases += 1
            self._change(block * BLOCK, b"\xff" * BLOCK)
            return 0

    def _change(self, at, data):
        if self.off:
            raise Cut
        self.done += 1
        if self.done != self.cut:
            self.data[at : at + len(data)] = data
            return
        self.off = True
        n = random.randint(0, len(data))
        self.data[at : at + n] = bytes(data[:n])
        if n < len(data):
            self.data[at + n] &= random.getrandbits(8)
        raise Cut


class Lossy(http.Http):
    """The gateway takes the events; of its answers some get lost. offline: no connection at all."""

    offline = False
    skipped_ms = 0

    def send(self, tracker, body):
        if self.offline:
            raise OSError(113)
        for answer in http.Http.send(self, tracker, body):
            yield (0, 0) if answer and random.random() < 0.3 else answer

    def update(self, tracker):
        if tracker.uptime_ms() < tracker.start:
            self.skipped_ms += tracker.sleep_ms  # pauses pass at once


class Hasty(files.Files):
    """A planted fault: what is sent is dropped before it is acknowledged."""

    def next(self):
        boot, lines = files.Files.next(self)
        lines = list(lines)
        files.Files.remove(self, lines)
        return boot, lines

    def remove(self, lines):
        pass


class Late(files.Files):
    """A planted fault: an event counts as kept before it is written."""

    def append(self, line, now_ms):
        self.every_ms = 20
        return files.Files.append(self, line, now_ms)

    unsaved = 0


QUEUES = {"": files.Files, "hasty": Hasty, "late": Late}


def life(flash, online, events):
    """Until the power fails, or all is done. Returns whether it failed."""
    try:
        vfs.mount(vfs.VfsLfs2(flash), "/f")
        link = Lossy(URL)
        link.offline = not online
        tracker = spoor.Tracker(link, "cuts", "board", QUEUES[FAULT]("/f/q", max_bytes=12_000, segment_bytes=1500))
        real = tracker.uptime_ms
        tracker.uptime_ms = lambda: real() + link.skipped_ms
        if online:
            tracker.flush(100)
        for n in range(events):
            id = tracker.track_structured("board", "lives", property="x" * random.randint(0, 300), value=n)
            if id and not tracker.queue.unsaved:
                print("+" + id)
            elif tracker.reason != "full":
                stats["odd"].append(tracker.reason)
            if n % 4 == 3:
                tracker.flush(50 if online else 0)
        return tracker, link
    except Cut:
        stats["cuts"] += 1
        return None
    except OSError as error:
        stats["odd"].append("mount or open: " + repr(error))
        return None


def unplug():
    try:
        vfs.umount("/f")
    except (OSError, Cut):
        pass


random.seed(SEED)
stats = {"cuts": 0, "odd": [], "lives": 0}
flash = Flash()
vfs.VfsLfs2.mkfs(flash)
place = 0
while stats["cuts"] < CUTS:
    stats["lives"] += 1
    place += 1
    flash.done, flash.cut, flash.off = 0, place, False
    online = random.random() < 0.6
    if life(flash, online, 40 if online else 10) and online:
        place = 0  # it lived through: begin again with the first operation
    unplug()
flash.cut, flash.off = -1, False
tracker, link = life(flash, True, 0)
link.offline = False
tracker.link.send = lambda t, body: http.Http.send(link, t, body)
stats["last"] = tracker.track_structured("board", "end")
stats["drained"] = tracker.flush(60_000)
while tracker.step:  # with the fault Hasty nothing waits any more, and yet the last event is on its way
    tracker.poll()
stats["boot"] = tracker.boot
stats["errors"] = tracker.queue.errors
unplug()
print(json.dumps(stats))
