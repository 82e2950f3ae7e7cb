"""One line of an access log -> the request it tells of. Pure: no file, no clock; which requests count is decided elsewhere.

Read: CloudFront's standard log (tab-separated with `#Fields`, or JSON) and its real-time log (tab-separated, fields named by the
configuration), nginx's and Caddy's JSON, and the common and combined formats of nginx, Apache and many others. The format
is seen from each line. Source: CloudFront developer guide, "standard logging reference", "real-time logs"; nginx
ngx_http_log_module; Caddy, "log".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import unquote_to_bytes

import orjson

from gateway.http.headers import text_of


class Logged(NamedTuple):
    """A request as the log has it. target: path and query as sent. id: what names this request and no other; "" = nothing.

    headers: those the log has; a header that was not sent is not among them. status: 0 when it is not told.
    """

    received_ms: int
    method: str
    target: str
    status: int
    ip: str
    host: str
    headers: tuple[tuple[str, str], ...]
    id: str = ""


# CloudFront's columns, standard and real-time, that become request headers.
_COLUMNS = {
    "cs(User-Agent)": "User-Agent",
    "cs-user-agent": "User-Agent",
    "cs(Referer)": "Referer",
    "cs-referer": "Referer",
    "cs(Cookie)": "Cookie",
    "cs-cookie": "Cookie",
}
_COMBINED = re.compile(
    r'(?P<ip>\S+) \S+ .*?\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) \S+'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?'
)
_TIME = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
# CloudFront encodes the percent sign of what was sent. Where no code follows, the sign was sent as it stands.
_PERCENT = re.compile("%25(?=[0-9A-Fa-f]{2})")
_ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})|\\(.)", re.DOTALL)
_REDACTED = "REDACTED"  # in place of a cookie. Source: Caddy, log_credentials


class Formats:
    """Of one file: knows the columns that its last `#Fields` line named. fields: those before any such line."""

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self.fields = tuple(fields)

    def read(self, line: bytes) -> Logged | None:
        """None: the line is about the log itself. Raises ValueError, saying why, when it is no line of a log known here."""
        text = text_of(line.rstrip(b"\r\n"))
        if text.startswith("{"):
            return _json(text)
        if text.startswith("#"):
            name, _, rest = text.partition(":")
            if name == "#Fields":
                self.fields = tuple(rest.split())
            return None
        if "\t" in text:
            values = text.split("\t")
            if "cs-uri-stem" in values:  # a first line of names without "#Fields"
                self.fields = tuple(values)
                return None
            if not self.fields:
                raise ValueError("tabs, and no #Fields line says what is between them")
            if len(values) != len(self.fields):
                raise ValueError(f"{len(values)} values for {len(self.fields)} fields")
            return _cloudfront(dict(zip(self.fields, values, strict=True)))
        return _combined(text)


def about_the_log(line: bytes) -> bool:
    """Whether many files may begin with it: a comment, the names of columns, nothing."""
    return not line.strip() or line.startswith(b"#") or b"cs-uri-stem" in line.split(b"\t")


def _json(text: str) -> Logged | None:
    try:
        parsed: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    found = cast(Mapping[str, Any], parsed)
    if isinstance(found.get("request"), dict):
        return _caddy(found, found["request"])
    if "cs-uri-stem" in found:
        return _cloudfront({name: str(value) for name, value in found.items()})
    if "request_uri" in found:
        return _nginx({name: str(value) for name, value in found.items()})
    if "level" in found and "msg" in found:  # Caddy speaking of itself
        return None
    raise ValueError("no request in it: neither cs-uri-stem, request_uri nor request")


def _cloudfront(row: Mapping[str, str]) -> Logged:
    told = {name: value for name, value in row.items() if value not in ("-", "")}
    query = told.get("cs-uri-query", "")
    path = _PERCENT.sub("%", _needed(told, "cs-uri-stem"))
    if "timestamp(ms)" in told:
        received_ms = int(told["timestamp(ms)"])
    elif "date" in told and "time" in told:
        received_ms = _iso_ms(f"{told['date']}T{told['time']}+00:00")
    else:
        received_ms = _seconds_ms(_needed(told, "timestamp"))
    return Logged(
        received_ms,
        _needed(told, "cs-method"),
        path + ("?" + _PERCENT.sub("%", query) if query else ""),
        _status(told.get("sc-status", "0")),
        told.get("c-ip", ""),
        told.get("x-host-header") or told.get("cs(Host)") or told.get("cs-host", ""),
        tuple((header, _decoded(header, told[name])) for name, header in _COLUMNS.items() if name in told),
        told.get("x-edge-request-id", ""),
    )


def _nginx(row: Mapping[str, str]) -> Logged:
    """Keys are nginx's names of variables; `http_` and a name is a request header."""
    time = row.get("msec") or _needed(row, "time_iso8601")
    return Logged(
        _seconds_ms(time) if "msec" in row else _iso_ms(time),
        _needed(row, "request_method"),
        _needed(row, "request_uri"),
        _status(row.get("status", "0")),
        row.get("remote_addr", ""),
        row.get("http_host") or row.get("host", ""),
        tuple((_header(name), value) for name, value in row.items() if name.startswith("http_") and value not in ("", "-")),
        row.get("request_id", ""),
    )


@lru_cache(maxsize=256)
def _header(variable: str) -> str:
    """http_user_agent -> User-Agent."""
    return "-".join(part.capitalize() for part in variable.removeprefix("http_").split("_"))


def _caddy(row: Mapping[str, Any], request: Mapping[str, Any]) -> Logged:
    headers: list[tuple[str, str]] = []
    sent = request.get("headers")
    for name, values in cast(Mapping[str, Any], sent).items() if isinstance(sent, dict) else ():
        headers += [(name, value) for value in values if isinstance(value, str) and value != _REDACTED]
    time = row.get("ts")
    return Logged(
        _iso_ms(time) if isinstance(time, str) else _seconds_ms(str(time)),
        _needed(request, "method"),
        _needed(request, "uri"),
        _status(str(row.get("status", 0))),
        str(request.get("client_ip") or request.get("remote_ip") or ""),
        str(request.get("host") or ""),
        tuple(headers),
        str(row.get("request_id") or ""),
    )


def _combined(text: str) -> Logged:
    found = _COMBINED.match(text)
    if found is None:
        raise ValueError("neither JSON, tab-separated nor combined")
    method, _, rest = _unescaped(found["request"]).partition(" ")
    target = rest.rpartition(" ")[0] or rest
    if not target:
        raise ValueError("no request between the quotes")
    headers = (("Referer", found["referer"]), ("User-Agent", found["agent"]))
    return Logged(
        _common_ms(found["time"]),
        method,
        target,
        int(found["status"]),
        found["ip"],
        "",
        tuple((name, _unescaped(value)) for name, value in headers if value not in (None, "", "-")),
    )


def _needed(row: Mapping[str, Any], name: str) -> str:
    if not (value := row.get(name)):
        raise ValueError(f"it has no {name}")
    return str(value)


def _status(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _decoded(name: str, value: str) -> str:
    """A header as it was sent. CloudFront once encoded user agents twice: then every space is %2520, and none is %20."""
    twice = name == "User-Agent" and "%2520" in value and "%20" not in value
    for _ in range(2 if twice else 1):
        value = text_of(unquote_to_bytes(value))
    return value


def _unescaped(text: str) -> str:
    r"""What nginx wrote as \xHH, and Apache as \" and the like."""
    if "\\" not in text:
        return text
    return text_of(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2], text.encode()))


@lru_cache(maxsize=1024)
def _iso_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return _ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _seconds_ms(text: str) -> int:
    """Seconds since 1970 with a fraction; or milliseconds, or more, without one, as Caddy can be told to write."""
    seconds = float(text)
    if not 0 <= seconds < 1e20:
        raise ValueError(f"no time: {text[:40]}")
    while seconds >= 1e11:  # the year 5138, or 1973 in milliseconds
        seconds /= 1000
    return round(seconds * 1000)


@lru_cache(maxsize=1024)
def _common_ms(text: str) -> int:
    """22/Nov/2026:05:37:40 +0000; whatever language the machine speaks."""
    found = _TIME.fullmatch(text)
    if found is None or found[2] not in _MONTHS:
        return _iso_ms(text)
    day, month, year, hour, minute, second, sign, hours, minutes = found.groups()
    moment = datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC)
    offset = (int(hours) * 60 + int(minutes)) * 60_000
    return _ms(moment) - (offset if sign == "+" else -offset)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
