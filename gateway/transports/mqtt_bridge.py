"""Messages of somebody's broker -> RawPayloads -> journal; then, and only then, the broker is told that we have them.

The broker keeps what is not acknowledged: while the journal takes nothing, while we are away, after a crash. A message is in one
place here until it is on disk, at most `in_flight` of them are, and what has to be offered again comes before what is newer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Literal, get_args

from paho.mqtt.client import MQTTMessage

from gateway import stamps
from gateway.journal import TooLarge
from gateway.mqtt.broker import Broker, Config, check, checked
from gateway.mqtt.topics import Topics
from gateway.transports import Accept, AcceptMany
from protocol.seams import RawPayload, TransientError

log = logging.getLogger("gateway.mqtt_bridge")

_LOOK_S = 0.5  # how soon paho's thread notices that we stop while it waits for room


# accepted: on disk. repeated: sent again by the broker while we had it. unknown_topic: nobody takes it. too_large: for the
# journal; the broker cannot make it smaller, and would have to keep all that comes after it.
Outcome = Literal["accepted", "repeated", "unknown_topic", "too_large"]
Measure = tuple[str, Literal["counter", "gauge"], str, list[tuple[dict[str, str], float]]]


@dataclass(slots=True)
class Counters:
    """not_taken: attempts at a journal that took nothing. connections to the broker: made, refused by it,
    open now with all subscriptions granted."""

    messages: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))
    not_taken: int = 0
    received_bytes: int = 0
    connections: int = 0
    refused_connections: int = 0
    open_connections: int = 0

    def measures(self) -> Iterator[Measure]:
        """(name, kind, about, samples by label) of everything, for /metrics."""
        yield "mqtt_messages", "counter", "Messages by outcome.", [({"outcome": o}, n) for o, n in self.messages.items()]
        yield "mqtt_not_taken", "counter", "Attempts at a journal that took nothing; they are repeated.", [({}, self.not_taken)]
        yield "received_bytes", "counter", "Bytes received.", [({}, self.received_bytes)]
        yield "connections", "counter", "Connections ever opened.", [({}, self.connections)]
        yield "refused_connections", "counter", "Connections that were refused.", [({}, self.refused_connections)]
        yield "open_connections", "gauge", "Connections open now.", [({}, self.open_connections)]


@dataclass(slots=True)
class _Message:
    """mid: the broker's number of it; 0 = one that wants no acknowledgement. payload: None once it is on disk."""

    connection: int
    mid: int
    payload: RawPayload | None


class Plugin:
    """A `gateway.transports.Transport`, and the `Listener` of its broker: that part in paho's thread, all else on the loop."""

    def __init__(
        self,
        config: Config,
        devices: object = None,
        *,
        now_ms: Callable[[], int] = stamps.now_ms,
        new_id: Callable[[], str] = stamps.new_id,
    ) -> None:
        """devices: of no use here; the broker knows who its clients are. Raises ConfigurationError."""
        self.counters = Counters()
        self._config, self._now_ms, self._new_id = checked(config), now_ms, new_id
        self._topics = Topics(config.topics)
        self._broker = Broker(config, self)
        # One more than the broker may send unanswered: what it sends again gets through when all the others wait.
        self._room = BoundedSemaphore(config.in_flight + 1)
        self._unanswered: dict[int, _Message] = {}
        self._waiting: deque[_Message] = deque()
        self._work = asyncio.Event()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._pump: asyncio.Task[None] | None = None

    async def start(self, accept: Accept) -> None:
        """Returns at once: a broker that cannot be reached now is tried again and again, and the log says why."""
        self._loop = asyncio.get_running_loop()
        self._pump = asyncio.create_task(self._run(accept), name="mqtt bridge")
        self._broker.open()

    async def stop(self) -> None:
        self._stopping.set()
        self._work.set()
        if self._pump is not None:
            await self._pump
            await asyncio.to_thread(self._broker.close)

    # The Listener, in paho's thread.

    def connected(self, connection: int, resumed: bool) -> None:
        self._loop.call_soon_threadsafe(self._connected, resumed)

    def subscribed(self) -> None:
        self._loop.call_soon_threadsafe(self._subscribed)

    def arrived(self, connection: int, message: MQTTMessage) -> None:
        while not self._room.acquire(timeout=_LOOK_S):
            if self._stopping.is_set():
                return
        self._loop.call_soon_threadsafe(self._arrived, connection, message)

    def lost(self) -> None:
        self._loop.call_soon_threadsafe(self._lost)

    def refused(self) -> None:
        self.counters.refused_connections += 1

    # On the event loop.

    def _connected(self, resumed: bool) -> None:
        self.counters.connections += 1
        if not resumed:  # the broker knows nothing of what it sent before, and may use its numbers for something else
            self._unanswered.clear()

    def _subscribed(self) -> None:
        self.counters.open_connections = 1

    def _lost(self) -> None:
        self.counters.open_connections = 0

    def _arrived(self, connection: int, message: MQTTMessage) -> None:
        mid, body = (message.mid if message.qos else 0), message.payload
        self.counters.received_bytes += len(body)
        known = self._unanswered.get(mid) if mid else None
        if known is not None and known.connection != connection:
            # A number is not used again before it was acknowledged. Source: MQTT 5.0, 4.3.2 and 4.4
            self.counters.messages["repeated"] += 1
            self._room.release()
            known.connection = connection
            if known.payload is None:
                self._answer(known)
            return
        found = _Message(connection, mid, self._payload(message))
        if mid:
            self._unanswered[mid] = found
        if found.payload is None:
            self.counters.messages["unknown_topic"] += 1
            self._room.release()
            self._answer(found)
            return
        self._waiting.append(found)
        self._work.set()

    def _payload(self, message: MQTTMessage) -> RawPayload | None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return None
        return self._topics.payload(
            id=self._new_id(),
            received_ms=self._now_ms(),
            transport="mqtt_bridge",
            topic=topic,
            body=bytes(message.payload),
            retain=message.retain,
            device=self._topics.device(topic) if self._config.trust_topic else None,
        )

    async def _run(self, accept: Accept) -> None:
        """Ends when we stop and what has arrived was offered a last time."""
        many = getattr(accept, "many", None)  # one fsync for all that arrived during the last one; else each in its turn
        while True:
            self._work.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(len(self._waiting) if many else 1)]
                if not await self._settled(batch, many or (lambda payloads: accept(payloads[0]))):
                    return
            if self._stopping.is_set():
                return
            await self._work.wait()

    async def _settled(self, batch: Sequence[_Message], accept: AcceptMany) -> bool:
        """Offers them until they are on disk, or refused for good, and answers them; False when we stop before that."""
        payloads = [message.payload for message in batch if message.payload is not None]
        while (outcome := await self._outcome(accept(payloads), len(batch))) is None:
            if self._stopping.is_set():
                return False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._config.retry_s)
        if outcome == "too_large" and len(batch) > 1:  # one of them is
            for message in batch:
                if not await self._settled([message], accept):
                    return False
            return True
        for message in batch:
            message.payload = None
            self.counters.messages[outcome] += 1
            self._room.release()
            self._answer(message)
        return True

    async def _outcome(self, offer: Awaitable[None], messages: int) -> Outcome | None:
        """None: not taken now."""
        try:
            await offer
        except TooLarge as error:
            if messages == 1:
                log.warning("a message is larger than the journal takes; it is acknowledged and not kept: %s", error)
            return "too_large"
        except Exception as error:
            self.counters.not_taken += 1
            if not isinstance(error, TransientError):  # whatever is wrong with us, the broker keeps the messages
                log.exception("accepting messages failed")
            return None
        return "accepted"

    def _answer(self, message: _Message) -> None:
        """Of a connection that is gone: when the broker sends it again."""
        if message.mid and self._broker.acknowledge(message.connection, message.mid):
            self._unanswered.pop(message.mid, None)


__all__ = ["Config", "Plugin", "check"]
