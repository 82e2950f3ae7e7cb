"""Request target and Host header -> path, query and host as recorded: not decoded."""

from __future__ import annotations

from functools import lru_cache

from gateway.http.headers import json_safe

_MAX_KNOWN = 256  # characters of a host that may stay in memory


def split_target(target: str) -> tuple[str, str]:
    """(path, query without "?")."""
    path, _, query = target.partition("?")
    if "://" in path and not path.startswith("/"):  # as sent to proxies
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path, query


def host_of(target: str, host_header: str | None) -> str | None:
    """The host name without port: the target's own, or else the Host header's."""
    if not target.startswith("/") and "://" in target:
        authority = target.partition("://")[2].partition("?")[0].partition("/")[0].rpartition("@")[2]
    else:
        authority = host_header or ""
    return _host(authority) if len(authority) <= _MAX_KNOWN else None


@lru_cache(maxsize=256)
def _host(authority: str) -> str | None:
    authority = json_safe(authority)
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0] or None
