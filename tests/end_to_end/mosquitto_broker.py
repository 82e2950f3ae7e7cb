"""A real Mosquitto on a port of the system's choice: passwords, access list, persistence, and TLS where a test asks for it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.peers.ports import free_port

# gateway reads everything and devices write below their own name only, as the documentation recommends.
ACL = """
user gateway
topic read #
topic write $SYS/#

user anybody
topic readwrite #

pattern write spoorway/%u/#
"""
PASSWORDS = {"gateway": "gw secret", "anybody": "any secret", "pump-1": "pump secret"}


class Mosquitto:
    """tls: also wants a client certificate. Call order: start -> stop -> start … -> stop."""

    def __init__(self, folder: Path, *, tls: bool = False, settings: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        passwords = folder / "passwords"
        passwords.write_text("".join(f"{name}:{word}\n" for name, word in PASSWORDS.items()))
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
        (folder / "acl").write_text(ACL)
        lines = [
            f"listener {self.port} 127.0.0.1",
            "user root",
            "allow_anonymous false",
            f"password_file {passwords}",
            f"acl_file {folder / 'acl'}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "max_queued_messages 0",
            *settings,
        ]
        if tls:
            _authority(folder)
            lines += [
                f"{name} {folder / file}"
                for name, file in [("cafile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")]
            ]
            lines += ["require_certificate true"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(["mosquitto", "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log)
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def client(self, name: str = "anybody") -> Client:
        """A connected publisher; it connects again by itself and sends again what was not acknowledged."""
        client = Client(CallbackAPIVersion.VERSION2, f"test-{name}-{time.monotonic_ns()}", clean_session=False)
        client.username_pw_set(name, PASSWORDS[name])
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        return client

    def publish(self, *messages: tuple[str, bytes | str], name: str = "anybody", qos: int = 1, retain: bool = False) -> None:
        """Returns when the broker has acknowledged all of them."""
        client = self.client(name)
        confirmed: set[int] = set()  # asking each message would fail while there is no connection, though it is sent all the same
        client.on_publish = lambda _client, _data, mid, _reason, _properties: confirmed.add(mid)
        sent = {client.publish(topic, body, qos, retain).mid for topic, body in messages}
        end = time.monotonic() + 20
        while not sent <= confirmed:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.002)
        client.disconnect()
        client.loop_stop()

    def options(self, **more: Any) -> dict[str, Any]:
        """Of the bridge."""
        return {"broker": "127.0.0.1", "port": self.port, "username": "gateway", "password": PASSWORDS["gateway"], **more}


def _authority(folder: Path) -> None:
    """ca.pem; server.pem for localhost and gateway.pem by it; stranger.pem, another authority."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        extension = ("-addext", "keyUsage=critical,keyCertSign")
        run(
            "req",
            "-x509",
            *key,
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            *extension,
        )
    for name in ("server", "gateway"):
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=DNS:localhost\n")
        run(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            f"{name}.pem",
        )
