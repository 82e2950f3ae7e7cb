"""Bytes of responses. The usual ones are built once; per request only what varies is put behind them.

An answer's head lacks Date, Connection and the empty line: the connection that writes it knows those.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources import files
from typing import Literal, NamedTuple
from xml.sax.saxutils import quoteattr

from gateway.http.config import CrossDomain, RootAnswer
from protocol.seams import ConfigurationError

Outcome = Literal[
    "accepted",
    "not_recorded",
    "redirected",  # recorded, then sent on
    "redirect_unrecorded",  # sent on, though the journal did not take it
    "redirect_refused",  # recorded, but nobody vouched for its target
    "preflight",
    "service",
    "not_found",
    "bad_request",
    "refused",  # of a device: not who it says, from the past, too fast
    "too_large",
    "timeout",
    "unavailable",
    "aborted",
]


class Answer(NamedTuple):
    """outcome: the counter it adds to. head: status line and headers, each with its line end."""

    outcome: Outcome
    head: bytes
    body: bytes = b""


def head(status: int, headers: Iterable[tuple[str, str]] = (), *, length: int = 0) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def text(outcome: Outcome, status: int, body: str, *headers: tuple[str, str]) -> Answer:
    data = body.encode()
    return Answer(outcome, head(status, (("Content-Type", "text/plain"), *headers), length=len(data)), data)


# In an answer, Accept-Encoding tells the client how its next body may be packed: RFC 9110, 12.5.3. What bodies.inflate undoes.
OK_BODY = b"ok"
OK_HEAD = head(200, [("Content-Type", "text/plain"), ("Accept-Encoding", "gzip, deflate")], length=len(OK_BODY))

# One transparent pixel: header, two-colour table, transparency extension, 1x1 image, trailer.
PIXEL_BODY = bytes.fromhex("474946383961 01000100 800000 ffffff 000000 21f90401000000 00 2c00000000 01000100 00 02024401 00 3b")
PIXEL_HEAD = head(
    200,
    [("Content-Type", "image/gif"), ("Cache-Control", "no-cache, no-store, must-revalidate")],
    length=len(PIXEL_BODY),
)

HEALTHY = text("service", 200, "ok")
ROBOTS = text(
    "service", 200, "".join(f"User-agent: {name}\nDisallow: /\n\n" for name in ("*", "Googlebot", "AdsBot-Google")).rstrip("\n")
)
NOT_FOUND = text("not_found", 404, "not found")
REDIRECTS_DISABLED = text("not_found", 404, "redirects disabled")
BAD_REQUEST = text("bad_request", 400, "bad request")
TOO_LARGE = text("too_large", 413, "body too large")
REQUEST_TIMEOUT = text("timeout", 408, "request timeout")


def unavailable(retry_after_s: int, reason: str) -> Answer:
    return text("unavailable", 503, reason, ("Retry-After", str(retry_after_s)))


def root_answer(root: RootAnswer) -> Answer:
    """Raises ConfigurationError."""
    if not root.status:
        return NOT_FOUND
    body = root.body.encode()
    try:
        lines = head(root.status, root.headers.items(), length=len(body))
    except ValueError as error:
        raise ConfigurationError(f"root: {error}; status must be an HTTP status, headers Latin-1") from error
    if lines.count(b"\n") != 2 + len(root.headers) or lines.count(b"\r") != lines.count(b"\n"):
        raise ConfigurationError("root.headers: a header cannot hold a line break")
    return Answer("service", lines, body)


def script_answer() -> Answer:
    """The JavaScript tracker, readable from any origin so that a page can check its hash. Kept for an hour."""
    body = files("gateway.http").joinpath("script", "spoorway.js").read_bytes()
    lines = [
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("Cache-Control", "public, max-age=3600"),
        ("Access-Control-Allow-Origin", "*"),
        ("Cross-Origin-Resource-Policy", "cross-origin"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    return Answer("service", head(200, lines, length=len(body)), body)


def crossdomain_answer(policy: CrossDomain) -> Answer:
    if not policy.enabled:
        return NOT_FOUND
    secure = str(policy.secure).lower()
    rules = "".join(f"  <allow-access-from domain={quoteattr(d)} secure={quoteattr(secure)}/>\n" for d in policy.domains)
    body = f'<?xml version="1.0"?>\n<cross-domain-policy>\n{rules}</cross-domain-policy>\n'.encode()
    return Answer("service", head(200, [("Content-Type", "text/xml")], length=len(body)), body)
