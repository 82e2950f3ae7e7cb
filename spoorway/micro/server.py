"""The test server's HTTP: every route of the gateway, with /micro beside them, below any namespace's prefix.

A payload is enriched and remembered inside `accept`, so whoever has an answer can read what came of it.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from gateway.http.answers import Answer, Outcome, head
from gateway.http.bodies import TooLarge, inflate
from gateway.http.config import Config
from gateway.http.connection import BadBody, OverBudget, Request
from gateway.http.cors import cors_lines
from gateway.http.target import split_target
from gateway.transports.http import Plugin
from protocol.iglu import InvalidUri, parse
from protocol.seams import RawPayload
from spoorway.micro import filters, tables
from spoorway.micro.filters import Query, Selection, WrongShape
from spoorway.micro.records import Record, Recorder
from spoorway.micro.shapes import instant
from spoorway.micro.store import Store

PREFIX = "/ns/"
_LONGEST_NAME = 128
_TEXT = "text/plain; charset=utf-8"
_ROOT = "/micro/"
_IN_A_THREAD = 65_536  # bytes above which compressing would keep others waiting
_OUTCOMES: dict[int, Outcome] = {200: "service", 404: "not_found", 413: "too_large", 503: "unavailable"}
_AUTH = {"domain": None, "audience": None, "clientId": None, "enabled": False}

# The namespace of the request that the running task answers: known when its payload is accepted.
_namespace: ContextVar[str] = ContextVar("namespace", default="")


class _Refused(Exception):
    """The request cannot be answered: a status, the body that says why, and its type."""

    def __init__(self, status: int, why: str, kind: str = _TEXT) -> None:
        super().__init__(why)
        self.status, self.kind = status, kind


class _Asked(NamedTuple):
    request: Request
    namespace: str
    path: str  # after /micro/
    query: str


_Handler = Callable[[_Asked], Awaitable[Any]]


class Micro:
    """Call order: start -> stop. now_ms: the clock. notice: told of every record that is kept, as it comes.

    cors: whether pages of other origins may read /micro.
    """

    def __init__(
        self,
        http: Config,
        recorder: Recorder,
        store: Store,
        now_ms: Callable[[], int],
        notice: Callable[[Record], None] | None = None,
        *,
        cors: bool = False,
    ) -> None:
        """Raises ConfigurationError."""
        self.store = store
        self.http = Plugin(http, more_routes=self._route)
        self._recorder, self._now_ms, self._notice, self._cors = recorder, now_ms, notice, cors
        self._limits = http
        both, get, post = ("GET", "POST"), ("GET",), ("POST",)
        self._routes: dict[str, tuple[tuple[str, ...], _Handler]] = {
            "all": (both, self._all),
            "good": (both, self._good),
            "bad": (both, self._bad),
            "reset": (both, self._reset),
            "events": (post, self._events),
            "columns": (get, self._columns),
            "columnStats": (post, self._column_stats),
            "timeline": (post, self._timeline),
            "memory": (get, self._memory),
            "auth-config": (get, self._auth_config),
        }

    async def start(self) -> None:
        """Raises ConfigurationError."""
        await self.http.start(self._accept)

    async def stop(self) -> None:
        self.store.close()
        await self.http.stop()

    async def _accept(self, payload: RawPayload) -> None:
        count, newest_first = self._recorder.records(payload, self._now_ms())
        kept = self.store.add(_namespace.get(), count, newest_first)
        if self._notice is not None:
            for record in kept:
                self._notice(record)

    async def _route(self, request: Request) -> Answer | None:
        """Takes the namespace off the request's path, and answers what lies below /micro."""
        message = request.message
        path, query = split_target(message.path)
        namespace = ""
        if path.startswith(PREFIX) and path.count("/") > 2:
            name, _, rest = path.removeprefix(PREFIX).partition("/")
            namespace, path = unquote(name), f"/{rest}"
            if not 0 < len(namespace) <= _LONGEST_NAME:
                return await self._answer(request, 404, f"a namespace has 1 to {_LONGEST_NAME} characters".encode(), _TEXT)
            request.message = message._replace(path=f"{path}?{query}" if query else path)
        _namespace.set(namespace)
        if not path.startswith(_ROOT):
            return None
        if message.method == "OPTIONS" and self._cors:
            more = b"Access-Control-Allow-Headers: Content-Type\r\nAccess-Control-Allow-Methods: GET, POST\r\n"
            return Answer("preflight", head(200) + more + cors_lines(message.headers.get("Origin")))
        asked = _Asked(request, namespace, path.removeprefix(_ROOT), query)
        try:
            value = await self._handler(asked)(asked)
            return await self._answer(request, 200, value if isinstance(value, bytes) else orjson.dumps(value))
        except WrongShape as wrong:
            refused = _Refused(422, str(wrong))
        except _Refused as error:
            refused = error
        return await self._answer(request, refused.status, str(refused).encode(), refused.kind)

    def _handler(self, asked: _Asked) -> _Handler:
        method = asked.request.message.method
        if asked.path.startswith("iglu/") and method == "GET":
            return self._iglu
        methods, handler = self._routes.get(asked.path, ((), self._all))
        if method not in methods:
            routes = [f"{'|'.join(methods)} {_ROOT}{name}" for name, (methods, _) in self._routes.items()]
            known = "\n".join([*routes, f"GET {_ROOT}iglu/VENDOR/NAME/jsonschema/VERSION"])
            raise _Refused(404, f"There are\n{known}\n")
        return handler

    async def _all(self, asked: _Asked) -> Any:
        query = await self._waited(asked, lambda record: True)
        good = [record.good for record in self.store.newest_first(asked.namespace) if query.wanted(record)]
        return {"total": len(good), "good": good.count(True), "bad": good.count(False)}

    async def _good(self, asked: _Asked) -> Any:
        return await self._listed(asked, filters.good(await self._filter(asked)), True)

    async def _bad(self, asked: _Asked) -> Any:
        return await self._listed(asked, filters.bad(await self._filter(asked)), False)

    async def _listed(self, asked: _Asked, selection: Selection, good: bool) -> bytes:
        query = await self._waited(asked, lambda record: record.good is good and selection.wanted(record))
        limits = [limit for limit in (selection.limit, query.limit) if limit is not None]
        chosen = Selection(
            lambda record: record.good is good and selection.wanted(record) and query.wanted(record),
            min(limits) if limits else None,
        )
        return b"[" + b",".join([b"".join(record.parts) for record in chosen.of(self.store, asked.namespace)]) + b"]"

    async def _waited(self, asked: _Asked, wanted: Callable[[Record], bool]) -> Query:
        query = filters.query(asked.query)
        if query.wait:

            def both(record: Record) -> bool:
                return wanted(record) and query.wanted(record)

            await self.store.arrived(asked.namespace, both, query.wait, query.timeout_s)
        return query

    async def _reset(self, asked: _Asked) -> Any:
        self.store.reset(asked.namespace, filters.query(asked.query).wanted)
        return "Reset completed"

    async def _events(self, asked: _Asked) -> Any:
        return tables.events(self.store.newest_first(asked.namespace), await self._json(asked))

    async def _columns(self, asked: _Asked) -> Any:
        return tables.columns(self.store.newest_first(asked.namespace))

    async def _column_stats(self, asked: _Asked) -> Any:
        return tables.column_stats(self.store.newest_first(asked.namespace), await self._json(asked))

    async def _timeline(self, asked: _Asked) -> Any:
        return tables.timeline(self.store.newest_first(asked.namespace), await self._json(asked))

    async def _memory(self, asked: _Asked) -> Any:
        store = self.store
        return {
            "events": len(store),
            "bytes": store.bytes,
            "max_events": store.bounds.max_events,
            "max_bytes": store.bounds.max_bytes,
            "dropped": store.dropped,
            "namespaces": {
                name: {"total": kinds.total(), "good": kinds[True], "bad": kinds[False]} for name, kinds in store.counts().items()
            },
        }

    async def _auth_config(self, asked: _Asked) -> Any:
        return _AUTH

    async def _iglu(self, asked: _Asked) -> Any:
        try:
            key = parse(f"iglu:{asked.path.removeprefix('iglu/')}")
        except InvalidUri:
            raise _Refused(404, "expected VENDOR/NAME/jsonschema/VERSION with a version like 1-0-0") from None
        document = self._recorder.schemas(key.uri)
        if document is None:
            looked = {"errors": [{"error": "NotFound"}], "attempts": 1, "lastAttempt": instant(self._now_ms())}
            raise _Refused(404, orjson.dumps({"value": {"spoorway": looked}}).decode(), "application/json")
        return document

    async def _filter(self, asked: _Asked) -> Mapping[str, Any]:
        return await self._json(asked) if asked.request.message.method == "POST" else {}

    async def _json(self, asked: _Asked) -> Mapping[str, Any]:
        """The request's body, an object. Raises _Refused."""
        headers = asked.request.message.headers
        if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(415, "expected Content-Type: application/json")
        try:
            body: bytes | None = await asked.request.body()
            if body and (encoding := headers.get("Content-Encoding")):
                body = inflate(body, encoding, max_bytes=self._limits.max_body_bytes, max_ratio=self._limits.max_inflate_ratio)
            value: object = orjson.loads(body or b"")
        except TooLarge:
            raise _Refused(413, "body too large") from None
        except OverBudget:
            raise _Refused(503, "try again later") from None
        except (BadBody, orjson.JSONDecodeError) as error:
            raise _Refused(400, f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise WrongShape("expected an object")
        return value  # pyright: ignore[reportUnknownVariableType]  JSON's keys are texts

    async def _answer(self, request: Request, status: int, body: bytes, kind: str = "application/json") -> Answer:
        headers = request.message.headers
        lines = [("Content-Type", kind), ("Vary", "Accept-Encoding")]
        if _takes_gzip(headers.get("Accept-Encoding", "")):
            body = await asyncio.to_thread(_gzipped, body) if len(body) > _IN_A_THREAD else _gzipped(body)
            lines.append(("Content-Encoding", "gzip"))
        cors = cors_lines(headers.get("Origin")) if self._cors else b""
        return Answer(_OUTCOMES.get(status, "bad_request"), head(status, lines, length=len(body)) + cors, body)


def _gzipped(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _takes_gzip(accepted: str) -> bool:
    """Source: RFC 9110, 12.5.3."""
    for part in accepted.lower().split(","):
        coding, _, parameter = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return parameter.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
