"""The journal in a topic of Apache Kafka: the options, and how librdkafka is told them. Nothing here imports confluent_kafka.

A payload is one record: its JSON, under a key that keeps the order of a device or a user. A partition is a lane, a position the
next record's offset. `writer` hands payloads over, `reader` gets them back, `client` connects and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from protocol.seams import ConfigurationError, RawPayload

_LEAST = {"partitions": 1, "max_record_bytes": 1024, "delivery_ms": 100, "session_ms": 1000}


@dataclass(frozen=True, slots=True)
class Config:
    """brokers: HOST:PORT of some of them; the others are learnt from these. topic: where payloads are written.

    group: of the readers; each target is a group of its own, <group>.<target>. session_ms: a reader that was not heard of for so
    long has lost its partitions.
    create: a topic that does not exist is made, with so many partitions and copies (0 = as the brokers have it set); else it
    must exist.
    max_record_bytes: a payload whose record would be larger is refused; no more than the topic's max.message.bytes.
    delivery_ms: what the brokers have not acknowledged after so long is kept on this machine's disk.
    tls: by itself it means the system's authorities; tls_ca: a PEM file of others. tls_certificate, tls_key: PEM files, our own.
    sasl, username, password: how we say who we are; "" = we do not.
    options: anything else of librdkafka, by its own names.
    """

    brokers: tuple[str, ...] = ("127.0.0.1:9092",)
    topic: str = "raw"
    group: str = "spoorway"
    session_ms: int = 10_000
    create: bool = False
    partitions: int = 6
    replication: int = 0
    max_record_bytes: int = 1_000_000
    delivery_ms: int = 3_000
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_key_password: str = ""
    sasl: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    def check(self) -> None:
        """Raises ConfigurationError."""
        if not self.brokers or not self.topic:
            raise ConfigurationError("journal.kafka: brokers and a topic must be named")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"journal.kafka.{name} = {getattr(self, name)}: it must be at least {least}")
        if bool(self.sasl) != bool(self.username):
            raise ConfigurationError("journal.kafka: sasl and username go together; there is only one of them")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ConfigurationError("journal.kafka: tls_certificate and tls_key go together; there is only one of them")


def connecting(config: Config) -> dict[str, Any]:
    """What every client is told, in librdkafka's names."""
    tls = config.tls or bool(config.tls_ca or config.tls_certificate)
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(config.brokers),
        "client.id": "spoorway",
        "security.protocol": ("SASL_" if config.sasl else "") + ("SSL" if tls else "PLAINTEXT"),
        "socket.keepalive.enable": True,
        "socket.connection.setup.timeout.ms": 5_000,
        "reconnect.backoff.max.ms": 2_000,
        "log_level": 0,  # its errors come as events, and are told in our words
    }
    if config.sasl:
        found |= {"sasl.mechanism": config.sasl, "sasl.username": config.username, "sasl.password": config.password}
    files = {
        "ssl.ca.location": config.tls_ca,
        "ssl.certificate.location": config.tls_certificate,
        "ssl.key.location": config.tls_key,
    }
    found |= {name: value for name, value in files.items() if value}
    if config.tls_key_password:
        found["ssl.key.password"] = config.tls_key_password
    return found


def key_of(payload: RawPayload) -> bytes | None:
    """Records of one key stay in order. A device proved its name; a user's browser or app has an id; anybody else has neither."""
    key = payload.device or payload.network_userid
    return key.encode() if key else None


__all__ = ["Config", "connecting", "key_of"]
