"""The MicroPython tracker in the genuine interpreter, from .mpy files with 48 KB of heap, and in CPython: rules, transports."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import Running
from tests.trackers.micropython import boards

pytestmark = pytest.mark.slow

INTERPRETERS = ["micropython", "cpython"]
HEAP = "48k"  # of pointers with 64 bits, so about half as much on a board


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boards.compiled(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(params=INTERPRETERS)
def interpreter(request: pytest.FixtureRequest) -> str:
    if request.param == "micropython":
        boards.require_interpreter()
    return str(request.param)


def test_rules(interpreter: str, tmp_path: Path) -> None:
    done = boards.run(interpreter, "rules.py", boards.PACKAGE, tmp_path)
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 24


@pytest.fixture
def board(interpreter: str, compiled: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`board(kind, url, secret, count)`: one start of sensor.py on the same queue; what it told."""

    def start(kind: str, url: str, secret: str = "", count: int = 20, tries_ms: int = 15_000, **more: Any) -> dict[str, Any]:
        package = compiled if interpreter == "micropython" else boards.PACKAGE
        arguments = (package, tmp_path / "queue", kind, url, secret, str(count), str(tries_ms))
        command = boards.command(interpreter, "sensor.py", *arguments, heap=HEAP)
        done = subprocess.run(command, stderr=subprocess.PIPE, timeout=boards.LONGEST_S, check=False, text=True, **more)
        assert done.returncode == 0, done.stderr
        facts: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
        return facts

    return start


def nobody() -> str:
    """An address nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def rows(gateway: Running, ids: list[str]) -> list[dict[str, Any]]:
    sql = (
        "SELECT e.event_id, e.app_id, e.platform, c.boot_id, c.sequence, t.device, t.proven, t.method FROM atomic.events AS e"
        " JOIN atomic.io_spoorway_device_clock_1 AS c ON c.root_id = e.event_id"
        " JOIN atomic.io_spoorway_device_time_1 AS t ON t.root_id = e.event_id ORDER BY c.boot_id, c.sequence"
    )
    gateway.wait(len(ids))
    gateway.until(
        lambda: len(gateway.query(sql)) >= len(ids), lambda: f"{len(gateway.query(sql))} of {len(ids)} events are stored"
    )
    found = gateway.query(sql)
    assert [row["event_id"] for row in found] == ids
    return found


def device(gateway: Running, kind: str) -> str:
    """Registers pump-1; its secret of that kind."""
    import sys

    command = [sys.executable, "-m", "spoorway", "device", "add", "pump-1", "--kind", kind, "--json", "--data", str(gateway.data)]
    added = subprocess.run(command, capture_output=True, text=True, check=True, timeout=boards.LONGEST_S)
    facts: dict[str, Any] = json.loads(added.stdout)
    return str(facts["key" if kind == "hmac" else "password"])


@pytest.mark.parametrize("signed", [False, True], ids=["open", "signed"])
def test_http(board: Callable[..., dict[str, Any]], start: Callable[..., Running], signed: bool) -> None:
    first = board("http", f"http://{nobody()}", "", 3, 100)
    assert not first["empty"] and first["sent"] == 0 and "Error" in first["reason"]
    gateway = start()
    second = board("http", gateway.url, device(gateway, "hmac") if signed else "")
    assert (second["empty"], second["refused"], second["errors"], second["boot"]) == (True, 0, 0, 2), second
    found = rows(gateway, first["ids"] + second["ids"])
    assert {(row["app_id"], row["platform"], row["device"], bool(row["proven"])) for row in found} == {
        ("garden", "iot", "pump-1", signed)
    }
    assert [(row["boot_id"], row["sequence"]) for row in found] == [(1, n) for n in range(1, 5)] + [(2, n) for n in range(1, 22)]
    assert {row["method"] for row in found if row["boot_id"] == 2} == {"difference"}


def test_wrong_key_keeps_everything(board: Callable[..., dict[str, Any]], spoorway_run: Running) -> None:
    device(spoorway_run, "hmac")
    told = board("http", spoorway_run.url, "00" * 32, 3, 300)
    assert (told["empty"], told["sent"], told["refused"]) == (False, 0, 0)
    assert spoorway_run.totals() == 0


@pytest.mark.parametrize("password", [False, True], ids=["open", "password"])
def test_mqtt(board: Callable[..., dict[str, Any]], start: Callable[..., Running], password: bool) -> None:
    first = board("mqtt", f"mqtt://{nobody()}", "", 3, 100)
    assert not first["empty"]
    gateway = start("--mqtt", "127.0.0.1:0")
    url = json.loads((gateway.data / "running.json").read_text())["urls"]["mqtt"][0]
    second = board("mqtt", url, device(gateway, "password") if password else "")
    assert (second["empty"], second["clock"], second["errors"]) == (True, "gateway", 0), second
    found = rows(gateway, first["ids"] + second["ids"])
    assert {bool(row["proven"]) for row in found} == {password}
    assert not gateway.query("SELECT 1 FROM atomic.events WHERE se_action = 'will'")  # it hung up properly


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    board, port = os.openpty()
    tty.setraw(port)
    try:
        yield board, os.ttyname(port)
    finally:
        os.close(board)
        os.close(port)


@pytest.mark.parametrize("signed", [False, True], ids=["open", "signed"])
def test_uart(board: Callable[..., dict[str, Any]], start: Callable[..., Running], signed: bool) -> None:
    with terminal() as (cable, path):
        gateway = start("--serial", path)
        secret = device(gateway, "hmac") if signed else ""
        told = board("uart", "-", secret, stdin=cable, stdout=cable)
        assert (told["empty"], told["clock"], told["errors"], told["refused"]) == (True, "gateway", 0, 0), told
        found = rows(gateway, told["ids"])
        assert {(row["device"], bool(row["proven"])) for row in found} == {("pump-1", signed)}
        gateway.stop()
