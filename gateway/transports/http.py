"""HTTP requests -> payloads: the endpoint that trackers send to. Said "ok" only after `accept` has returned.

The tour: `_answer` finds the route, `_event` makes the payload and hands it over. Content is never looked at and never refused;
what is refused is a matter of sizes, times and the journal. The parts live in gateway/http; docs/http.md is the reference.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from gateway import stamps
from gateway.devices import Devices
from gateway.http import answers
from gateway.http.answers import Answer, Outcome
from gateway.http.bodies import TooLarge, inflate, normal_content_type
from gateway.http.client_address import ClientAddresses
from gateway.http.config import Config, Cookie, CrossDomain, RootAnswer
from gateway.http.config import Redirects as RedirectOptions
from gateway.http.connection import BadBody, OverBudget, Request
from gateway.http.cors import cors_lines, preflight_lines
from gateway.http.counters import Counters
from gateway.http.devices import Claims, SignedRequests
from gateway.http.headers import StoredHeaders
from gateway.http.identity import Identities
from gateway.http.listener import Listener
from gateway.http.parser import RawRequestMessage
from gateway.http.redirects import Redirects
from gateway.http.relay import Relays
from gateway.http.routes import Kind, Route, Routes
from gateway.http.target import host_of, split_target
from gateway.journal import TooLarge as RecordTooLarge
from gateway.transports import Accept
from protocol.devices import DEVICE_HEADER
from protocol.seams import RawPayload, TransientError

__all__ = ["Config", "Cookie", "Counters", "CrossDomain", "Plugin", "RedirectOptions", "RootAnswer"]

log = logging.getLogger(__name__)


_EXPOSED = b"Access-Control-Expose-Headers: Retry-After\r\n"  # without it a page's script cannot see how long to wait
# Programs that examine links ask so, readers never do. No client can send a header of this name.
_HEAD = (":method", "HEAD")


class Plugin:
    """Call order: see gateway.transports. counters: live; addresses: known after start."""

    def __init__(
        self,
        config: Config,
        devices: Devices | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        new_id: Callable[[], str] = stamps.new_id,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
        more_routes: Callable[[Request], Awaitable[Answer | None]] | None = None,
    ) -> None:
        """Raises ConfigurationError. clock_ns: nanoseconds since 1970. new_id: payload ids. new_uuid: network user ids.

        devices: None = no request can prove a device. more_routes: asked before ours; None means that the request is not its own.
        It may replace `request.message`.
        """
        self.counters = Counters()
        self._config = config
        self._clock_ns = clock_ns
        self._new_id = new_id
        self._more_routes = more_routes
        self._routes = Routes(config.paths, config.script_path)
        self._addresses = ClientAddresses(config.trusted_proxies, config.forwarded_header, truncate=config.truncate_ip)
        self._headers = StoredHeaders(config.stored_headers)
        self._identities = Identities(config.cookie, config.do_not_track_cookie, config.do_not_track_pattern, new_uuid)
        self._redirects = Redirects(config.redirects)
        self._relays = Relays(config.relays, devices, config.max_body_bytes, config.retry_after_s, truncate_ip=config.truncate_ip)
        self._signed = SignedRequests(devices)
        self._claims = Claims(devices, self._addresses, config.retry_after_s, tls=bool(config.tls_certificate))
        self._listener = Listener(config, self, self.counters, clock_ns)
        self._accept: Accept | None = None
        self._journal_takes = True
        self._busy = answers.unavailable(config.retry_after_s, "try again later")
        self._sink_unhealthy = answers.unavailable(config.retry_after_s, "the journal cannot take events")
        self._preflight = answers.head(200) + preflight_lines(config.preflight_max_age_s)
        self._fixed: dict[Kind, Answer] = {
            "health": answers.HEALTHY,
            "robots": answers.ROBOTS,
            "redirect": answers.REDIRECTS_DISABLED,
            "unknown": answers.NOT_FOUND,
            "root": answers.root_answer(config.root),
            "crossdomain": answers.crossdomain_answer(config.crossdomain),
            "script": answers.script_answer() if config.script_path else answers.NOT_FOUND,
        }

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of every socket it listens on."""
        return self._listener.addresses

    @property
    def scheme(self) -> str:
        """http, or https with a certificate."""
        return "https" if self._config.tls_certificate else "http"

    async def start(self, accept: Accept) -> None:
        self._accept = accept
        await self._listener.open()

    async def stop(self) -> None:
        await self._listener.close()

    async def answer(self, request: Request) -> Answer:
        """Called by connections, once per request."""
        if self._more_routes is not None and (answer := await self._more_routes(request)) is not None:
            return answer
        message = request.message
        path, query = split_target(message.path)
        route = self._routes.find(message.method, path)
        kind = route.kind
        if kind == "redirect" and self._redirects.on:
            kind = "preflight" if message.method == "OPTIONS" else "pixel"
        match kind:
            case "post" | "pixel" | "relay":
                try:
                    if kind == "relay":
                        return await self._relays.answer(request, self._accepted)
                    return await self._event(request, route, path, query)
                except RecordTooLarge:  # trackers send its events in smaller requests then
                    return self._to_browser(answers.TOO_LARGE, message)
            case "claim":
                return await self._claims.answer(request)
            case "preflight":
                return Answer("preflight", self._preflight + cors_lines(message.headers.get("Origin")))
            case "sink_health":
                return answers.HEALTHY if self._journal_takes else self._sink_unhealthy
            case _:
                return self._fixed[kind]

    def late(self, request: Request | None, *, answering: bool) -> Answer:
        """Called by connections when a request took too long to arrive, or `accept` to return."""
        if request is None:
            return answers.REQUEST_TIMEOUT
        if answering:
            self._journal_takes = False
            return self._to_browser(self._busy, request.message)
        return self._to_browser(answers.REQUEST_TIMEOUT, request.message)

    async def _event(self, request: Request, route: Route, path: str, query: str) -> Answer:
        message = request.message
        headers = message.headers
        origin = headers.get("Origin")
        post = message.method == "POST"
        redirect = self._redirects.answer(query) if route.kind == "redirect" else None
        try:
            sent = body = await request.body()
            encoding = headers.get("Content-Encoding") if post else None
            if encoding is not None and (decoded := self._decode(body, encoding)) is not None:
                request.hold(len(decoded))
                body, encoding = decoded, None
        except TooLarge:
            return self._to_browser(answers.TOO_LARGE, message)
        except OverBudget:
            return self._to_browser(self._busy, message)
        except BadBody:
            return answers.BAD_REQUEST

        now_ns = self._clock_ns()
        who = self._identities.of(
            query,
            "; ".join(headers.getall("Cookie", ())),
            origin,
            anonymous="SP-Anonymous" in headers,
            pixel=route.kind == "pixel",
            now_s=now_ns / 1e9,
        )
        lines = cors_lines(origin) + who.set_cookie_lines
        if who.bounce:
            again = f"{path}?{query}{'&' if query else ''}{self._config.cookie.bounce_parameter}=true"
            return Answer("not_recorded", answers.head(302, [("Location", again)]) + lines)
        if who.tracked:
            content_type = headers.get("Content-Type") if post else None
            kept = self._headers.of(message.raw_headers, anonymous=who.anonymous, encoded=encoding is not None)
            if message.method == "HEAD":
                kept = (*kept, _HEAD)
            payload = RawPayload(
                self._new_id(),
                now_ns // 1_000_000,
                "http",
                route.path,
                query,
                body if post else None,
                normal_content_type(content_type) if content_type is not None else None,
                kept,
                None if who.anonymous else self._addresses.of(request.peer, headers),
                host_of(message.path, headers.get("Host")),
                who.network_userid,
            )
            clicked = redirect is not None and redirect.outcome == "redirected"
            if DEVICE_HEADER in headers:
                taken = await self._signed.take(request, sent if post else b"", payload, self._accepted)
                if isinstance(taken, Answer):
                    return self._to_browser(taken, message)
            else:
                taken = await (self._clicked(payload) if clicked else self._accepted(payload))
            if not taken:
                if redirect is None or not clicked or self._redirects.wait_s is None:
                    return self._to_browser(self._busy, message)
                redirect = redirect._replace(outcome="redirect_unrecorded")
        outcome: Outcome = "accepted" if who.tracked else "not_recorded"
        if redirect is not None:
            return Answer(redirect.outcome if who.tracked else outcome, redirect.head + lines)
        if post:
            return Answer(outcome, answers.OK_HEAD + lines, answers.OK_BODY)
        return Answer(outcome, answers.PIXEL_HEAD + lines, answers.PIXEL_BODY)

    async def _accepted(self, payload: RawPayload) -> bool:
        assert self._accept is not None
        try:
            await self._accept(payload)
        except TransientError:
            self._journal_takes = False
            return False
        except RecordTooLarge:
            raise
        except Exception:  # whatever is wrong with us, the sender should keep its events
            log.exception("accepting a payload failed")
            self._journal_takes = False
            return False
        self._journal_takes = True
        return True

    async def _clicked(self, payload: RawPayload) -> bool:
        """As `_accepted`, but who clicked does not wait long for a slow disk. Even then the payload may be taken in the end."""
        try:
            async with asyncio.timeout(self._redirects.wait_s):
                return await self._accepted(payload)
        except TimeoutError:
            self._journal_takes = False
            return False

    def _decode(self, body: bytes, encoding: str) -> bytes | None:
        limits = self._config
        return inflate(body, encoding, max_bytes=limits.max_body_bytes, max_ratio=limits.max_inflate_ratio)

    def _to_browser(self, answer: Answer, message: RawRequestMessage) -> Answer:
        """With the headers without which a browser hides the status from the tracker."""
        return answer._replace(head=answer.head + cors_lines(message.headers.get("Origin")) + _EXPOSED)
