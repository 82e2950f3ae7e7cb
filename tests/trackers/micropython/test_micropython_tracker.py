"""The MicroPython tracker in the genuine interpreter, from .mpy files with 48 KB of heap, and in CPython: rules, transports."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.end_to_end.conftest import Running
from tests.trackers.micropython import boards

pytestmark = pytest.mark.slow

HEAP = "48k"  # of pointers with 64 bits, so about half as much on a board


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boards.compiled(tmp_path_factory.mktemp("compiled"))


@pytest.mark.parametrize("interpreter", ["micropython", "cpython"])
def test_rules(interpreter: str, tmp_path: Path) -> None:
    boards.require_interpreter()
    done = boards.run(interpreter, "rules.py", boards.PACKAGE, tmp_path)
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 32


class Gateway(NamedTuple):
    """The running product with its addresses. cable: what a board's serial port is plugged into."""

    running: Running
    mqtt: str
    cable: int


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    cable, port = os.openpty()
    tty.setraw(port)
    data = tmp_path_factory.mktemp("gateway") / "data"
    running = Running(data, ["--mqtt", "127.0.0.1:0", "--serial", os.ttyname(port)])
    yield Gateway(running, json.loads((data / "running.json").read_text())["urls"]["mqtt"][0], cable)
    running.stop()
    os.close(cable)
    os.close(port)


class Board:
    """One board: starts of sensor.py with the same name and the same queue."""

    def __init__(self, interpreter: str, package: Path, queue: Path, name: str) -> None:
        self.interpreter, self.package, self.queue, self.name = interpreter, package, queue, name

    def start(self, kind: str, url: str, secret: str = "", count: int = 20, tries_ms: int = 15_000, **more: Any) -> Any:
        """What it told at its end."""
        arguments = (self.package, self.queue, kind, url, secret, str(count), str(tries_ms), self.name)
        heap = "256k" if kind == "tls" else "64k" if self.package.suffix else HEAP  # an image takes 12 KB, on a board of flash
        command = boards.command(self.interpreter, "sensor.py", *arguments, heap=heap)
        done = subprocess.run(command, stderr=subprocess.PIPE, timeout=boards.LONGEST_S, check=False, text=True, **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stderr.splitlines()[-1])

    def secret(self, gateway: Gateway, kind: str) -> str:
        """Registers it; its secret of that kind."""
        more = ("--kind", kind, "--json", "--data", str(gateway.running.data))
        command = [sys.executable, "-m", "spoorway", "device", "add", self.name, *more]
        added = subprocess.run(command, capture_output=True, text=True, check=True, timeout=boards.LONGEST_S)
        facts: dict[str, Any] = json.loads(added.stdout)
        return str(facts["key" if kind == "hmac" else "password"])

    def stored(self, gateway: Gateway, ids: list[str]) -> list[dict[str, Any]]:
        """The rows of its events, in the order in which they were made; they must be these, each once."""
        sql = (
            "SELECT e.event_id, e.app_id, e.platform, c.boot_id, c.sequence, t.device, t.proven, t.method FROM atomic.events AS e"
            " JOIN atomic.io_spoorway_device_clock_1 AS c ON c.root_id = e.event_id"
            " JOIN atomic.io_spoorway_device_time_1 AS t ON t.root_id = e.event_id"
            " WHERE t.device = ? ORDER BY c.boot_id, c.sequence"
        )
        running = gateway.running
        running.wait(len(ids))  # the tables are there
        running.until(lambda: len(running.query(sql, self.name)) >= len(ids), lambda: "not all events are stored")
        found = running.query(sql, self.name)
        assert [row["event_id"] for row in found] == ids
        return found


@pytest.fixture
def board(interpreter: str, compiled: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Board:
    boards.require_interpreter()
    name = re.sub("[^a-z]+", "-", request.node.name.lower()).strip("-")
    return Board(interpreter, compiled if interpreter == "micropython" else boards.PACKAGE, tmp_path / "queue", name)


def nobody() -> str:
    """An address nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


WAYS = [("micropython", False), ("micropython", True), ("cpython", True)]


@pytest.mark.parametrize(("interpreter", "proven"), WAYS)
def test_http(board: Board, gateway: Gateway, proven: bool) -> None:
    first = board.start("http", f"http://{nobody()}", "", 3, 100)
    assert not first["empty"] and first["sent"] == 0 and "Error" in first["reason"]
    second = board.start("http", gateway.running.url, board.secret(gateway, "hmac") if proven else "")
    assert (second["empty"], second["refused"], second["errors"], second["boot"]) == (True, 0, 0, 2), second
    found = board.stored(gateway, first["ids"] + second["ids"])
    assert {(row["app_id"], row["platform"], bool(row["proven"])) for row in found} == {("garden", "iot", proven)}
    assert [(row["boot_id"], row["sequence"]) for row in found] == [(1, n) for n in range(1, 5)] + [(2, n) for n in range(1, 22)]
    assert {row["method"] for row in found if row["boot_id"] == 2} == {"difference"}


@pytest.mark.parametrize("bits", [32, 64])
def test_http_in_place_from_a_romfs(bits: int, compiled: Path, gateway: Gateway, tmp_path: Path) -> None:
    boards.require_interpreter()
    if bits == 32 and not boards.INTERPRETER_32.exists():
        pytest.skip("32 bits run on PCs only")
    boards.romfs(compiled, tmp_path / "spoor.romfs")
    interpreter = "micropython-32" if bits == 32 else "micropython"
    board = Board(interpreter, tmp_path / "spoor.romfs", tmp_path / "queue", f"rom-{bits}")
    told = board.start("http", gateway.running.url, board.secret(gateway, "hmac"))
    assert (told["empty"], told["refused"], told["errors"]) == (True, 0, 0), told
    assert {bool(row["proven"]) for row in board.stored(gateway, told["ids"])} == {True}


@pytest.mark.parametrize("interpreter", ["micropython"])
def test_wrong_key_keeps_everything(board: Board, gateway: Gateway) -> None:
    board.secret(gateway, "hmac")
    told = board.start("http", gateway.running.url, "00" * 32, 3, 300)
    assert (told["empty"], told["sent"], told["refused"]) == (False, 0, 0)


@pytest.mark.parametrize(("interpreter", "proven"), WAYS)
def test_mqtt(board: Board, gateway: Gateway, proven: bool) -> None:
    first = board.start("mqtt", f"mqtt://{nobody()}", "", 3, 100)
    assert not first["empty"]
    second = board.start("mqtt", gateway.mqtt, board.secret(gateway, "password") if proven else "")
    assert (second["empty"], second["clock"], second["errors"]) == (True, "gateway", 0), second
    found = board.stored(gateway, first["ids"] + second["ids"])
    assert {bool(row["proven"]) for row in found} == {proven}
    assert not gateway.running.query("SELECT 1 FROM atomic.events WHERE se_action = 'will'")  # it hung up properly


@pytest.mark.parametrize(("interpreter", "proven"), WAYS)
def test_uart(board: Board, gateway: Gateway, proven: bool) -> None:
    secret = board.secret(gateway, "hmac") if proven else ""
    told = board.start("uart", "-", secret, stdin=gateway.cable, stdout=gateway.cable)
    assert (told["empty"], told["clock"], told["errors"], told["refused"]) == (True, "gateway", 0, 0), told
    assert {bool(row["proven"]) for row in board.stored(gateway, told["ids"])} == {proven}


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """The gateway's own certificate and its key."""
    made, key = tmp_path / "gateway.pem", tmp_path / "gateway.key"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", made, *names]
    subprocess.run(command, check=True, capture_output=True, timeout=boards.LONGEST_S)
    key.chmod(0o600)
    return made, key


@pytest.mark.parametrize("interpreter", ["micropython", "cpython"])
def test_tls(board: Board, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    made, key = certificate
    files = f'host = "127.0.0.1"\nport = 0\ntls_certificate = "{made}"\ntls_key = "{key}"\n'
    config = tmp_path / "spoorway.toml"
    config.write_text(f"[gateway.transports.http]\n{files}[gateway.transports.mqtt]\n{files}")
    # Running asks for HTTP on a free port of 127.0.0.1; the file says the rest.
    running = Running(tmp_path / "data", ["--config", str(config), "--mqtt", "127.0.0.1:0"])
    try:
        urls = json.loads((running.data / "running.json").read_text())["urls"]
        kept = []
        for scheme, name in (("https", "http"), ("mqtts", "mqtt")):
            url = f"{scheme}://localhost:{urls[name][0].rsplit(':', 1)[1]}"
            stranger = board.start("tls", url, "", 1, 300)
            assert (stranger["sent"], stranger["empty"]) == (0, False)  # nobody vouches for that certificate
            told = board.start("tls", url, str(made), 3)
            assert told["empty"], told
            kept += stranger["ids"] + told["ids"]
        assert [row["event_id"] for row in board.stored(Gateway(running, "", 0), kept)] == kept
    finally:
        running.stop()


def test_mqtt_is_kept_alive_and_has_a_will(gateway: Gateway, compiled: Path) -> None:
    boards.require_interpreter()
    done = boards.run("micropython", "keeping.py", compiled, gateway.mqtt, "kept", heap=HEAP)
    assert json.loads(done.stderr) == {"sent": [True, True], "same": True}
    gateway.running.until(
        lambda: bool(gateway.running.query("SELECT 1 FROM atomic.events WHERE se_action = 'will'")), lambda: "no will came"
    )
