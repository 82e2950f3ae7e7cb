"""One file per transport; file name = name in the configuration.

Call order: `Plugin(config, devices)` -> `start(accept)` once -> payloads flow -> `stop()` once.
A transport tells its sender "taken" only after `await accept(payload)` has returned. `accept` raises TransientError
when the journal cannot take more (the sender must try again later); nothing was taken then. `devices` is the register of
devices (gateway.devices) for the transports whose senders can prove who they are; None = there is none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from protocol.seams import RawPayload

# Returns once the payload is on disk. An accept may have an attribute `many`, an AcceptMany, which is cheaper for a batch.
Accept = Callable[[RawPayload], Awaitable[None]]

# Returns once all of them are on disk. TransientError: none was taken.
AcceptMany = Callable[[Sequence[RawPayload]], Awaitable[None]]


class Transport(Protocol):
    async def start(self, accept: Accept) -> None:
        """Begin to listen, or to read. Raises ConfigurationError when that is impossible (a port in use, a missing file)."""
        ...

    async def stop(self) -> None:
        """Take nothing new, finish what is under way, return."""
        ...
