"""A connection of bytes that never blocks: generators that yield while there is nothing to do. Base of http and mqtt."""

import socket
from select import poll

from . import time

socket = getattr(time, "socket", socket)


class Link:
    io = None  # type: ignore[var-annotated]

    def split(self, url, tls, timeout_ms, index):
        kind, _, url, path = (url + "/").split("/", 3)
        self.host, _, port = url.partition(":")
        if not kind[5:]:
            tls = None
        elif not tls:
            raise ValueError("tls")
        self.tls = tls
        self.timeout_ms = timeout_ms
        self.port = int(port or index[not tls])
        return path[:-1]

    def open(self):
        found = socket.getaddrinfo(self.host, self.port)[0]
        self.io = sock = socket.socket(found[0])
        address = found[-1]
        if self.tls:
            from .secure import open

            self.io = open(self, sock, address)
            return
        sock.setblocking(False)
        try:
            sock.connect(address)
        except OSError:  # in progress; what else it may be shows when it is used
            pass
        ready = poll()
        ready.register(sock, 4)
        while not ready.poll(0):
            yield

    def write(self, data):
        data = memoryview(data)
        while data:
            n = self.io.write(data)  # type: ignore[union-attr]
            if not n:
                yield
            data = data[n or 0 :]

    def idle(self, value):
        yield

    def close(self):
        io = self.io
        self.io = None
        if io:
            io.close()
