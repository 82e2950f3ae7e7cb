"""A payload -> PUBLISH with QoS 1 of MQTT 3.1.1 -> 200 with its PUBACK, 0 without; and what the gateway says: the time, hints."""

import json

from .net import connect, split, write


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


class Mqtt:
    """url: mqtt://host:port or mqtts://…; user name and client identifier are the device's name. tls: an SSLContext for mqtts.

    will: (the last part of its topic, such as tp1; its payload), published by the gateway when the connection breaks.
    """

    key = None

    def __init__(
        self, url: str, password: str = "", tls=None, keep_alive_s: int = 60, will=None, timeout_ms: int = 20_000
    ) -> None:
        secure, self.host, self.port, _ = split(url)
        if secure and not tls:
            raise ValueError("mqtts needs tls")
        self.tls = tls if secure else None
        self.port = self.port or (8883 if secure else 1883)
        self.password = password
        self.keep_alive_s = keep_alive_s
        self.will = will
        self.timeout_ms = timeout_ms
        self._stream = None  # type: ignore[var-annotated]
        self._id = 0

    def send(self, tracker, body: bytes):
        """A connection that breaks, or falls silent, is closed and made anew at the next try."""
        done = False
        try:
            if not self._stream:
                yield from self._connect(tracker)
            self._id = self._id % 65535 + 1
            id = self._id.to_bytes(2, "big")
            yield from self._say(tracker, _packet(0x32, _text("spoorway/%s/tp2" % tracker.device), id, body))
            while True:
                kind, data = yield from self._hear(tracker)
                if kind == 0x40 and data == id:
                    done = True
                    return 200, 0
        finally:
            if not done:
                self.close()

    def _connect(self, tracker):
        self._stream = yield from connect(self.host, self.port, self.tls)
        self._buffer = b""
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
        yield from write(self._stream, data)
        self._said_ms = tracker.uptime_ms()

    def _next(self, tracker):
        """A whole packet (kind, data), or None. What comes down is heeded here."""
        more = self._stream.read(256)  # type: ignore[attr-defined]
        if more == b"":
            raise OSError("closed")
        self._buffer += more or b""
        data = self._buffer
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
        self._buffer = data[at + n :]
        data = data[at : at + n]
        if kind >> 4 == 3:
            said = json.loads(data[2 + (data[0] << 8 | data[1]) :])
            if "time_ms" in said and tracker.clock in ("none", "gateway"):
                tracker.set_time(said["time_ms"], "gateway")
            tracker.min_interval_ms = said.get("min_interval_ms", tracker.min_interval_ms)
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
        if self._stream:
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
        stream = self._stream
        self._stream = None
        if stream:
            try:
                stream.write(b"\xe0\0")
            except OSError:
                pass
            stream.close()
