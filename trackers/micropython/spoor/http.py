"""A payload -> POST /com.snowplowanalytics.snowplow/tp2 over a connection of its own -> the status of a complete answer."""

import spoor


class Http:
    """url: http://host:port or https://…; its path, if any, replaces the usual one. tls: an SSLContext for https.

    key: 32 bytes; messages are then signed.
    """

    host: str  # of split
    port: int

    close = spoor.close
    update = id  # there is nothing to do

    def __init__(self, url: str, key: bytes | None = None, tls=None, timeout_ms: int = 20_000) -> None:
        self.path = "/" + (spoor.split(self, url, tls, (443, 80)) or "com.snowplowanalytics.snowplow/tp2")
        self.key = key
        self.timeout_ms = timeout_ms

    def send(self, main, value: bytes):
        """main: the tracker; value: the payload. At last (status, ms of Retry-After): without its body an answer is none."""
        more = ""
        if self.key:
            from .sign import format

            more = format(self, main, value)
        head = (
            "POST %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\nContent-Type: application/json\r\n"
            "Content-Length: %d\r\n%s\r\n"
        )
        yield from spoor.open(self)
        yield from spoor.write(self, (head % (self.path, self.host, self.port, len(value), more)).encode())
        yield from spoor.write(self, value)
        data = b""
        while True:
            more = self.io.read(256)  # type: ignore[attr-defined]
            if more is None:
                yield
                continue
            data += more
            said, *rest = data.lower().split(b"\r\n\r\n", 1)
            if rest:
                status = int(said.split()[1])
                size = find(said, b"\ncontent-length:")
                if status == 204 or (len(rest[0]) >= size if size >= 0 else rest[0].endswith(b"0\r\n\r\n")):
                    self.close()
                    yield status, find(said, b"\nretry-after:") * 1000
            if not more or len(data) > 2048:
                raise OSError


def find(value: bytes, key: bytes) -> int:
    """The number of a field of the head, or -1."""
    found = (value + key).split(key)[1].split()
    return int(found[0]) if found and found[0].isdigit() else -1
