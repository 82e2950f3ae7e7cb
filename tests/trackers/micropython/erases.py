"""Counts the blocks that littlefs erases for the queue in MicroPython. Prints a line of JSON. argv: the package's folder.

online: an event in six minutes for a day, each sent at once. offline: the same without an answer.
capped: offline with 100 erases a day.
"""

import json
import sys

import vfs

sys.path.insert(0, sys.argv[1])
import spoor
from spoor.files import Files

BLOCK, BLOCKS = 4096, 128


class Flash:
    def __init__(self):
        self.data = bytearray(BLOCK * BLOCKS)
        self.erases = [0] * BLOCKS

    def readblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        self.data[at : at + len(buffer)] = buffer

    def ioctl(self, op, block):
        if op == 6:
            self.erases[block] += 1
        return {4: BLOCKS, 5: BLOCK}.get(op, 0)


class Link:
    key = None
    timeout_ms = 1000

    def __init__(self, status):
        self.status = status

    def send(self, tracker, body):
        yield
        yield self.status, 0

    def update(self, tracker):
        pass

    def close(self):
        pass


class Clocked(spoor.Tracker):
    now = 0

    def uptime_ms(self):
        return self.now


def day(status, erases_per_day=None):
    flash = Flash()
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/f")
    flash.erases = [0] * BLOCKS
    queue = Files("/f/q", max_bytes=400_000, ram_bytes=60_000, erases_per_day=erases_per_day)
    tracker = Clocked(Link(status), "a", "board", queue)
    for minute in range(1440):
        tracker.now = minute * 60_000
        if minute % 6 == 0 and not tracker.track_structured("air", "read", value=minute):
            raise ValueError(tracker.reason)
        for _ in range(4):
            tracker.poll()
    vfs.umount("/f")
    return {"events": 240, "erases": sum(flash.erases), "most": max(flash.erases)}


print(json.dumps({"online": day(200), "offline": day(0), "capped": day(0, 100)}))
