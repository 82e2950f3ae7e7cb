"""The Arduino library on an emulated Uno, against a running gateway: serial lines, MQTT, HTTP, signatures, power cuts."""

from __future__ import annotations

import hmac
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.conftest import Running
from tests.trackers.arduino import powercuts, sizes
from tests.trackers.arduino.avr_board import LIBRARY, SKETCHES, Board, compiled, symbol

pytestmark = pytest.mark.slow

Begin = Callable[..., Running]
Power = Callable[..., Board]
MISSING = [
    name
    for name, there in {
        "gcc-avr": shutil.which("avr-g++"),
        "arduino-core-avr": Path("/usr/share/arduino/hardware/arduino/avr/cores/arduino").is_dir(),
        "libsimavr-dev": Path("/usr/include/simavr/sim_avr.h").exists(),
    }.items()
    if not there
]


@pytest.fixture(autouse=True)
def _runtimes() -> None:
    if MISSING:
        (pytest.fail if os.environ.get("SPOORWAY_REQUIRE_RUNTIMES") == "1" else pytest.skip)(f"not installed: {MISSING}")


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`begin(*arguments)`: a gateway on this test's data folder."""
    with ExitStack() as all_:

        def run(*arguments: str) -> Running:
            made = Running(tmp_path / "data", list(arguments))
            all_.callback(made.stop)
            return made

        yield run


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Callable[..., Board]]:
    """`power(elf, name of the port)`: a board that is switched on."""
    (tmp_path / "dev").mkdir()
    with ExitStack() as all_:

        def on(elf: Path, port: str = "ttyUSB0", *options: str) -> Board:
            made = Board(elf, tmp_path / "dev" / port, *options, eeprom=tmp_path / "eeprom")
            all_.callback(made.off)
            return made

        yield on


def secrets(data: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "spoorway", "device", "add", "uno-1", "--data", str(data), "--json"]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def key_define(key: str) -> str:
    return "-DKEY=" + ",".join(str(byte) for byte in bytes.fromhex(key))


def entities(row: dict[str, Any]) -> dict[str, Any]:
    return {entity["schema"].split("/")[1]: entity["data"] for entity in json.loads(row["contexts"])["data"]}


READING = {"temperature_celsius": 21.5, "humidity_percent": 45.2, "pressure_hpa": 1013.2}


def check(gateway: Running, count: int, tracker: str) -> list[dict[str, Any]]:
    """At least `count` events of the sketch are rows, as it tracked them and without a gap. Answers the rows."""
    gateway.wait(count)
    rows = gateway.query("SELECT * FROM atomic.events ORDER BY dvce_created_tstamp")
    clocks = [entities(row)["device_clock"] for row in rows]
    assert [clock["sequence"] for clock in clocks] == list(range(1, len(rows) + 1))
    assert {row["v_tracker"] for row in rows} == {tracker}
    assert {row["platform"] for row in rows} == {"iot"}
    assert all(json.loads(row["unstruct_event"])["data"]["data"] == READING for row in rows)
    return rows


class Bridge:
    """The other end of a SerialClient: MARK is a new connection to `address`; no message holds it."""

    MARK = b"\xff" * 4

    def __init__(self, port: Path, address: tuple[str, int]) -> None:
        self._port = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._address = address
        self._ending = threading.Event()
        self.connections = 0
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        link: socket.socket | None = None
        held = b""
        while not self._ending.is_set():
            watched: list[int | socket.socket] = [self._port] if link is None else [self._port, link]
            ready, _, _ = select.select(watched, [], [], 0.05)
            if self._port in ready:
                held += os.read(self._port, 4096)
                if self.MARK in held:
                    if link:
                        link.close()
                    link = socket.create_connection(self._address)
                    self.connections += 1
                    held = held.rpartition(self.MARK)[2]
                whole = held.rstrip(b"\xff")  # what is left may begin a mark
                if link and whole:
                    link.sendall(whole)
                held = held[len(whole) :]
            if link is not None and link in ready:
                data = link.recv(48)  # the board's buffer has 64
                if not data:
                    link.close()
                    link = None
                while data:
                    data = data[os.write(self._port, data) :]
        if link:
            link.close()
        os.close(self._port)

    def end(self) -> None:
        self._ending.set()
        self._thread.join(5)


def test_json_lines_of_a_board_that_signs_are_its_events(begin: Begin, power: Power, tmp_path: Path) -> None:
    elf = compiled(SKETCHES / "line.ino", "-DFORMAT=Json", key_define(secrets(tmp_path / "data")["key"]))
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    power(elf)
    rows = check(gateway, 8, "ino-1.0.0")
    paths = gateway.query("SELECT app_id, count(*) AS n FROM atomic.events GROUP BY 1")
    assert [row["app_id"] for row in paths] == ["bench"]
    assert gateway.query("SELECT count(*) AS n FROM atomic.failed_events")[0]["n"] == 0
    outcomes = gateway.get(f"{gateway.admin}/metrics")[1]
    assert 'spoorway_device_messages_total{outcome="taken"}' in outcomes, "nobody proved anything"
    assert len(rows) >= 8


def test_lines_with_a_wrong_key_are_refused(begin: Begin, power: Power, tmp_path: Path) -> None:
    secrets(tmp_path / "data")
    elf = compiled(SKETCHES / "line.ino", "-DFORMAT=Json", key_define("07" * 32))
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    power(elf)
    refused = 'outcome="secret"} '
    gateway.until(lambda: refused in gateway.get(f"{gateway.admin}/metrics")[1], lambda: "no line was refused")
    assert gateway.totals() == 0


def test_compact_lines_become_the_same_events(begin: Begin, power: Power, tmp_path: Path) -> None:
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    power(compiled(SKETCHES / "line.ino", "-DFORMAT=Compact"))
    check(gateway, 8, "compact-1")


def test_a_board_with_a_journal_goes_on_after_its_power_was_cut(begin: Begin, power: Power, tmp_path: Path) -> None:
    elf = compiled(SKETCHES / "line.ino", "-DFORMAT=Json", "-DJOURNAL")
    power(elf, "ttyUSB0", "-f", "-t", "1.2").process.wait(20)  # nobody listened; its power ends
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    power(elf)

    def boots() -> list[int]:
        rows = gateway.query("SELECT contexts FROM atomic.events") if gateway.totals() else []
        return [entities(row)["device_clock"]["boot_id"] for row in rows]

    gateway.until(lambda: 2 in boots(), lambda: f"boots of {boots()}")
    assert boots().count(1) >= 5


def test_a_journal_of_the_first_version_is_not_ours_but_its_count_of_starts_goes_on(
    begin: Begin, power: Power, tmp_path: Path
) -> None:
    template = re.search(r'ENVIRONMENT\[\] PROGMEM =\s+"([^"]+)"', (LIBRARY / "src/spoorway/words.h").read_text("utf-8"))
    assert template is not None
    mark, boot = crc_hqx(template[1].encode(), 0xFFFF), struct.pack("<I", 7)
    record = struct.pack("<I", 1000) + bytes.fromhex("0100cd218907a99e01")  # sequence, template, three numbers
    whole = crc_hqx(boot + record, crc_hqx(bytes([len(record)]), mark))
    slot = struct.pack("<BBH", 0x5A, len(record), whole) + boot + record
    cells = (boot + struct.pack("<H", crc_hqx(boot, 0xFFFF))).ljust(12, b"\xff") + slot.ljust(24, b"\xff") * 42
    (tmp_path / "eeprom").write_bytes(cells.ljust(1024, b"\xff"))
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    power(compiled(SKETCHES / "line.ino", "-DFORMAT=Json", "-DJOURNAL"))
    gateway.wait(3)
    rows = gateway.query("SELECT contexts FROM atomic.events")
    assert {entities(row)["device_clock"]["boot_id"] for row in rows} == {8}
    assert gateway.query("SELECT count(*) AS n FROM atomic.failed_events")[0]["n"] == 0


def test_mqtt_with_a_password_and_its_last_will(begin: Begin, power: Power, tmp_path: Path) -> None:
    password = secrets(tmp_path / "data")["password"]
    gateway = begin("--mqtt", "127.0.0.1:0")
    listening: str = json.loads((tmp_path / "data/running.json").read_text())["urls"]["mqtt"][0]
    address = urlsplit(listening)
    power(compiled(SKETCHES / "client.ino", "-DLINK=Mqtt", f"-DPASSWORD={password}"))
    bridge = Bridge(tmp_path / "dev/ttyUSB0", (str(address.hostname), int(address.port or 0)))
    try:
        gateway.wait(9)  # with the gateway's own device_presence
    finally:
        bridge.end()  # without DISCONNECT: the will is told
    lost = "SELECT count(*) AS n FROM atomic.events WHERE se_action = 'lost'"
    gateway.until(lambda: gateway.query(lost)[0]["n"] == 1, lambda: "no last will")
    rows = gateway.query("SELECT * FROM atomic.events WHERE event_name = 'environment_reading' ORDER BY dvce_created_tstamp")
    assert [entities(row)["device_clock"]["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(json.loads(row["unstruct_event"])["data"]["data"] == READING for row in rows)
    assert bridge.connections == 1


def test_signed_requests_over_http(begin: Begin, power: Power, tmp_path: Path) -> None:
    key = secrets(tmp_path / "data")["key"]
    gateway = begin()
    address = urlsplit(gateway.url)
    power(compiled(SKETCHES / "client.ino", "-DLINK=Http", key_define(key)))
    bridge = Bridge(tmp_path / "dev/ttyUSB0", (str(address.hostname), int(address.port or 0)))
    try:
        check(gateway, 5, "ino-1.0.0")
    finally:
        bridge.end()
    assert 'spoorway_device_messages_total{outcome="taken"}' in gateway.get(f"{gateway.admin}/metrics")[1]


@pytest.mark.parametrize(("journal", "longest_ms"), [((), 5), (("-DJOURNAL",), 8)], ids=["queue", "journal"])
def test_loop_never_takes_long(begin: Begin, power: Power, tmp_path: Path, journal: tuple[str, ...], longest_ms: float) -> None:
    elf = compiled(SKETCHES / "line.ino", "-DFORMAT=Json", *journal, "-DMEASURE")
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    board = power(elf, "ttyUSB0", "-C", "3.5", "-p", f"{symbol(elf, 'longest_us'):x},4")
    microseconds = int.from_bytes(bytes.fromhex(board.said().removeprefix("knew ")), "little")
    gateway.wait(3)
    assert 1_000 < microseconds <= longest_ms * 1_000


def test_the_stack_keeps_to_its_limit() -> None:
    name, limit, defines = sizes.STACKS[0]
    assert 60 < sizes.stack("client", *defines) <= limit, name


@pytest.mark.parametrize(("name", "limit_us", "defines"), sizes.SIGNING, ids=["compact", "json"])
def test_signing_takes_less_than_its_limit(name: str, limit_us: int, defines: tuple[str, ...]) -> None:
    assert 5_000 < sizes.longest(*defines) <= limit_us, name


@pytest.mark.parametrize("mcu", ["uno", "mega"])
def test_messages_of_every_length_are_signed_right_by_the_processor(power: Power, mcu: str) -> None:
    elf = compiled(SKETCHES / "signatures.ino", board=mcu)
    chip = ("-m", "atmega2560") if mcu == "mega" else ()
    board = power(elf, "ttyUSB0", *chip, "-f", "-C", "2.5", "-p", f"{symbol(elf, 'known'):x},17")
    known = bytes.fromhex(board.said().removeprefix("knew "))
    key = bytes(32)
    for length in range(141):
        message = b"\n\n\n" + bytes(i * 37 & 255 ^ length for i in range(length))
        key = hmac.digest(key, message, "sha256")[:16] + key[16:]
    assert known == key[:16] + bytes([141])


def test_opting_out_outlasts_a_power_cut(begin: Begin, power: Power, tmp_path: Path) -> None:
    def life(*defines: str) -> list[int]:
        elf = compiled(SKETCHES / "consent.ino", *defines)
        board = power(elf, "ttyUSB0", "-f", "-C", "2", "-p", f"{symbol(elf, 'known'):x},6")
        memory = bytes.fromhex(board.said().removeprefix("knew "))
        board.off()
        return [int.from_bytes(memory[at : at + 2], "little") for at in (0, 2, 4)]

    waited, waits, refused = life("-DOUT_MS=900")
    assert waited >= 5 and waits == 0 and refused >= 5
    assert life() == [0, 0, 19]  # what the next start finds is the decision, and nothing else
    gateway = begin("--serial", str(tmp_path / "dev/tty*"))
    power(compiled(SKETCHES / "consent.ino", "-DIN"))
    gateway.wait(3)
    rows = gateway.query("SELECT contexts FROM atomic.events")
    clocks = [entities(row)["device_clock"] for row in rows]
    assert min(clock["boot_id"] for clock in clocks) >= 3 and sorted(clock["sequence"] for clock in clocks)[:3] == [1, 2, 3]


def test_power_cuts_lose_nothing_that_was_stored(tmp_path: Path) -> None:
    found = powercuts.run(300, 7, tmp_path)
    assert found.cuts == 300 and len(found.stored) > 50 and found.repeated > 0
    assert (found.lost, found.doubled) == (set(), 0), found.board
