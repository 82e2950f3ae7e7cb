"""Who a device is: the contract between transports and the register of devices.

Call order of a transport: `Plugin(config, devices)`; then for a connection that logs in once `login`, for a message that is
signed `signed`. A Verdict without refusal names the device; the payload carries it and the verdict's headers. Then, unless it is
repeated, `delay_s` says how long the payload has to wait; where a signed message waits, or is not taken for any other reason,
`settle` takes the reservation back. `watch` tells of the moment a device's credentials end.

Lives on one event loop; nothing here blocks it for longer than a look into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

# Where a claim code is redeemed over HTTP.
CLAIM_PATH = "/io.spoorway/claim"

# unknown: no such device. secret: wrong password, certificate or signature. revoked. replayed: a sequence from the past that is
# not an exact copy. busy: the same message is under way just now, or we cannot tell now: come back later.
Refusal = Literal["", "unknown", "secret", "revoked", "replayed", "busy"]


class Message(NamedTuple):
    """A signed message as it came; see protocol.devices.signature. sequence: of the message, within its boot."""

    device: str
    boot: int
    sequence: int
    target: str
    body: bytes
    signature: bytes


class Verdict(NamedTuple):
    """device: the name it proved; "" with a refusal. repeated: this very message is on disk: acknowledge, keep nothing.

    headers: what the payload of a signed message keeps, as its first headers: from them the register knows after a crash what
    it has seen.
    """

    device: str = ""
    refusal: Refusal = ""
    repeated: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class Secrets(NamedTuple):
    """What a device proves itself with; known to nobody but it once it was handed over.

    key: 64 hex digits, for signatures. password: for logins. "" = this device has no such thing.
    """

    device: str
    key: str = ""
    password: str = ""


class Claimed(NamedTuple):
    """secrets: None when the code is wrong, used or expired, or was not looked at.

    That is with wait_s > 0: too many guesses; without: it did not come in private.
    """

    secrets: Secrets | None = None
    wait_s: float = 0
    looked_at: bool = True


class Devices(Protocol):
    async def login(self, device: str, secret: str) -> Verdict:
        """By its password, for the time of a connection."""
        ...

    def certified(self, device: str) -> Verdict:
        """By a TLS client certificate that was verified already; device: its common name."""
        ...

    def known(self, device: str) -> bool:
        """Whether there is such a device at all, so that nobody else may speak in its name."""
        ...

    def signed(self, message: Message) -> Verdict:
        """Without refusal and not repeated: the message is reserved until `settle`."""
        ...

    def sealed(self, device: str, covered: bytes, seal: bytes) -> Verdict:
        """Of a compact frame; see protocol.compact. Copies are not noticed, and do no harm."""
        ...

    def settle(self, message: Message, taken: bool) -> None:
        """taken: its payload is on disk. Otherwise the device may send it again."""
        ...

    def delay_s(self, device: str, size: int) -> float:
        """Seconds to wait before a payload of so many bytes is within the device's limits; 0 = take it, and count it."""
        ...

    def watch(self, device: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Calls `ended` once, within a second of the device being revoked or its secret rotated. Returns what ends the watch."""
        ...

    async def claim(self, code: str, source: str, *, private: bool) -> Claimed:
        """Redeems a claim code: the device's secrets, this once. source: address that wrong codes are counted for.

        private: nobody on the way can read what is answered.
        Raises TransientError when the register cannot be written.
        """
        ...
