"""ASGI middleware: page views, timings and errors, and every event of a request under its visitor's ids.

app.add_middleware(Middleware, tracker=tracker)          # Starlette, FastAPI;    elsewhere: app = Middleware(app, tracker)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spoorway_tracker.integrations.web import Request, Watch, subject_of
from spoorway_tracker.subject import acting_as
from spoorway_tracker.tracker import Verbs

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]


def _peer(scope: Message) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


class Middleware:
    """options: of Watch. client_ip: the connection's peer unless given; behind a proxy that is the proxy's."""

    def __init__(self, app: App, tracker: Verbs, client_ip: Callable[[Message], str] = _peer, **options: Any) -> None:
        self._app, self._watch, self._client_ip = app, Watch(tracker, **options), client_ip

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        if scope["type"] != "http" or self._watch.skip(scope["path"]):
            await self._app(scope, receive, send)
            return
        status, content_type = 0, ""

        async def noticing(message: Message) -> None:
            nonlocal status, content_type
            if message["type"] == "http.response.start":
                status, content_type = message["status"], _header(message, b"content-type")
            await send(message)

        began = time.perf_counter()
        request = _request_of(scope, self._client_ip(scope))
        with acting_as(subject_of(request)):
            try:
                await self._app(scope, receive, noticing)
            except Exception as error:
                self._watch.failed(error)
                raise
            self._watch.answered(_routed(request, scope), status, content_type, (time.perf_counter() - began) * 1000)


def _header(message: Message, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in message.get("headers", ()) if name.lower() == wanted), "")


def _request_of(scope: Message, ip: str) -> Request:
    query = scope.get("query_string", b"").decode("latin-1")
    host = _header(scope, b"host") or ":".join(str(part) for part in scope.get("server") or ("localhost",))
    url = f"{scope.get('scheme', 'http')}://{host}{scope['path']}" + (f"?{query}" if query else "")
    return Request(
        scope["method"], url, scope["path"], _header(scope, b"referer"), _header(scope, b"cookie"), _header(scope, b"user-agent"),
        _header(scope, b"accept-language"), ip,
    )  # fmt: skip


def _routed(request: Request, scope: Message) -> Request:
    """Starlette and FastAPI leave the route that was taken: `/users/{id}` makes one kind of timing, `/users/7` very many."""
    path = getattr(scope.get("route"), "path", "")
    return request if not path else Request(request.method, request.url, path, request.referrer)
