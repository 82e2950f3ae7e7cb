"""WSGI middleware: page views, timings and errors, and every event of a request under its visitor's ids.

app = Middleware(app, tracker)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from typing import Any

from spoorway_tracker.integrations.web import Request, Watch, subject_of
from spoorway_tracker.subject import acting_as
from spoorway_tracker.tracker import Verbs

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Middleware:
    """options: of Watch. client_ip: REMOTE_ADDR unless given; behind a proxy that is the proxy's.

    An app that knows a request's route says so as environ["spoorway.route"]; else timings are by path.
    """

    def __init__(
        self, app: App, tracker: Verbs, client_ip: Callable[[Environ], str] = lambda environ: environ.get("REMOTE_ADDR", ""),
        **options: Any,
    ) -> None:  # fmt: skip
        self._app, self._watch, self._client_ip = app, Watch(tracker, **options), client_ip

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._watch.skip(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        request, answer = request_of(environ, self._client_ip(environ)), list[str]()

        def noticing(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            named = {name.lower(): value for name, value in headers}
            answer[:] = status[:3], named.get("content-type", "")
            return start_response(status, headers, *rest)

        began = time.perf_counter()

        def answered() -> None:
            took_ms = (time.perf_counter() - began) * 1000
            routed = request._replace(route=environ.get("spoorway.route") or request.route)
            self._watch.answered(routed, int(answer[0]) if answer else 0, answer[-1] if answer else "", took_ms)

        with acting_as(subject_of(request)):
            try:
                body = self._app(environ, noticing)
            except Exception as error:
                self._watch.failed(error)
                raise
            if not answer:  # an app that is a generator begins to run when it is asked for its body
                return self._answering(body, copy_context(), answered)
            answered()
        return body

    def _answering(self, body: Iterable[bytes], visitor: Context, answered: Callable[[], None]) -> Iterator[bytes]:
        try:
            parts = iter(body)
            while (part := visitor.run(next, parts, None)) is not None:
                yield part
            visitor.run(answered)
        except Exception as error:
            visitor.run(self._watch.failed, error)
            raise
        finally:
            if (close := getattr(body, "close", None)) is not None:
                close()


def request_of(environ: Mapping[str, Any], ip: str) -> Request:
    from wsgiref.util import request_uri

    return Request(
        environ.get("REQUEST_METHOD", "GET"), request_uri(dict(environ)), environ.get("PATH_INFO", ""),
        environ.get("HTTP_REFERER", ""),
        environ.get("HTTP_COOKIE", ""), environ.get("HTTP_USER_AGENT", ""), environ.get("HTTP_ACCEPT_LANGUAGE", ""), ip,
    )  # fmt: skip
