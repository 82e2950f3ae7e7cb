"""Heap of the tracker in MicroPython, as a line of JSON: after each import, of a tracker, and its growth over many events.

argv: the folder of the .mpy files, a folder for the queue, how many events.
"""

import gc
import json
import sys

sys.path.insert(0, sys.argv[1])


def heap():
    for _ in range(3):
        gc.collect()
    return gc.mem_alloc()


class Link:
    key = None
    timeout_ms = 1000

    def send(self, tracker, body):
        yield
        return 200, 0

    def idle(self, tracker):
        yield

    def close(self):
        pass


import asyncio  # noqa: E402,F401  what is there anyway
import select  # noqa: E402,F401
import socket  # noqa: E402,F401
from binascii import crc32  # noqa: E402,F401
from hashlib import sha256  # noqa: E402,F401

found = {}
_, _, folder, events = sys.argv
link = Link()
before = heap()
import spoor  # noqa: E402

found["spoor"] = heap() - before
for name in ("http", "mqtt", "files", "verbs", "uart", "sign"):
    before = heap()
    __import__("spoor." + name)
    found[name] = heap() - before
before = heap()
tracker = spoor.Tracker(link, "app", "board", spoor.files.Files(folder))
found["tracker"] = heap() - before


def some(count):
    for n in range(count):
        if not tracker.track_structured("a", "b", value=n):
            raise ValueError(tracker.reason)
        while tracker.queue.size:
            tracker.poll()


some(500)
before = heap()
some(int(events))
found["growth"] = heap() - before
gc.disable()
before = gc.mem_alloc()
tracker.track_structured("a", "b", value=1)
found["transient"] = gc.mem_alloc() - before
print(json.dumps(found))
