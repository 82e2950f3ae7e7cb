"""What we ask over HTTPS: who cannot show that it is who we asked gets no question, and is told by name."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from enrich.enrichments import Unanswered, WebRequest
from enrich.enrichments.http_lookup import Config, Plugin
from protocol.iglu import parse
from spoorway.fetching import Web
from spoorway.registry import remote
from spoorway.registry.options import Remote
from spoorway.registry.remote import Down, fetch
from spoorway.world import World

KEY = parse("iglu:com.acme/reading/jsonschema/1-0-0")
DOCUMENT: Any = {"self": {"vendor": "com.acme", "name": "reading", "format": "jsonschema", "version": "1-0-0"}}
LEAF = "basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: ca.pem, and server.pem with server.key for localhost by it; stranger.pem, another authority."""
    folder = tmp_path_factory.mktemp("authority")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "stranger"):
        usage = ("-addext", "keyUsage=critical,keyCertSign")
        openssl(*new, "-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *usage)
    openssl(*new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "leaf").write_text(LEAF)
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", "server.csr", *by, "-days", "2", "-extfile", "leaf", "-out", "server.pem")
    return folder


class Site:
    """asked: the paths of requests that came through TLS."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                body = json.dumps(DOCUMENT).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that does not trust us hangs up in the handshake."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def url(self, host: str) -> str:
        return f"https://{host}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site(authority: Path) -> Iterator[Site]:
    made = Site(authority)
    yield made
    made.close()


def registry(url: str) -> object:
    return fetch(Remote(url, allow_private=True, timeout_s=20.0), KEY).document


def web(url: str) -> object:
    asking = Web(20.0, 10_000, 0.0)
    assert asking(WebRequest(f"{url}/second")).status == 200  # and the connection that was kept serves again
    return json.loads(asking(WebRequest(f"{url}/first")).body)


def http_lookup(url: str) -> object:
    made = Plugin(Config(url=f"{url}/thing", path="$", schema="iglu:com.acme/thing/jsonschema/1-0-0", timeout_s=20.0), World())
    answer: Any = made({}, None)  # type: ignore[arg-type]
    if not isinstance(answer, dict):
        raise Unanswered(answer.message)
    return answer["derived_contexts"][0]["data"]


ASKING = pytest.mark.parametrize("ask", [registry, web, http_lookup], ids=["registry", "web", "http_lookup"])


@pytest.fixture
def trusting(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Whose certificates this machine believes: an authority's name."""

    def trust(name: str) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / f"{name}.pem"))
        remote._tls.cache_clear()

    yield trust
    remote._tls.cache_clear()


@ASKING
def test_trusted_service_is_asked(site: Site, trusting: Callable[[str], None], ask: Callable[[str], object]) -> None:
    trusting("ca")
    assert ask(site.url("localhost")) == DOCUMENT
    assert site.asked


@ASKING
def test_certificate_of_a_stranger_is_refused(site: Site, trusting: Callable[[str], None], ask: Callable[[str], object]) -> None:
    trusting("stranger")
    with pytest.raises((Down, Unanswered), match="certificate verify failed"):
        ask(site.url("localhost"))
    assert site.asked == []


@ASKING
def test_certificate_for_another_name_is_refused(
    site: Site, trusting: Callable[[str], None], ask: Callable[[str], object]
) -> None:
    trusting("ca")
    with pytest.raises((Down, Unanswered), match=r"not valid for '127\.0\.0\.1'"):
        ask(site.url("127.0.0.1"))
    assert site.asked == []
