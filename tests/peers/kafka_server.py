"""A real Apache Kafka of a test's own: one node, broker and controller (KRaft), on free loopback ports, in a given folder.

Its libraries come from Maven Central (tools/kafka). kill, stop and start leave the data and the address as they are; only leaving
the `with` ends it for good. The folder is the caller's, who deletes it.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.peers.ports import free_port
from tests.peers.programs import missing

LIBRARIES = Path(__file__).parents[2] / "build" / "kafka"
CLUSTER = "c3Bvb3J3YXktdGVzdHMtMQ"  # 16 bytes, as Kafka writes a UUID
_START_S = 240.0  # on a machine that is busy with everything else
_STOP_S = 60.0


class KafkaServer:
    """`with KafkaServer(folder) as kafka`: kafka.bootstrap is "127.0.0.1:port".

    users: name -> password; then it wants SASL (PLAIN, SCRAM-SHA-256 or -512) over TLS, with `certificate`, a PEM file that
    holds the private key (PKCS#8) and the certificate of 127.0.0.1.
    properties: further lines of the broker's configuration, or others instead of those here.
    """

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, str] | None = None,
        certificate: Path | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self._users, self._certificate = folder, dict(users or {}), certificate
        self._properties = dict(properties or {})
        self._ports = (0, 0)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> KafkaServer:
        if not (LIBRARIES / "made").is_file() or shutil.which("java") is None:
            missing("kafka")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = free_port(), free_port()
        (self.folder / "server.properties").write_text(self._configuration(), "utf-8")
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it takes connections; after a kill that is when it has recovered."""
        assert self._process is None, "it runs already"
        options = [
            "-Xms192m",
            "-Xmx192m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-XX:SharedArchiveFile={LIBRARIES}/classes.jsa",
        ]
        scram = [
            f"SCRAM-SHA-{size}=[name={name},password={password}]" for name, password in self._users.items() for size in (256, 512)
        ]
        with (self.folder / "said").open("ab") as said:
            self._process = process = subprocess.Popen(
                ["java", *options, "-cp", f"{LIBRARIES}/lib/*", "KafkaNode",
                 str(self.folder / "server.properties"), CLUSTER, *scram],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )  # fmt: skip
        assert process.stdout is not None
        late = threading.Timer(_START_S, process.kill)
        late.start()
        try:
            if b"started\n" not in process.stdout:
                raise AssertionError(f"Kafka ended with code {process.wait()}: {self.said()}")
        finally:
            late.cancel()

    def stop(self) -> None:
        """Shuts down in order."""
        process = self._process
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(_STOP_S)
            self.kill()

    def kill(self) -> None:
        """As `kill -9`; also for one that has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def said(self) -> str:
        """The end of its log."""
        return (self.folder / "said").read_text("utf-8", "replace")[-3000:]

    def _configuration(self) -> str:
        broker, controller = self._ports
        kind = "SASL_SSL" if self._users else "PLAINTEXT"
        found = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "BROKER",
            "listeners": f"BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,BROKER:{kind}",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "num.partitions": "3",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.cleaner.enable": "false",
        }
        if self._users:
            plain = "".join(f' user_{name}="{password}"' for name, password in self._users.items())
            name, password = next(iter(self._users.items()))
            account = f'username="{name}" password="{password}"'
            modules = "org.apache.kafka.common.security"
            found |= {
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "listener.name.broker.plain.sasl.jaas.config": f"{modules}.plain.PlainLoginModule required {account}{plain};",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self._certificate),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self._certificate),
            }
            for size in (256, 512):
                found[f"listener.name.broker.scram-sha-{size}.sasl.jaas.config"] = f"{modules}.scram.ScramLoginModule required;"
        return "".join(f"{name}={value}\n" for name, value in (found | self._properties).items())


__all__ = ["CLUSTER", "KafkaServer"]
