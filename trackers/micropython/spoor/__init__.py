"""Events of a board -> JSON lines in a bounded queue -> payloads for a link, until the gateway has acknowledged them.

`track_...` does no network work and never raises: it returns the event's id, or False, and `reason` says why.
Only `poll`, `flush`, `run` and `close` let the link use the network. This file and http.py are the whole of a tracker.
entities.py is loaded by the first event that has an entity (that of a named device is one), seldom.py by what is called seldom.
files.py is a queue that outlasts power cuts, verbs.py has the verbs of pages and screens and counts, mqtt.py and uart.py are
other links.

Bytes count here: each name that a firmware lacks is heap and flash. So names inside are, where they fit, of MicroPython's own
list (qstrs that no .mpy file spells out), as `send`, `step`, `insert`, `value`; `format`, `max`, `open` hide the usual ones.
A function's code, a constant and a table each take whole pieces of 16 bytes.
"""

import time
from json import dumps
from os import urandom

if not hasattr(time, "ticks_ms"):
    from . import platform as time  # type: ignore[no-redef]

# Said here, these two are names to mpy-cross, also where they are texts: half the heap. No .mpy file has this line.
payload_data: str
unstruct_event: str


def format(*args) -> str:
    """(name of a schema of Snowplow's, its addition, JSON) -> self-describing JSON."""
    return '{"schema":"iglu:com.snowplowanalytics.snowplow/%s/jsonschema/1-0-%d","data":%s}' % args


def uuid() -> str:
    """A random one, version 4."""
    h = urandom(16).hex()
    return "%.8s-%s-4%s-a%s-%s" % (h, h[8:12], h[13:16], h[17:20], h[20:])


class Ram:
    """A queue of lines that a power cut ends. size: bytes of them. max: so many lines make a message.

    open(tracker) may give the start its number; write(uptime in ms) is called again and again, for what is to go to flash.
    """

    def __init__(self, max_bytes: int = 4096) -> None:
        self.items: list[bytes] = []
        self.size = 0
        self.max = 5
        self.max_bytes = max_bytes

    def append(self, value: bytes, key) -> bool:
        """value: a line; key: the uptime, in ms."""
        size = self.size + len(value)
        if size > self.max_bytes:
            return False
        self.size = size
        self.items.append(value)
        return True

    def next(self):
        """The oldest lines, of one start, that make a message: (number of that start or None for this one, lines)."""
        return None, self.items[: self.max or 1]

    def remove(self, value) -> None:
        """value: the lines of the last batch."""
        self.items = self.items[len(value) :]
        self.size -= sum(map(len, value))

    open = write = id  # here there is nothing to do


class Tracker:
    """fields: parameters of the protocol that go with every event. device: its name; events then carry the entity device_clock.

    boot: the number of this start, where the queue does not count them. on_error(why, count): events that were given up.
    link: send(tracker, payload) is a generator that yields None while it waits, at last (status in the words of HTTP, least
    pause in ms); where there is no answer it raises, and hangs up, as it does when an exception is thrown into it.
    update(tracker) is called while nothing is on its way; close() hangs up, also where nothing is open; timeout_ms; key.
    """

    # Of entities.py and seldom.py, once they are loaded, and of what is on its way; a name without a value is in no .mpy file.
    clock: str
    sequence: int
    set_at_ms: int
    refused: int
    dropped_large: int
    opted_out: bool
    items: list[bytes]

    entities = ()
    reason = ""
    step = None
    # step: the generator of the link while a message is on its way, whose lines are `items`.
    # start: when it was begun, and else, when the next may be; sleep_ms: the longest pause after a failure, or 0.
    # ticks_diff: wall clock less uptime, or 0. time: uptime, at ticks_ms.
    ticks_diff = time = start = sleep_ms = 0

    def __init__(self, link, app_id="", device="", queue=None, platform="iot", fields=None, boot=None, on_error=None) -> None:
        if platform != "iot":
            self.find(platform)
        self.link = link
        self.device = device
        self.boot = boot
        self.queue = queue = queue or Ram()
        queue.open(self)  # type: ignore[arg-type]
        self.fields = data = {"p": platform, "tv": "mpy-1.0.0"}
        if app_id:
            data["aid"] = app_id
        if fields:
            data.update(fields)
        self.on_error = on_error
        self.ticks_ms = time.ticks_ms()

    def __getattr__(self, key):
        """What is not here may be in seldom.py, which takes this method away."""
        from . import seldom  # noqa: F401  it adds to this class

        return getattr(self, key)

    def track_structured(self, category, action, label=None, property=None, value=None, entities=(), true_ms=None):
        return self.insert(
            "se", 2, "se_ca se_ac se_la se_pr se_va".split(), (category, action, label, property, value), entities, true_ms
        )

    def track_self_describing(self, schema, data, entities=(), true_ms=None):
        return self.insert("ue", 1, ["schema", "data"], (schema, data), entities, true_ms)

    def uptime_ms(self) -> int:
        """Milliseconds since the start. ticks_ms wraps after 12 days; this does not, called once in 6, as `poll` does."""
        now = time.ticks_ms()
        self.time += time.ticks_diff(now, self.ticks_ms)
        self.ticks_ms = now
        return self.time

    def insert(self, type, count, keys, values, entities, true_ms):
        """type: `e` of the event. The first `count` of the keys must have a value."""
        why = "missing"
        try:
            data: dict = {}
            for key, value in zip(keys, values):
                if value is None or value == "":
                    if len(data) < count:
                        break
                else:
                    data[key] = value if type == "ue" else str(value)
            else:
                if type == "ue":
                    data = {"ue_pr": format("unstruct_event", 0, dumps(data))}
                now = self.uptime_ms()
                if entities or self.device or self.entities or true_ms is not None:
                    from .entities import extend

                    extend(data, self, entities, true_ms, now)
                eid = uuid()
                data.update(self.fields, e=type, eid=eid, dtm=str(now + self.ticks_diff))
                # The space says: by the wall clock.
                if self.queue.append((" " * (self.ticks_diff != 0) + dumps(data)).encode(), now):
                    return eid
                why = "full"
        except Exception as error:
            why = repr(error)
        self.reason = why
        return False

    def poll(self) -> int:
        """One short step of sending; call it in the main loop. How many bytes wait.

        Looking up a name and the handshake of TLS are not short. Events of this start get `stm`, by the clock that they were
        tracked with; others none.
        """
        now = self.uptime_ms()
        wait = 0
        step = self.step
        link = self.link
        queue = self.queue
        try:
            if step:
                answer = next(step)
                if not answer:
                    if now - self.start > link.timeout_ms:
                        step.throw(OSError(110))  # ETIMEDOUT
                else:
                    self.step = None
                    status, wait = answer
                    if status // 100 == 2:
                        queue.remove(self.items)
                    else:
                        self.throw(status)
                    self.sleep_ms = 0
                    self.start = now + wait
            else:
                queue.write(now)  # type: ignore[call-arg]
                link.update(self)
                if now >= self.start:
                    self.start = now
                    boot, self.items = queue.next()
                    lines = []
                    for line in self.items:
                        if boot is None:
                            line = line[:-1] + b',"stm":"%d"}' % (now + self.ticks_diff * (line[0] == 32))
                        lines.append(line)
                    if lines:
                        self.step = link.send(self, format("payload_data", 4, "[%s]").encode() % ",".encode().join(lines))
        except Exception as error:  # the rim of the loop: the queue keeps everything
            self.step = self.items = None  # type: ignore[assignment]  # first: what it held is free for what follows
            if isinstance(error, MemoryError):
                queue.max //= 2  # at 0 a message has one event
            self.sleep_ms = min(2 * self.sleep_ms or 1000, 600_000)
            self.start = now + wait + (urandom(1)[0] * self.sleep_ms >> 8)
            self.reason = repr(error)
        return queue.size

    def flush(self, timeout_ms: int = 10_000) -> bool:
        """Sends until nothing waits, or the time is over. Whether nothing waits."""
        end = self.uptime_ms() + timeout_ms
        while self.poll() and self.uptime_ms() < end:
            time.sleep_ms(1)
        return not self.queue.size
