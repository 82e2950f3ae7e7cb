"""Forwards the journal's payloads to an upstream by HTTP: another Spoorway, or any collector of the tracker protocol.

The journal is the queue, so nothing is kept twice: a batch is sent until the upstream has taken all of it, then this relay's
place in the journal moves, in one commit with its counts. After a crash in between the batch is sent again, and the upstream's
target drops what it has. What the upstream will never take is kept here as a failed event. docs/relay.md describes it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from protocol.payloads import derived_id
from protocol.seams import ConfigurationError, Cursor, FailedEvent, Json, PermanentError, RawPayload, Reason, TransientError
from storage.relay.collector import Tp2
from storage.relay.pauses import Hours, Pace, Waits, retry_after_s
from storage.relay.pieces import Language, Piece, groups
from storage.relay.spoorway import Signed
from storage.relay.state import State
from storage.relay.upstream import Answer, Request, Unreached, Upstream
from storage.targets import Contact, Counts, Erasure, RawBatch, Removed, SchemaLookup

TAKES = "payloads"

_NEVER = (400, 413, 414, 415, 422, 431)  # about what was sent; anything else is about us, or about now
_MOST_REFUSED = 20  # alone and in a row; then it is rather the upstream that is wrong, and it is given time
_CONTACT_EVERY_MS = 10_000
_LEAST = {"batch_payloads": 1, "batch_bytes": 1024, "every_s": 0, "timeout_s": 0.01, "longest_wait_s": 0.01, "bytes_per_s": 0}


@dataclass(frozen=True, slots=True)
class Config:
    """url: of the upstream, http or https. kind: what it is. device, key_file: who we are, for another Spoorway.

    batch_payloads, batch_bytes: of one request, before compression. every_s: smaller ones wait so long for more.
    compress: auto = for another Spoorway. timeout_s: to connect, and for an answer. longest_wait_s: between two attempts.
    ca_file: PEM; "" = the system's. proxy_from_environment: heed http_proxy, https_proxy and no_proxy.
    bytes_per_s: of bodies, 0 = no limit. hours: such as ["22:00-06:00"], in time_zone (IANA); () = always.
    state: the file that holds its place; "" = DATA/NAME.relay.db.
    """

    url: str = ""
    kind: Literal["spoorway", "collector"] = "spoorway"
    device: str = ""
    key_file: str = ""
    batch_payloads: int = 2_000
    batch_bytes: int = 1_048_576
    every_s: float = 1.0
    compress: Literal["auto", "always", "never"] = "auto"
    timeout_s: float = 30.0
    longest_wait_s: float = 300.0
    ca_file: str = ""
    proxy_from_environment: bool = False
    bytes_per_s: int = 0
    hours: tuple[str, ...] = ()
    time_zone: str = ""
    state: str = ""


class Plugin:
    """Used by one thread at a time."""

    def __init__(
        self,
        config: Config,
        schemas: SchemaLookup | None = None,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Opens nothing but its state. clock_ms: since 1970. timer: seconds, monotonic. chance: 0 to 1, for jitter.

        Raises ConfigurationError, PermanentError.
        """
        for name, least in _LEAST.items():
            if getattr(config, name) < least:
                raise ConfigurationError(f"{name} = {getattr(config, name)}: it must be at least {least}")
        self.limits = (config.batch_payloads, config.batch_bytes)
        self._config, self._clock_ms, self._timer = config, clock_ms, timer
        self._hours = Hours(config.hours, config.time_zone)
        self._waits = Waits(config.longest_wait_s, timer, chance)
        pace = Pace(config.bytes_per_s, timer, sleep)
        self._upstream = Upstream(config.url, config.timeout_s, config.ca_file, config.proxy_from_environment, pace)
        self._language: Language
        if config.kind == "spoorway":
            compress = config.compress != "never"
            self._language = Signed(config.device, config.key_file, self._upstream.base, self._next_boot, compress)
        else:
            self._language = Tp2(compress=config.compress == "always")
        self._state = State(Path(config.state))
        self._contact = self._state.contact()
        self._kept_contact = self._contact
        # Of the batch under way: what the upstream has, by payload id and place, so that trouble half way repeats nothing.
        self._taken: set[tuple[str, int]] = set()
        self._refused: dict[str, FailedEvent] = {}
        self._in_a_row = 0
        self._collect_until = 0.0

    # PayloadTarget ----------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        return self._state.cursor()

    def totals(self) -> Counts:
        return self._state.totals()

    def account(self) -> tuple[Cursor, Counts]:
        """cursor() and totals() of one moment, also while another process commits."""
        return self._state.account()

    def contact(self) -> Contact:
        return self._contact

    def pause_s(self, finishing: bool) -> float:
        waits = max(self._waits.left_s(), self._hours.pause_s(self._clock_ms()))
        return waits if finishing else max(waits, self._collect_until - self._timer(), 0.0)

    def commit(self, batch: RawBatch) -> Counts:
        self._send(batch.payloads)
        refused = {payload.id: self._refused[payload.id] for payload in batch.payloads if payload.id in self._refused}
        counts = self._state.commit(batch, list(refused.values()))
        self._taken.clear()
        self._refused.clear()
        self._collect_until = 0.0 if batch.more else self._timer() + self._config.every_s
        return counts

    def close(self) -> None:
        with suppress(TransientError, PermanentError):
            self._keep_contact()
        self._upstream.close()
        self._state.close()

    # FailedStore, but for what enrichment would be needed for ---------------------------------------------------------

    def list_failed(
        self, kind: str | None = None, since_ms: int | None = None, limit: int = 100, replayed: bool = False
    ) -> list[dict[str, Json]]:
        return self._state.list_failed(kind, since_ms, limit, replayed)

    def failed_ids(self, kind: str | None = None, since_ms: int | None = None, limit: int = 100) -> list[str]:
        return self._state.failed_ids(kind, since_ms, limit)

    def show_failed(self, failed_id: str) -> tuple[dict[str, Json], RawPayload | None] | None:
        return self._state.show_failed(failed_id)

    def drop(self, failed_ids: Sequence[str], dropped_ms: int) -> int:
        return self._state.drop(failed_ids, dropped_ms)

    def erase(self, erasure: Erasure, after: None, *, dry: bool = False) -> tuple[Removed, None]:
        """Of what is kept here: refused payloads. What the upstream has is its own to erase. Removed: by this attempt."""
        return Removed(0, self._state.erase(erasure, dry)), None

    def send_again(self, failed_id: str) -> bool:
        """Offers the upstream a payload that it refused before; True when it takes it now. Raises TransientError."""
        shown = self._state.show_failed(failed_id)
        if shown is None or (payload := shown[1]) is None or payload.transport == "journal":
            return False
        self._send([payload])
        refused = payload.id in self._refused
        self._taken.clear()
        self._refused.clear()
        return not refused and self._state.taken_after_all(failed_id)

    def probe(self) -> str:
        """Why the upstream cannot be reached now; "" when it answers. Sends no event."""
        try:
            answer = self._upstream.ask(Request("GET", "/health"))
        except Unreached as error:
            return str(error)
        return "" if answer.status < 500 else f"{self._upstream.host} answers {answer.status}"

    # Sending ----------------------------------------------------------------------------------------------------------

    def _pieces(self, payload: RawPayload) -> list[Piece]:
        try:
            return self._language.pieces(payload)
        except ValueError as error:
            self._refuse(payload, f"it cannot be said to this upstream: {error}", None)
            return []

    def _send(self, payloads: Sequence[RawPayload]) -> None:
        """Returns when each is taken or refused. Raises TransientError; then it goes on where it was, given the same again."""
        # A payload that is there twice is sent once.
        places = {(payload.id, place): piece for payload in payloads for place, piece in enumerate(self._pieces(payload))}
        waiting = [piece for key, piece in places.items() if key not in self._taken]
        keys = {id(piece): key for key, piece in places.items()}
        stack = list(groups(waiting, *self.limits))[::-1]
        while stack:
            group = stack.pop()
            answer = self._ask(self._language.request(group))
            if self._language.took(answer, group):
                self._taken.update(keys[id(piece)] for piece in group)
                self._worked()
            elif answer.status in _NEVER or (group[0].alone is not None and answer.status in (404, 405)):
                if len(group) > 1:
                    middle = len(group) // 2
                    stack += [group[middle:], group[:middle]]
                    continue
                if self._in_a_row >= _MOST_REFUSED:
                    self._in_a_row = 0
                    raise self._trouble("answer", f"{_told(answer)} to everything that is sent", hopeless=True)
                self._in_a_row += 1
                self._refuse(group[0].payload, "the upstream will not take it", answer)
                self._taken.add(keys[id(group[0])])
            else:
                raise self._refusal(answer)

    def _ask(self, request: Request) -> Answer:
        try:
            answer = self._upstream.ask(request)
        except Unreached as error:
            raise self._trouble(error.kind, str(error)) from None
        self._contact = replace(self._contact, contact_ms=self._clock_ms())
        return answer

    def _worked(self) -> None:
        self._waits.worked()
        self._in_a_row = 0
        kept = self._kept_contact
        if self._contact.contact_ms - kept.contact_ms >= _CONTACT_EVERY_MS or kept.error_ms >= kept.contact_ms:
            self._keep_contact()

    def _refuse(self, payload: RawPayload, message: str, answer: Answer | None) -> None:
        value = None if answer is None else _told(answer)
        reason = Reason("relay", "", message, value, "Refused")
        failed_id = derived_id(payload.id, "relay", "refused")
        self._refused[payload.id] = FailedEvent(failed_id, "relay_refused", (reason,), payload, self._clock_ms())

    def _refusal(self, answer: Answer) -> TransientError:
        """An answer that is about us, or about now. Nothing was taken."""
        told, who = _told(answer), repr(self._config.device or "this relay")
        wait_s = retry_after_s(answer.retry_after, self._clock_ms())
        match answer.status:
            case 401:
                return self._trouble("identity", f"the upstream does not know {who} by its key ({told})", hopeless=True)
            case 403:
                return self._trouble("identity", f"the upstream does not let {who} relay ({told})", hopeless=True)
            case 409:
                self._language.begin_anew()
                return self._trouble("identity", f"the upstream has seen later messages of {who} ({told})")
            case 408 | 425 | 429 | 500 | 502 | 503 | 504:
                return self._trouble("busy", f"the upstream takes nothing now ({told})", wait_s)
            case 200:
                return self._trouble("answer", f"something answers for the upstream that is none ({told})", hopeless=True)
            case _:
                return self._trouble("answer", f"this is no upstream of kind {self._config.kind} ({told})", wait_s, hopeless=True)

    def _trouble(self, kind: str, message: str, wait_s: float | None = None, hopeless: bool = False) -> TransientError:
        self._waits.failed(wait_s, hopeless)
        errors = {**self._contact.errors, kind: self._contact.errors.get(kind, 0) + 1}
        new = message != self._contact.error
        self._contact = replace(self._contact, error=message, error_ms=self._clock_ms(), errors=errors)
        if new:
            self._keep_contact()
        return TransientError(message)

    def _keep_contact(self) -> None:
        if self._contact != self._kept_contact:
            self._state.keep_contact(self._contact)
            self._kept_contact = self._contact

    def _next_boot(self) -> int:
        """The clock's seconds, should the state file ever be lost; counted up where the clock went back."""
        return self._state.next_boot(min(self._clock_ms() // 1000, 0xFFFF_FFFF))


def _told(answer: Answer) -> str:
    text = " ".join(answer.body[:200].decode("utf-8", "replace").split())
    return f"{answer.status} {text}".strip()
