"""A socket -> one that speaks TLS. Its handshake blocks. Loaded where it is used."""

from . import time


def open(link, sock, address):
    sock.settimeout(10)
    sock.connect(address)
    sock = link.tls.wrap_socket(getattr(sock, "_sock", sock), server_hostname=link.host.split(":")[0])
    sock.setblocking(False)
    return time.Stream(sock) if hasattr(time, "Stream") else sock
