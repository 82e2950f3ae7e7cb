"""`spoorway flash` with the real avrdude, esptool and mpremote, and boards that are emulated down to their processors.

Only the ESP8266 is a model of its boot loader's protocol. What is flashed is a sketch written from docs/devices.md, which signs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from protocol.seams import PermanentError
from spoorway.cli import main
from spoorway.flashing import ports
from spoorway.flashing.boards import BOARDS
from spoorway.flashing.listening import listen
from spoorway.flashing.writing import avr
from tests.peers.boards.bench import Board, Interpreter, Made, Microbit, make, program_bytes, until
from tests.peers.boards.esp_rom import Rom
from tests.peers.programs import missing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("boards"))


@pytest.fixture
def uno(made: Made, tmp_path: Path) -> Iterator[Board]:
    with closing(Board(tmp_path, made.board, "atmega328p", made.optiboot)) as board:
        yield board


@pytest.fixture
def mega(made: Made, tmp_path: Path) -> Iterator[Board]:
    with closing(Board(tmp_path, made.board, "atmega2560", made.wiring)) as board:
        yield board


@pytest.fixture
def gateway(start: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A gateway that reads a port; it has the port when this returns."""

    def begin(port: Path | str, device: str = "") -> Any:
        config = tmp_path / "gateway.toml"
        own = f'[gateway.transports.serial.port."{port}"]\ndevice = "{device}"\n' if device else ""
        text = f'[gateway.transports.http]\n[gateway.transports.serial]\nports = ["{port}"]\nrescan_s = 0.05\n{own}'
        config.write_text(text)
        running = start("--config", str(config))
        running.until(lambda: "open at 115200 baud" in running.errors.read_text(), running.errors.read_text)
        return running

    return begin


def flash(data: Path, *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    """(exit code, the steps that were done, what was said on standard error)."""
    command = [sys.executable, "-m", "spoorway", "flash", *map(str, arguments), "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert "Traceback" not in done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def stored(running: Any) -> list[tuple[str, str]]:
    """(action, tracker) of the events in SQL whose payload proved this device."""
    running.wait(1)
    return [(row["se_action"], row["v_tracker"]) for row in running.query("SELECT se_action, v_tracker FROM atomic.events")]


def journal(running: Any) -> list[dict[str, Any]]:
    segments = (running.data / "journal").rglob("*.ndjson")
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def test_uno_from_blank_to_its_first_event_in_sql(uno: Board, made: Made, gateway: Callable[..., Any]) -> None:
    running = gateway(uno.port)
    code, steps, errors = flash(running.data, "uno", made.uno, "--port", uno.port, "--device", "shed-1")
    assert (code, [step["step"] for step in steps]) == (0, ["firmware", "identity", "event"]), errors
    program = program_bytes(made.uno)
    assert uno.flash.read_bytes()[: len(program)] == program
    assert uno.eeprom.read_bytes().startswith(b"SW\x01\x2a\x01\x06shed-1\x02\x20")
    assert stored(running) == [("on", "sketch-1")]
    (payload,) = journal(running)
    assert (payload["device"], payload["id"]) == ("shed-1", steps[-1]["payload"])
    assert not list((running.data / "lent-ports").iterdir())

    # Looking at it takes the port from the gateway for a while, and gives it back.
    command = [sys.executable, "-m", "spoorway", "monitor", "--port", str(uno.port), "--data", str(running.data), "--json"]
    said: list[dict[str, Any]] = []
    # A shell that runs us in the background has told us to ignore Ctrl-C, and our children would, too.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([*command, "--for", "120"], stdout=subprocess.PIPE, text=True, preexec_fn=heed) as monitor:
        assert monitor.stdout is not None
        for line in monitor.stdout:
            said.append(json.loads(line))
            if said[-1].get("kind") == "q":
                break
        monitor.send_signal(signal.SIGINT)
    assert monitor.returncode == 130
    assert any(each.get("text", "").startswith("sketch uno boot ") for each in said)
    (hello,) = [each for each in said if each.get("kind") == "h"]
    assert (hello["device"], hello["signed"]) == ("shed-1", True)
    assert "se_ac=on" in said[-1]["events"][0]
    running.until(lambda: len(journal(running)) > 1, lambda: "the gateway did not take the port back")


def test_mega_with_an_own_boot_loader(mega: Board, made: Made, gateway: Callable[..., Any]) -> None:
    running = gateway(mega.port)
    code, steps, errors = flash(running.data, "mega", made.mega, "--port", mega.port)
    assert (code, steps[-1].get("device")) == (0, "mega-1"), errors
    assert mega.flash.read_bytes().startswith(program_bytes(made.mega))
    assert stored(running) == [("on", "sketch-1")]


def test_board_that_dies_in_mid_flash_and_a_second_try(uno: Board, made: Made, tmp_path: Path) -> None:
    program, data = program_bytes(made.uno), tmp_path / "data"
    command = [sys.executable, "-m", "spoorway", "flash", "uno", str(made.uno), "--port", str(uno.port), "--data", str(data)]
    first = subprocess.Popen([*command, "--wait", "0", "--limit", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: uno.flash.read_bytes()[1024:1026] != b"\xff\xff", "nothing was flashed")
    uno.pull()
    began = time.monotonic()
    _, errors = first.communicate(timeout=60)
    assert (first.returncode, time.monotonic() - began < 40) == (1, True)
    assert "press its reset button and try again" in errors
    torn = uno.flash.read_bytes()
    assert torn[:1024] == program[:1024]
    assert torn[: len(program)] != program
    # avrdude would turn round for ever: it is gone.
    assert not any(str(uno.port) in line for line in _commands() if line.startswith("avrdude"))

    uno.plug()
    code, steps, errors = flash(data, "uno", made.uno, "--port", uno.port, "--wait", "0")
    assert (code, [step["step"] for step in steps]) == (0, ["firmware", "identity"]), errors
    assert uno.flash.read_bytes()[: len(program)] == program
    with closing(listen(str(uno.port), 115_200, 5)) as lines:
        hello = next(line for line in lines if getattr(line, "kind", "") == "h")
    assert getattr(hello, "device", "") == "uno-1"


def _commands() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(os.path.basename(process.read_bytes().replace(b"\0", b" ").decode()))
        except OSError:
            continue
    return found


def test_another_chip_is_named_and_left_alone(uno: Board, made: Made) -> None:
    as_mega = replace(BOARDS["mega"], programmer="arduino")
    with pytest.raises(PermanentError, match=r"no Arduino Mega 2560: its chip is ATmega328P \(Uno, Nano\); nothing was written"):
        avr(as_mega, str(uno.port), made.mega, (), lambda share: None, 30)
    assert uno.flash.read_bytes()[:4] == b"\xff\xff\xff\xff"


def test_port_that_another_program_has(
    uno: Board, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ports, "_FREE_WITHIN_S", 0.3)
    arguments = ["flash", "uno", str(made.uno), "--port", str(uno.port), "--data", str(tmp_path / "data"), "--wait", "0"]
    with ports.open_here(str(uno.port), 115_200):
        assert main(arguments) == 1
    assert f"{uno.port} is in use by another program; end that, and try again" in capsys.readouterr().err
    assert uno.flash.read_bytes()[:4] == b"\xff\xff\xff\xff"


def test_esp8266_by_its_boot_loaders_protocol(tmp_path: Path) -> None:
    image = tmp_path / "firmware.bin"
    image.write_bytes(b"\xe9\1\0\0" + os.urandom(20_000))
    options = ("--tool-options=--no-stub --before no-reset --after no-reset", "--no-identity")
    with closing(Rom()) as rom:
        code, (step,), errors = flash(tmp_path / "data", "esp8266", image, "--port", rom.port, *options)
        assert (code, errors) == (0, "")
        assert rom.flash[:20_004] == image.read_bytes()
        assert "cannot read it back" in step["message"]
    with closing(Rom(silent_after=3)) as rom:
        code, steps, errors = flash(tmp_path / "data", "esp8266", image, "--port", rom.port, *options)
        assert (code, steps) == (1, [])
        assert "went silent while it was flashed; press its reset button and try again" in errors
    with closing(Rom(other_chip=True)) as rom:
        code, _, errors = flash(tmp_path / "data", "esp8266", image, "--port", rom.port, *options)
        assert (code, rom.blocks) == (1, 0)
        assert "is no ESP8266: its chip is ESP32; nothing was written" in errors


MAIN = """
def crc(t):
    c = 0xFFFF
    for b in bytes(t, 'utf8'):
        c ^= b << 8
        for _ in range(8):
            c = (c << 1 ^ 0x1021 if c & 0x8000 else c << 1) & 0xFFFF
    return '%04x' % c
name = open('spoorway.json').read().split('"device": "')[1].split('"')[0]
t = 'q,' + name + ',1,1:e=se&se_ca=button&se_ac=pressed&p=iot&tv=microbit-1&aid=bench'
import microbit
while True:
    print('@' + t + '*' + crc(t))
    microbit.sleep(300)
"""


def test_microbit_gets_files_and_name_and_runs_them(gateway: Callable[..., Any], tmp_path: Path) -> None:
    """Its MicroPython has neither json nor hashlib, so the port says who it is."""
    main_py = tmp_path / "main.py"
    main_py.write_text(MAIN)
    with closing(Microbit()) as board:
        running = gateway(board.port, "microbit-1")
        code, steps, errors = flash(running.data, "pico", main_py, "--port", board.port, "--device", "microbit-1")
        assert (code, [step["step"] for step in steps]) == (0, ["files", "identity", "event"]), errors
    assert stored(running)[0] == ("pressed", "microbit-1")
    assert journal(running)[0]["device"] == "microbit-1"


TRACKED = """
from spoor import Tracker
from spoor.board import link, settings
said = settings()
tracker = Tracker(link(said), app_id="bench", device=said["device"], boot=1)
tracker.track_structured("board", "on")
tracker.flush(20000)
"""
LIBRARY = Path(__file__).parents[2] / "trackers" / "arduino"
TRACKER = Path(__file__).parents[2] / "trackers" / "micropython" / "spoor"


def test_micropython_gets_the_tracker_and_signs_over_http(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(TRACKED)
    with closing(Interpreter(tmp_path)) as board:
        running = start()
        given = ("pico", tmp_path / "main.py", TRACKER, "--port", board.port, "--url", running.url)
        code, steps, errors = flash(running.data, *given)
        assert (code, [step["step"] for step in steps]) == (0, ["files", "identity", "event"]), errors
        assert (board.files / "spoor" / "uart.py").read_bytes() == (TRACKER / "uart.py").read_bytes()
        assert json.loads((board.files / "spoorway.json").read_text())["url"] == running.url
    assert [action for action, _ in stored(running)] == ["on"]
    assert journal(running)[0]["device"] == "pico-1"


def test_uno_with_our_library_built_named_and_heard(uno: Board, gateway: Callable[..., Any]) -> None:
    if shutil.which("arduino-cli") is None and shutil.which("arduino-builder") is None:
        missing("arduino-builder")
    running = gateway(uno.port)
    code, steps, errors = flash(running.data, "uno", LIBRARY / "examples" / "NamedByCable", "--port", uno.port)
    assert (code, [step["step"] for step in steps]) == (0, ["firmware", "identity", "event"]), errors
    assert stored(running)[0][0] == "here"
    assert journal(running)[0]["device"] == "uno-1"
