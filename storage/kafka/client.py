"""Options of the Kafka target -> clients of librdkafka, and its errors in one line of ours. Knows nothing of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from protocol.seams import ConfigurationError, PermanentError, TransientError

_LEAST = {"partitions": 1, "max_record_bytes": 10_000, "remember": 0}
_REFUSED = {
    KafkaError._AUTHENTICATION: "wrong user or password; see sasl, username and password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "wrong user or password; see username and password",
    KafkaError._SSL: "TLS could not be agreed upon; see tls_ca, and that the name in brokers is the certificate's",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not use the topic",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "this user may not use the transactional id, the state topic's name",
    KafkaError.MSG_SIZE_TOO_LARGE: "max.message.bytes of a topic is less than max_record_bytes",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "this user may not do this",
}
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}


_MOVING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.FENCED_LEADER_EPOCH,  # it had another before
    KafkaError.UNKNOWN_LEADER_EPOCH,  # it does not know yet that it has one
    KafkaError._NOENT,  # none at all
}


@dataclass(frozen=True, slots=True)
class Config:
    """brokers: HOST:PORT of some of them. topic, failed_topic: of events and of failed events; state_topic: where this target
    stands, "" = topic with "-state". format: of events; failed events are JSON.

    create: topics that do not exist are made, with so many partitions and copies (0 = as the brokers have it set); else they must
    exist, the state topic with one partition and cleanup.policy=compact.
    max_record_bytes: an event whose record would be larger is a failed event; no more than the topics' max.message.bytes.
    remember: so many events back a copy is known. timeout_s: brokers that do not answer.
    tls by itself means the system's authorities; tls_ca: a PEM file of others. tls_certificate, tls_key: PEM files, our own.
    sasl, username, password or password_file: how we say who we are. options: anything else of librdkafka, by its own names.
    """

    brokers: tuple[str, ...] = ("127.0.0.1:9092",)
    topic: str = "enriched"
    failed_topic: str = "failed"
    state_topic: str = ""
    format: Literal["json", "tsv"] = "json"
    create: bool = True
    partitions: int = 6
    replication: int = 0
    max_record_bytes: int = 1_000_000
    remember: int = 100_000
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    timeout_s: float = 30.0
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    sasl: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""
    password_file: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def state(self) -> str:
        """The topic that holds place, totals and recent ids."""
        return self.state_topic or f"{self.topic}-state"

    def check(self) -> None:
        """Raises ConfigurationError."""
        topics = (self.topic, self.failed_topic, self.state)
        if not self.brokers or not all(topics) or len(set(topics)) < len(topics):
            raise ConfigurationError("kafka: brokers, and three topics with names of their own, must be given")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"kafka: {name} = {getattr(self, name)}: it must be at least {least}")
        if bool(self.sasl) != bool(self.username):
            raise ConfigurationError("kafka: sasl and username go together; there is only one of them")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ConfigurationError("kafka: tls_certificate and tls_key go together; there is only one of them")


class Fenced(TransientError):
    """Another loader has begun: what this one had under way came to nothing."""


class _Moving(TransientError):
    """Nobody leads the partition just now, or another broker does."""


class Clients:
    """Makes the clients that a target needs; each is used by one thread."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigurationError."""
        config.check()
        self.config = config
        self._heard = ""
        self._admin: Any = None
        tls = config.tls or bool(config.tls_ca or config.tls_certificate)
        self._common: dict[str, Any] = {
            "bootstrap.servers": ",".join(config.brokers),
            "client.id": "spoorway",
            "security.protocol": ("SASL_" if config.sasl else "") + ("SSL" if tls else "PLAINTEXT"),
            "reconnect.backoff.max.ms": 2_000,
            "log_level": 0,  # its errors come as events, and are told in our words
            "error_cb": self._hear,
        }
        if config.sasl:
            said = {"sasl.mechanism": config.sasl, "sasl.username": config.username, "sasl.password": _password(config)}
            self._common |= said
        files = {
            "ssl.ca.location": config.tls_ca,
            "ssl.certificate.location": config.tls_certificate,
            "ssl.key.location": config.tls_key,
        }
        self._common |= {name: value for name, value in files.items() if value}

    def producer(self) -> Producer:
        """Of transactions, in the name of the target: whoever begins with it ends everybody else's.

        Raises ConfigurationError, TransientError, PermanentError.
        """
        config = self.config
        made: Producer = self._make(
            Producer,
            {
                "transactional.id": config.state,
                "transaction.timeout.ms": int(config.timeout_s * 1000),
                # With the key and the record's own fields; a part of the memory is half a megabyte at most.
                "message.max.bytes": max(config.max_record_bytes, 500_000) + 4096,
                "linger.ms": 5,
                "compression.type": config.compression,
                "partitioner": "murmur2_random",  # as Java's clients do it
            },
        )
        self.call(made.init_transactions, config.timeout_s)
        return made

    def consumer(self) -> Consumer:
        """Of what was committed, from where it is told, without a group. Raises ConfigurationError."""
        settings = {
            "group.id": self.config.state,  # it joins none, and librdkafka wants a name
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,  # the end is told when nothing has come for so long
        }
        made: Consumer = self._make(Consumer, settings)
        return made

    def admin(self) -> Any:
        """The one of this target: what it was asked is never answered once it is gone. Raises ConfigurationError."""
        if self._admin is None:
            self._admin = self._make(AdminClient, {})
        return self._admin

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments). Raises Fenced, TransientError, PermanentError."""
        try:
            return function(*arguments)
        except KafkaException as error:
            raise self.trouble(error.args[0]) from None
        except TimeoutError:
            raise TransientError(f"kafka {self._where}: no answer in time") from None

    def trouble(self, error: KafkaError) -> Exception:
        """What to raise for an error of librdkafka's."""
        if error.code() in _FENCED:
            return Fenced(f"kafka {self._where}: another loader of {self.config.topic} has begun")
        if error.code() in _MOVING:
            return _Moving(f"kafka {self._where}: {error.str()}")
        text = error.str() or str(error)
        if error.code() in (KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT) and self._heard:
            text = self._heard
        if why := _REFUSED.get(error.code()):
            return PermanentError(f"kafka {self._where}: {why} ({text})")
        return TransientError(f"kafka {self._where}: {text}")

    def prepare(self) -> None:
        """The topics are there when it returns. Raises TransientError, PermanentError."""
        config, admin = self.config, self.admin()
        there = set(self.call(admin.list_topics, None, config.timeout_s).topics)
        missing = [name for name in (config.topic, config.failed_topic, config.state) if name not in there]
        if missing and not config.create:
            raise TransientError(f"kafka {self._where}: there is no topic {', '.join(missing)}; make it, or set create = true")
        copies = config.replication or -1
        wanted = [
            NewTopic(name, num_partitions=config.partitions, replication_factor=copies)
            for name in missing
            if name != config.state
        ]
        if config.state in missing:
            # Small segments, so that compaction comes to them and a start has little to read.
            policy = {"cleanup.policy": "compact", "segment.bytes": str(16 << 20)}
            wanted.append(NewTopic(config.state, num_partitions=1, replication_factor=copies, config=policy))
        made: Mapping[str, Any] = admin.create_topics(wanted, operation_timeout=config.timeout_s) if wanted else {}
        for one in made.values():
            try:
                one.result(config.timeout_s)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another loader was faster
                    raise self.trouble(error.args[0]) from None

    def end(self, topic: str, isolation: IsolationLevel) -> int:
        """The offset after the last record of its first partition. Raises TransientError, PermanentError."""
        place, limit_s = TopicPartition(topic, 0), self.config.timeout_s
        until = time.monotonic() + limit_s
        while True:
            latest: Any = OffsetSpec.latest  # which says of itself that it may be None
            asked = self.admin().list_offsets({place: latest()}, isolation_level=isolation, request_timeout=limit_s)
            try:
                return int(self.call(asked[place].result, limit_s).offset)
            except TransientError as error:
                self._admin = None  # what it knows of leaders may be old, and it would not ask anew
                if not isinstance(error, _Moving) or time.monotonic() > until:
                    raise
                time.sleep(0.05)  # it was made a moment ago, or a broker went: not everybody knows its leader yet

    @property
    def _where(self) -> str:
        return ", ".join(self.config.brokers)

    def _hear(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._heard = error.str()

    def _make(self, kind: Any, settings: Mapping[str, Any]) -> Any:
        try:
            return kind({**self._common, **settings, **self.config.options})
        except KafkaException as error:
            raise ConfigurationError(f"kafka: {error.args[0].str()}") from None


def _password(config: Config) -> str:
    if not config.password_file:
        return config.password
    try:
        return Path(config.password_file).read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"kafka: password_file: {config.password_file}: {error.strerror}") from None


__all__ = ["Clients", "Config", "Fenced"]
