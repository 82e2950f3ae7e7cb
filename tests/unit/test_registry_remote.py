"""One question to a registry that is real: good, slow, hanging, huge, redirecting, broken, private."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from protocol.iglu import parse
from protocol.seams import ConfigurationError
from spoorway.registry import remote
from spoorway.registry.options import Remote
from spoorway.registry.remote import Answer, Down, Refused, fetch

KEY = parse("iglu:com.acme/reading/jsonschema/1-0-0")
PATH = "/schemas/com.acme/reading/jsonschema/1-0-0"
DOCUMENT: Any = {"self": {"vendor": "com.acme", "name": "reading", "format": "jsonschema", "version": "1-0-0"}}
BODY = json.dumps(DOCUMENT).encode()

Reply = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Answers each request with what `reply` does."""

    def __init__(self) -> None:
        self.reply: Reply = lambda handler: send(handler, 200, BODY)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ending = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                try:
                    site.reply(self)
                except OSError:  # the one who asked has hung up
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def remote(self, **options: Any) -> Remote:
        return Remote(self.url, **{"allow_private": True, "timeout_s": 5.0, **options})

    def stop(self) -> None:
        self.ending.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if "Content_Length" not in headers:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


def test_document_is_fetched_from_its_place(site: Site) -> None:
    site.reply = lambda handler: send(handler, 200, BODY, ETag='"one"')
    assert fetch(site.remote(), KEY) == Answer("found", DOCUMENT, '"one"')
    (path, headers) = site.requests[0]
    assert path == PATH
    assert headers["host"] == site.url.removeprefix("http://")
    assert "apikey" not in headers
    assert "if-none-match" not in headers


def test_base_may_have_a_path_and_a_slash_at_its_end(site: Site) -> None:
    fetch(Remote(f"{site.url}/api/", allow_private=True), KEY)
    assert site.requests[0][0] == f"/api{PATH}"


def test_same_as_before_is_told_by_the_etag(site: Site) -> None:
    site.reply = lambda handler: send(handler, 304)
    assert fetch(site.remote(), KEY, '"one"').status == "same"
    assert site.requests[0][1]["if-none-match"] == '"one"'


def test_key_is_read_from_its_file_each_time(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "key"
    for key in ("first", "second"):
        file.write_text(f"{key}\n")
        fetch(site.remote(apikey_file=str(file)), KEY)
    assert [headers["apikey"] for _, headers in site.requests] == ["first", "second"]
    for bad in ("", "two\nlines", "é"):
        file.write_text(bad)
        with pytest.raises(Down, match="holds no key"):
            fetch(site.remote(apikey_file=str(file)), KEY)
    with pytest.raises(Down, match="No such file"):
        fetch(site.remote(apikey_file=str(tmp_path / "none")), KEY)
    assert len(site.requests) == 2


@pytest.mark.parametrize("status", [403, 404, 410])
def test_missing_is_an_answer(site: Site, status: int) -> None:
    site.reply = lambda handler: send(handler, status, b"not here")
    assert fetch(site.remote(), KEY) == Answer("missing")


@pytest.mark.parametrize("status", [204, 400, 401, 429, 500, 502, 503])
def test_trouble_is_the_registrys(site: Site, status: int) -> None:
    site.reply = lambda handler: send(handler, status)
    with pytest.raises(Down, match=str(status)):
        fetch(site.remote(), KEY)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b'{"self": {"vendor": "\\ud800"}}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "its self does not say"),
        (BODY.replace(b"1-0-0", b"1-0-1"), "its self does not say"),
        (BODY.replace(b"com.acme", b"com.evil"), "its self does not say"),
    ],
)
def test_useless_document_is_refused(site: Site, body: bytes, why: str) -> None:
    site.reply = lambda handler: send(handler, 200, body)
    with pytest.raises(Refused, match=why):
        fetch(site.remote(), KEY)


@pytest.mark.parametrize("declared", [True, False])
def test_huge_document_is_not_read_to_its_end(site: Site, declared: bool) -> None:
    sent = 0

    def flood(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        if declared:
            handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        while not site.ending.is_set():
            handler.wfile.write(b" " * 65_536)
            sent += 65_536

    site.reply = flood
    with pytest.raises(Refused, match="more than 100000 bytes"):
        fetch(site.remote(max_bytes=100_000), KEY)
    assert sent < 32 << 20  # what sockets hold


def hangs(handler: BaseHTTPRequestHandler, site: Site) -> None:
    site.ending.wait(30)


def drips_headers(handler: BaseHTTPRequestHandler, site: Site) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not site.ending.wait(0.05):
        handler.wfile.write(b"X-A: b\r\n")


def drips_body(handler: BaseHTTPRequestHandler, site: Site) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not site.ending.wait(0.05):
        handler.wfile.write(b" ")


@pytest.mark.parametrize("way", [hangs, drips_headers, drips_body])
def test_time_is_limited_as_a_whole(site: Site, way: Callable[[BaseHTTPRequestHandler, Site], None]) -> None:
    site.reply = lambda handler: way(handler, site)
    began = time.monotonic()
    with pytest.raises(Down, match=r"within 0\.5 s|timed out"):
        fetch(site.remote(timeout_s=0.5), KEY)
    assert time.monotonic() - began < 8


def test_tls_that_never_shakes_hands_is_cut(site: Site) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(Down):
            fetch(Remote(f"https://127.0.0.1:{silent.getsockname()[1]}", allow_private=True, timeout_s=0.5), KEY)
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "reply",
    [
        lambda handler: send(handler, 200, BODY[:-5], Content_Length=str(len(BODY))),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"),
        lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
        lambda handler: handler.connection.close(),
    ],
)
def test_answer_that_breaks_off_is_trouble(site: Site, reply: Reply) -> None:
    site.reply = reply
    with pytest.raises(Down):
        fetch(site.remote(), KEY)


def test_nobody_there_is_trouble() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Down, match="refused"):
            fetch(Remote(f"http://127.0.0.1:{closed.getsockname()[1]}", allow_private=True), KEY)


def test_redirect_within_the_host_is_followed(site: Site) -> None:
    site.reply = lambda h: send(h, 302, Location="/elsewhere?x=1") if h.path == PATH else send(h, 200, BODY)
    assert fetch(site.remote(), KEY).status == "found"
    assert [path for path, _ in site.requests] == [PATH, "/elsewhere?x=1"]


def test_redirect_to_another_host_is_refused_before_it_is_asked(site: Site) -> None:
    other = Site()
    try:
        for location in (
            other.url + PATH,
            f"//127.0.0.1:{other.server.server_port}/x",
            "ftp://127.0.0.1/x",
            "http://[",
            "file:///etc",
        ):
            site.reply = partial(send, status=301, Location=location)
            with pytest.raises((Refused, Down)):
                fetch(site.remote(), KEY)
        assert other.requests == []
    finally:
        other.stop()


def test_redirects_end(site: Site) -> None:
    site.reply = lambda handler: send(handler, 307, Location=PATH)
    with pytest.raises(Refused, match="too many redirects"):
        fetch(site.remote(), KEY)
    assert len(site.requests) == 4


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_not_asked_unless_allowed(site: Site, host: str) -> None:
    port = site.server.server_port
    with pytest.raises(Down, match=r"no public address|family|not known|assign|No address"):
        fetch(Remote(f"http://{host}:{port}"), KEY)
    assert site.requests == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::", False),
        ("64:ff9b::a00:1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert remote._public(address) is public


@pytest.mark.parametrize(
    "options",
    [
        {"url": "iglucentral.com"},
        {"url": "ftp://a"},
        {"url": "http://"},
        {"url": "http://["},
        {"url": "http://a:99999"},
        {"url": "http://user:password@a"},
        {"url": "http://a?b"},
        {"url": "http://a", "apikey_file": "x"},
        {"url": "http://a", "timeout_s": 0.0},
        {"url": "http://a", "max_bytes": 0},
        {"url": "http://a", "max_per_minute": 0},
    ],
)
def test_impossible_registry_is_refused_at_start(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        Remote(**options)
