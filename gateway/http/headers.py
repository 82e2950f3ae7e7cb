"""Request headers -> those the payload keeps: an allow-list, in the order they came, names as sent.

Never kept, whatever the configuration says: credentials, and headers that carry an address (the payload has an `ip` of its own,
which the trusted-proxy rules decided; nobody after us should believe the raw header again).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from protocol.seams import ConfigurationError

NEVER = {
    "authorization": "it holds credentials",
    "proxy-authorization": "it holds credentials",
    **dict.fromkeys(
        ("x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "cf-connecting-ip", "x-client-ip", "x-cluster-client-ip"),
        "it holds addresses; set trusted_proxies and read the payload's ip",
    ),
}

_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_COOKIE_VALUE = re.compile(r'[!#-+\--:<-\[\]-~]*|"[!#-+\--:<-\[\]-~]*"')
_MAX_KNOWN, _MAX_KNOWN_NAME = 1024, 64


class StoredHeaders:
    def __init__(self, names: Sequence[str]) -> None:
        """names: see Config.stored_headers. Raises ConfigurationError for one that must not be kept."""
        lowered = [name.lower() for name in names]
        self._exact = frozenset(name for name in lowered if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in lowered if name.endswith("*"))
        for name, reason in NEVER.items():
            if name in self._exact:
                raise ConfigurationError(f"stored_headers: {name} is never stored: {reason}")
        # Header names repeat: what was decided about one is remembered by its bytes.
        self._known: dict[bytes, str | None] = {}

    def of(
        self, raw_headers: Iterable[tuple[bytes, bytes]], *, anonymous: bool = False, encoded: bool = False
    ) -> tuple[tuple[str, str], ...]:
        """anonymous: cookies are left out. encoded: the body is still encoded, so Content-Encoding is kept too."""
        known = self._known
        kept: list[tuple[str, str]] = []
        for raw_name, raw_value in raw_headers:
            name = known[raw_name] if raw_name in known else self._judge(raw_name)
            if name is not None:
                value = text_of(raw_value)
                if name.lower() == "cookie":
                    value = "" if anonymous else clean_cookies(value)
                    if not value:
                        continue
                kept.append((name, value))
            elif encoded and raw_name.lower() == b"content-encoding":
                kept.append((text_of(raw_name), text_of(raw_value)))
        return tuple(kept)

    def _judge(self, raw_name: bytes) -> str | None:
        name = text_of(raw_name)
        lowered = name.lower()
        keep = lowered not in NEVER and (lowered in self._exact or lowered.startswith(self._prefixes))
        found = name if keep and lowered != "content-encoding" else None
        if len(self._known) < _MAX_KNOWN and len(raw_name) <= _MAX_KNOWN_NAME:
            self._known[raw_name] = found
        return found


def text_of(value: bytes) -> str:
    """UTF-8, or Latin-1 when it is not: any bytes give a text that JSON can hold."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def json_safe(value: str) -> str:
    """The same for a value that the parser has decoded already, in a form that JSON cannot hold when it is not UTF-8."""
    return value if value.isascii() else text_of(value.encode("utf-8", "surrogateescape"))


def cookies(header: str) -> list[tuple[str, str]]:
    """Name and value of every cookie that is well-formed, quotes taken off. Source: RFC 6265, 4.1.1."""
    found: list[tuple[str, str]] = []
    for part in header.split(";"):
        name, equals, value = part.strip(" \t").partition("=")
        if equals and _COOKIE_NAME.fullmatch(name) and _COOKIE_VALUE.fullmatch(value):
            found.append((name, value.strip('"')))
    return found


def is_cookie_value(text: str) -> bool:
    """Whether it may stand in a Set-Cookie header without changing its meaning."""
    return bool(_COOKIE_VALUE.fullmatch(text))


def is_cookie_name(text: str) -> bool:
    return bool(_COOKIE_NAME.fullmatch(text))


def clean_cookies(header: str) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies(header))
