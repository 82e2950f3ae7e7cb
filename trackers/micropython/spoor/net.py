"""A connection of bytes that never blocks: generators that yield while there is nothing to do. What http and mqtt share.

`link` is one of those two; `io` is its connection, a stream of MicroPython: read and write give None where they would block.
"""

import socket
from select import poll

from . import time

socket = getattr(time, "socket", socket)


def split(link, url: str, tls, index):
    """scheme://host:port/path -> tls, host and port of the link. index: the usual ports, with TLS and without.

    Returns the path without its first slash. Raises ValueError where the scheme asks for TLS and there is none.
    """
    kind, _, url, path = (url + "/").split("/", 3)
    link.io = None
    link.host, _, port = url.partition(":")
    if not kind[5:]:  # http: and mqtt:
        tls = None
    elif not tls:
        raise ValueError("tls")
    link.tls = tls
    link.port = int(port or index[not tls])
    return path[:-1]


def open(link):
    """Looking up the name blocks, and so does the handshake of TLS. Raises OSError."""
    found = socket.getaddrinfo(link.host, link.port)[0]
    address = found[-1]
    link.io = sock = socket.socket(found[0])
    if link.tls:
        from .secure import open

        link.io = open(link, sock, address)
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


def write(link, data):
    while data:
        n = link.io.write(data)
        if n:
            data = data[n:]
        else:
            yield


def close(link) -> None:
    io = link.io
    link.io = None
    if io:
        io.close()
