"""MQTT clients that people use, at the running product: what they publish is in SQL, under the name they proved."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from tests.peers.programs import install

ROOT = Path(__file__).parents[2]
VERSIONS = pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
WAIT_S = 20

pytestmark = pytest.mark.slow


def broker(running: Any) -> tuple[str, int]:
    url: str = json.loads((running.data / "running.json").read_text())["urls"]["mqtt"][0]
    host, _, port = url.rpartition("//")[2].rpartition(":")
    return host, int(port)


class Client:
    """paho-mqtt on a thread of its own."""

    def __init__(self, version: int, name: str, *, transport: str = "tcp", ca: Path | None = None, password: str = "") -> None:
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"paho-{name}", protocol=version, transport=transport)  # type: ignore[arg-type]
        self.name, self.heard, self.ended = name, list[bytes](), list[str]()
        self.paho.on_message = lambda _client, _userdata, message: self.heard.append(message.payload)
        self.paho.on_disconnect = lambda _c, _u, _flags, reason, _properties: self.ended.append(str(reason))
        if password:
            self.paho.username_pw_set(name, password)
        if ca is not None:
            self.paho.tls_set(str(ca))

    def connect(self, running: Any) -> Client:
        self.paho.connect(*broker(running), keepalive=30)
        self.paho.loop_start()
        until(self.paho.is_connected)
        return self

    def publish(self, body: str, qos: int, topic: str = "") -> None:
        sent = self.paho.publish(topic or f"spoorway/{self.name}/tp1", body, qos)
        sent.wait_for_publish(WAIT_S)
        assert sent.is_published()

    def wait_until_heard(self) -> None:
        until(lambda: bool(self.heard))

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def event(category: str, action: str) -> str:
    return f"e=se&p=iot&tv=paho&se_ca={category}&se_ac={action}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(pem), *names], check=True, capture_output=True)
    return pem, key


def add_device(data: Path, name: str) -> str:
    """Its password."""
    command = [sys.executable, "-m", "spoorway", "device", "add", name, "--kind", "password", "--json", "--data", str(data)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    password: str = found["password"]
    return password


@VERSIONS
def test_paho_over_tcp_and_websocket(start: Callable[..., Any], version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOORWAY__GATEWAY__TRANSPORTS__MQTT__WEBSOCKET", "true")
    running = start("--mqtt", "127.0.0.1:0")
    assert f"mqtt   mqtt://{':'.join(map(str, broker(running)))}" in running.announced
    for transport in ("tcp", "websockets"):
        client = Client(version, f"d-{transport}", transport=transport).connect(running)
        client.paho.subscribe(f"spoorway/{client.name}/down")
        for qos in (0, 1, 2):
            client.publish(event(transport, f"qos{qos}"), qos)
        client.publish(event(transport, "zz") + f"&unknown={'x' * 20_000}", 1)
        client.wait_until_heard()
        assert json.loads(client.heard[0])["time_ms"] > 1_600_000_000_000
        client.close()
    running.wait(8)
    rows = running.query("SELECT se_category, se_action FROM atomic.events ORDER BY 1, 2")
    assert [row["se_action"] for row in rows] == ["qos0", "qos1", "qos2", "zz"] * 2
    assert {row["se_category"] for row in rows} == {"tcp", "websockets"}
    assert running.stop() == 0


def test_paho_with_tls_a_password_and_a_will(
    start: Callable[..., Any], certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem, key = certificate
    for option, value in (("TLS_CERTIFICATE", pem), ("TLS_KEY", key), ("IDENTITY", "required")):
        monkeypatch.setenv(f"SPOORWAY__GATEWAY__TRANSPORTS__MQTT__{option}", str(value))
    password = add_device(tmp_path / "data", "pump-7")
    running = start("--mqtt", "127.0.0.1:0")
    client = Client(paho.MQTTv5, "pump-7", ca=pem, password=password)
    client.paho.will_set("spoorway/pump-7/tp1", event("will", "gone"), 1)
    client.connect(running)
    client.publish(event("tls", "qos1"), 1)
    properties = Properties(14)  # type: ignore[no-untyped-call]
    client.paho.disconnect(reasoncode=paho.ReasonCode(14, "Disconnect with will message"), properties=properties)  # type: ignore[no-untyped-call]
    client.paho.loop_stop()
    running.wait(4)
    rows = running.query("SELECT se_category, event_name, unstruct_event FROM atomic.events")
    assert sorted(row["se_category"] or row["event_name"] for row in rows) == [
        "device_presence",
        "device_presence",
        "tls",
        "will",
    ]
    told = [json.loads(row["unstruct_event"])["data"]["data"] for row in rows if row["unstruct_event"]]
    assert {(each["state"], each["reason"]) for each in told} == {("online", "connect"), ("offline", "will")}
    status, metrics = running.get(running.admin + "/metrics")
    assert status == 200
    assert 'spoorway_mqtt_messages_total{transport="mqtt",outcome="accepted"} 1' in metrics


@pytest.mark.parametrize(("version", "scheme"), [("4", "ws"), ("5", "mqtt")])
def test_mqtt_js(start: Callable[..., Any], version: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setenv("SPOORWAY__GATEWAY__TRANSPORTS__MQTT__WEBSOCKET", "true")
    running = start("--mqtt", "127.0.0.1:0")
    host, port = broker(running)
    command = ["node", str(ROOT / "tests/peers/mqtt_peer.mjs"), f"{scheme}://{host}:{port}", "--version", version, "--name", "d1"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)
    assert said["acknowledged"] == [0, 1, 2]
    assert said["told"] == ["time_ms"]
    assert said["refused"] == (None if version == "4" else 0x90)
    running.wait(3)
    rows = running.query("SELECT se_action FROM atomic.events WHERE se_category = ? ORDER BY 1", f"mqttjs-{version}")
    assert [row["se_action"] for row in rows] == ["qos0", "qos1", "qos2"]


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="no mosquitto_pub")
def test_the_sample_of_the_page(start: Callable[..., Any]) -> None:
    page = (ROOT / "docs/mqtt.md").read_text("utf-8")
    run, publish, ask = [shlex.split(line) for line in page.splitlines() if line.startswith("    ")][:3]
    running = start(run[2], "127.0.0.1:0")
    assert (run[:3], publish[:3]) == (["spoorway", "run", "--mqtt"], ["mosquitto_pub", "-p", "1883"])
    subprocess.run([publish[0], "-p", str(broker(running)[1]), *publish[3:]], check=True, timeout=WAIT_S)
    running.wait(1)
    assert [tuple(row.values()) for row in running.query(ask[2])] == [("air", "celsius", 21.5)]
