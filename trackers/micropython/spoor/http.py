"""A payload -> POST /com.snowplowanalytics.snowplow/tp2 over a connection of its own -> the status of a complete head.

A collector answers when it has the events, so the end of the head acknowledges them; a body cut short takes nothing back.
What Mqtt shares is here: an address, and a connection that never blocks.
"""

import socket
from select import poll


class Http:
    """url: http://host:port or https://…; its path, if any, replaces the usual one. tls: an SSLContext for https.

    key: 32 bytes; messages are then signed.
    io: the connection, a stream of MicroPython: read and write give None where they would block.
    """

    io = None
    update = id  # there is nothing to do

    def __init__(self, url: str, key: bytes | None = None, tls=None, timeout_ms: int = 20_000) -> None:
        """Raises ValueError where the scheme asks for TLS and there is none."""
        kind, _, self.host, path = (url + "/").split("/", 3)
        self.tls = tls = kind[5:] and tls  # "" for http: and mqtt:
        if tls is None:
            raise ValueError("tls")
        self.path = "/" + (path[:-1] or "com.snowplowanalytics.snowplow/tp2")
        self.index = 443 if tls else 80  # the usual port
        self.key = key
        self.timeout_ms = timeout_ms

    def open(self):
        """Looking up the name blocks, and so does the handshake of TLS. Raises OSError."""
        host, *port = self.host.split(":")
        found = socket.getaddrinfo(host, int(port[0]) if port else self.index)[0]
        address = found[-1]
        self.io = sock = socket.socket(found[0])
        if self.tls:
            from .tls import open

            self.io = open(self, sock, address)
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

    def write(self, *args):
        """All of the bytes."""
        for value in args:
            while value:
                n = self.io.write(value)  # type: ignore[attr-defined,union-attr]
                if n:
                    value = value[n:]
                else:
                    yield

    def send(self, main, value: bytes):
        """main: the tracker; value: the payload. At last (status, ms of Retry-After)."""
        more = ""
        if self.key:
            from .sign import format

            more = format(self, main, value)
        try:
            yield from self.open()
            yield from self.write(
                (
                    "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
                    % (self.path, self.host, len(value), more)
                ).encode(),
                value,
            )
            data = bytes()  # a constant would stay on the heap
            while b"\r\n\r\n" not in data:
                # Of a longer head nothing is read, as if it ended there.
                part = self.io.read(256 * (len(data) < 2048))  # type: ignore[attr-defined,union-attr]
                if part is None:
                    yield
                elif not part:
                    raise OSError
                else:
                    data += part.lower()
        finally:
            self.close()
        part = data.split(b"\nretry-after:")[-1].split()[0]
        yield int(data.split()[1]), part.isdigit() and int(part) * 1000

    def close(self):
        io = self.io
        self.io = None
        if io:
            io.close()
