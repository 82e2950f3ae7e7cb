"""How the contract of targets treats the Kafka target: on a real broker, topics of its own for each test."""

from __future__ import annotations

import json
import random
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from protocol.schemas import bundled
from protocol.seams import TransientError
from storage.kafka.client import Fenced
from storage.targets import Batch, kafka


class Failing:
    """A producer of which one call fails: before it is done, or so that its answer is lost."""

    def __init__(self, producer: Any, fail_at: int, done: bool) -> None:
        self._producer, self._left, self._done = producer, fail_at, done

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._producer, name)
        return (lambda *a, **k: self._call(name, found, *a, **k)) if name in ("produce", "commit_transaction") else found

    def _call(self, name: str, function: Any, *arguments: Any, **options: Any) -> Any:
        self._left = 0 if name == "commit_transaction" else self._left - 1
        if self._left != 0:
            return function(*arguments, **options)
        if name == "commit_transaction" and self._done:
            function(*arguments, **options)
        elif name == "commit_transaction":
            self._producer.flush(10)  # everything lies there, open: whoever begins next must end it
        raise TransientError("told to fail")


def in_kafka(folder: Path, request: pytest.FixtureRequest) -> KafkaBench:
    """The test module has a fixture `kafka_server`."""
    return KafkaBench(request.getfixturevalue("kafka_server").bootstrap)


class KafkaBench:
    def __init__(self, bootstrap: str, **options: Any) -> None:
        self.config = kafka.Config(
            (bootstrap,), *(f"{part}-{uuid.uuid4().hex[:12]}" for part in ("e", "f")), partitions=2, **options
        )
        self.target: kafka.Plugin | None = None

    def open(self) -> kafka.Plugin:
        if self.target:
            self.target.close()
        self.target = kafka.Plugin(self.config, bundled)
        return self.target

    def another(self) -> kafka.Plugin:
        return kafka.Plugin(self.config, bundled)

    def records(self, topic: str) -> list[tuple[bytes, bytes]]:
        """Key and value of what was committed."""
        settings = {"isolation.level": "read_committed", "enable.partition.eof": True, "fetch.wait.max.ms": 10}
        consumer = Consumer({"bootstrap.servers": self.config.brokers[0], "group.id": "test", **settings})
        places = [TopicPartition(topic, number) for number in consumer.list_topics(topic, 30).topics[topic].partitions]
        self._decided(places)
        for place in places:
            place.offset = consumer.get_watermark_offsets(place, 30)[0]
        consumer.assign(places)
        found: list[tuple[bytes, bytes]] = []
        ended: set[int] = set()
        while len(ended) < len(places):
            for message in consumer.consume(1_000, 0.1):
                error = message.error()
                if error is None:
                    found.append((message.key(), message.value()))
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())
        consumer.close()
        return found

    def _decided(self, places: list[TopicPartition]) -> None:
        """Waits until every transaction in them has its mark, which comes a moment after the commit."""
        admin = AdminClient({"bootstrap.servers": self.config.brokers[0]})
        until = time.monotonic() + 10

        def ends(isolation: IsolationLevel) -> list[int]:
            asked = admin.list_offsets({place: OffsetSpec.latest() for place in places}, isolation_level=isolation)
            return [asked[place].result(30).offset for place in places]

        while ends(IsolationLevel.READ_COMMITTED) != ends(IsolationLevel.READ_UNCOMMITTED) and time.monotonic() < until:
            time.sleep(0.01)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(value) for _, value in self.records(self.config.topic)]

    def ids(self) -> list[str]:
        return [event["event_id"] for event in self.events()]

    def failed_ids(self) -> list[str]:
        return [json.loads(value)["failed_id"] for _, value in self.records(self.config.failed_topic)]

    def event(self, event_id: str) -> dict[str, Any]:
        (event,) = [event for event in self.events() if event["event_id"] == event_id]
        return {**event, "derived_contexts": json.dumps(event.get("derived_contexts"))}

    def failing_commit(self, moment: str, batch: Batch, chance: random.Random) -> None:
        assert self.target
        if moment == "after":
            self.target.commit(batch)
            raise TransientError("the answer was lost")
        self.target.cursor()
        count = len(batch.events) + len(batch.failed)
        at = 1 if moment == "before" else chance.randrange(1, count + 4)
        self.target._producer = Failing(self.target._producer, at, False)  # type: ignore[assignment]
        self.target.commit(batch)


__all__ = ["Fenced", "KafkaBench", "in_kafka"]
