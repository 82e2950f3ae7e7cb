"""The register of devices in a running gateway: what it holds of the file, who proved what, what has been seen.

Answers from memory. One thread of its own looks at the files four times a second, hashes nothing, and writes checkpoints;
passwords are hashed by two others. When it cannot tell, it says busy: a device that is told anything else drops its events.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar, get_args

from gateway.devices import Claimed, Message, Refusal, Secrets, Verdict
from gateway.devices.book import Record, State, signing
from gateway.devices.credentials import matches
from gateway.devices.files import Files, Look
from gateway.devices.issuing import Issuer, book_file
from gateway.devices.limits import Guesses, Pace
from gateway.devices.options import Options
from gateway.devices.seen import Messages, ends, kept_headers, take
from gateway.devices.window import TAG_BYTES
from protocol import compact
from protocol.devices import LARGEST, SHORTEST_SIGNATURE, device_key, signature
from protocol.seams import ConfigurationError, Cursor, PermanentError, TransientError

log = logging.getLogger(__name__)

LOOK_S = 0.25
CHECKPOINT_S = 30.0
_LONGEST_SECRET = 256  # characters that are worth hashing
_MOST_HASHING = 4_096  # logins that wait for their turn
OWNER_WAIT_S = 5.0  # for the gateway before us to finish
_GUESSES_PER_SOURCE, _GUESSES_TOGETHER = 10, 100  # a minute

_T = TypeVar("_T")
_Reserved = tuple[str, int, int]  # device, boot, sequence


def _zeros() -> dict[str, int]:
    return dict.fromkeys(get_args(Refusal)[1:], 0)


@dataclass(slots=True)
class Counters:
    """logins: by password or certificate; messages: signed and new; repeated: copies of what is on disk; claims: redeemed."""

    logins: int = 0
    messages: int = 0
    repeated: int = 0
    claims: int = 0
    wrong_claims: int = 0
    delayed: int = 0
    refusals: dict[str, int] = field(default_factory=_zeros)


class Register:
    """A `gateway.devices.Devices`. Call order: `start` -> … -> `stop`. clock_s: never goes back; clock_ms: since 1970."""

    def __init__(
        self,
        data: Path,
        options: Options | None = None,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.counters = Counters()
        self._data, self._options, self._clock_s, self._clock_ms = data, options or Options(), clock_s, clock_ms
        self._files = Files(data)
        self._records: dict[str, Record] = {}
        self._states: dict[State, int] = dict.fromkeys(get_args(State), 0)
        self._master: bytes | None = None
        self._trouble = ""
        self._messages: dict[str, Messages] | None = None  # None: another process keeps them, or we have not looked yet
        self._opening = False
        self._cursor: Cursor = {}
        self._changed: set[str] = set()
        self._next_cursor: tuple[Cursor, set[_Reserved]] | None = None
        self._reserved: dict[_Reserved, tuple[int, bytes]] = {}  # generation and tag
        self._watchers: dict[str, dict[object, Callable[[], None]]] = {}
        self._paces: dict[str, Pace] = {}
        self._guesses = Guesses(_GUESSES_PER_SOURCE, _GUESSES_TOGETHER)
        # A login that was verified once is known again by this; the key is of this process and in memory only.
        self._pepper = os.urandom(32)
        self._logins: dict[str, bytes] = {}
        self._hashing_now = 0
        self._hashing = ThreadPoolExecutor(2, "device-login")
        self._thread = ThreadPoolExecutor(1, "devices")
        self._tending: asyncio.Task[None] | None = None

    # The life of it.

    async def start(self) -> None:
        """Everything the files hold is known when it returns, and looked at again and again. The journal must be open.

        Raises ConfigurationError, PermanentError, TransientError.
        """
        end = self._clock_s() + OWNER_WAIT_S
        await self.refresh()
        while self._records and self._messages is None and self._clock_s() < end:  # the lock of another process
            await asyncio.sleep(LOOK_S)
            await self.refresh()
        if self._messages is None and any(signing(self._records.values())):
            raise ConfigurationError(
                f"another gateway process on {self._data} keeps the numbers of signed messages; with devices that sign, "
                f"one gateway process is all there can be"
            )
        self._tending = asyncio.create_task(self._tend(), name="register of devices")

    async def stop(self) -> None:
        """After the last payload."""
        if self._tending is not None:
            self._tending.cancel()
            with suppress(asyncio.CancelledError):
                await self._tending
            with suppress(TransientError):
                await self.begin_checkpoint()
                await self.finish_checkpoint()
        await self._in_thread(self._files.close)
        self._thread.shutdown()
        self._hashing.shutdown()

    async def refresh(self) -> None:
        """Makes known at once what changed in the files, and tells who watches; otherwise it is noticed within LOOK_S.

        Raises as `start`.
        """
        look = await self._in_thread(self._files.look)
        if look is not None:
            self._learn(look)
        if self._records and self._messages is None and not self._opening:
            await self._open_seen()

    def _learn(self, look: Look) -> None:
        self._master = look.master
        if look.anew:
            gone = self._records.keys() - {record.name for record in look.records}
            for name in gone:
                del self._records[name]
                self._end(name)
        for record in look.records:
            before = self._records.get(record.name)
            self._records[record.name] = record
            self._paces.pop(record.name, None)
            if before is not None and before[:5] != record[:5]:  # all but limits and times
                self._end(record.name)
        states = dict.fromkeys(self._states, 0)
        for record in self._records.values():
            states[record.state] += 1
        self._states = states
        self._tell(look.trouble if any(signing(self._records.values())) else "")

    # What transports ask.

    async def login(self, device: str, secret: str) -> Verdict:
        record = self._records.get(device)
        if record is None:
            return self._refuse("unknown")
        if record.state == "revoked":
            return self._refuse("revoked")
        if not record.password or len(secret) > _LONGEST_SECRET:
            return self._refuse("secret")
        digest = blake2b(secret.encode("utf-8", "surrogatepass"), key=self._pepper, digest_size=32).digest()
        if not hmac.compare_digest(self._logins.get(device, b""), digest):
            if self._hashing_now >= _MOST_HASHING:
                return self._refuse("busy")
            self._hashing_now += 1
            try:
                right = await asyncio.get_running_loop().run_in_executor(self._hashing, matches, secret, record.password)
            finally:
                self._hashing_now -= 1
            now = self._records.get(device)
            if not right or now is None or now.password != record.password:  # rotated or revoked meanwhile
                return self._refuse("secret")
            self._logins[device] = digest
        self.counters.logins += 1
        return Verdict(device)

    def certified(self, device: str) -> Verdict:
        record = self._records.get(device)
        if record is None:
            return self._refuse("unknown")
        if record.state == "revoked":
            return self._refuse("revoked")
        self.counters.logins += 1
        return Verdict(device)

    def known(self, device: str) -> bool:
        return device in self._records

    def signed(self, message: Message) -> Verdict:
        record = self._records.get(message.device)
        if record is None:
            return self._refuse("unknown")
        if record.state == "revoked":
            return self._refuse("revoked")
        sent = message.signature
        numbered = 0 <= message.boot <= LARGEST and 0 <= message.sequence <= LARGEST
        if not (record.signs and record.generation and numbered and SHORTEST_SIGNATURE <= len(sent) <= 32):
            return self._refuse("secret")
        if self._master is None or self._messages is None or not message.target.isascii():
            return self._refuse("busy" if message.target.isascii() else "secret")
        key = device_key(self._master, record.name, record.generation)
        right = signature(key, record.name, message.boot, message.sequence, message.target, message.body)
        if not hmac.compare_digest(right[: len(sent)], sent):
            return self._refuse("secret")
        messages = self._messages.get(record.name)
        if messages is not None and messages.generation > record.generation:  # the register was put back from an old copy
            return self._refuse("secret")
        reserved, tag = message[:3], right[:TAG_BYTES]
        if reserved in self._reserved:
            return self._refuse("busy")
        if messages is not None and messages.generation == record.generation:
            judgement = messages.window.judge(message.boot, message.sequence, tag)
            if judgement == "replayed":
                return self._refuse("replayed")
            if judgement == "repeated":
                self.counters.repeated += 1
                return Verdict(record.name, repeated=True)
        self._reserved[reserved] = record.generation, tag
        return Verdict(record.name, headers=kept_headers(message.boot, message.sequence, sent, record.generation))

    def sealed(self, device: str, covered: bytes, seal: bytes) -> Verdict:
        record = self._records.get(device)
        if record is None:
            return self._refuse("unknown")
        if record.state == "revoked":
            return self._refuse("revoked")
        if not (record.signs and record.generation):
            return self._refuse("secret")
        if self._master is None:
            return self._refuse("busy")
        right = compact.seal(device_key(self._master, record.name, record.generation), record.name, covered)
        return Verdict(record.name) if hmac.compare_digest(right, seal) else self._refuse("secret")

    def settle(self, message: Message, taken: bool) -> None:
        found = self._reserved.pop(message[:3], None)
        if found is None or not taken or self._messages is None:
            return
        generation, tag = found
        take(self._messages, message.device, generation, message.boot, message.sequence, tag)
        self._changed.add(message.device)
        self.counters.messages += 1

    def delay_s(self, device: str, size: int) -> float:
        record = self._records.get(device)
        if record is None:
            return 0.0
        pace = self._paces.get(device)
        if pace is None:
            limits = record.limits.over(self._options)
            if not any(limits):
                return 0.0
            pace = self._paces[device] = Pace(limits, self._options.burst_s, self._clock_s())
        delay = pace.delay_s(size, self._clock_s())
        self.counters.delayed += delay > 0
        return delay

    def watch(self, device: str, ended: Callable[[], None]) -> Callable[[], None]:
        token = object()
        self._watchers.setdefault(device, {})[token] = ended

        def end() -> None:
            watchers = self._watchers.get(device, {})
            watchers.pop(token, None)
            if not watchers:
                self._watchers.pop(device, None)

        return end

    async def claim(self, code: str, source: str, *, private: bool) -> Claimed:
        if not (private or self._options.claims_over_plain_http):
            return Claimed(looked_at=False)
        wait_s = self._guesses.wait_s(source, self._clock_s())
        if wait_s:
            return Claimed(None, wait_s, looked_at=False)
        try:
            secrets = await self._in_thread(self._redeem, code)
        except ConfigurationError as error:
            raise TransientError(str(error)) from error
        if secrets is None:
            self.counters.wrong_claims += 1
            return Claimed()
        self._guesses.right(source)
        self.counters.claims += 1
        with suppress(TransientError):
            await self.refresh()  # so that it may log in at once
        return Claimed(secrets)

    # What the wiring asks.

    def states(self) -> Mapping[State, int]:
        """How many devices there are of each."""
        return self._states

    def cursor(self) -> Cursor | None:
        """The journal before this place is not needed any more; None = nothing of it is."""
        return self._cursor if self._messages is not None else None

    # Within.

    def _refuse(self, refusal: Refusal) -> Verdict:
        self.counters.refusals[refusal] += 1
        return Verdict(refusal=refusal)

    async def _tend(self) -> None:
        next_s = self._clock_s() + CHECKPOINT_S
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.refresh()
                if self._next_cursor is None and self._clock_s() >= next_s:
                    next_s = self._clock_s() + CHECKPOINT_S
                    await self.begin_checkpoint()
                await self.finish_checkpoint()
            except (ConfigurationError, PermanentError, TransientError) as error:
                self._tell(str(error))
            except Exception:  # the loop's rim: a register that is not looked at any more would never revoke
                log.exception("looking after the devices failed")

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                log.error("devices: %s", trouble)

    def _end(self, device: str) -> None:
        self._logins.pop(device, None)
        for ended in list(self._watchers.pop(device, {}).values()):
            try:
                ended()
            except Exception:  # one connection's trouble must not keep the others open
                log.exception("ending a device's connection failed")

    async def _open_seen(self) -> None:
        """Begins to keep the windows, unless another process does. Raises PermanentError, TransientError."""
        self._opening = True
        try:
            loaded = await self._in_thread(self._files.load)
        finally:
            self._opening = False
        if loaded is None:
            self._tell("another gateway process keeps the numbers of signed messages; here they are told to wait")
            return
        self._messages, self._changed = loaded.messages, loaded.changed
        if loaded.payloads:
            log.info("devices: %d payloads read after the last checkpoint", loaded.payloads)
        await self._save(loaded.cursor)

    async def begin_checkpoint(self) -> None:
        """What is durable now belongs to messages that the windows have, or that are reserved and about to be settled."""
        if self._messages is not None and (cursor := await self._in_thread(ends, self._data)) != self._cursor:
            self._next_cursor = cursor, set(self._reserved)

    async def finish_checkpoint(self) -> None:
        """Raises TransientError."""
        if self._next_cursor is not None:
            cursor, waiting = self._next_cursor
            if not waiting & self._reserved.keys():
                self._next_cursor = None
                await self._save(cursor)

    async def _save(self, cursor: Cursor) -> None:
        """Raises TransientError: the last checkpoint holds, and more of the journal will be read after it."""
        assert self._messages is not None
        changed, self._changed = self._changed, set()
        packed = {name: (found.generation, found.window.pack()) for name in changed if (found := self._messages.get(name))}
        try:
            await self._in_thread(self._files.save, packed, cursor)
        except BaseException:  # a stop may cancel it too
            self._changed |= changed
            raise
        self._cursor = cursor

    def _redeem(self, code: str) -> Secrets | None:
        if not book_file(self._data).exists():
            return None
        issuer = Issuer(self._data, self._clock_ms)
        try:
            return issuer.claim(code)
        finally:
            issuer.close()

    async def _in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
