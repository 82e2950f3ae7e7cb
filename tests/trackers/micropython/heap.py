"""Heap of the tracker in MicroPython, as a line of JSON. argv: the folder of the .mpy files or an image of a ROMFS, then either

`import`, how many names the program has of its own, names of modules: what each takes, in this order; or
`use`, a folder for the queue, how many events: what a tracker with its queue takes, a moment of tracking, and its growth.
"""

import gc
import json
import os
import sys

if sys.argv[1].endswith(".romfs"):
    import vfs

    with open(sys.argv[1], "rb") as file:
        image = file.read()
    vfs.mount(vfs.VfsRom(image), "/rom")
    sys.path.insert(0, "/rom/lib")
else:
    os.chdir(sys.argv[1])  # the names of files are counted, too; here they are about as long as on a board
    sys.path.insert(0, "")


def deep(n):
    """Overwrites what earlier calls left on the stack: the collector takes each word there for a pointer."""
    return n and [deep(n - 1)] * 9


def heap():
    for _ in range(3):
        deep(40)
        gc.collect()
    return gc.mem_alloc()


class Link:
    key = None
    timeout_ms = 1000

    def send(self, tracker, body):
        yield 200, 0

    def update(self, tracker):
        pass

    def close(self):
        pass


import asyncio  # noqa: E402,F401  what is there anyway
import select  # noqa: E402,F401
import socket  # noqa: E402,F401
from binascii import crc32  # noqa: E402,F401
from hashlib import sha256  # noqa: E402,F401

found = {}


def some(tracker, count):
    for n in range(count):
        if not tracker.track_structured("a", "b", value=n):
            raise ValueError(tracker.reason)
        while tracker.queue.size:
            tracker.poll()


def use(folder, events):
    from spoor import Tracker, entities, files  # noqa: F401

    link = Link()
    before = heap()
    tracker = Tracker(link, "app", "board", files.Files(folder))
    found["tracker"] = heap() - before
    some(tracker, 500)
    before = heap()
    some(tracker, events)
    found["growth"] = heap() - before
    gc.disable()
    before = gc.mem_alloc()
    tracker.track_structured("a", "b", value=1)
    found["transient"] = gc.mem_alloc() - before


if sys.argv[2] == "use":
    use(sys.argv[3], int(sys.argv[4]))
else:
    for n in range(int(sys.argv[3])):
        getattr(json, "own_%d" % n, None)
    names = sys.argv[4:]
    for name in names:
        found[name] = 0  # its place is not counted
    for name in names:
        before = heap()
        __import__(name)
        found[name] = heap() - before
print(json.dumps(found))
