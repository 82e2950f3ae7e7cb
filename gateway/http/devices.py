"""Requests of devices: signed ones -> payloads with the device's name, each once; claim codes -> the secrets they are good for.

A refused request is not journaled. A signed one whose sender does not wait for the answer is settled all the same when the
journal has answered. Source: docs/devices.md, docs/identity.md.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from gateway.devices import Claimed, Devices, Message
from gateway.http import answers
from gateway.http.answers import Answer
from gateway.http.bodies import TooLarge
from gateway.http.client_address import ClientAddresses, parse_address
from gateway.http.connection import BadBody, OverBudget, Request
from gateway.http.relay import signed_message
from protocol.seams import RawPayload, TransientError

_UNKNOWN = answers.text("refused", 401, "unknown device or wrong signature")
_REFUSED = {
    "revoked": answers.text("refused", 403, "revoked"),
    "replayed": answers.text("refused", 409, "a sequence from the past"),
    "busy": answers.text("refused", 429, "come back later", ("Retry-After", "1")),
}
_NO_CODE = answers.text("bad_request", 400, 'expected {"code": "XXXX-XXXX-XXXX-XXXX-XXXX"}')
_WRONG_CODE = answers.text("refused", 401, "the code is wrong, used or expired")
_NOT_PRIVATE = answers.text("refused", 403, "secrets are handed out over TLS, or on this machine")
_LONGEST_CLAIM = 1_024
# A request with any of these came through a proxy: its peer says nothing of where it comes from.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Via")


class SignedRequests:
    def __init__(self, devices: Devices | None) -> None:
        """devices: None = every signed request is of an unknown device."""
        self._devices = devices
        self._under_way: set[asyncio.Task[bool]] = set()

    async def take(
        self, request: Request, sent: bytes, payload: RawPayload, accepted: Callable[[RawPayload], Awaitable[bool]]
    ) -> Answer | bool:
        """The refusal, or whether it is on disk, now or since an earlier copy. sent: the body as it came.

        accepted: journals a payload; False when it was not taken.
        """
        devices, message = self._devices, signed_message(request.message, sent)
        if devices is None or message is None:
            return _UNKNOWN
        verdict = devices.signed(message)
        if verdict.refusal:
            return _REFUSED.get(verdict.refusal, _UNKNOWN)
        if verdict.repeated:
            return True
        delay_s = devices.delay_s(verdict.device, len(sent) + len(payload.query))
        if delay_s > 0:
            devices.settle(message, False)
            return _too_fast(delay_s)
        # No header of a request may look like one of ours: the register reads them after a crash.
        theirs = tuple(header for header in payload.headers if not header[0].lower().startswith("spoorway-"))
        payload = replace(payload, device=verdict.device, headers=verdict.headers + theirs)
        # Shielded: whoever gives up waiting does not take the payload back from the journal.
        task = asyncio.ensure_future(accepted(payload))
        self._under_way.add(task)
        task.add_done_callback(partial(self._settle, devices, message))
        return await asyncio.shield(task)

    def _settle(self, devices: Devices, message: Message, task: asyncio.Task[bool]) -> None:
        self._under_way.discard(task)
        devices.settle(message, not task.cancelled() and task.exception() is None and task.result())


class Claims:
    def __init__(self, devices: Devices | None, addresses: ClientAddresses, retry_after_s: int, *, tls: bool) -> None:
        self._devices, self._addresses, self._tls = devices, addresses, tls
        self._busy = answers.unavailable(retry_after_s, "try again later")

    async def answer(self, request: Request) -> Answer:
        """Without CORS headers: a page of somebody else's must not read it."""
        if self._devices is None:
            return answers.NOT_FOUND
        try:
            body = await request.body()
            code: Any = orjson.loads(body)["code"] if len(body) <= _LONGEST_CLAIM else None
        except TooLarge:
            return answers.TOO_LARGE
        except OverBudget:
            return self._busy
        except (BadBody, ValueError, KeyError, TypeError):
            return _NO_CODE
        if not isinstance(code, str):
            return _NO_CODE
        source = self._addresses.of(request.peer, request.message.headers) or request.peer or ""
        try:
            return _claimed(await self._devices.claim(code, source, private=self._is_private(request)))
        except TransientError:
            return self._busy

    def _is_private(self, request: Request) -> bool:
        """Nobody on the way can have read it: TLS to us or to our proxy, or this machine."""
        headers, peer = request.message.headers, request.peer or ""
        if self._tls:
            return True
        if self._addresses.trusts(peer) and headers.get("X-Forwarded-Proto", "").lower() == "https":
            return True
        address = parse_address(peer)
        return address is not None and address.is_loopback and not any(name in headers for name in _FORWARDED)


def _claimed(claimed: Claimed) -> Answer:
    if claimed.secrets is not None:
        told = orjson.dumps(claimed.secrets._asdict())
        lines = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        return Answer("service", answers.head(200, lines, length=len(told)), told)
    if claimed.wait_s:
        return _too_fast(claimed.wait_s)
    return _WRONG_CODE if claimed.looked_at else _NOT_PRIVATE


def _too_fast(delay_s: float) -> Answer:
    return answers.text("refused", 429, "too fast", ("Retry-After", str(math.ceil(delay_s))))
