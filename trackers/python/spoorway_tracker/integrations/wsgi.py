"""WSGI middleware: page views, timings and errors, and every event of a request under its visitor's ids.

app = Middleware(app, tracker)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spoorway_tracker.integrations.web import Request, Watch, subject_of
from spoorway_tracker.subject import acting_as
from spoorway_tracker.tracker import Verbs

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Middleware:
    """options: of Watch. client_ip: REMOTE_ADDR unless given; behind a proxy that is the proxy's."""

    def __init__(
        self, app: App, tracker: Verbs, client_ip: Callable[[Environ], str] = lambda environ: environ.get("REMOTE_ADDR", ""),
        **options: Any,
    ) -> None:  # fmt: skip
        self._app, self._watch, self._client_ip = app, Watch(tracker, **options), client_ip

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._watch.skip(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        request, answer = request_of(environ, self._client_ip(environ)), ["0", ""]

        def noticing(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            named = {name.lower(): value for name, value in headers}
            answer[:] = status[:3], named.get("content-type", "")
            return start_response(status, headers, *rest)

        began = time.perf_counter()
        with acting_as(subject_of(request)):
            try:
                body = self._app(environ, noticing)
            except Exception as error:
                self._watch.failed(error)
                raise
            self._watch.answered(request, int(answer[0]), answer[1], (time.perf_counter() - began) * 1000)
        return body


def request_of(environ: Mapping[str, Any], ip: str) -> Request:
    from wsgiref.util import request_uri

    return Request(
        environ.get("REQUEST_METHOD", "GET"), request_uri(dict(environ)), environ.get("PATH_INFO", ""),
        environ.get("HTTP_REFERER", ""),
        environ.get("HTTP_COOKIE", ""), environ.get("HTTP_USER_AGENT", ""), environ.get("HTTP_ACCEPT_LANGUAGE", ""), ip,
    )  # fmt: skip
