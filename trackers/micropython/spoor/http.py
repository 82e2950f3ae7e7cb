"""A payload -> POST."""

from .net import Link


class Http(Link):
    """url"""

    def __init__(self, url: str, key: bytes | None = None, tls=None, timeout_ms: int = 20_000) -> None:
        self.path = "/" + (self.split(url, tls, timeout_ms, (443, 80)) or "com.snowplowanalytics.snowplow/tp2")
        self.key = key

    def send(self, tracker, body: bytes):
        head = "POST %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        head = head % (self.path, self.host, self.port, len(body))
        if self.key:
            from .sign import headers

            head += headers(self, tracker, body)
        yield from self.open()
        yield from self.write(head.encode() + b"\r\n")
        yield from self.write(body)
        data = b""
        while len(data) <= 2048:
            more = self.io.read(256)  # type: ignore[union-attr]
            if more is None:
                yield
                continue
            data += more
            said, end, rest = data.lower().partition(b"\r\n\r\n")
            if end:
                status = int(said.split()[1])
                size = find(said, b"\r\ncontent-length:")
                if status == 204 or (len(rest) >= size if size >= 0 else rest.endswith(b"0\r\n\r\n")):
                    self.close()
                    yield status, find(said, b"\r\nretry-after:") * 1000
            if not more:
                raise OSError


def find(value, key):
    found = value.partition(key)[2].split()
    return int(found[0]) if found and found[0].isdigit() else -1
