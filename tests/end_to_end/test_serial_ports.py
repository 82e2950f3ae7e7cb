"""Boards on serial ports, from the wire to SQL: an independent device in C, real terminals, cables that are pulled out or bad."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from protocol.lines import Answer, decode_answer
from tests.peers.serial_wire import Cable, bad_cable, build_device, other_speed

pytestmark = pytest.mark.slow

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_device(tmp_path_factory.mktemp("device"))


@pytest.fixture
def ports(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    return tmp_path / "dev"


@pytest.fixture
def cable(ports: Path) -> Iterator[Callable[..., Cable]]:
    with ExitStack() as all_:

        def lay(name: str, *damage: Any) -> Cable:
            made = Cable(ports / name, *damage)
            all_.callback(made.close)
            return made

        yield lay


class Board:
    """The C device at the far end of a cable."""

    def __init__(self, program: Path, cable: Cable, name: str, *, boot: int = 1, timeout_ms: int = 200, key: str = "") -> None:
        command = [program, cable.device, name, str(boot), "1", str(timeout_ms), *([key] if key else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ids: list[str] = []

    def messages(self, count: int, kind: str = "q") -> list[str]:
        found: list[str] = []
        for _ in range(count):
            eid = str(uuid.uuid4())
            self.ids.append(eid)
            if kind == "q":
                found.append(f"q e=se&se_ca=door&se_ac=*open*&p=iot&tv=c-1&aid=yard&eid={eid}")
            else:
                event = {"e": "se", "se_ca": "door", "se_ac": "a,b:c@d", "p": "iot", "tv": "c-1", "aid": "yard", "eid": eid}
                found.append("j " + json.dumps({"schema": PAYLOAD_DATA, "data": [event]}))
        return found

    def say(self, lines: Sequence[str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def heard(self) -> str:
        """The next answer."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def finish(self) -> list[str]:
        """Everything it was answered until all was."""
        answers, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return answers.splitlines()


def lines(running: Any) -> dict[tuple[str, str], int]:
    """(name of the port, outcome) -> count, from /metrics."""
    text = running.get(f"{running.admin}/metrics")[1]
    found = re.findall(r'spoorway_serial_lines_total\{transport="serial",port="([^"]+)",outcome="(\w+)"\} (\d+)', text)
    return {(Path(port).name, outcome): int(count) for port, outcome, count in found}


def ids(running: Any) -> list[str]:
    return sorted(row["event_id"] for row in running.query("SELECT event_id FROM atomic.events"))


def test_boards_on_three_ports_one_of_them_unplugged_and_back(
    start: Callable[..., Any], ports: Path, cable: Callable[..., Cable], device: Path, tmp_path: Path
) -> None:
    first, second = cable("ttyUSB0"), cable("ttyUSB1")
    config = tmp_path / "serial.toml"
    config.write_text(
        f'[gateway.transports.http]\n[gateway.transports.serial]\nports = ["{ports}/tty*"]\nrescan_s = 0.05\n'
        f'[gateway.transports.serial.port."{ports}/ttyACM*"]\ndevice = "greenhouse"\nbaud = 9600\nhang_up = false\n'
    )
    running = start("--config", str(config))
    log = running.errors.read_text
    boards = [Board(device, first, "uno-1"), Board(device, second, "24:6f:28:aa:bb:cc")]
    third = cable("ttyACM0")  # plugged in while the gateway runs
    boards.append(Board(device, third, ""))
    for board in boards:
        board.say(["h ", *board.messages(40, "q"), *board.messages(5, "j")])
        assert re.fullmatch(r"t 1[78]\d{11}", board.heard())
        assert board.heard() == "a 1 2"
    first.to_gateway(b"ets Jan  8 2013,rst cause:2\r\nboot mode:(3,6)\r\n")
    for opened in (2, 3):
        second.unplug()
        boards[1].say(boards[1].messages(20))
        second.plug()
        running.until(lambda n=opened: log().count("ttyUSB1: open") == n, log)
    for board in boards:
        assert {answer[0] for answer in board.finish()} == {"a"}
    everything = sorted(eid for board in boards for eid in board.ids)
    running.wait(len(everything))
    running.until(lambda: ids(running) == everything, lambda: f"{len(ids(running))} of {len(everything)}")
    segments = (running.data / "journal").rglob("*.ndjson")
    payloads = [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]
    assert {payload.get("device") for payload in payloads} == {None, "greenhouse"}
    claimed = {tuple(header) for payload in payloads for header in payload["headers"] if header[0] == "Spoorway-Device"}
    assert claimed == {("Spoorway-Device", "uno-1"), ("Spoorway-Device", "24:6f:28:aa:bb:cc")}
    counted = lines(running)
    assert counted["ttyUSB0", "taken"] == counted["ttyACM0", "taken"] == 45
    assert counted["ttyUSB0", "text"] == 2
    assert counted["ttyUSB0", "hello"] == 1
    assert running.stop() == 0
    assert log().count("ttyUSB1: gone (hung up)") == 2
    assert log().count("ttyACM0: open at 9600 baud") == 1
    assert "Traceback" not in log()


def test_bad_cable_loses_nothing_and_another_speed_is_named(
    start: Callable[..., Any], ports: Path, cable: Callable[..., Cable], device: Path
) -> None:
    bad, garbled = cable("ttyUSB0", bad_cable(7, 0.002)), cable("ttyUSB1", other_speed)
    running = start("--serial", f"{ports}/tty*")
    board = Board(device, bad, "uno-1", timeout_ms=100)
    board.say(board.messages(150))
    deaf = Board(device, garbled, "uno-2", timeout_ms=5)
    deaf.say(deaf.messages(1))
    assert {answer[0] for answer in board.finish()} == {"a"}
    running.until(lambda: "is the baud rate right?" in running.errors.read_text(), lambda: running.errors.read_text()[-500:])
    deaf.process.kill()
    deaf.process.communicate()
    running.until(lambda: ids(running) == sorted(board.ids), lambda: f"{len(ids(running))} of {len(board.ids)}")
    counted = lines(running)
    damaged = {outcome: counted.get(("ttyUSB0", outcome), 0) for outcome in ("crc", "line", "form", "large")}
    assert damaged["crc"] > 5
    # Kept so that somebody can look at them, but not more of them than may be.
    running.until(lambda: running.query("SELECT count(*) AS n FROM atomic.failed_events")[0]["n"] >= 6, lambda: "none failed")
    assert running.query("SELECT count(*) AS n FROM atomic.failed_events")[0]["n"] <= 2 * 8
    assert running.stop() == 0
    assert "Traceback" not in running.errors.read_text()


def test_full_journal_is_busy_until_it_is_not(
    start: Callable[..., Any], ports: Path, cable: Callable[..., Cable], device: Path, tmp_path: Path
) -> None:
    line = cable("ttyUSB0")
    full = tmp_path / "full.toml"
    full.write_text(
        f'[journal]\nmin_free_bytes = {1 << 60}\n[gateway.transports.http]\n[gateway.transports.serial]\nports = ["{line.port}"]'
    )
    running = start("--config", str(full))
    board = Board(device, line, "uno-1")
    board.say(board.messages(3))
    assert board.heard() == "n 1 1 busy"
    assert running.stop() == 0
    running = start("--serial", str(line.port))
    answers = board.finish()
    assert [answer for answer in answers if not answer.startswith("n 1 1 busy")] == ["a 1 1", "a 1 2", "a 1 3"]
    running.until(lambda: ids(running) == sorted(board.ids), lambda: f"{ids(running)}")


def test_signed_lines_prove_a_device_and_nobody_else_is_it(
    start: Callable[..., Any], ports: Path, cable: Callable[..., Cable], device: Path, tmp_path: Path
) -> None:
    def spoorway(*words: str) -> str:
        command = [sys.executable, "-m", "spoorway", "device", *words, "--data", str(tmp_path / "data")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    key = json.loads(spoorway("add", "uno-1", "--kind", "hmac", "--json"))["key"]
    line = cable("ttyUSB0")
    running = start("--serial", f"{ports}/tty*")
    first = Board(device, line, "uno-1", key=key)
    said = first.messages(5)
    first.say(["h ", *said])
    assert [answer[:3] for answer in first.finish()] == ["t 1", "a 1", "a 1", "a 1", "a 1", "a 1"]
    running.wait(5)
    running.stop(signal.SIGKILL)

    running = start("--serial", f"{ports}/tty*")
    again = Board(device, line, "uno-1", key=key)  # the same bytes, once more
    again.say(["h ", *said])
    assert {answer[0] for answer in again.finish()} == {"t", "a"}
    for name, boot, secret, answer in (
        ("uno-1", 1, "00" * 32, "n 1 1 secret"),
        ("uno-1", 1, "", "n 1 1 secret"),
        ("uno-2", 1, key, "n 1 1 unknown"),
        ("uno-1", 0, key, "n 0 1 replayed"),
    ):
        other = Board(device, line, name, boot=boot, key=secret)
        other.say(other.messages(1))
        assert other.finish() == [answer]
    spoorway("revoke", "uno-1")
    time.sleep(1)  # the gateway looks at the register four times a second
    late = Board(device, line, "uno-1", boot=2, key=key)
    late.say(late.messages(1))
    assert late.finish() == ["n 2 1 revoked"]
    assert ids(running) == sorted(first.ids)
    assert running.query("SELECT duplicate FROM atomic.totals")[0]["duplicate"] == 0  # the copies were noticed at the door


def test_standard_input_is_a_port(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "serial.md").read_text("utf-8")
    (sample,) = re.findall(r"printf '(@.+)\\n' \| spoorway run --serial -", document)
    listen = ("--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--serial", "-")
    command = [sys.executable, "-m", "spoorway", "gateway", "--data", str(tmp_path / "data"), *listen]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{sample}\n@q,uno-1,1,2:half".encode())
        process.stdin.close()
        answers = (decode_answer(line.strip()) for line in process.stdout if line.startswith(b"!"))
        assert [next(answers), next(answers)] == [Answer("a", 1, 1), Answer("n", 1, 2, "line")]
        process.terminate()
        assert process.wait(20) == 0
