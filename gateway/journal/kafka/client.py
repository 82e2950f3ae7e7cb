"""Connections to Kafka: clients of librdkafka made from our options, and its errors in one line of ours.

librdkafka tries for ever and tells causes beside what failed because of them; a `Causes` keeps the last, so that "timed out" is
told as "wrong password".
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from gateway.journal.kafka import Config, connecting
from protocol.seams import ConfigurationError, TransientError

ANSWER_S = 20.0

_ADVICE = {
    KafkaError._AUTHENTICATION: "wrong user or password, or not this way of saying them; see sasl, username and password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "wrong user or password; see username and password",
    KafkaError._SSL: "TLS could not be agreed upon; see tls_ca, and that the name in brokers is the certificate's",
    KafkaError._RESOLVE: "no such host; see brokers",
    KafkaError._ALL_BROKERS_DOWN: "no broker can be reached; see brokers, and whether they run",
    KafkaError._TRANSPORT: "no broker can be reached; see brokers, and whether they run",
    KafkaError._DESTROY: "no broker can be reached; see brokers, and whether they run",
    KafkaError._UNKNOWN_PARTITION: "its brokers are starting, or a partition has none",
    KafkaError._TIMED_OUT: "no answer in time; see brokers, and whether they run",
    KafkaError._MSG_TIMED_OUT: "not acknowledged in time",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not use the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "this user may not do this",
    KafkaError.NOT_ENOUGH_REPLICAS: "too few copies of the topic are in step (min.insync.replicas)",
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: "too few copies of the topic are in step (min.insync.replicas)",
}
# What explains other errors, the most telling first.
_CAUSES = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._SSL,
    KafkaError._RESOLVE,
    KafkaError._TRANSPORT,
)
_VAGUE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._DESTROY,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
}
_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}


class Causes:
    """Hears a client's errors (its error_cb) and puts what failed into words. down: every broker was lost, since it was set."""

    def __init__(self, config: Config) -> None:
        self.config, self.down = config, False
        self._heard: dict[int, str] = {}

    def hear(self, error: KafkaError) -> None:
        """Of the thread that polls the client."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down = True
        elif error.code() in _CAUSES:
            self._heard[error.code()] = error.str()

    def forget(self) -> None:
        """It works: what was heard explains nothing that comes."""
        self._heard.clear()
        self.down = False

    def certain(self) -> bool:
        """Whether trying again within the same seconds is of no use."""
        return any(cause in self._heard for cause in _CAUSES if cause != KafkaError._TRANSPORT)

    def words(self, error: KafkaError) -> str:
        """The error as one line: the cause and the next step."""
        code, text = error.code(), error.str()
        if code in _VAGUE:
            code = next((cause for cause in _CAUSES if cause in self._heard), code)
            text = self._heard.get(code, text)
        where = ", ".join(self.config.brokers)
        if code in _MISSING:
            return f"kafka {where}: {missing(self.config)}"
        text = re.sub(r"^\S+/\w+: | \(after \d+ms in state \w+.*\)", "", text).strip().rstrip(".")
        return f"kafka {where}: {_ADVICE.get(code, 'refused')} ({text})"

    def trouble(self, error: KafkaError) -> TransientError:
        """To be raised or handed on: what failed may work later."""
        return TransientError(self.words(error))


def missing(config: Config) -> str:
    """What is said where the topic is not, and nobody may make it."""
    return f"there is no topic {config.topic!r}; make it, or set journal.kafka.create = true"


def make(kind: Any, settings: dict[str, Any], config: Config) -> Any:
    """A client of librdkafka; the user's own options go before ours. Raises ConfigurationError."""
    for name in ("tls_ca", "tls_certificate", "tls_key"):
        if (path := getattr(config, name)) and not os.access(path, os.R_OK):
            raise ConfigurationError(f"journal.kafka.{name}: {path} cannot be read")
    try:
        return kind({**connecting(config), **settings, **config.options})
    except KafkaException as error:
        raise ConfigurationError(f"journal.kafka: {error.args[0].str()}") from None


def find_topic(client: Any, causes: Causes, wait_s: float = ANSWER_S) -> list[int]:
    """The topic's partitions; where there is no topic it is made, if it may be. Waits. Raises TransientError, ConfigurationError.

    client: with nothing under way, for its events are fetched here. wait_s: for an answer, where trying again may be of use.
    """
    config = causes.config
    until = time.monotonic() + wait_s
    created = False
    while True:
        try:
            topic = client.list_topics(config.topic, timeout=1.0).topics[config.topic]
        except KafkaException as error:
            client.poll(0)
            if causes.down or causes.certain() or time.monotonic() > until:
                raise causes.trouble(error.args[0]) from None
            continue
        if topic.error is None:
            return sorted(topic.partitions)
        unknown = topic.error.code() in _MISSING
        if unknown and not config.create:
            raise TransientError(f"kafka {', '.join(config.brokers)}: {missing(config)}")
        if time.monotonic() > until:
            raise causes.trouble(topic.error)
        if unknown and not created:
            _create(causes)
            created = True
        time.sleep(0.05)  # it was made a moment ago: not every broker knows it yet


def _create(causes: Causes) -> None:
    config = causes.config
    admin = make(AdminClient, {"error_cb": causes.hear}, config)
    wanted = NewTopic(config.topic, num_partitions=config.partitions, replication_factor=config.replication or -1)
    try:
        admin.create_topics([wanted], operation_timeout=ANSWER_S, request_timeout=ANSWER_S)[config.topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another gateway was faster
            raise causes.trouble(error.args[0]) from None


def lane_stem(causes: Causes) -> str:
    """What the topic's lanes are called, before a dot and the partition: 32 hex digits that fit no other topic.

    The topic's id, which also tells it from one of the same name that was deleted; where the cluster has no such ids,
    the cluster's id and the topic's name. Raises TransientError.
    """
    config = causes.config
    admin = make(AdminClient, {"error_cb": causes.hear}, config)
    try:
        cluster = admin.list_topics(timeout=ANSWER_S)
        # Some that speak Kafka's language name a controller that is nobody, and it would be waited for. -1 is an election.
        if cluster.controller_id in cluster.brokers or cluster.controller_id == -1:
            described = admin.describe_topics(TopicCollection([config.topic]), request_timeout=ANSWER_S)[config.topic].result()
            if (found := _hex(described.topic_id)) is not None:
                return found
    except KafkaException as error:
        if error.args[0].code() != KafkaError._UNSUPPORTED_FEATURE:
            raise causes.trouble(error.args[0]) from None
        cluster = admin.list_topics(timeout=ANSWER_S)
    return hashlib.sha256(f"{cluster.cluster_id}\n{config.topic}".encode()).hexdigest()[:32]


def _hex(topic_id: Any) -> str | None:
    if topic_id is None:
        return None
    number = (topic_id.get_most_significant_bits() % 2**64 << 64) + topic_id.get_least_significant_bits() % 2**64
    return f"{number:032x}" if number else None


def producing(causes: Causes) -> Producer:
    """A producer whose acknowledgement means: on all copies in step, once, in order. Raises ConfigurationError."""
    config = causes.config
    settings = {
        "enable.idempotence": True,  # and with it acks=all
        "message.timeout.ms": config.delivery_ms,
        "message.max.bytes": config.max_record_bytes + 4096,  # with the key and the record's own fields
        "linger.ms": 0.5,  # so long a round takes to be handed over; gathering records is the writer's
        "compression.type": config.compression,
        "queue.buffering.max.kbytes": 64 << 10,
        "partitioner": "murmur2_random",  # as Java's clients do it
        "error_cb": causes.hear,
    }
    found: Producer = make(Producer, settings, config)
    return found


__all__ = ["ANSWER_S", "Causes", "find_topic", "lane_stem", "make", "missing", "producing"]
