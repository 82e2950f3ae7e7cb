"""Every option of the HTTP transport, with its default. Values only; each part checks the options it uses when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_NO_TEXT: dict[str, str] = {}

STORED_HEADERS = (
    "User-Agent",
    "Referer",
    "Origin",
    "Accept-Language",
    "DNT",
    "Sec-GPC",
    "Sec-CH-*",
    "Sec-Purpose",
    "Purpose",
    "X-Purpose",
    "X-Moz",
    "SP-Anonymous",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """The third-party cookie that carries network_userid. Off: nothing is set and no id is invented.

    domains: the first that the request's Origin belongs to becomes the Domain attribute; fallback_domain when none does.
    client_name: a second cookie with the same value that page scripts can read; "" for none.
    bounce: ask a new client once, by a redirect, whether it keeps cookies, before its pixel request counts.
    """

    enabled: bool = False
    name: str = "sp"
    expiry_days: float = 365
    secure: bool = True
    http_only: bool = True
    same_site: str = "None"
    path: str = "/"
    domains: tuple[str, ...] = ()
    fallback_domain: str = ""
    client_name: str = ""
    bounce: bool = False
    bounce_parameter: str = "n3pc"
    bounce_fallback_id: str = "00000000-0000-4000-A000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootAnswer:
    """What `GET /` is answered with; status 0 = 404."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=_NO_TEXT.copy)
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossDomain:
    """The policy file that Flash asked for."""

    enabled: bool = False
    domains: tuple[str, ...] = ("*",)
    secure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirects:
    """Clicks that are recorded and sent on, at /r/tp2. Off while both key_file and hosts are empty.

    key_file: keys in hex, one a line; a target signed with any of them is allowed. `spoorway redirect key` makes one.
    hosts: targets on exactly these hosts are allowed unsigned: "example.com", or "example.com:8443" for another port.
    unrecorded: what a click gets that the journal cannot take: "redirect" all the same, or "refuse" with a 503.
    wait_s: with "redirect", how long a click waits for the journal.
    """

    key_file: str = ""
    hosts: tuple[str, ...] = ()
    unrecorded: str = "redirect"
    wait_s: float = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Options of `[gateway.http]`. Sizes in bytes, times in seconds.

    port: 0 lets the system choose.
    reuse_port: several processes share the port; each needs a journal lane of its own.
    trusted_proxies: networks whose `forwarded_header` is believed; a header from anybody else is ignored.
    forwarded_header: X-Forwarded-For, Forwarded, or one that holds a single address, such as CF-Connecting-IP.
    truncate_ip: forget the host part (/24, /48) before the payload exists.
    stored_headers: names, in any case; a final * stands for any ending.
    paths: path of your own -> the path it stands for.
    script_path: where browsers get the JavaScript tracker, such as "/sp.js", or a name that no block list knows; "" = nowhere.
    relays: devices that may send other gateways' payloads to /io.spoorway/relay; they can speak for anybody.
    max_body_bytes: of a body as sent and, separately, as inflated.
    max_inflate_ratio: inflated to sent; applies above 64 KiB.
    max_buffered_bytes: all bodies that are being received or journaled together.
    accept_timeout_s: how long the journal may take before the sender is told to come back.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    reuse_port: bool = False
    backlog: int = 1024
    tls_certificate: str = ""
    tls_key: str = ""
    hsts_max_age_s: int = 0

    trusted_proxies: tuple[str, ...] = ()
    forwarded_header: str = "X-Forwarded-For"
    truncate_ip: bool = False
    stored_headers: tuple[str, ...] = STORED_HEADERS
    cookie: Cookie = field(default_factory=Cookie)
    do_not_track_cookie: str = ""
    do_not_track_pattern: str = ".*"

    paths: Mapping[str, str] = field(default_factory=_NO_TEXT.copy)
    script_path: str = ""
    relays: tuple[str, ...] = ()
    redirects: Redirects = field(default_factory=Redirects)
    root: RootAnswer = field(default_factory=RootAnswer)
    crossdomain: CrossDomain = field(default_factory=CrossDomain)
    preflight_max_age_s: int = 3600
    retry_after_s: int = 5

    max_request_line_bytes: int = 20_480
    max_header_bytes: int = 40_960
    max_body_bytes: int = 2_097_152
    max_inflate_ratio: int = 300
    max_buffered_bytes: int = 67_108_864
    max_connections: int = 1_024
    header_timeout_s: float = 30
    body_timeout_s: float = 25
    accept_timeout_s: float = 30
    idle_timeout_s: float = 610
    stop_timeout_s: float = 10
