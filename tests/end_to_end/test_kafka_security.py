"""Kafka with TLS and passwords, on a real broker with certificates made here; and every way not to get in, told in one line."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from gateway.journal.kafka import Config
from gateway.journal.kafka.reader import KafkaReader
from gateway.journal.kafka.writer import KafkaWriter
from protocol.seams import ConfigurationError, RawPayload, TransientError
from tests.peers.kafka_server import KafkaServer

_GIVEN = RawPayload("0" * 32, 1, "http", "/x", device="me")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: server.pem, certificate and key of 127.0.0.1; authority.pem vouches for it, stranger.pem does not."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("authority", "stranger"):
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        out = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*make, *subject, *out], cwd=folder, check=True, capture_output=True)
    (folder / "server.pem").write_bytes((folder / "authority.key").read_bytes() + (folder / "authority.pem").read_bytes())
    return folder


@pytest.fixture(scope="module")
def kafka(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    users = {"spoorway": "right-word", "other": "another"}
    with KafkaServer(tmp_path_factory.mktemp("kafka"), users, certificates / "server.pem") as server:
        yield server


@pytest.fixture
def config(kafka: KafkaServer, certificates: Path) -> Config:
    return Config(
        (kafka.bootstrap,),
        create=True,
        tls_ca=str(certificates / "authority.pem"),
        sasl="SCRAM-SHA-512",
        username="spoorway",
        password="right-word",
        delivery_ms=60_000,
    )


def write_and_read(config: Config) -> None:
    async def run() -> None:
        writer = KafkaWriter(config)
        await writer.reach()
        await writer.append(_GIVEN)
        await writer.close()

    asyncio.run(run())
    reader = KafkaReader(config)
    chunk = reader.read({})
    reader.close()
    assert set(chunk.items) == {_GIVEN}


def refusals(config: Config) -> list[str]:
    """What the writer and the reader say."""

    async def write() -> str:
        writer = KafkaWriter(config)
        try:
            with pytest.raises(TransientError) as found:
                await writer.reach()
        finally:
            await writer.close()
        return str(found.value)

    reader = KafkaReader(config)
    try:
        with pytest.raises(TransientError) as found:
            reader.read({})
    finally:
        reader.close()
    messages = [asyncio.run(write()), str(found.value)]
    assert all(config.brokers[0] in message and "\n" not in message for message in messages)
    return messages


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_over_tls_lets_in(config: Config, mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]) -> None:
    write_and_read(replace(config, sasl=mechanism))


def test_a_wrong_password_is_told(config: Config) -> None:
    for message in refusals(replace(config, password="wrong")):
        assert "wrong user or password" in message


def test_a_stranger_for_a_broker_is_told(config: Config, certificates: Path) -> None:
    for message in refusals(replace(config, tls_ca=str(certificates / "stranger.pem"))):
        assert "TLS could not be agreed upon; see tls_ca" in message
    with pytest.raises(ConfigurationError, match=r"journal.kafka.tls_ca: no-such.pem cannot be read"):
        KafkaWriter(replace(config, tls_ca="no-such.pem"))


def test_a_topic_that_nobody_made_is_told(config: Config) -> None:
    for message in refusals(replace(config, create=False, topic="nobody-made-it")):
        assert "there is no topic 'nobody-made-it'; make it, or set journal.kafka.create = true" in message


def test_a_broker_that_is_nowhere_is_told(config: Config) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for message in refusals(replace(config, brokers=(f"127.0.0.1:{nobody.getsockname()[1]}",))):
            assert "no broker can be reached; see brokers, and whether they run (Connect to " in message
    for message in refusals(replace(config, brokers=("kafka.invalid:9092",))):
        assert "no such host; see brokers" in message
