"""A payload -> PUBLISH with QoS 1 of MQTT 3.1.1 -> 200 with its PUBACK, 0 without; and what the gateway says: the time, hints."""

import json

from .net import Link


def _text(*texts) -> bytes:
    data = b""
    for text in texts:
        text = text.encode() if isinstance(text, str) else text
        data += len(text).to_bytes(2, "big") + text
    return data


def _packet(kind: int, *parts) -> bytes:
    data = b"".join(parts)
    n = len(data)
    head = [kind]
    while n > 127:
        head.append(n & 127 | 128)
        n >>= 7
    return bytes(head + [n]) + data


class Mqtt(Link):
    """url: mqtt://host:port or mqtts://…; user name and client identifier are the device's name. tls: an SSLContext for mqtts.

    will: (the last part of its topic, such as tp1; its payload), published by the gateway when the connection breaks.
    """

    key = None
    min_interval_ms = 0  # between messages, as the gateway asks
    index = 0  # of the last message

    def __init__(
        self, url: str, password: str = "", tls=None, keep_alive_s: int = 60, will=None, timeout_ms: int = 20_000
    ) -> None:
        self.split(url, tls, timeout_ms, (8883, 1883))
        self.password = password
        self.keep_alive_s = keep_alive_s
        self.will = will

    def send(self, tracker, body: bytes):
        """A connection that breaks, or falls silent, is closed by the tracker and made anew at the next try."""
        if not self.io:
            yield from self._connect(tracker)
        self.index = self.index % 65535 + 1
        id = self.index.to_bytes(2, "big")
        yield from self._say(tracker, _packet(0x32, _text("spoorway/%s/tp2" % tracker.device), id, body))
        while True:
            packet = yield from self._hear(tracker)
            if packet == (0x40, id):
                yield 200, self.min_interval_ms

    def _connect(self, tracker):
        yield from self.open()
        self._heard = b""
        self._pinged = False
        flags = 2
        last = []
        if self.will:
            flags |= 12
            last = ["spoorway/%s/%s" % (tracker.device, self.will[0]), self.will[1]]
        if self.password:
            flags |= 192
            last += [tracker.device, self.password]
        head = _text("MQTT") + bytes((4, flags, self.keep_alive_s >> 8, self.keep_alive_s & 255))
        yield from self._say(tracker, _packet(0x10, head, _text(tracker.device, *last)))
        kind, data = yield from self._hear(tracker)
        if kind != 0x20 or data[1]:
            raise OSError("refused", data[1])
        yield from self._say(tracker, _packet(0x82, b"\0\1", _text("spoorway/%s/down" % tracker.device), b"\0"))

    def _say(self, tracker, data: bytes):
        yield from self.write(data)
        self._said_ms = tracker.uptime_ms()

    def _next(self, tracker):
        """A whole packet (kind, data), or None. What comes down is heeded here."""
        more = self.io.read(256)  # type: ignore[union-attr]
        if more == b"":
            raise OSError("closed")
        self._heard += more or b""
        data = self._heard
        n = at = 0
        while True:
            at += 1
            if len(data) <= at:
                return None
            n |= (data[at] & 127) << 7 * (at - 1)
            if data[at] < 128:
                break
        at += 1
        if n > 1024:
            raise OSError("large")
        if len(data) < at + n:
            return None
        kind = data[0]
        self._heard = data[at + n :]
        data = data[at : at + n]
        if kind >> 4 == 3:
            said = json.loads(data[2 + (data[0] << 8 | data[1]) :])
            if "time_ms" in said and tracker.clock in ("none", "gateway"):
                tracker.set_time(said["time_ms"], "gateway")
            self.min_interval_ms = said.get("min_interval_ms", self.min_interval_ms)
        elif kind == 0xD0:
            self._pinged = False
        return kind, data

    def _hear(self, tracker):
        while True:
            packet = self._next(tracker)
            if packet:
                return packet
            yield

    def idle(self, tracker):
        if self.io:
            try:
                self._next(tracker)
                if tracker.uptime_ms() - self._said_ms > self.keep_alive_s * 500:
                    if self._pinged:
                        raise OSError("silent")
                    self._pinged = True
                    yield from self._say(tracker, b"\xc0\0")
            except Exception:
                self.close()
        yield

    def close(self) -> None:
        try:
            self.io.write(b"\xe0\0")  # type: ignore[union-attr]
        except Exception:  # there is none, or it is broken
            pass
        Link.close(self)
