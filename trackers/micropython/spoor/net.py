"""A connection of bytes that never blocks: generators that yield while there is nothing to do. Used by http and mqtt."""

import select
import socket

try:
    from .cpython import Stream
except ImportError:

    def Stream(sock):  # type: ignore[no-redef]
        return sock  # a board's sockets are streams


def split(url: str):
    """(TLS or not, host, port or 0, path) of scheme://host:port/path."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    host, _, port = host.partition(":")
    return scheme in ("https", "mqtts"), host, int(port or 0), slash + path


def connect(host: str, port: int, tls):
    """tls: an SSLContext or None. Looking up the name blocks, and so does the handshake of TLS. Raises OSError."""
    address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
    sock = socket.socket(address[0])
    try:
        if tls:
            sock.settimeout(10)
            sock.connect(address[-1])
            sock = tls.wrap_socket(sock, server_hostname=host)
        sock.setblocking(False)
        if not tls:
            try:
                sock.connect(address[-1])
            except OSError:  # in progress; what else it may be shows when it is used
                pass
            ready = select.poll()
            ready.register(sock, select.POLLOUT)
            while not ready.poll(0):
                yield
    except BaseException:
        sock.close()
        raise
    return Stream(sock)


def write(stream, data: bytes):
    view = memoryview(data)
    while view:
        n = stream.write(view)
        if n:
            view = view[n:]
        else:
            yield


def read(stream, size: int):
    """At most `size` bytes; none: the other side closed."""
    while True:
        data = stream.read(size)
        if data is not None:
            return data
        yield
