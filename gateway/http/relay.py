"""A signed batch of another gateway -> its payloads, journaled with the id, time, address and device they came with.

Who may do that is named in the configuration, because it can speak for anybody. Nothing is journaled of a batch that cannot be
read whole. A batch that comes twice is journaled twice: ids follow from the payloads' own, so that the store keeps it once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from gateway.devices import Devices, Message
from gateway.http import answers
from gateway.http.answers import Answer
from gateway.http.bodies import TooLarge, inflate
from gateway.http.client_address import parse_address, truncate
from gateway.http.connection import BadBody, OverBudget, Request
from gateway.http.parser import RawRequestMessage
from protocol.devices import BOOT_HEADER, DEVICE_HEADER, NAME, SEQUENCE_HEADER, SIGNATURE_HEADER
from protocol.payloads import from_json
from protocol.seams import ConfigurationError, RawPayload

# A body at the limit of an ordinary request grows in JSON: base64 adds a third, a control character is written as six.
_GROWTH = 8
_GROWTH_OF_BASE64 = 2  # what compression does not take back
_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{1,10}")
_TRANSPORT = re.compile(r"[a-z0-9_.]{1,64}")
_LATEST_MS = 253_402_300_800_000  # the year 10000
_NOT_TAKEN_OVER = "spoorway-generation"  # by it our own register would take a message of theirs for one of ours

_NOT_HERE = answers.text("not_found", 404, "no relay may send here")
_UNSIGNED = answers.text("bad_request", 401, "unknown device or wrong signature")
_NOT_ALLOWED = answers.text("bad_request", 403, "not named in gateway.transports.http.relays")
_REPLAYED = answers.text("bad_request", 409, "a sequence from the past")


class Relays:
    def __init__(
        self, names: Sequence[str], devices: Devices | None, max_body_bytes: int, retry_after_s: int, *, truncate_ip: bool
    ) -> None:
        """names: devices that may relay. truncate_ip: forget the host part of what addresses they send.

        Raises ConfigurationError.
        """
        for name in names:
            if not NAME.fullmatch(name):
                raise ConfigurationError(f"relays: {name!r} is no device's name")
        self._names, self._devices, self._truncate = frozenset(names), devices, truncate_ip
        self._max_bytes = _GROWTH * max_body_bytes
        self._busy = answers.unavailable(retry_after_s, "come back later")
        self._too_fast = answers.text("unavailable", 429, "come back later", ("Retry-After", str(retry_after_s)))

    async def answer(self, request: Request, accepted: Callable[[RawPayload], Awaitable[bool]]) -> Answer:
        """accepted: journals a payload; False when it was not taken. 200 says how many were, when all of them are on disk."""
        devices = self._devices
        if devices is None or not self._names:
            return _NOT_HERE
        name = request.message.headers.get(DEVICE_HEADER, "")
        if name not in self._names:  # before its body is read
            return _NOT_ALLOWED
        try:
            body = await request.body(_GROWTH_OF_BASE64)
        except TooLarge:
            return answers.TOO_LARGE
        except OverBudget:
            return self._busy
        except BadBody:
            return answers.BAD_REQUEST
        message = signed_message(request.message, body)
        if message is None:
            return _UNSIGNED
        verdict = devices.signed(message)
        match verdict.refusal:
            case "":
                pass
            case "revoked":
                return _NOT_ALLOWED
            case "replayed":
                return _REPLAYED
            case "busy":
                return self._too_fast
            case _:
                return _UNSIGNED
        taken = False
        try:
            answer = await self._taken(request, body, accepted, repeated=verdict.repeated)
            taken = answer.outcome == "accepted"
            return answer
        finally:
            if not verdict.repeated:
                devices.settle(message, taken)

    async def _taken(
        self, request: Request, body: bytes, accepted: Callable[[RawPayload], Awaitable[bool]], *, repeated: bool
    ) -> Answer:
        if (encoding := request.message.headers.get("Content-Encoding")) is not None:
            try:
                # Its sender has proved who it is: no bomb is to be feared, only a limit to be kept.
                inflated = inflate(body, encoding, max_bytes=self._max_bytes, max_ratio=self._max_bytes)
                if inflated is None:
                    return answers.text("bad_request", 400, f"the body is not {encoding[:20]}")
                request.hold(len(inflated))
            except TooLarge:
                return answers.TOO_LARGE
            except OverBudget:
                return self._busy
            body = inflated
        try:
            payloads = [self._payload(line) for line in body.splitlines()] if not repeated else []
        except ValueError as error:
            return answers.text("bad_request", 400, str(error)[:200])
        count = len(payloads) if not repeated else body.count(b"\n")
        if not all(await asyncio.gather(*(accepted(payload) for payload in payloads))):
            return self._busy
        told = orjson.dumps({"accepted": count})
        return Answer("accepted", answers.head(200, [("Content-Type", "application/json")], length=len(told)), told)

    def _payload(self, line: bytes) -> RawPayload:
        """Raises ValueError: it is not what a gateway writes down."""
        payload = from_json(line)
        found: Any = payload  # of JSON: its types are still to be seen
        texts = (found.id, found.transport, found.path, found.query, *(text for header in found.headers for text in header))
        optional = (found.content_type, found.ip, found.host, found.network_userid, found.device)
        if not (
            all(type(text) is str for text in texts)
            and all(text is None or type(text) is str for text in optional)
            and type(found.received_ms) is int
            and 0 <= found.received_ms < _LATEST_MS
            and _ID.fullmatch(found.id)
            and _TRANSPORT.fullmatch(found.transport)
            and found.path.startswith("/")
            and (found.device is None or NAME.fullmatch(found.device))
        ):
            raise ValueError("not a payload: a field is missing or is not what it must be")
        if any(name.lower() == _NOT_TAKEN_OVER for name, _ in payload.headers):
            payload = replace(payload, headers=tuple(h for h in payload.headers if h[0].lower() != _NOT_TAKEN_OVER))
        if self._truncate and payload.ip is not None:
            address = parse_address(payload.ip)
            payload = replace(payload, ip=None if address is None else str(truncate(address)))
        return payload


def signed_message(message: RawRequestMessage, body: bytes) -> Message | None:
    """What the headers of docs/devices.md say; None when they do not say it."""
    get = message.headers.get
    boot, sequence, sent = get(BOOT_HEADER, ""), get(SEQUENCE_HEADER, ""), get(SIGNATURE_HEADER, "")
    if not (_NUMBER.fullmatch(boot) and _NUMBER.fullmatch(sequence)):
        return None
    try:
        signature = bytes.fromhex(sent)
    except ValueError:
        return None
    return Message(get(DEVICE_HEADER, ""), int(boot), int(sequence), message.path, body, signature)
