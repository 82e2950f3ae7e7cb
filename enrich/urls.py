"""URL text -> its components, with the rules of the reference's URI parser (RFC 2396 with registry authorities).

Pure. A URL the strict rules refuse is repaired by percent-encoding what offends and tried once more.
Source: tracker protocol, "Page URL"; vectors enrich/url-*.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

_ALNUM = "A-Za-z0-9"
_UNRESERVED = _ALNUM + r"_\-!.~'()*"
# Letters beyond ASCII may stand anywhere; their control and space characters may not.
_OTHER = r"[^\x00-\x7f\x80-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_ESCAPED = "%[0-9A-Fa-f]{2}"


def _chars(extra: str) -> str:
    return f"(?:[{_UNRESERVED}{extra}]|{_ESCAPED}|{_OTHER})"


def _run(extra: str) -> str:
    """As `_chars(extra)*`, in long strides: no character can begin two of the three, so nothing is ever tried twice."""
    return f"(?:[{_UNRESERVED}{extra}]++|{_ESCAPED}|{_OTHER}++)*+"


_PATH_CHARS = r",;:$&+=@/"
_URIC_CHARS = r";/?:@&=+$,\[\]"
_PATH = re.compile(_run(_PATH_CHARS))
_URIC = re.compile(_run(_URIC_CHARS))
_OPAQUE = re.compile(_chars(r";?:@&=+$,\[\]") + _run(_URIC_CHARS))
_REGISTRY = re.compile(_chars(r"$,;:@&=+") + "+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_LABEL = f"[{_ALNUM}](?:[{_ALNUM}-]*[{_ALNUM}])?"
_TOP_LABEL = f"[A-Za-z](?:[{_ALNUM}-]*[{_ALNUM}])?"
_IPV4 = r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_HOST = rf"(?:{_IPV4}|(?:{_LABEL}\.)+{_TOP_LABEL}\.?|{_LABEL}\.?|\[[0-9A-Fa-f:.]+(?:%[{_ALNUM}_.~-]+)?\])"
_SERVER = re.compile(rf"(?:{_run(';:&=+$,')}@)?(?P<host>{_HOST})(?::(?P<port>[0-9]*))?")
_PARTS = re.compile(r"(?:(?P<scheme>[^:/?#]*):)?(?P<rest>[^#]*)(?:#(?P<fragment>.*))?", re.DOTALL)
_HIERARCHY = re.compile(r"(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?:\?(?P<query>.*))?", re.DOTALL)
_INT32_MAX = 2_147_483_647

# What the repair leaves as it is, beyond letters and digits; "%" is kept where two hex digits follow.
_KEEP_PATH = "_-!.~'()*,;:&+=@/%"
_KEEP_QUERY = "_-!.~'()*,;:&+=@/?%"
_KEEP_FRAGMENT = "_-!.~'()*,;:+@%"
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

# The query string of a request must be one such query as a whole.
QUERY_STRING = re.compile(_run(_URIC_CHARS))


class Url(NamedTuple):
    """text: the URL as it was understood, after repair. Empty components are None; port as `default_port` fills it."""

    text: str
    scheme: str | None
    host: str | None
    port: int
    path: str | None
    query: str | None
    fragment: str | None


def split(text: str) -> Url | None:
    """None when neither the strict nor the repairing rules understand it. Spaces are %20."""
    text = text.replace(" ", "%20")
    return _strict(text) or _strict(_repaired(text))


def _strict(text: str) -> Url | None:
    match = _PARTS.fullmatch(text)
    if match is None:
        return None
    scheme, rest, fragment = match["scheme"], match["rest"], match["fragment"]
    if scheme is not None and (not _SCHEME.fullmatch(scheme) or not rest):
        return None
    if fragment is not None and not _URIC.fullmatch(fragment):
        return None
    default = 443 if scheme == "https" else 80
    if scheme is not None and not rest.startswith("/"):
        if not _OPAQUE.fullmatch(rest):
            return None
        return Url(text, scheme, None, default, None, None, fragment or None)
    parts = _HIERARCHY.fullmatch(rest)
    if parts is None:
        return None
    authority, path, query = parts["authority"], parts["path"], parts["query"]
    if not _PATH.fullmatch(path) or (query is not None and not _URIC.fullmatch(query)):
        return None
    host, port = None, None
    if authority:
        server = _SERVER.fullmatch(authority)
        if server is not None and len(server["port"] or "") <= 10 and int(server["port"] or 0) <= _INT32_MAX:
            host, port = server["host"], int(server["port"]) if server["port"] else None
        elif not _REGISTRY.fullmatch(authority):
            return None
    elif authority is not None and not path and query is None:
        return None
    return Url(text, scheme, host, default if port is None else port, path or None, query or None, fragment or None)


def _repaired(text: str) -> str:
    match = _PARTS.fullmatch(text)
    if match is None:
        return text
    scheme, rest, fragment = match["scheme"], match["rest"], match["fragment"]
    parts = _HIERARCHY.fullmatch(rest)
    if parts is None:
        return text
    fixed = f"{scheme}:" if scheme is not None else ""
    if parts["authority"] is not None:
        fixed += f"//{parts['authority']}"
    fixed += _encoded(parts["path"], _KEEP_PATH)
    if parts["query"] is not None:
        fixed += "?" + _encoded(parts["query"], _KEEP_QUERY)
    if fragment is not None:
        fixed += "#" + _encoded(fragment, _KEEP_FRAGMENT)
    return fixed


def _encoded(text: str, keep: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=keep, errors="replace")
