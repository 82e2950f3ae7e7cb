"""The MicroPython tracker's side of a vector run: cases on stdin, the query strings it would send on stdout.

Runs in the real interpreter and in CPython. Everything is the tracker's own up to the payload it gives to its link; only its
clock and its ids are replaced. argv: the folder of the package.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])
import spoor
from spoor.verbs import Tracker

_NAMES = {
    "domain_user_id": "duid",
    "session_id": "sid",
    "session_index": "vid",
    "network_user_id": "tnuid",
    "screen": "res",
    "viewport": "vp",
    "color_depth": "cd",
    "timezone": "tz",
    "language": "lang",
    "ip": "ip",
    "useragent": "ua",
    "namespace": "tna",
}


class Wire:
    key = None
    timeout_ms = 1000
    body = b""

    def send(self, tracker, body):
        self.body = body
        yield
        yield 200, 0

    def update(self, tracker):
        pass

    def close(self):
        pass


def unquoted(text):
    parts = text.replace("+", " ").encode().split(b"%")
    return (parts[0] + b"".join([bytes([int(part[:2], 16)]) + part[2:] for part in parts[1:]])).decode()


def quoted(text):
    safe = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~"
    return "".join([chr(b) if b in safe else f"%{b:02X}" for b in text.encode()])


def parsed(text):
    """JSON. MicroPython's reader knows no pairs of escapes that stand for one character."""
    at = text.find("\\ud8")
    while at >= 0:
        high, low = int(text[at + 2 : at + 6], 16), int(text[at + 8 : at + 12], 16)
        text = text[:at] + chr(0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF)) + text[at + 12 :]
        at = text.find("\\ud8")
    return json.loads(text)


def answer(line):
    fields = dict([pair.split("=") for pair in line.split("&")])
    fields = {unquoted(name): unquoted(fields[name]) for name in fields}
    given = {name[6:]: fields[name] for name in fields if name.startswith("given.")}
    call = {name[5:]: fields[name] for name in fields if name.startswith("call.")}
    verb = call.pop("verb")
    for name in call:
        if name in ("entities", "data"):
            call[name] = parsed(call[name])
        elif name in ("value", "true_ms", "min_x", "max_x", "min_y", "max_y"):
            call[name] = float(call[name]) if "." in call[name] else int(call[name])
    for name in {"structured": ("category", "action"), "self_describing": ("schema", "data"), "screen_view": ("name",)}.get(
        verb, ("url",)
    ):
        call.setdefault(name, None)
    spoor.uuid = lambda: given["event_id"]
    wire = Wire()
    try:
        subject = {_NAMES[name]: given[name] for name in given if name in _NAMES}
        tracker = Tracker(wire, given["app_id"], platform=given["platform"], fields=subject, queue=spoor.Ram(65536))
    except ValueError:
        return "!platform"
    if "user_id" in given:
        tracker.set_user_id(given["user_id"])
    now = [int(given["now_ms"])]
    tracker.uptime_ms = lambda: now[0]
    if not getattr(tracker, "track_" + verb)(**call):
        return "!" + tracker.reason
    now[0] = int(given["sent_ms"])
    tracker.poll()  # makes the message
    tracker.poll()  # sends it
    event = json.loads(wire.body)["data"][0]
    return "&".join([name + "=" + quoted(event[name]) for name in event])


for case in sys.stdin:
    print(answer(case.rstrip("\n")))
