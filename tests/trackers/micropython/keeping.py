"""A board whose MQTT connection is idle for longer than its keep-alive allows, and which then dies without a farewell.

argv: the package's folder, the gateway's URL, the device. Standard error: a line of JSON.
"""

import json
import sys
import time

sys.path.insert(0, sys.argv[1])
from spoor import Tracker
from spoor.mqtt import Mqtt

link = Mqtt(sys.argv[2], keep_alive_s=1, will=("tp1", b"e=se&se_ca=board&se_ac=will&p=iot&tv=mpy-1.0.0"))
tracker = Tracker(link, "garden", sys.argv[3])
tracker.track_structured("a", "before")
first = tracker.flush()
stream = link.io
end = tracker.uptime_ms() + 2200  # the gateway would close a silent connection after 1.5 s, and look each second
while tracker.uptime_ms() < end:
    tracker.poll()
    time.sleep(0.02)
tracker.track_structured("a", "after")
print(json.dumps({"sent": [first, tracker.flush()], "same": link.io is stream}), file=sys.stderr)
sys.exit(0)
