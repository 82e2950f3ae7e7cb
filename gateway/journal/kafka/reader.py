"""The journal's reader for Kafka: a cursor -> the records after it, of all partitions or of those a group gives it.

A read begins at the cursor it is handed; what the group has on record is never asked, only kept up to date for others to look at.
A record that is no payload, and records that the brokers lost or deleted too early, are a `Damage` in their place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from gateway.journal import Chunk, Damage, Joining, Reassigned
from gateway.journal.kafka import Config
from gateway.journal.kafka.client import ANSWER_S, Causes, find_topic, lane_stem, make
from protocol.payloads import from_json
from protocol.seams import START, Cursor, Position, RawPayload, TransientError

_LATEST = -1  # what offsets_for_times takes for the end of a partition
_JOIN_S = 1.0
_FETCH_S = 0.05
_KEPT_RECORDS = 5_000
_NOWHERE = -1

Item = RawPayload | Damage


class _Partition:
    """What is known of one partition that is read."""

    __slots__ = ("at", "bad", "buffer", "end", "lane", "said", "skip", "stuck")

    def __init__(self, lane: str, at: int) -> None:
        self.lane = lane
        self.at = at  # the next offset to hand out; the buffer begins at or behind it
        self.buffer: deque[Message] = deque()
        self.end = 0  # it was read as far as here: control records at the end are nothing to wait for
        self.bad = ""  # what is wrong with the records before the next one
        self.skip, self.stuck = 0, False  # an offset in a damaged batch, and whether nothing after it is read
        self.said = at  # the offset that the target has

    def ready(self) -> bool:
        """Whether a read would get anything of it."""
        return bool(self.buffer or (self.bad and self.end > self.at))


class KafkaReader:
    """A `gateway.journal.Reader` of all partitions; with a target it is a `GroupReader`, whose group is the target's."""

    def __init__(self, config: Config, target: str | None = None) -> None:
        """Connects at the first read. Raises ConfigurationError."""
        config.check()
        self._config, self._target = config, target
        self._causes = Causes(config)
        self._topic = config.topic
        self._stem = ""
        self._fetching: Consumer | None = None
        # Questions have a connection of their own: behind a fetch that waits for news they would wait too.
        self._asking: Consumer | None = self._asker()
        self._partitions: dict[int, _Partition] = {}
        self._cursor: Cursor = {}
        self._joined = target is None
        self._changed = self._paused = False
        self._failed: TransientError | None = None
        self._turn = 0

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        """As Reader.read; of a group, as GroupReader.read. Waits for what is there already to arrive.

        Raises TransientError when Kafka is out of reach, there is no topic, or a partition ends before the cursor, which must not
        go on unnoticed.
        """
        self._cursor = cursor
        consumer = self._open()
        self._go_on(consumer)
        if not self._joined:
            self._fetch(consumer, 1, _JOIN_S)
            if not self._joined:
                raise Joining(f"kafka: waiting for the group {self._group} to hand out partitions")
        self._fetch(consumer, max_payloads, 0)
        self._tell_change()
        self._go_to(consumer, cursor)
        self._get_unstuck(consumer)
        if not any(each.ready() for each in self._partitions.values()):
            self._await(consumer, max_payloads)
            self._tell_change()
        return self._taken(cursor, max_payloads, max_bytes)

    def pending(self, cursor: Cursor) -> int:
        if self._target is None:
            self._open()
            ends = self._ends()
            return sum(max(0, ends[n] - cursor.get(each.lane, START).offset) for n, each in self._partitions.items())
        self._keep_place()
        for each in self._partitions.values():
            each.said = cursor.get(each.lane, START).offset
        return sum(self.lag().values())

    def newest(self, payloads: int) -> Cursor:
        """So many records of each partition are after it, or all that there are. Raises TransientError, ConfigurationError."""
        self._open()
        found: dict[str, Position] = {}
        for number, each in self._partitions.items():
            low, high = self._bounds(number)
            at = max(low, high - payloads)
            found[each.lane] = Position(0, at, at)
        return found

    def deleted(self) -> int:
        """Records that the brokers have deleted already, of all partitions that it has. Raises TransientError."""
        self._open()
        return sum(self._bounds(number)[0] for number in self._partitions)

    def _keep_place(self) -> None:
        """Serves the group, which thinks that who never asks is gone. What arrives is kept; what that is too much of waits."""
        if self._fetching is None:
            return
        try:
            if sum(len(each.buffer) for each in self._partitions.values()) >= _KEPT_RECORDS:
                self._fetching.pause([TopicPartition(self._topic, number) for number in self._partitions])
                self._paused = True
            self._fetch(self._fetching, 1, 0)
        except TransientError as error:
            self._failed = error  # told by the next read
        except KafkaException as error:
            self._failed = self._causes.trouble(error.args[0])

    def _go_on(self, consumer: Consumer) -> None:
        if self._paused:
            self._paused = False
            consumer.resume([TopicPartition(self._topic, number) for number in self._partitions])
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def lanes(self) -> Mapping[str, bool]:
        return dict.fromkeys((each.lane for each in self._partitions.values()), False)

    def lag(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for number, each in self._partitions.items():
            found[each.lane] = max(0, self._known(number) - each.said)
        return found

    def loaded(self, cursor: Cursor) -> None:
        offsets: list[TopicPartition] = []
        for number, each in self._partitions.items():
            if (position := cursor.get(each.lane)) is not None:
                each.said = position.offset
                offsets.append(TopicPartition(self._topic, number, position.offset))
        if offsets and self._fetching is not None and self._target is not None:
            with suppress(KafkaException):  # a record for others to look at
                self._fetching.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        for consumer in (self._fetching, self._asking):
            if consumer is not None:
                consumer.close()
        self._fetching = self._asking = None
        self._partitions.clear()
        self._joined, self._changed, self._paused = self._target is None, False, False

    # Connecting.

    @property
    def _group(self) -> str:
        return f"{self._config.group}.{self._target}" if self._target is not None else self._config.group

    def _open(self) -> Consumer:
        if self._fetching is not None:
            return self._fetching
        settings = {
            "group.id": self._group,
            "session.timeout.ms": self._config.session_ms,
            "heartbeat.interval.ms": max(100, self._config.session_ms // 4),
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # what was handed out is thrown away when it comes again, what is missing told
            "check.crcs": True,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 16 << 10,
            "error_cb": self._causes.hear,
        }
        consumer: Consumer = make(Consumer, settings, self._config)
        self._causes.forget()
        numbers = find_topic(consumer, self._causes)  # by this consumer, which then need not wait for its own look
        self._stem = lane_stem(self._causes)
        self._causes.forget()
        if self._asking is None:
            self._asking = self._asker()
        if self._target is None:
            consumer.assign([self._assigned(number) for number in numbers])
        else:
            consumer.subscribe([self._topic], on_assign=self._gained, on_revoke=self._gone, on_lost=self._gone)
        self._fetching = consumer
        return consumer

    def _asker(self) -> Consumer:
        found: Consumer = make(Consumer, {"group.id": self._group, "error_cb": self._causes.hear}, self._config)
        return found

    def _assigned(self, number: int) -> TopicPartition:
        lane = f"{self._stem}.{number}"
        at = self._cursor.get(lane, START).offset
        self._partitions[number] = _Partition(lane, at)
        return TopicPartition(self._topic, number, at or OFFSET_BEGINNING)

    def _gained(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([self._assigned(each.partition) for each in partitions])
        self._changed = self._changed or bool(partitions) or not self._joined
        self._joined = True

    def _tell_change(self) -> None:
        if self._changed:
            self._changed = False
            raise Reassigned(f"kafka: the group {self._group} has handed out the partitions anew")

    def _gone(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._partitions.pop(each.partition, None)
        self._changed = True

    # Fetching.

    def _go_to(self, consumer: Consumer, cursor: Cursor) -> None:
        """Every partition's next record is the one after the cursor."""
        for number, each in self._partitions.items():
            each.said = wanted = cursor.get(each.lane, START).offset
            if wanted < each.at or (wanted > each.at and not self._skip(each, wanted)):
                self._seek(consumer, number, wanted)

    def _skip(self, each: _Partition, wanted: int) -> bool:
        """Somebody else has loaded a stretch: where it is in the buffer, that is thrown away."""
        while each.buffer and (each.buffer[0].offset() or 0) < wanted:
            each.buffer.popleft()
        if not each.buffer or each.buffer[0].offset() != wanted:  # what is missing there will be told by the brokers
            return False
        each.at = wanted
        return True

    def _seek(self, consumer: Consumer, number: int, offset: int) -> None:
        each = self._partitions[number]
        until = time.monotonic() + ANSWER_S
        while True:
            try:
                consumer.seek(TopicPartition(self._topic, number, offset or OFFSET_BEGINNING))
                break
            except KafkaException as error:
                # Just after it was handed out it is not ready yet.
                if error.args[0].code() != KafkaError._STATE or time.monotonic() > until:
                    raise self._causes.trouble(error.args[0]) from None
                time.sleep(0.01)
        each.buffer.clear()
        each.at, each.end, each.bad, each.skip, each.stuck = offset, 0, "", 0, False

    def _get_unstuck(self, consumer: Consumer) -> None:
        """One offset further into a damaged batch, whose length nobody knows; behind it there are good records again."""
        for number, each in self._partitions.items():
            if each.stuck and not each.buffer:
                at, bad, skip = each.at, each.bad, each.skip + 1
                self._seek(consumer, number, skip)
                each.at, each.bad, each.skip = at, bad, skip

    def _fetch(self, consumer: Consumer, most: int, wait_s: float) -> None:
        """Into the buffers what has arrived; waits for the first only. Also serves the group."""
        try:
            for message in consumer.consume(1, wait_s) if wait_s else ():
                self._arrived(message)
            waiting = sum(len(each.buffer) for each in self._partitions.values())
            for message in consumer.consume(min(10_000, max(1, most - waiting)), 0):
                self._arrived(message)
        except BaseException:
            # Records that came with the error may not have been looked at: the next read has them fetched again.
            for each in self._partitions.values():
                each.buffer.clear()
                each.at = _NOWHERE
            raise

    def _arrived(self, message: Message) -> None:
        number, offset, error = message.partition(), message.offset(), message.error()
        each = self._partitions.get(number) if number is not None else None
        if error is None:
            if each is not None and number is not None and not each.stuck:
                following = (each.buffer[-1].offset() or 0) + 1 if each.buffer else each.at
                if (offset or 0) >= following:
                    self._find_gap(number, offset or 0)
                    each.buffer.append(message)
            return
        code = error.code()
        if each is not None and number is not None:
            if code == KafkaError._PARTITION_EOF:
                if not each.stuck:
                    self._find_gap(number, offset or 0)
                    each.end = offset or 0
                return
            if code == KafkaError._BAD_MSG:
                each.bad = each.bad or f"the brokers' copy of records is damaged ({error.str()})"
                each.skip, each.stuck = max(each.skip, offset or 0), True
                return
            if each.stuck:  # after a damaged batch librdkafka reads on in the middle of it
                return
        if code == KafkaError._MAX_POLL_EXCEEDED:
            return  # the group has given the partitions to others; it is joined again by asking on
        if code == KafkaError._ALL_BROKERS_DOWN:
            self._causes.hear(error)
            return
        if error.fatal():
            self.close()
        raise self._causes.trouble(error)

    def _find_gap(self, number: int, offset: int) -> None:
        """Records may be missing because they never were (of transactions, compacted) or because they were deleted unread."""
        each = self._partitions[number]
        if each.at and not each.buffer and offset > each.at and not each.bad:
            low = self._bounds(number)[0]
            if low > each.at:
                each.bad = (
                    f"{low - each.at} records from {each.at} on were deleted by the brokers before they were read"
                    " (retention of the topic)"
                )

    def _went_back(self, number: int, at: int, end: int) -> TransientError:
        return TransientError(
            f"kafka: partition {number} of {self._topic!r} ends at {end}, but was read up to {at}: its new leader is not ready, "
            "or the brokers have lost what they acknowledged; see docs/kafka.md, 'A topic that went back'"
        )

    def _await(self, consumer: Consumer, most: int) -> None:
        """Until something arrives, if there is anything; what was acknowledged before the call is. Raises TransientError."""
        ends = self._ends()
        for number, each in self._partitions.items():
            if each.at > ends.get(number, each.at):
                raise self._went_back(number, each.at, ends[number])
        until = time.monotonic() + ANSWER_S
        while any(max(each.at, each.end) < ends.get(number, 0) for number, each in self._partitions.items()):
            self._get_unstuck(consumer)
            self._fetch(consumer, most, _FETCH_S)
            if self._changed or any(each.ready() for each in self._partitions.values()):
                return
            if time.monotonic() > until:
                raise self._causes.trouble(KafkaError(KafkaError._TIMED_OUT))

    def _ends(self) -> dict[int, int]:
        """Where each partition ends now. Raises TransientError."""
        asked = [TopicPartition(self._topic, number, _LATEST) for number in self._partitions]
        assert self._asking is not None
        if not asked:
            return {}
        try:
            found = self._asking.offsets_for_times(asked, timeout=ANSWER_S)
        except KafkaException as error:
            self._asking.poll(0)
            raise self._causes.trouble(error.args[0]) from None
        for each in found:
            if each.error is not None:
                raise self._causes.trouble(each.error)
        self._causes.forget()
        return {each.partition: each.offset for each in found}

    def _bounds(self, number: int) -> tuple[int, int]:
        assert self._asking is not None
        try:
            low, high = self._asking.get_watermark_offsets(TopicPartition(self._topic, number), timeout=ANSWER_S)
        except KafkaException as error:
            raise self._causes.trouble(error.args[0]) from None
        return low, high

    def _known(self, number: int) -> int:
        """Where a partition ends, as the last fetch told it; 0 before there was one."""
        if self._fetching is None:
            return 0
        found: Any = self._fetching.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
        return max(0, found[1]) if found else 0  # below 0: not known yet

    # Handing out.

    def _taken(self, cursor: Cursor, max_payloads: int, max_bytes: int) -> Chunk:
        items: list[Item] = []
        lanes: list[tuple[str, int]] = []
        after = dict(cursor)
        numbers = sorted(number for number, each in self._partitions.items() if each.ready())
        self._turn += 1  # another one is the first every time, and none takes more than its share while others wait
        for index in range(len(numbers)):
            each = self._partitions[numbers[(index + self._turn) % len(numbers)]]
            if items and (len(items) >= max_payloads or max_bytes <= 0):
                break
            before = len(items)
            payloads = before + max(1, (max_payloads - before) // (len(numbers) - index))
            budget = max(1, max_bytes // (len(numbers) - index))
            while len(items) < payloads and budget > 0 and each.ready():
                size = self._one(each, items)
                budget, max_bytes = budget - size, max_bytes - size
            if each.at > cursor.get(each.lane, START).offset:
                after[each.lane] = Position(0, each.at, each.at)
                lanes.append((each.lane, len(items) - before))
        return Chunk(tuple(items), after, self._more(), tuple(lanes))

    def _one(self, each: _Partition, items: list[Item]) -> int:
        """The next of a partition's buffer to the items, and what was lost before it. Returns its bytes."""
        following = (each.buffer[0].offset() or 0) if each.buffer else each.end
        if each.bad and following > each.at:
            items.append(Damage(each.lane, Position(0, following, following), b"", each.bad))
            each.at, each.bad = following, ""
            return 1
        if not each.stuck:
            each.bad, each.skip = "", 0
        message = each.buffer.popleft()
        each.at = following + 1
        value = message.value() or b""
        assert isinstance(value, bytes)
        try:
            items.append(from_json(value))
        except ValueError:
            items.append(Damage(each.lane, Position(0, each.at, each.at), value))
        return len(value)

    def _more(self) -> bool:
        known = self._known
        return any(each.buffer or max(each.at, each.end) < known(number) for number, each in self._partitions.items())


__all__ = ["KafkaReader"]
