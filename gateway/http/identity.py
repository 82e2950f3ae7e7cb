"""Who a request says it is, and the cookie it gets for it. Source: tracker protocol, "network user id" and "anonymous requests".

Order: SP-Anonymous, the `nuid` parameter, the cookie; then, where cookies are enabled, the bounce's fallback or a random id.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import formatdate
from typing import NamedTuple

from gateway.http.config import Cookie
from gateway.http.cors import origins
from gateway.http.headers import cookies, is_cookie_name, is_cookie_value
from protocol.seams import ConfigurationError
from protocol.wire import parse_query

NIL_UUID = "00000000-0000-0000-0000-000000000000"
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]+")
_ATTRIBUTE = re.compile(r"[ -:<-~]*")  # an attribute's value: printable ASCII without ";"


class Identity(NamedTuple):
    """network_userid: None when there is none. bounce: ask for the cookie first, record nothing."""

    network_userid: str | None
    set_cookie_lines: bytes = b""
    anonymous: bool = False
    tracked: bool = True
    bounce: bool = False


class Identities:
    def __init__(self, cookie: Cookie, do_not_track_cookie: str, do_not_track_pattern: str, new_uuid: Callable[[], str]) -> None:
        """Raises ConfigurationError."""
        for option, name in (("name", cookie.name), ("client_name", cookie.client_name or "-")):
            if not is_cookie_name(name):
                raise ConfigurationError(f"cookie.{option}: {name!r} is no cookie name (letters, digits, - and _)")
        for option, value in (
            ("path", cookie.path),
            ("same_site", cookie.same_site),
            ("fallback_domain", cookie.fallback_domain),
            *(("domains", domain) for domain in cookie.domains),
        ):
            if not _ATTRIBUTE.fullmatch(value):
                raise ConfigurationError(f"cookie.{option}: {value!r} cannot stand in a Set-Cookie header")
        if cookie.same_site not in ("", "None", "Lax", "Strict"):
            raise ConfigurationError(f"cookie.same_site: {cookie.same_site!r}; possible are None, Lax, Strict and empty")
        if cookie.bounce and not cookie.enabled:
            raise ConfigurationError("cookie.bounce needs cookie.enabled = true")
        if not _PARAMETER.fullmatch(cookie.bounce_parameter):
            raise ConfigurationError(f"cookie.bounce_parameter: {cookie.bounce_parameter!r} is no parameter name")
        try:
            self._do_not_track = re.compile(do_not_track_pattern)
        except re.error as error:
            raise ConfigurationError(f"do_not_track_pattern: {error}") from error
        self._do_not_track_cookie = do_not_track_cookie
        self._cookie = cookie
        self._new_uuid = new_uuid
        # A request without a Cookie header or nuid needs no further look, unless an id has to be made for it.
        self._passive = not cookie.enabled

    def of(
        self, query: str, cookie_header: str | None, origin: str | None, *, anonymous: bool, pixel: bool, now_s: float
    ) -> Identity:
        """pixel: a GET or HEAD request. now_s: seconds since 1970, for the cookie's expiry."""
        if self._passive and not cookie_header and "nuid" not in query:
            return _ANONYMOUS if anonymous else _NOBODY
        sent = cookies(cookie_header) if cookie_header else []
        if self._do_not_track_cookie and any(
            name == self._do_not_track_cookie and self._do_not_track.fullmatch(value) for name, value in sent
        ):
            return Identity(None, anonymous=anonymous, tracked=False)
        cookie = self._cookie
        ours = next((value for name, value in sent if name == cookie.name and value), None)
        if anonymous:
            present = {name for name, _ in sent} & {cookie.name, cookie.client_name}
            return Identity(NIL_UUID, self._lines("", origin, 0) if cookie.enabled and present else b"", anonymous=True)
        parameters = parse_query(query) if query else {}
        chosen = parameters.get("nuid") or ours
        bounce = False
        if not chosen and cookie.enabled:
            bounced = cookie.bounce and cookie.bounce_parameter in parameters
            bounce = cookie.bounce and pixel and not bounced
            chosen = cookie.bounce_fallback_id if bounced else self._new_uuid()
        lines = b""
        if cookie.enabled and chosen and is_cookie_value(chosen):
            lines = self._lines(chosen, origin, now_s + cookie.expiry_days * 86_400)
        return Identity(chosen, lines, bounce=bounce)

    def _lines(self, value: str, origin: str | None, expires_s: float) -> bytes:
        cookie = self._cookie
        attributes = f"; Expires={formatdate(expires_s, usegmt=True)}"
        if cookie.path:
            attributes += f"; Path={cookie.path}"
        if domain := self._domain(origin):
            attributes += f"; Domain={domain}"
        if cookie.secure:
            attributes += "; Secure"
        same_site = f"; SameSite={cookie.same_site}" if cookie.same_site else ""
        http_only = "; HttpOnly" if cookie.http_only else ""
        lines = f"Set-Cookie: {cookie.name}={value}{attributes}{http_only}{same_site}\r\n"
        if cookie.client_name:
            lines += f"Set-Cookie: {cookie.client_name}={value}{attributes}{same_site}\r\n"
        return lines.encode("ascii")

    def _domain(self, origin: str | None) -> str:
        hosts = [host.lower() for _, host, _ in origins(origin)]
        for domain in self._cookie.domains:
            if any(host == domain.lower() or host.endswith(f".{domain.lower()}") for host in hosts):
                return domain
        return self._cookie.fallback_domain


_NOBODY = Identity(None)
_ANONYMOUS = Identity(NIL_UUID, anonymous=True)
