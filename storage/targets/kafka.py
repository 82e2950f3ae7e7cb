"""Hands events on in topics of Apache Kafka: enriched events, and failed ones, each once; docs/kafka-target.md describes it.

Records and the place in the journal are one transaction of Kafka's. The place lies in a topic of its own, the state topic, with
totals and the newest ids. Transactions are in the target's name: a loader that begins ends everybody else's, so none can commit
that has not read the newest place. Several loaders take turns. Consumers must read with isolation.level=read_committed. Knows no
clock but to wait.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from random import uniform
from typing import Any, TypeVar

import orjson
from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition

from protocol.seams import Cursor, FailedEvent, Position, TransientError
from storage.duplicates import identity, sort_out
from storage.kafka.client import Clients, Config, Fenced
from storage.kafka.memory import Memory
from storage.kafka.records import failed_value, key_of, too_large, value_of
from storage.marks import mark_of
from storage.rows import clean
from storage.targets import Batch, Counts, SchemaLookup

_STATE = b"state"
_GIVEN_UP = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)  # of a record that another one's failure took along
_TURNS = 5  # attempts to begin, when other loaders begin at the same time
_TURN_S = 2.0  # so long another loader's transaction is waited for before it is ended
_WINDOW = 4_096  # offsets read back from the end at first
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _State:
    """What the newest commit said."""

    cursor: Cursor = field(default_factory=dict[str, Position])
    totals: Counts = field(default_factory=Counts)
    mark: str = ""
    counted: Counts = field(default_factory=Counts)


class Plugin:
    def __init__(self, config: Config, schemas: SchemaLookup) -> None:
        """No broker is asked before `cursor`. schemas: of no use. Raises ConfigurationError."""
        self._config, self._clients = config, Clients(config)
        self._lock = threading.Lock()
        self._prepared = False
        self._producer: Any = None  # None: before the next commit a turn must be taken
        self._consumer: Consumer | None = None
        self._next: int | None = None  # of the state topic, where reading goes on; None = nothing was read yet
        self._state, self._memory = _State(), Memory(config.remember)

    # Target ---------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        """Nothing of an earlier attempt, of whomever, can be committed after this."""
        with self._lock:
            self._take_turn()
            return dict(self._state.cursor)

    def totals(self) -> Counts:
        with self._lock:
            self._prepare()
            if self._another_wrote():
                self._settle()
                self._read()
            return self._state.totals

    def commit(self, batch: Batch) -> Counts:
        with self._lock:
            mark = mark_of(batch)
            return self._in_turn(lambda: self._commit(batch, mark))

    def close(self) -> None:
        with self._lock:
            self._drop()
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None

    def wipe(self) -> None:
        """Begin again: both topics are emptied, no cursor, all totals 0."""
        with self._lock:
            self._in_turn(self._wipe)

    # Within the lock ------------------------------------------------------------------------------------------------

    def _in_turn(self, work: Callable[[], _Answer]) -> _Answer:
        """work(), again when another loader began meanwhile: then nothing was taken."""
        for attempt in range(_TURNS):
            try:
                if self._another_wrote():
                    self._take_turn()
                return work()
            except Fenced:
                self._drop()
                if attempt == _TURNS - 1:
                    raise
                time.sleep(uniform(0, 0.05 * 2**attempt))  # nobody shall begin in step with anybody
            except BaseException:
                self._drop()
                raise
        raise AssertionError("unreachable")

    def _commit(self, batch: Batch, mark: str) -> Counts:
        state = self._state
        if state.mark == mark:  # this very batch was committed before; only the caller did not hear of it
            return state.counted
        cursor = {**state.cursor, **batch.moved(state.cursor)}
        config, most = self._config, self._config.max_record_bytes
        events, duplicates = sort_out(batch.events, self._memory.stored)
        values = [value_of(event, config.format) for event in events]
        large = [too_large(event, len(value), most) for event, value in zip(events, values, strict=True) if len(value) > most]
        fitting = [(event, value) for event, value in zip(events, values, strict=True) if len(value) <= most]
        offered = [*batch.failed, *large]
        fresh = self._fresh(offered)
        counts = Counts(batch.payloads, len(fitting), len(fresh), duplicates + len(offered) - len(fresh), erased=batch.erased)
        totals = Counts(*(had + came for had, came in zip(astuple(state.totals), astuple(counts), strict=True)))
        stored = [identity(event) for event, _ in fitting]
        records = [(config.topic, key_of(event), value) for event, value in fitting]
        records += [(config.failed_topic, one.payload.id.encode(), failed_value(one, most)) for one in fresh.values()]
        parts = list(self._memory.parts(uuid.uuid4().hex, stored, list(fresh)))
        gone = self._memory.outdated(len(stored) + len(fresh))
        self._write(records, _State(cursor, totals, mark, counts), parts, gone)
        return counts

    def _fresh(self, offered: Sequence[FailedEvent]) -> dict[str, FailedEvent]:
        """Those that are new, each once, by their ids."""
        first = {clean(one.id): one for one in reversed(offered)}
        return {key: one for key, one in reversed(first.items()) if key not in self._memory.failed}

    def _wipe(self) -> None:
        admin = self._clients.admin()
        emptied: list[TopicPartition] = []
        for topic in (self._config.topic, self._config.failed_topic):
            there = self._clients.call(admin.list_topics, topic, self._config.timeout_s).topics[topic].partitions
            emptied += [TopicPartition(topic, number, -1) for number in there]  # -1: up to the end
        for done in admin.delete_records(emptied).values():
            self._clients.call(done.result, self._config.timeout_s)
        self._write([], _State(), [], self._memory.outdated(1 << 62))

    def _write(
        self, records: Sequence[tuple[str, bytes, bytes]], state: _State, parts: Sequence[tuple[str, bytes]], gone: Sequence[str]
    ) -> None:
        """One transaction. Raises Fenced and PermanentError when nothing was taken; after TransientError nobody knows."""
        producer, call, topic = self._producer, self._clients.call, self._config.state
        failures: list[KafkaError] = []

        def told(error: KafkaError | None, message: Any) -> None:
            if error is not None and error.code() not in _GIVEN_UP:
                failures.append(error)

        call(producer.begin_transaction)
        remembered: list[tuple[str, bytes | None]] = [*((key, None) for key in gone), *parts]
        own = [(topic, key.encode(), value) for key, value in remembered]
        for place, key, value in (*records, *own, (topic, _STATE, _dumps(state))):
            while True:
                try:
                    producer.produce(place, key=key, value=value, on_delivery=told)
                    break
                except BufferError:
                    producer.poll(0.05)
                except Exception as error:
                    raise self._clients.trouble(_kafka_error(error)) from None
            producer.poll(0)
        try:
            call(producer.commit_transaction, self._config.timeout_s)
        except Exception:
            if failures:  # the commit failed because a record did, which says more
                raise self._clients.trouble(failures[0]) from None
            raise
        for part, said in remembered:
            self._memory.learn(part, said)
        self._state = state
        assert self._next is not None
        self._next += len(remembered) + 2  # with the place, and the mark of the commit, which may yet have to be written

    def _take_turn(self) -> None:
        """From here on nobody else can commit unless he takes his turn, and what was committed is known."""
        self._prepare()
        self._drop()
        self._settle()
        self._producer = self._clients.producer()
        self._read()

    def _another_wrote(self) -> bool:
        """Or may have: what is known is perhaps not the newest."""
        return self._producer is None or self._next is None or self._end(IsolationLevel.READ_UNCOMMITTED) > self._next

    def _settle(self) -> None:
        """One that is in the middle of a commit is let finish, unless it is not there any more."""
        until = time.monotonic() + _TURN_S
        while self._end(IsolationLevel.READ_COMMITTED) != self._end(IsolationLevel.READ_UNCOMMITTED) and time.monotonic() < until:
            time.sleep(0.01)

    def _drop(self) -> None:
        """A transaction that is open is given up, or else by whoever begins next; readers wait for that."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(Exception):  # there may be none, or the broker may be gone
                producer.abort_transaction(1)
            producer.purge(blocking=False)
            with suppress(Exception):  # one that was fenced says so once more
                producer.close(0)

    def _prepare(self) -> None:
        if not self._prepared:
            self._clients.prepare()
            self._prepared = True

    # The state topic ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Goes on to the end of what is committed."""
        if self._next is not None:
            self._next = self._follow(self._next)
            return
        end, window = self._end(IsolationLevel.READ_COMMITTED), _WINDOW
        while True:  # back from the end, until it is enough
            self._state, self._memory = _State(), Memory(self._config.remember)
            start = max(0, end - window)
            self._next = self._follow(start)
            if start == 0 or (self._state.mark and self._memory.enough()):
                return
            window *= 4

    def _follow(self, start: int) -> int:
        """Reads from there to the end; where that is."""
        topic = self._config.state
        self._consumer = self._consumer or self._clients.consumer()
        self._clients.call(self._consumer.assign, [TopicPartition(topic, 0, start)])
        until = time.monotonic() + self._config.timeout_s
        while time.monotonic() < until:
            message = self._clients.call(self._consumer.poll, 0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                self._learn(message.key(), message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                return int(message.offset())
            elif not error.retriable():
                raise self._clients.trouble(error)
        raise TransientError(f"kafka {', '.join(self._config.brokers)}: {topic} could not be read to its end in time")

    def _learn(self, key: bytes | None, value: bytes | None) -> None:
        if key == _STATE and value is not None:
            self._state = _loads(value)
            if not self._state.mark:  # it was wiped: what it knew before is not so any more
                self._memory = Memory(self._config.remember)
        elif key is not None:
            self._memory.learn(key.decode(), value)

    def _end(self, isolation: IsolationLevel) -> int:
        """Of the state topic: of what is decided, or of all that is written."""
        return self._clients.end(self._config.state, isolation)


def _kafka_error(error: Exception) -> KafkaError:
    """What librdkafka said, of an exception of it; anything else is our own mistake."""
    if error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    raise error


def _dumps(state: _State) -> bytes:
    return orjson.dumps(
        {
            "cursor": {lane: list(position) for lane, position in state.cursor.items()},
            "totals": astuple(state.totals),
            "mark": state.mark,
            "counted": astuple(state.counted),
        }
    )


def _loads(value: bytes) -> _State:
    said: Mapping[str, Any] = orjson.loads(value)
    cursor = {lane: Position(*place) for lane, place in said["cursor"].items()}
    return _State(cursor, Counts(*said["totals"]), said["mark"], Counts(*said["counted"]))


__all__ = ["Config", "Plugin"]
