"""How the Python tracker reaches the running gateway: compressed, over TLS, over MQTT to its listener and through a Mosquitto."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spoorway_tracker import Tracker
from tests.end_to_end.conftest import Running
from tests.end_to_end.mosquitto_broker import PASSWORDS, Mosquitto

pytestmark = pytest.mark.slow


def test_compression_begins_by_itself_once_the_gateway_has_answered(spoorway_run: Running, tmp_path: Path) -> None:
    def received() -> int:
        metrics = spoorway_run.get(f"{spoorway_run.admin}/metrics")[1]
        (found,) = re.findall(r'^spoorway_received_bytes_total\{transport="http"\} (\d+)', metrics, re.MULTILINE)
        return int(found)

    marks = [received()]
    with Tracker(spoorway_run.url, "app", folder=tmp_path, background=False) as tracker:
        for number in range(2):
            for n in range(200):
                assert tracker.track_structured("gzip", str(number), value=n)
            assert tracker.flush(20)
            marks.append(received())
    plain, packed = marks[1] - marks[0], marks[2] - marks[1]
    assert packed < plain / 4, (plain, packed)
    spoorway_run.wait(400)
    rows = spoorway_run.query("SELECT se_action, COUNT(DISTINCT se_value) AS n FROM atomic.events GROUP BY 1 ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("0", 200), ("1", 200)]


class World(NamedTuple):
    """A gateway with HTTPS, MQTT over TLS, and a bridge to a Mosquitto with TLS. passwords: by device."""

    product: Running
    broker: Mosquitto
    passwords: dict[str, str]

    def port(self, transport: str) -> str:
        return str(json.loads((self.product.data / "running.json").read_text())["urls"][transport][0]).rsplit(":", 1)[1]

    def context(self, authority: str = "ca", client: str = "") -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.broker.folder / f"{authority}.pem")
        if client:
            made.load_cert_chain(self.broker.folder / f"{client}.pem", self.broker.folder / f"{client}.key")
        return made

    def stored(self, app: str) -> list[dict[str, Any]]:
        return self.product.query("SELECT event_id FROM atomic.events WHERE app_id = ?", app)

    def bridged(self) -> None:
        """A broker keeps nothing for who has not subscribed yet."""
        mark, metrics = 'open_connections{transport="mqtt_bridge"} 1', f"{self.product.admin}/metrics"
        self.product.until(lambda: mark in self.product.get(metrics)[1], self.product.errors.read_text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tmp_path = tmp_path_factory.mktemp("world")
    broker = Mosquitto(tmp_path / "broker", tls=True)
    broker.start()
    files, folder = {"ca": "ca.pem", "certificate": "server.pem", "key": "server.key"}, broker.folder
    ours = f'host = "127.0.0.1"\nport = 0\ntls_certificate = "{folder / "server.pem"}"\ntls_key = "{folder / "server.key"}"\n'
    bridge = broker.options(broker="localhost", tls=True, **{f"tls_{name}": str(folder / file) for name, file in files.items()})
    config = tmp_path / "spoorway.toml"
    config.write_text(
        f'[gateway.transports.http]\n{ours}[gateway.transports.mqtt]\n{ours}identity = "required"\n'
        f'tls_client_ca = "{folder / "ca.pem"}"\n[gateway.transports.mqtt_bridge]\n'
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in bridge.items())
    )
    product = None
    try:
        passwords = {name: added(tmp_path / "data", name) for name in ("till-1", "gateway")}
        product = Running(tmp_path / "data", ["--config", str(config), "--mqtt", "127.0.0.1:0"])
        yield World(product, broker, passwords)
    finally:
        if product is not None:
            product.stop()
        broker.stop()


def added(data: Path, name: str) -> str:
    command = [sys.executable, "-m", "spoorway", "device", "add", name, "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    password: str = json.loads(done.stdout)["password"]
    return password


@pytest.mark.parametrize("way", ["https", "mqtt with a password", "mqtt with a certificate", "mqtt through a broker"])
def test_tls(world: World, tmp_path: Path, way: str) -> None:
    """Who cannot be trusted gets nothing and the events wait; from who is the right one they arrive, once."""
    ours, secret = f"localhost:{world.port('mqtt')}", PASSWORDS["pump-1"].replace(" ", "%20")
    url, client = {
        "https": (f"https://localhost:{world.port('http')}", ""),
        "mqtt with a password": (f"mqtts://till-1:{world.passwords['till-1']}@{ours}/till-1", ""),
        "mqtt with a certificate": (f"mqtts://{ours}/gateway", "gateway"),
        "mqtt through a broker": (f"mqtts://pump-1:{secret}@localhost:{world.broker.port}/pump-1", "gateway"),
    }[way]
    world.bridged()
    told: list[str] = []
    options: dict[str, Any] = {"folder": tmp_path, "background": False, "on_error": lambda *what: told.append(what[2])}
    with Tracker(url, way, tls=world.context("stranger"), **options) as tracker:
        ids = [tracker.track_structured("tls", "stranger", value=n, durable=True) for n in range(3)]
        assert all(ids) and not tracker.close(0.1)
    assert "certificate verify failed" in told[0]
    told.clear()
    with Tracker(url, way, tls=world.context(client=client), **options) as tracker:
        ids += [tracker.track_structured("tls", "friend", value=n) for n in range(3, 50)]
        assert tracker.flush(20), told
        assert tracker.counters.sent == 50
    world.product.until(lambda: len(world.stored(way)) >= 50, lambda: f"{world.stored(way)}")
    assert sorted(row["event_id"] for row in world.stored(way)) == sorted(map(str, ids))


def test_mqtt_keeps_what_is_not_acknowledged_and_drops_what_never_will_be(world: World, tmp_path: Path) -> None:
    """A wrong password, a broker that is gone, and an event that no packet can hold."""
    options: dict[str, Any] = {"folder": tmp_path / "queue", "background": False, "tls": world.context(client="gateway")}
    address = f"localhost:{world.broker.port}/pump-1"
    told: list[tuple[str, int, str]] = []
    with Tracker(f"mqtts://pump-1:wrong@{address}", "app", on_error=lambda *what: told.append(what), **options) as tracker:
        assert tracker.track_structured("mqtt", "kept", durable=True)
        assert not tracker.close(0.1)
    assert told[0][:2] == ("not_sent", 1) and "401 refused: " in told[0][2]
    world.broker.stop()
    url = f"mqtts://pump-1:{PASSWORDS['pump-1'].replace(' ', '%20')}@{address}"
    tracker = Tracker(url, "app", on_error=lambda *what: told.append(what), **options)
    assert tracker.track_structured("mqtt", "too large", label="x" * 300_000)
    assert tracker.track_structured("mqtt", "kept")
    assert not tracker.flush(0.1)
    world.broker.start()
    world.bridged()
    assert tracker.close(30)
    assert (tracker.counters.sent, tracker.counters.dropped) == (2, {"large": 1})
    assert ("large", 1, "413 more than max_packet_bytes") in told
    world.product.until(lambda: len(world.stored("app")) >= 2, lambda: f"{world.stored('app')}")
    assert len(world.stored("app")) == 2
