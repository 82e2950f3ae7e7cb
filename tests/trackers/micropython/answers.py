"""A board and a server with odd answers: what the tracker made of each, and the pauses before each.

argv: the package's folder, the URL, how many answers.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
from spoor.http import Http
from spoor.verbs import Tracker


class Watched(Http):
    """begun, done: an attempt is under way, is over. pauses: before each attempt, in ms; they pass at once."""

    begun = done = False
    skipped_ms = 0

    def __init__(self, url):
        Http.__init__(self, url, timeout_ms=400)
        self.pauses = [0]

    def send(self, tracker, body):
        self.begun = True
        yield from Http.send(self, tracker, body)

    def update(self, tracker):
        if tracker.uptime_ms() < tracker.start:
            self.skipped_ms += 500
            self.pauses[-1] += 500

    def close(self):
        if self.begun:
            self.pauses.append(0)
            self.begun = False
            self.done = True
        Http.close(self)


link = Watched(sys.argv[2])
tracker = Tracker(link)
real = tracker.uptime_ms
tracker.uptime_ms = lambda: real() + link.skipped_ms
seen = []
for attempt in range(int(sys.argv[3])):
    if not tracker.queue.size:
        tracker.track_structured("a", str(attempt))
    before = (tracker.sent, tracker.refused)
    link.done = False
    while not link.done:
        tracker.poll()
    seen.append("sent" if tracker.sent > before[0] else "refused" if tracker.refused > before[1] else "kept")
print(json.dumps([seen, link.pauses]))
