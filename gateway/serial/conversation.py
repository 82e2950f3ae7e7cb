"""Lines of one port -> payloads, and the answers to them. "On disk" is said only after `accept` has returned.

No port and no clock of its own. What is unreadable becomes a payload too, so that it ends as a failed event with its bytes, as
many in a minute as the configuration allows: a bad cable must not fill the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from urllib.parse import quote_from_bytes

from gateway.devices import Devices, Message
from gateway.devices.seals import confirmed
from gateway.serial.counters import Counters, Outcome
from gateway.transports import Accept
from protocol.devices import (
    BOOT_HEADER,
    COMPACT_PATH,
    DEVICE_HEADER,
    SEQUENCE_HEADER,
    SIGNATURE_HEADER,
    TP1_PATH,
    TP2_PATH,
)
from protocol.lines import Answer, Damaged, Line, Refusal, encode, encode_answer, frames
from protocol.seams import RawPayload, TransientError

log = logging.getLogger(__name__)

# A line comes again because its answer was lost: within seconds (see docs/devices.md), so little has to be remembered.
_COPIES = 64
_COPIES_S = 60.0
_ASCII = "".join(map(chr, range(32, 127)))


class Conversation:
    """One port's, for as long as the transport lives: a device may be unplugged between a line and its copy."""

    def __init__(
        self,
        port: str,
        bound: str,
        damaged_per_minute: int,
        accept: Accept,
        devices: Devices | None,
        counters: Counters,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
        clock_s: Callable[[], float],
    ) -> None:
        """bound: the device that this port is, or "". clock_s: only ever goes forward."""
        self._port, self._bound, self._accept, self._devices = port, bound, accept, devices
        self._counters, self._now_ms, self._new_id, self._clock_s = counters, now_ms, new_id, clock_s
        self._copies: OrderedDict[bytes, tuple[float, asyncio.Task[bytes]]] = OrderedDict()
        self._per_s = damaged_per_minute / 60
        self._most = self._allowance = float(damaged_per_minute)
        self._allowed_s = clock_s()

    def count(self, outcome: Outcome) -> None:
        self._counters.lines[self._port, outcome] += 1

    def answer(self, item: Line | Damaged) -> asyncio.Task[bytes]:
        """The answer to it, as sent. Its payload is handed over in the order of these calls."""
        if isinstance(item, Damaged):
            return asyncio.create_task(self._damaged(item), name="damaged serial line")
        if item.kind == "h" or (item.signature and self._devices is not None):  # of these a copy is known in other ways
            return asyncio.create_task(self._line(item), name="serial line")
        now_s = self._clock_s()
        key = blake2b(encode(item), digest_size=16).digest()
        if (known := self._copies.get(key)) is not None and now_s - known[0] < _COPIES_S:
            self.count("repeated")
            return known[1]
        task = asyncio.create_task(self._line(item, key), name="serial line")
        self._copies[key] = now_s, task
        self._copies.move_to_end(key)
        if len(self._copies) > _COPIES:
            self._copies.popitem(last=False)
        return task

    async def _line(self, line: Line, key: bytes = b"") -> bytes:
        outcome: Outcome = "busy"
        hint = b""
        try:
            try:
                payload = None if line.kind == "h" else self._payload(line)
            except ValueError:
                return await self._damaged(Damaged(encode(line), "form", line.boot, line.sequence))
            outcome, hint = await self._settled(line, payload)
        finally:
            if outcome != "taken":
                self._copies.pop(key, None)
        self.count(outcome)
        if outcome == "hello":
            return encode_answer(Answer("t", milliseconds=self._now_ms()))
        if outcome in ("taken", "repeated"):
            return encode_answer(Answer("a", line.boot, line.sequence))
        return encode_answer(Answer("n", line.boot, line.sequence, outcome)) + hint

    async def _settled(self, line: Line, payload: RawPayload | None) -> tuple[Outcome, bytes]:
        """What became of it, and a hint for its device. payload: None of a hello."""
        devices, device, message = self._devices, self._bound, None
        headers: tuple[tuple[str, str], ...] = ()
        if devices is not None:
            if line.signature:
                message = Message(line.device or self._bound, line.boot, line.sequence, line.kind, line.body, line.signature)
                verdict = devices.signed(message)
                if verdict.refusal:
                    return verdict.refusal, b""
                if verdict.repeated:
                    return ("repeated" if payload else "hello"), b""
                device, headers = verdict.device, verdict.headers
            elif line.device not in ("", device) and devices.known(line.device):
                # Nobody speaks in that name without a proof; that of compact frames may be in themselves.
                try:
                    if payload is None or confirmed(payload, devices).device != line.device:
                        return "secret", b""
                except TransientError:
                    return "busy", b""
        taken = False
        try:
            if payload is None:
                taken = True
                return "hello", b""
            if devices is not None and device and devices.known(device):
                wait_s = devices.delay_s(device, len(line.body))
                if wait_s > 0:
                    return "busy", encode_answer(Answer("r", milliseconds=int(wait_s * 1000) + 1))
            taken = await self._taken(_proven(payload, device, headers) if device else payload)
            return ("taken" if taken else "busy"), b""
        finally:
            if message is not None and devices is not None:
                devices.settle(message, taken)

    def _payload(self, line: Line) -> RawPayload:
        """Raises ValueError when the body is not what its kind says."""
        headers = [(BOOT_HEADER, str(line.boot)), (SEQUENCE_HEADER, str(line.sequence))]
        if line.signature:
            headers.append((SIGNATURE_HEADER, line.signature.hex()))
        if line.device and line.device != self._bound:
            headers.insert(0, (DEVICE_HEADER, line.device))
        payload = RawPayload(self._new_id(), self._now_ms(), "serial", TP2_PATH, headers=tuple(headers))
        if line.kind == "q":
            return replace(payload, path=TP1_PATH, query=quote_from_bytes(line.body, safe=_ASCII))
        if line.kind == "c":
            return replace(payload, path=COMPACT_PATH, body=frames(line.body))
        return replace(payload, body=line.body, content_type="application/json")

    async def _damaged(self, damage: Damaged) -> bytes:
        """Kept, as long as there are few. One whose device would not send it again is asked for again until it is kept."""
        kept = self._may_keep() and await self._taken(
            RawPayload(
                self._new_id(),
                self._now_ms(),
                "serial",
                "/invalid",
                body=damage.data,
                headers=(("Spoorway-Port", self._port), ("Spoorway-Damage", damage.reason)),
            )
        )
        outcome: Refusal = damage.reason
        if kept:
            self._counters.kept_damage[self._port] += 1
        elif outcome in ("form", "large") and self._most:
            outcome = "busy"
        self.count(outcome)
        return encode_answer(Answer("n", damage.boot, damage.sequence, outcome))

    def _may_keep(self) -> bool:
        now_s = self._clock_s()
        self._allowance = min(self._most, self._allowance + (now_s - self._allowed_s) * self._per_s)
        self._allowed_s = now_s
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def _taken(self, payload: RawPayload) -> bool:
        try:
            await self._accept(payload)
        except TransientError:
            return False
        except Exception:  # whatever is wrong with us, the device should keep its event
            log.exception("accepting a payload failed")
            return False
        return True


def _proven(payload: RawPayload, device: str, headers: tuple[tuple[str, str], ...]) -> RawPayload:
    """headers: what the register wants to be kept, first; what the line itself says of the same is left out."""
    given = {name for name, _ in headers}
    rest = [header for header in payload.headers if header[0] not in given and header != (DEVICE_HEADER, device)]
    return replace(payload, device=device, headers=(*headers, *rest))


__all__ = ["Conversation"]
