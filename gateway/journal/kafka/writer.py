"""The journal's writer for Kafka: payloads from one event loop -> records of a topic, acknowledged by all copies in step.

librdkafka batches, sends and repeats in threads of its own; what it has to say is fetched on the event loop, every millisecond or
few while something is under way, so that no thread of ours ever takes the interpreter away from it.

A batch costs librdkafka and the brokers more than the records in it. So what arrives while a round of records is under way is the
next round, as what arrives during an fsync goes into the next one: it is handed to librdkafka when that one is acknowledged, or
after a few milliseconds where the brokers are far away. A payload that comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message

from gateway.journal import Damage, JournalBroken, TooLarge
from gateway.journal.kafka import Config, key_of
from gateway.journal.kafka.client import Causes, find_topic, producing
from gateway.journal.overflow import Done
from protocol.payloads import to_json
from protocol.seams import PermanentError, RawPayload, TransientError

_POLL_S, _IDLE_POLL_S = 0.001, 1.0
_MORE_PATIENT = 1.25  # with every look that finds nothing, up to _ROUND_S: brokers far away are asked less often
_ROUND_S = 0.005  # so long a round waits for the one before it
_REACH_S = 5.0  # also how long an end of the gateway may wait for a broker that says nothing
_LONGEST = 6  # characters of JSON for one of text

Item = RawPayload | Damage
_Record = tuple[bytes | None, bytes]  # key and value


class _Sending:
    """The records of one `send`: called for each of them when its fate is known."""

    __slots__ = ("done", "left", "session")

    def __init__(self, session: _Session, left: int, done: Done) -> None:
        self.session, self.left, self.done = session, left, done

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        session = self.session
        if session.abandoned:
            return
        session.under_way -= 1
        self.left -= 1
        if error is not None:
            if self.left >= 0:
                self.left = -1  # the rest has nothing to add
                self.done(session.refusal(error))
        elif not self.left:
            self.done(None)


class _Session:
    """One producer, from its first record to the failure after which it is replaced.

    under_way: records that librdkafka has, and whose fate is not known. held: the next round; since: when that began.
    """

    def __init__(self, config: Config) -> None:
        self.causes = Causes(config)
        self.producer = producing(self.causes)
        self.under_way = 0
        self.held: list[tuple[_Sending, list[_Record]]] = []
        self.since = 0.0
        self.abandoned = False

    def refusal(self, error: KafkaError) -> Exception:
        """What `send` tells of a record that was not taken."""
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return TooLarge(f"a record is larger than the brokers take ({error.str()}); see journal.kafka.max_record_bytes")
        return self.causes.trouble(error)

    def busy(self) -> bool:
        return bool(self.under_way or self.held)

    def end(self) -> None:
        """Nothing more is sent. Waits for threads, so it is not for the event loop."""
        self.producer.purge()
        self.producer.flush(1)


class KafkaWriter:
    """A `gateway.journal.overflow.Remote`, and by itself a `gateway.journal.Writer`. Belongs to the event loop."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError."""
        config.check()
        self._config = config
        self.lost: Callable[[TransientError], None] = lambda error: None
        self._session: _Session | None = _Session(config)
        self._timer: asyncio.TimerHandle | None = None
        self._slow = True
        self._pause_s = _POLL_S
        self._acknowledged = 0
        self._closing = False

    async def reach(self) -> None:
        if self._session is None:
            self._session = await asyncio.to_thread(_Session, self._config)
        session = self._session
        session.causes.forget()
        await asyncio.to_thread(find_topic, session.producer, session.causes, _REACH_S)
        session.causes.forget()

    def check(self, payload: RawPayload) -> None:
        size = (
            len(payload.body or b"") + len(payload.query) + len(payload.path) + sum(len(n) + len(v) for n, v in payload.headers)
        )
        if _LONGEST * size + 4096 > self._config.max_record_bytes:
            self._encoded(payload)

    def send(self, items: Sequence[Item], done: Done) -> None:
        try:
            records = [self._encoded(item) for item in items]
        except PermanentError as error:
            done(error)
            return
        session = self._session
        if session is None:
            done(TransientError("the brokers were lost a moment ago"))
            return
        session.held.append((_Sending(session, len(records), done), records))
        if len(session.held) == 1:
            loop = asyncio.get_running_loop()
            session.since = loop.time()
            if not session.under_way:
                loop.call_soon(self._hand_over, session)  # with whatever else comes in this turn of the loop

    def abandon(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.abandoned = True
            session.held.clear()
            with suppress(RuntimeError):  # the loop is closing: it ends with the process
                asyncio.get_running_loop().run_in_executor(None, session.end)

    def append(self, payload: RawPayload) -> asyncio.Future[None]:
        return self.append_all((payload,))

    def append_all(self, payloads: Sequence[RawPayload]) -> asyncio.Future[None]:
        """As `append`, for all of them; when it fails, some may have been taken."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closing:
            future.set_exception(JournalBroken("the journal is closed"))
        else:
            self.send(payloads, partial(self._settle, future, len(payloads)))
        return future

    def accepted(self) -> int:
        """Payloads that were acknowledged to this writer: a topic has many, and is not asked."""
        return self._acknowledged

    async def close(self) -> None:
        self._closing = True
        while self._session is not None and self._session.busy():  # noqa: ASYNC110  librdkafka has no event for it
            await asyncio.sleep(_POLL_S)  # each is acknowledged or times out
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        session, self._session = self._session, None
        if session is not None:
            await asyncio.to_thread(session.end)

    def _encoded(self, item: Item) -> _Record:
        """Raises PermanentError, TooLarge."""
        most = self._config.max_record_bytes
        if isinstance(item, Damage):
            return None, item.data[:most]
        try:
            key, value = key_of(item), to_json(item)
        except (TypeError, ValueError) as error:
            raise PermanentError(f"a payload that cannot be written down: {error}") from None
        if (size := len(value) + len(key or b"")) > most:
            raise TooLarge(f"{size} bytes, a record may have {most} (journal.kafka.max_record_bytes)")
        return key, value

    def _hand_over(self, session: _Session) -> None:
        """The round that was held, to librdkafka."""
        held, session.held = session.held, []
        if not held:  # it was given up, or went before its turn
            return
        produce, topic = session.producer.produce, self._config.topic
        for sending, records in held:
            if session.abandoned:  # for the failure of one before
                return
            try:
                for key, value in records:
                    produce(topic, value, key, on_delivery=sending)
                    session.under_way += 1
            except BufferError:
                self._fail(sending, TransientError("the brokers are slower than what arrives"))
            except KafkaException as error:
                self._fail(sending, session.refusal(error.args[0]))
        self._watch()

    def _fail(self, sending: _Sending, error: Exception) -> None:
        if sending.left >= 0:
            sending.left = -1
            sending.done(error)

    def _settle(self, future: asyncio.Future[None], count: int, error: Exception | None) -> None:
        if error is None:
            self._acknowledged += count
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _watch(self) -> None:
        """Makes sure that somebody fetches the answers soon."""
        if self._timer is None or self._slow:
            if self._timer is not None:
                self._timer.cancel()
            self._slow, self._pause_s = False, _POLL_S
            self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    def _poll(self) -> None:
        self._timer = None
        session = self._session
        if session is None:
            return
        told = session.producer.poll(0)
        self._pause_s = _POLL_S if told else min(self._pause_s * _MORE_PATIENT, _ROUND_S)
        if session.causes.down:
            session.causes.down = False
            if session.busy():
                self.lost(session.causes.trouble(KafkaError(KafkaError._ALL_BROKERS_DOWN)))
        loop = asyncio.get_running_loop()
        if session.held and (not session.under_way or loop.time() - session.since >= _ROUND_S):
            self._hand_over(session)
        if self._session is not None and self._timer is None:
            self._slow = not self._session.under_way
            self._timer = loop.call_later(_IDLE_POLL_S if self._slow else self._pause_s, self._poll)


__all__ = ["KafkaWriter"]
