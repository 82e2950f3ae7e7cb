"""A payload -> POST /com.snowplowanalytics.snowplow/tp2 over a connection of its own -> the status of a complete answer, or 0."""

from .net import connect, read, split, write

_LONGEST = 2048  # of an answer


class Http:
    """url: http://host:port or https://…; its path, if any, replaces the usual one. tls: an SSLContext for https.

    key: 32 bytes; messages are then signed.
    """

    def __init__(self, url: str, key: bytes | None = None, tls=None, timeout_ms: int = 20_000) -> None:
        self.tls, self.host, self.port, path = split(url)
        if self.tls:
            self.tls = tls
            if not tls:
                raise ValueError("https needs tls")
        self.port = self.port or (443 if tls else 80)
        self.path = path if len(path) > 1 else "/com.snowplowanalytics.snowplow/tp2"
        self.key = key
        self.timeout_ms = timeout_ms

    def send(self, tracker, body: bytes):
        head = "POST %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        head = head % (self.path, self.host, self.port, len(body))
        if self.key:
            from .sign import headers

            head += headers(self.key, tracker, self.path, body)
        stream = yield from connect(self.host, self.port, self.tls)
        try:
            yield from write(stream, head.encode() + b"\r\n")
            yield from write(stream, body)
            return (yield from self._answer(stream))
        finally:
            stream.close()

    def _answer(self, stream):
        """(status, seconds of Retry-After). Without its whole body an answer is none."""
        data = b""
        while True:
            more = yield from read(stream, 256)
            data += more
            head, end, body = data.partition(b"\r\n\r\n")
            if end:
                lines = head.decode().lower().split("\r\n")
                status = int(lines[0].split()[1])
                fields = dict([tuple(line.split(":", 1)) for line in lines[1:]])
                length = fields.get("content-length")
                if status == 204 or (len(body) >= int(length) if length else body.endswith(b"0\r\n\r\n")):
                    wait = fields.get("retry-after", "").strip()
                    return status, int(wait) if wait.isdigit() else 0
            if not more or len(data) > _LONGEST:
                return 0, 0

    def idle(self, tracker):
        yield

    def close(self) -> None:
        pass
