"""Simulated devices -> a gateway: each sends its messages until all are acknowledged. Bounded in devices, time and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from socket import gaierror
from typing import Protocol

from protocol.seams import PermanentError, TransientError
from spoorway.simulate.history import Device, Message, Truth

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
_CUT_SHARE = 0.1


class Sender(Protocol):
    """One device's way to the gateway. Opened by the first `send`; after any error it may be used again."""

    async def send(self, body: bytes, *, cut: bool = False) -> None:
        """Returns when the payload is acknowledged.

        cut: the connection is lost right after the body left, before any answer; raises ConnectionError then.
        Raises OSError, EOFError, TimeoutError, TransientError: not acknowledged, try again; PermanentError: never.
        """
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Outcome:
    """Of all devices. attempts: messages on the wire; acknowledged: messages taken; unsent: given up for lack of time."""

    truths: list[Truth] = field(default_factory=list[Truth])
    events: int = 0
    messages: int = 0
    attempts: int = 0
    acknowledged: int = 0
    unsent: int = 0
    seconds: float = 0.0


async def simulate(
    devices: list[Device],
    sender: Callable[[Device], Sender],
    *,
    seed: int,
    offline: bool,
    pace: float,
    limit_s: float,
    at_once: int,
    advance: Callable[[int], None],
) -> Outcome:
    """pace: events a second per device, 0 = as fast as they are acknowledged. advance: told of acknowledged events.

    at_once: devices that are connected at one time. Raises PermanentError when the gateway refuses for good.
    """
    outcome = Outcome([device.truth for device in devices])
    outcome.messages = sum(len(device.messages) for device in devices)
    room = asyncio.Semaphore(at_once)
    began = time.monotonic()

    async def one(device: Device) -> None:
        async with room:
            way = sender(device)
            try:
                await _send_all(
                    device, way, Random(f"{seed} {device.name} way"), offline, pace, began + limit_s, outcome, advance
                )
            finally:
                await way.close()

    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(one(device), name=device.name)
    outcome.seconds = time.monotonic() - began
    return outcome


async def _send_all(
    device: Device,
    way: Sender,
    random: Random,
    offline: bool,
    pace: float,
    until: float,
    outcome: Outcome,
    advance: Callable[[int], None],
) -> None:
    for message in device.messages:
        for again in (False, True) if message.twice else (False,):
            wait_s = _FIRST_WAIT_S
            cut = offline and random.random() < _CUT_SHARE
            while not await _sent(device, message, way, cut, outcome):
                device.truth.resent += 1
                cut = False
                if time.monotonic() >= until:
                    outcome.unsent += 1
                    break
                await asyncio.sleep(random.uniform(0, wait_s))
                wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
            else:
                if not again:
                    outcome.acknowledged += 1
                    outcome.events += len(message.events)
                    advance(len(message.events))
        if pace:
            await asyncio.sleep(len(message.events) / pace)


async def _sent(device: Device, message: Message, way: Sender, cut: bool, outcome: Outcome) -> bool:
    outcome.attempts += 1
    try:
        body = device.body(message, time.time_ns() // 1_000_000)
        await way.send(body, cut=cut)
    except (ConnectionRefusedError, gaierror) as error:
        if not outcome.acknowledged:  # it never was there
            raise PermanentError(f"nobody takes what {device.name} sends: {error.strerror}; is `spoorway run` up?") from None
        return False
    except (OSError, EOFError, TransientError):
        return False
    return True
