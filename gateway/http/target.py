"""Request target and Host header -> path, query and host as recorded: not decoded."""

from __future__ import annotations

import re


def split_target(target: str) -> tuple[str, str]:
    """(path, query without "?")."""
    path, _, query = target.partition("?")
    if "://" in path and not path.startswith("/"):  # as sent to proxies
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def host_of(target: str, host_header: str | None) -> str | None:
    """The host name without port: the target's own, or else the Host header's."""
    host = target.partition("://")[2] if target[:1] != "/" and "://" in target else host_header
    if not host:
        return None
    host = re.split("[/?#]", host, maxsplit=1)[0].rpartition("@")[2] if host is not host_header else host
    if not host.isascii():
        host = host.encode("utf-8", "surrogateescape").decode("latin-1")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0] or None
