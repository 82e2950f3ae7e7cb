"""A payload -> a line of the serial protocol (`@j,…*CRC`) -> 200 when the gateway answers that it is on disk."""

_LONGEST = 4096
_STATUS = {"busy": 503, "crc": 0, "line": 0, "large": 413, "form": 400, "replayed": 409}


def crc16(data: bytes) -> int:
    """Polynomial 0x1021, start 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def line(kind: str, device: str, boot: int, sequence: int, body: bytes, key: bytes | None) -> bytes:
    head = "%s,%s,%d,%d" % (kind, device, boot, sequence)
    if key:
        from .sign import signature

        head += "," + signature(key, device, boot, sequence, kind, body)
    text = b"%s:%s" % (head.encode(), body)
    return b"@%s*%04x\n" % (text, crc16(text))


class Uart:
    """port: reads and writes bytes without waiting, as machine.UART(…, timeout=0) does. key: 32 bytes; lines are then signed."""

    timeout_ms = 10_000
    min_interval_ms = 0  # between messages, as the gateway asks

    def __init__(self, port, key: bytes | None = None) -> None:
        self.port = port
        self.key = key
        self._greeted = False
        self.messages = 0  # lines so far, each has its number
        self._heard = b""

    def send(self, tracker, body: bytes):
        if not self._greeted:
            status = yield from self._ask(tracker, "h", b"")
            if status != 200:
                yield status, 0
            self._greeted = True
        yield (yield from self._ask(tracker, "j", body)), self.min_interval_ms

    def _ask(self, tracker, kind: str, body: bytes):
        """The status of a line's answer; without one the same line goes out again every 2 s."""
        self.messages += 1
        text = line(kind, tracker.device, tracker.boot, self.messages, body, self.key)
        if len(text) > _LONGEST + 1:
            return 413
        own = [str(tracker.boot), str(self.messages)]
        said = -2000
        while True:
            if tracker.uptime_ms() - said >= 2000:
                said = tracker.uptime_ms()
                yield from self._say(text)
            for what, *rest in self._answers(tracker):
                if what == "t":
                    if kind == "h":
                        return 200
                elif what == "r":
                    self.min_interval_ms = int(rest[0])
                elif rest[:2] == own or rest[:2] == ["", ""]:
                    if what == "a":
                        return 200
                    status = _STATUS.get(rest[2], 401)
                    if status:
                        return status
                    said = -2000
            yield

    def _say(self, data: bytes):
        view = memoryview(data)
        while view:
            n = self.port.write(view) or 0
            view = view[n:]
            if view:
                yield

    def _answers(self, tracker):
        """Whole lines that are ours and right, split at their commas."""
        self._heard += self.port.read(256) or b""
        *lines, self._heard = self._heard.split(b"\n")
        self._heard = self._heard[-256:]
        found = []
        for text in lines:
            text, _, crc = text[text.rfind(b"!") + 1 :].strip().rpartition(b"*")
            if crc == b"%04x" % crc16(text):
                parts = text.decode().split(",")
                if parts[0] == "t" and tracker.clock in ("none", "gateway"):
                    tracker.set_time(int(parts[1]), "gateway")
                found.append(parts)
        return found

    def update(self, tracker) -> None:
        self._answers(tracker)

    def close(self) -> None:
        pass
