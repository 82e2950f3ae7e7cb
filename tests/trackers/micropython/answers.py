"""A board and a server with odd answers: what the tracker made of each. argv: the package's folder, the URL, how many answers."""

import json
import sys

sys.path.insert(0, sys.argv[1])
from spoor import Tracker
from spoor.http import Http

tracker = Tracker(Http(sys.argv[2], timeout_ms=400))
real = tracker.uptime_ms
skipped = 0


def uptime_ms():
    return real() + skipped


tracker.uptime_ms = uptime_ms
seen = []
for attempt in range(int(sys.argv[3])):
    if not tracker.queue.size:
        tracker.track_structured("a", str(attempt))
    before = (tracker.sent, tracker.resent, tracker.refused)
    while before == (tracker.sent, tracker.resent, tracker.refused):
        tracker.poll()
    after = "sent" if tracker.sent > before[0] else "kept" if tracker.resent > before[1] else "refused"
    pause = max(0, tracker._wait - tracker.uptime_ms())
    seen.append([after, pause >= 6500])
    skipped += pause
print(json.dumps(seen))
