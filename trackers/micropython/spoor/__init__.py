"""Events of a board -> JSON lines in a bounded queue -> payloads for a link, until the gateway has acknowledged them.

`track_...` does no network work and never raises: it returns the event's id, or False, and `reason` says why.
Only `poll`, `flush`, `run` and `close` let the link use the network. This file and http.py are the whole of a tracker;
files.py is a queue that outlasts power cuts, verbs.py has the verbs of pages and screens, mqtt.py and uart.py are other links.
"""

import json
import os
from binascii import hexlify

try:
    from time import sleep_ms, ticks_diff, ticks_ms
except ImportError:
    from .cpython import sleep_ms, ticks_diff, ticks_ms  # type: ignore

SNOWPLOW = "iglu:com.snowplowanalytics.snowplow/%s/jsonschema/1-0-%d"


def uuid() -> str:
    """A random one, version 4."""
    h = hexlify(os.urandom(16)).decode()
    return "-".join((h[:8], h[8:12], "4" + h[13:16], "89ab"[int(h[16], 16) & 3] + h[17:20], h[20:]))


class Ram:
    """A queue of lines that a power cut ends. size: bytes of them. batch_bytes: about as many make a message."""

    errors = 0
    out = False  # nobody is tracked
    batch_bytes = 2048

    def __init__(self, max_bytes: int = 4096) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        self.most = max_bytes

    def open(self, boot):
        """The number of this start."""
        return int.from_bytes(os.urandom(4), "big") if boot is None else boot

    def add(self, line: bytes, now_ms: int) -> bool:
        self.size += len(line)
        if self.size > self.most:
            self.size -= len(line)
            return False
        self.lines.append(line)
        return True

    def batch(self, most: int):
        """The oldest lines, of one start, that make a message: (number of that start or None for this one, lines)."""
        n = size = 0
        for line in self.lines[:most]:
            size += len(line)
            if n and size > self.batch_bytes:
                break
            n += 1
        return None, self.lines[:n]

    def drop(self, lines) -> None:
        """The lines of the last batch."""
        self.size -= sum([len(line) for line in lines])
        self.lines = self.lines[len(lines) :]

    def opt(self, out: bool) -> None:
        """out: nobody is tracked from now on, and what waits is erased."""
        self.out = out
        if out:
            self.lines = []
            self.size = 0

    def save(self, now_ms: int) -> None:
        """What else waits to be written is written, as far as it may be now."""


class Tracker:
    """fields: parameters of the protocol that go with every event. device: its name; events then carry the entity device_clock.

    boot: the number of this start, where the queue does not count them. on_error(why, count): events that were given up.
    """

    entities = ()
    reason = ""
    clock = "none"
    offset_ms = set_at_ms = 0  # wall clock less uptime
    sequence = messages = 0
    sent = resent = refused = dropped_full = dropped_large = longest_outage_ms = 0
    min_interval_ms = 0
    _up = _wait = _down = _failures = 0
    _most = 999

    def __init__(self, link, app_id="", device="", queue=None, platform="iot", fields=None, boot=None, on_error=None) -> None:
        if platform not in "web mob pc srv app tv cnsl iot headset".split():
            raise ValueError(platform)
        self.link = link
        self.device = device
        self.queue = queue or Ram()
        self.boot = self.queue.open(boot)
        self.fields = {"p": platform, "tv": "mpy-1.0.0"}
        if app_id:
            self.fields["aid"] = app_id
        self.fields.update(fields or {})
        self.on_error = on_error
        self._ticks = ticks_ms()
        self._work = self._works()

    def track_structured(self, category, action, label=None, property=None, value=None, entities=(), true_ms=None):
        return self._track(
            "se", 2, "se_ca se_ac se_la se_pr se_va", (category, action, label, property, value), entities, true_ms
        )

    def track_self_describing(self, schema, data, entities=(), true_ms=None):
        return self._track("", 1, "schema data", (schema, data), entities, true_ms)

    def set_user_id(self, id) -> None:
        self.fields["uid"] = id

    def set_global_entities(self, entities) -> None:
        self.entities = entities

    def opt_out(self) -> None:
        """What waits is erased; until `opt_in` nothing is taken, kept or sent. A queue in flash remembers it."""
        self.queue.opt(True)
        self.link.close()
        self._work = self._works()  # and nobody waits for an answer any more

    def opt_in(self) -> None:
        self.queue.opt(False)

    def set_time(self, milliseconds: int, source: str = "ntp") -> None:
        """The wall clock, milliseconds since 1970. source: ntp, rtc or gateway."""
        self.set_at_ms = self.uptime_ms()
        self.offset_ms = milliseconds - self.set_at_ms
        self.clock = source

    def uptime_ms(self) -> int:
        """Milliseconds since the start. ticks_ms wraps after 12 days; this does not, called once in 6, as `poll` does."""
        now = ticks_ms()
        self._up += ticks_diff(now, self._ticks)
        self._ticks = now
        return self._up

    def _no(self, why: str) -> bool:
        self.reason = why
        return False

    def _track(self, e, required, names, values, entities, true_ms):
        """e: the kind of a plain event, or the schema of a self-describing one. The first `required` of `names` must be given."""
        if self.queue.out:
            return self._no("opted_out")
        try:
            plain = len(e) == 2
            data = {}
            for name, value in zip(names.split(), values):
                if value is not None and value != "":
                    data[name] = str(value) if plain else value
                elif required > 0:
                    return self._no("missing")
                required -= 1
            if not plain:
                data = {"schema": e, "data": data} if e else data
                data = {"ue_pr": json.dumps({"schema": SNOWPLOW % ("unstruct_event", 0), "data": data})}
                e = "ue"
            up = self.uptime_ms()
            self.sequence += 1
            entities = list(self.entities) + list(entities)
            if self.device:
                clock = {
                    "device_id": self.device,
                    "boot_id": self.boot,
                    "sequence": self.sequence,
                    "uptime_ms": up,
                    "clock": self.clock,
                    "set_at_ms": self.set_at_ms,
                }
                entities.append({"schema": "iglu:io.spoorway/device_clock/jsonschema/1-0-0", "data": clock})
            if entities:
                data["co"] = json.dumps({"schema": SNOWPLOW % ("contexts", 1), "data": entities})
            if true_ms is not None:
                data["ttm"] = str(true_ms)
            data.update(self.fields)
            data["e"] = e
            data["eid"] = eid = uuid()
            data["dtm"] = str(up + self.offset_ms)
            if self.queue.add(((" " if self.offset_ms else "") + json.dumps(data)).encode(), up):
                return eid
            self.dropped_full += 1
            return self._no("full")
        except Exception as error:
            return self._no(repr(error))

    def _payload(self, boot, lines) -> bytes:
        """payload_data of the lines. Events of this start get `stm`, by the clock that they were tracked with; others none."""
        parts = []
        up = self.uptime_ms()
        for line in lines:
            if boot is None:
                line = line[:-1] + b',"stm":"%d"}' % (up + self.offset_ms if line[0] == 32 else up)
            parts.append(line)
        return b'{"schema":"%s","data":[%s]}' % ((SNOWPLOW % ("payload_data", 4)).encode(), b",".join(parts))

    def _works(self):
        """All sending, as one generator: each step is short, but for a link's own look-up of names and handshake of TLS."""
        while True:
            now = self.uptime_ms()
            self.queue.save(now)
            boot, lines = self.queue.batch(self._most) if now >= self._wait else (None, ())
            if not lines:
                yield from self.link.idle(self)
                yield
                continue
            self.messages += 1
            status = wait = 0
            try:
                steps = self.link.send(self, self._payload(boot, lines))
                while self.uptime_ms() - now < self.link.timeout_ms:
                    next(steps)
                    yield
                steps.close()
            except StopIteration as done:
                status, wait = done.value
            except Exception as error:
                self.reason = repr(error)
                if isinstance(error, MemoryError):
                    self.queue.batch_bytes //= 2  # at 0 a message has one event
            self._answered(status, wait * 1000, lines)

    def _answered(self, status: int, wait_ms: int, lines) -> None:
        """What becomes of a batch. status: in the words of HTTP, 0 where there was no answer."""
        now = self.uptime_ms()
        n = len(lines)
        tell = None
        if status // 100 == 2:
            self.sent += n
        elif status == 413 and n > 1:
            self._most = n // 2
            return
        elif status in (400, 404, 410, 413, 422) or status in (401, 403) and not self.link.key:
            if status == 413:
                self.dropped_large += 1
            else:
                self.refused += n
            tell = self.on_error
        else:
            self.resent += n
            self._down = self._down or now
            self._failures = min(self._failures + 1, 10)
            limit = min(600_000, 500 << self._failures)
            self._wait = now + max(wait_ms, int.from_bytes(os.urandom(4), "big") % limit)
            return
        self.queue.drop(lines)
        if self._down:
            self.longest_outage_ms = max(self.longest_outage_ms, now - self._down)
        self._down = self._failures = 0
        self._most = 999
        self._wait = now + self.min_interval_ms
        if tell:  # at the end: it may opt out
            tell(status, n)

    def poll(self) -> bool:
        """One short step of sending; call it in the main loop. Whether something waits."""
        try:
            next(self._work)
        except Exception as error:  # the rim of the loop: the queue keeps everything
            self.reason = repr(error)
            self._work = self._works()
            self._answered(0, 0, ())
        return self.queue.size > 0

    def flush(self, timeout_ms: int = 10_000) -> bool:
        """Sends until nothing waits, or the time is over. Whether nothing waits."""
        end = self.uptime_ms() + timeout_ms
        while self.poll() and self.uptime_ms() < end:
            sleep_ms(1)
        return not self.queue.size

    def close(self, timeout_ms: int = 2_000) -> bool:
        """Flushes, writes to flash what is left in RAM, and hangs up. Whether nothing waits."""
        done = self.flush(timeout_ms)
        try:
            self.queue.save(-1)
            self.link.close()
        except Exception as error:
            self.reason = repr(error)
        return done

    async def run(self) -> None:
        """For asyncio: sends for ever."""
        from asyncio import sleep

        while True:
            self.poll()
            await sleep(0.02)
