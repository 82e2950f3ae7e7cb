"""Ports for servers that must be told theirs: free now, and not among those that the system gives to whoever asks for any.

So nobody takes one between its choice and its use, or while its server is down for a moment; a process gets each of them once.
"""

from __future__ import annotations

import socket
from pathlib import Path
from random import SystemRandom

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _LAST = 15_000, 32_767
_CHANCE = SystemRandom()  # tests seed the usual one, each process alike
_given: set[int] = set()


def free_port() -> int:
    """On 127.0.0.1."""
    last = min(_LAST, int(_RANGE.read_text().split()[0]) - 1) if _RANGE.exists() else _LAST
    for _ in range(100):
        port = _CHANCE.randint(_FIRST, max(last, _FIRST + 1_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise AssertionError(f"no port from {_FIRST} to {last} is free")
