"""The admin port: /metrics, /health/live, /health/ready. Loopback unless told otherwise; never on the port trackers use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from protocol.seams import ConfigurationError
from spoorway.config import Admin


@dataclass(frozen=True, slots=True)
class Answers:
    """metrics: the text of /metrics. unready: why the service cannot take or keep events now; "" when it can."""

    metrics: Callable[[], str]
    unready: Callable[[], str]


class AdminServer:
    """Serves from a thread of its own between `start` and `stop`."""

    def __init__(self, options: Admin, answers: Answers) -> None:
        self._options, self._answers = options, answers
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> tuple[str, int]:
        """The address it listens on. Raises ConfigurationError when the port is taken."""
        host, port = self._options.host, self._options.port
        try:
            self._server = server = ThreadingHTTPServer((host, port), _handler(self._answers))
        except OSError as error:
            raise ConfigurationError(f"admin: cannot listen on {host}:{port}: {error.strerror}; choose another --admin") from None
        server.daemon_threads = True
        Thread(target=server.serve_forever, name="admin", daemon=True).start()
        return str(server.server_address[0]), int(server.server_address[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, answers.metrics(), "text/plain; version=0.0.4; charset=utf-8")
            elif self.path == "/health/live":
                self._send(200, "ok\n")
            elif self.path == "/health/ready":
                why = answers.unready()
                self._send(503 if why else 200, f"{why or 'ok'}\n")
            else:
                self._send(404, "not found; there are /metrics, /health/live, /health/ready\n")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a probe every few seconds is no news."""

        def _send(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
