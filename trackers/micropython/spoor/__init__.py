"""Events of a board -> JSON lines in a bounded queue -> payloads for a link, until the gateway has acknowledged them.

`track_...` does no network work and never raises: it returns the event's id, or False, and `reason` says why.
Only `poll`, `flush`, `run` and `close` let the link use the network. This file and http.py are the whole of a tracker; at the
end of this one is what http.py and mqtt.py share: a connection that never blocks. entities.py is loaded by the first event
that has an entity (that of a named device is one), seldom.py by what is called seldom. files.py is a queue that outlasts
power cuts, verbs.py has the verbs of pages and screens, mqtt.py and uart.py are other links.

Bytes count here: each name that a firmware lacks is heap and flash. So names inside are, where they fit, of MicroPython's own
list (qstrs that no .mpy file spells out), as `send`, `step`, `insert`, `value`; `format`, `max`, `open` hide the usual ones.
"""

import json
import os
import time

if not hasattr(time, "ticks_ms"):
    from . import cpython as time  # type: ignore[no-redef]

format = '{"schema":"iglu:com.snowplowanalytics.snowplow/%s/jsonschema/1-0-%d","data":%s}'


def uuid() -> str:
    """A random one, version 4."""
    h = os.urandom(16).hex()
    return "%s-%s-4%s-a%s-%s" % (h[:8], h[8:12], h[13:16], h[17:20], h[20:])


class Ram:
    """A queue of lines that a power cut ends. size: bytes of them. max: about as many make a message.

    open(tracker) may give the start its number; write(uptime in ms) is called again and again, for what is to go to flash.
    """

    size = 0
    out = False  # nobody is tracked
    max = 2048

    def __init__(self, max_bytes: int = 4096) -> None:
        self.items: list[bytes] = []
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
        n = 0
        size = self.max
        for line in self.items:
            size -= len(line)
            if n and size < 0:
                break
            n += 1
        return None, self.items[:n]

    def remove(self, value) -> None:
        """value: the lines of the last batch."""
        self.items = self.items[len(value) :]
        self.size -= sum(map(len, value))

    open = write = id  # here there is nothing to do


class Tracker:
    """fields: parameters of the protocol that go with every event. device: its name; events then carry the entity device_clock.

    boot: the number of this start, where the queue does not count them. on_error(why, count): events that were given up.
    link: send(tracker, payload) is a generator that yields None while it waits, at last (status in the words of HTTP, least
    pause in ms), and raises where there is no answer; update(tracker) is called while nothing is to be sent; close() hangs up,
    also where nothing is open; timeout_ms; key.
    """

    # Of entities.py and seldom.py, once they are loaded; a name without a value is in no .mpy file.
    clock: str
    sequence: int
    set_at_ms: int
    refused: int
    dropped_large: int

    entities = ()
    reason = ""
    step = None
    # ticks_diff: wall clock less uptime, or 0. time: uptime, at ticks_ms. sleep_ms: the longest pause after a failure, or 0.
    # index: the least pause that the last answer asked for. step: the generator `send`, or None after a failure of it.
    ticks_diff = time = index = sleep_ms = sent = resent = dropped_full = 0

    def __init__(self, link, app_id="", device="", queue=None, platform="iot", fields=None, boot=None, on_error=None) -> None:
        if platform != "iot":
            self.find(platform)
        self.link = link
        self.device = device
        self.boot = boot
        self.queue = queue = queue or Ram()
        queue.open(self)  # type: ignore[arg-type]
        self.fields = {"p": platform, "tv": "mpy-1.0.0"}
        if app_id:
            self.fields["aid"] = app_id
        if fields:
            self.fields.update(fields)
        self.on_error = on_error
        self.ticks_ms = time.ticks_ms()

    def __getattr__(self, key):
        """What is not here may be in seldom.py, which takes this method away."""
        from . import seldom  # noqa: F401  it adds to this class

        return getattr(self, key)

    def track_structured(self, category, action, label=None, property=None, value=None, entities=(), true_ms=None):
        return self.insert(
            "se", 2, "se_ca se_ac se_la se_pr se_va", (category, action, label, property, value), entities, true_ms
        )

    def track_self_describing(self, schema, data, entities=(), true_ms=None):
        return self.insert("ue", 1, "schema data", (schema, data), entities, true_ms)

    def uptime_ms(self) -> int:
        """Milliseconds since the start. ticks_ms wraps after 12 days; this does not, called once in 6, as `poll` does."""
        now = time.ticks_ms()
        self.time += time.ticks_diff(now, self.ticks_ms)
        self.ticks_ms = now
        return self.time

    def insert(self, type, count, keys, values, entities, true_ms):
        """type: `e` of the event. The first `count` of the keys must have a value."""
        why = "opted_out"
        try:
            if not self.queue.out:
                why = "missing"
                data = {}
                for key, value in zip(keys.split(), values):
                    if value not in (None, ""):
                        data[key] = value if type == "ue" else str(value)
                    elif count > 0:
                        break
                    count -= 1
                else:
                    if type == "ue":
                        data = {"ue_pr": format % ("unstruct_event", 0, json.dumps(data))}
                    now = self.uptime_ms()
                    if entities or self.device or self.entities or true_ms is not None:
                        from .entities import extend

                        extend(data, self, entities, true_ms, now)
                    eid = uuid()
                    data.update(self.fields, e=type, eid=eid, dtm=str(now + self.ticks_diff))
                    # The space says: by the wall clock.
                    if self.queue.append((" " * (self.ticks_diff != 0) + json.dumps(data)).encode(), now):
                        return eid
                    self.dropped_full += 1
                    why = "full"
        except Exception as error:
            why = repr(error)
        self.reason = why
        return False

    def send(self):
        """All sending until something fails, as one generator: each step is short, but for looking up a name and TLS's handshake.

        Events of this start get `stm`, by the clock that they were tracked with; others none.
        """
        self.link.close()  # nobody knows where an interrupted one stopped
        while True:
            wait = self.uptime_ms() + max(self.index, os.urandom(1)[0] * self.sleep_ms >> 8)
            while True:
                now = self.uptime_ms()
                self.queue.write(now)  # type: ignore[call-arg]
                if now >= wait:
                    boot, lines = self.queue.next()
                    if lines:
                        break
                self.link.update(self)
                yield
            self.index = 0
            if self.sleep_ms:
                self.resent += len(lines)
            parts = []
            for line in lines:
                if boot is None:
                    line = line[:-1] + b',"stm":"%d"}' % (now + self.ticks_diff * (line[0] == 32))
                parts.append(line)
            for answer in self.link.send(self, (format % ("payload_data", 4, "[%s]")).encode() % b",".join(parts)):
                if answer:
                    break
                if self.uptime_ms() - now > self.link.timeout_ms:
                    raise OSError(110)
                yield
            status, self.index = answer
            if status // 100 == 2:
                self.sent += len(lines)
                self.queue.remove(lines)
            else:
                self.throw(status, lines)
            self.sleep_ms = 0

    def poll(self) -> bool:
        """One short step of sending; call it in the main loop. Whether something waits."""
        try:
            if not self.step:
                self.step = self.send()
            next(self.step)
        except Exception as error:  # the rim of the loop: the queue keeps everything
            self.step = None  # first: what it held is free for what follows
            if isinstance(error, MemoryError):
                self.queue.max //= 2  # at 0 a message has one event
            self.sleep_ms = min(2 * self.sleep_ms or 1000, 600_000)
            self.reason = repr(error)
        return self.queue.size > 0

    def flush(self, timeout_ms: int = 10_000) -> bool:
        """Sends until nothing waits, or the time is over. Whether nothing waits."""
        end = self.uptime_ms() + timeout_ms
        while self.poll() and self.uptime_ms() < end:
            time.sleep_ms(1)
        return not self.queue.size


def split(link, value: str, tls, index):
    """value, scheme://host:port/path -> tls, host and port of the link. index: the usual ports, with TLS and without.

    `io` of a link is its connection, a stream of MicroPython: read and write give None where they would block.
    Returns the path without its first slash. Raises ValueError where the scheme asks for TLS and there is none.
    """
    kind, _, value, path = (value + "/").split("/", 3)
    link.io = None
    link.host, port = (value + ":").split(":")[:2]
    link.tls = tls = kind[5:] and tls  # "" for http: and mqtt:
    if tls is None:
        raise ValueError("tls")
    link.port = int(port or index[not tls])
    return path[:-1]


def open(link):
    """Looking up the name blocks, and so does the handshake of TLS. Raises OSError."""
    import socket
    from select import poll

    socket = getattr(time, "socket", socket)
    found = socket.getaddrinfo(link.host, link.port)[0]
    address = found[-1]
    link.io = sock = socket.socket(found[0])
    if link.tls:
        from .secure import open

        link.io = open(link, sock, address)
        return
    sock.setblocking(False)
    try:
        sock.connect(address)
    except OSError:  # in progress; what else it may be shows when it is used
        pass
    ready = poll()
    ready.register(sock, 4)  # POLLOUT
    while not ready.poll(0):
        yield


def write(link, value):
    """All of the bytes."""
    while value:
        n = link.io.write(value)
        if n:
            value = value[n:]
        else:
            yield


def close(link) -> None:
    io = link.io
    link.io = None
    if io:
        io.close()
