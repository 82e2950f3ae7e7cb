"""A payload -> PUBLISH with QoS 1 of MQTT 3.1.1 -> 200 with its PUBACK; and what the gateway says: the time, hints."""

import json

from .http import Http


def format(*args) -> bytes:
    """Texts or bytes, each after its length."""
    data = bytes()
    for value in args:
        value = value.encode() if isinstance(value, str) else value
        data += len(value).to_bytes(2, "big") + value
    return data


def join(type: int, *args) -> bytes:
    """A packet."""
    data = b"".join(args)
    n = len(data)
    head = [type]
    while n > 127:
        head.append(n & 127 | 128)
        n >>= 7
    return bytes(head + [n]) + data


min_interval_ms: int  # of the gateway's hints; said here, it is a name to mpy-cross, and takes half of the heap


class Mqtt(Http):
    """url: mqtt://host:port or mqtts://…; user name and client identifier are the device's name. tls: an SSLContext for mqtts.

    will: (the last part of its topic, such as tp1; its payload), published by the gateway when the connection breaks.
    """

    def __init__(
        self, url: str, password: str = "", tls=None, keep_alive_s: int = 60, will=None, timeout_ms: int = 20_000
    ) -> None:
        Http.__init__(self, url, None, tls, timeout_ms)
        self.index = 8883 if self.tls else 1883
        self.password = password
        self.keep_alive_s = keep_alive_s
        self.will = will
        self.count = self.sleep_ms = 0  # number of the last message; between messages, as the gateway asks

    def send(self, main, value: bytes):
        """main: the tracker; value: the payload. A connection that breaks or is silent is closed; the next try makes one."""
        try:
            topic = "spoorway/" + main.device
            if not self.io:
                yield from self.open()
                self.bytes = bytes()
                self.end = False  # a ping is under way
                flags = 2
                last = []
                if self.will:
                    flags |= 12
                    last = [topic + "/" + self.will[0], self.will[1]]
                if self.password:
                    flags |= 192
                    last += [main.device, self.password]
                alive = self.keep_alive_s.to_bytes(2, "big")
                yield from self.write(join(0x10, b"\0\4MQTT\4", bytes([flags]), alive, format(main.device, *last)))
                data = yield from self.get(main, 0x20)
                if data[1]:
                    raise OSError(111, data[1])  # ECONNREFUSED
                yield from self.write(join(0x82, b"\0\1", format(topic + "/down"), bytes(1)))
            self.count = self.count % 65535 + 1
            id = self.count.to_bytes(2, "big")
            yield from self.write(join(0x32, format(topic + "/tp2"), id, value))
            self.start = main.uptime_ms()
            while (yield from self.get(main, 0x40)) != id:
                pass
            yield 200, self.sleep_ms
        except Exception:
            self.close()
            raise

    def get(self, main, type):
        """The next packet of that type."""
        while True:
            found = self.next(main)
            if found and found[0] == type:
                return found[1]
            yield

    def next(self, main):
        """A whole packet (type, data), or None. What comes down is heeded here."""
        more = self.io.read(256)  # type: ignore[attr-defined,union-attr]
        if more == b"":
            raise OSError(104)  # ECONNRESET
        self.bytes += more or b""
        data = self.bytes
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
            raise OSError(90)  # EMSGSIZE
        if len(data) < at + n:
            return None
        type = data[0]
        self.bytes = data[at + n :]
        data = data[at : at + n]
        if type >> 4 == 3:
            said = json.loads(data[2 + (data[0] << 8 | data[1]) :])
            if "time_ms" in said and main.clock in ["none", "gateway"]:
                main.set_time(said["time_ms"], "gateway")
            self.sleep_ms = said.get("min_interval_ms", self.sleep_ms)
        elif type == 0xD0:
            self.end = False
        return type, data

    def update(self, main) -> None:  # type: ignore[override]
        """Hears, and says that it lives: pings after half of keep_alive_s."""
        if self.io:
            try:
                self.next(main)
                if main.uptime_ms() - self.start > self.keep_alive_s * 500:
                    if self.end:
                        raise OSError(110)  # ETIMEDOUT
                    self.end = True
                    self.start = main.uptime_ms()
                    self.io.write(join(0xC0))  # type: ignore[attr-defined,union-attr]
            except Exception:
                self.close()

    def close(self) -> None:
        try:
            self.io.write(join(0xE0))  # type: ignore[attr-defined,union-attr]
        except Exception:  # there is none, or it is broken
            pass
        Http.close(self)
