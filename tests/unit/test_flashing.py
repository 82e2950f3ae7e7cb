"""What `spoorway flash` decides without a board: identity blocks, faults of the handshake, ports, files, programs that hang."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from binascii import crc_hqx
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.serial.lending import FOLDER, is_lent, lent_file
from protocol.compact import encode
from protocol.lines import Damaged, Line, Text, device_lines
from protocol.lines import encode as line
from protocol.seams import ConfigurationError, TransientError
from protocol.templates import bundled_template
from spoorway.cli import main
from spoorway.flashing.boards import BOARDS
from spoorway.flashing.decoding import as_object, described
from spoorway.flashing.firmware import Load, sorted_out
from spoorway.flashing.handshake import Handshake, NoAnswerError
from spoorway.flashing.identities import Identities
from spoorway.flashing.identity import RESERVED, Identity, block, document
from spoorway.flashing.ports import choose
from spoorway.flashing.tools import run

DOCS = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()
KEY = bytes(range(32)).hex()
PUMP = Identity("pump-7", KEY)


# ── The block


def test_block_of_the_docs() -> None:
    (text,) = re.findall(r"^    (53 57 .*)$", DOCS, re.MULTILINE)
    head, tail = text.split("…")
    assert block(PUMP).hex(" ").startswith(" ".join(head.split()))
    assert block(PUMP).hex(" ").endswith(" ".join(tail.split()))
    assert len(block(PUMP)) == 48


def test_block_with_everything_is_read_back_field_by_field() -> None:
    found = block(Identity("a", KEY, "secret-password", "mqtt://broker.example", ("shed", "12345678")))
    assert (found[:3], found[3], crc_hqx(found, 0xFFFF)) == (b"SW\1", len(found) - 6, 0)
    fields, at = {}, 4
    while at < len(found) - 2:
        fields[found[at]] = found[at + 2 : at + 2 + found[at + 1]]
        at += 2 + found[at + 1]
    assert fields == {
        1: b"a", 2: bytes(range(32)), 3: b"secret-password", 4: b"broker.example", 5: (1883).to_bytes(2, "big"), 6: b"shed",
        7: b"12345678",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://h", 80),
        ("https://h/", 443),
        ("mqtt://h", 1883),
        ("mqtts://h", 8883),
        ("http://h:8080", 8080),
        ("http://[::1]:9", 9),
    ],
)
def test_address_of_the_gateway(url: str, port: int) -> None:
    assert b"\5\2" + port.to_bytes(2, "big") in block(Identity("a", KEY, "", url))


@pytest.mark.parametrize("url", ["h:8080", "ftp://h", "http://h:99999", "http://h/path", "http://" + "h" * 64, "mqtt://"])
def test_address_that_no_board_can_use(url: str) -> None:
    with pytest.raises(ConfigurationError, match="address"):
        block(Identity("a", KEY, "", url))


def test_block_that_does_not_fit() -> None:
    longest = Identity("n" * 64, KEY, "p" * 32, "http://" + "h" * 46)
    assert len(block(longest)) == RESERVED
    with pytest.raises(ConfigurationError, match="187 bytes; a board has 186"):
        block(longest._replace(url="http://" + "h" * 47))


@pytest.mark.parametrize("wifi", [("n" * 33, "12345678"), ("n", "1234567"), ("n", "1" * 64)])
def test_wifi_that_cannot_be(wifi: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="Wi-Fi"):
        document(Identity("a", KEY, wifi=wifi))


def test_document_of_micropython() -> None:
    assert json.loads(document(Identity("a", KEY, "pw", "http://h:1", ("n", "12345678")))) == {
        "version": 1, "device": "a", "key": KEY, "password": "pw", "url": "http://h:1", "wifi": ["n", "12345678"],
    }  # fmt: skip
    assert json.loads(document(Identity("a"))) == {"version": 1, "device": "a"}


# ── The handshake, with its port and its clock in memory


class Board:
    """Answers as docs/devices.md says, from `memory`, through `spoil`, which may change, double or lose an answer."""

    def __init__(self, spoil: Callable[[bytes], list[bytes]] = lambda line: [line], size: int = RESERVED) -> None:
        self.memory, self._spoil, self._out, self.seconds = bytearray(b"\xff" * size), spoil, deque[bytes](), 0.0
        self.heard: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.heard.append(data)
        found = re.fullmatch(rb"!(p,(\d+),([0-9a-f]*))\*([0-9a-f]{4})\n", data)
        assert found is not None
        assert len(data) <= 29
        assert crc_hqx(found[1], 0xFFFF) == int(found[4], 16)
        offset, piece = int(found[2]), bytes.fromhex(found[3].decode())
        said = b""
        if not piece and self.memory[:3] == b"SW\1" and crc_hqx(self.memory[: self.memory[3] + 6], 0xFFFF) == 0:
            said = self.memory[self.memory[3] + 4 : self.memory[3] + 6].hex().encode()
        elif piece and offset + len(piece) <= len(self.memory):
            self.memory[offset : offset + len(piece)] = piece
            said = b"%04x" % crc_hqx(self.memory[offset : offset + len(piece)], 0xFFFF)
        line = b"p,%d,%s" % (offset, said)
        self._out.extend(self._spoil(b"@%s*%04x\n" % (line, crc_hqx(line, 0xFFFF))))
        return len(data)

    def read(self, size: int = 1) -> bytes:
        if not self._out:
            self.seconds += 0.05
            return b""
        return self._out.popleft()

    def clock_s(self) -> float:
        return self.seconds

    def handshake(self) -> Handshake:
        return Handshake(self, self.clock_s)


def test_handshake_of_the_docs_line_by_line() -> None:
    said: list[bytes] = []
    board = Board(lambda line: [said.append(line) or line])  # type: ignore[func-returns-value]
    board.handshake().write(block(PUMP))
    pairs = re.findall(r"^    (!p,\S+) +(@p,\S+)", DOCS, re.MULTILINE)
    pairs = pairs[pairs.index(("!p,0,*d569", "@p,0,*d569")) :]
    assert [(heard.decode().strip(), line.decode().strip()) for heard, line in zip(board.heard, said, strict=True)] == pairs
    assert board.memory.startswith(block(PUMP))


def test_handshake_among_print_outs_and_cut_in_any_place() -> None:
    def spoil(line: bytes) -> list[bytes]:
        return [b"temperature 21\r\n@h,,1,1:*dead\n", *(bytes([byte]) for byte in line), b"more"]

    board = Board(spoil)
    board.handshake().write(block(PUMP))
    assert board.memory.startswith(block(PUMP))


def test_handshake_that_loses_every_second_answer() -> None:
    turn = [0]

    def spoil(line: bytes) -> list[bytes]:
        turn[0] += 1
        return [line] if turn[0] % 2 else []

    board = Board(spoil)
    board.handshake().write(block(PUMP))
    assert board.memory.startswith(block(PUMP))


def test_late_answer_to_an_earlier_question_is_no_answer() -> None:
    """The first question was asked twice; its second answer comes while byte 0 is written, and is as empty as a refusal."""
    late = [b"@p,0,*d569\n"]
    board = Board(lambda line: [late.pop(), line] if late and line.startswith(b"@p,0,2") else [line])
    board.handshake().write(block(PUMP))
    assert board.memory.startswith(block(PUMP))
    assert len(set(board.heard)) == len(board.heard) - 1  # the question alone was asked twice: before and after


def test_worn_out_eeprom() -> None:
    board = Board()
    write = board.write

    def worn(data: bytes) -> int:
        done = write(data)
        board.memory[20] = 0
        return done

    board.write = worn  # type: ignore[method-assign]
    with pytest.raises(TransientError, match="another block than the one it was given"):
        board.handshake().write(block(PUMP))


def test_byte_that_reads_back_wrong() -> None:
    wrong = b"@p,8,0000*%04x\n" % crc_hqx(b"p,8,0000", 0xFFFF)
    board = Board(lambda line: [wrong if line.startswith(b"@p,8,") else line])
    with pytest.raises(TransientError, match="byte 8 of the board's block reads back as something else"):
        board.handshake().write(block(PUMP))


def test_board_with_less_room() -> None:
    with pytest.raises(TransientError, match="refuses byte 16"):
        Board(size=16).handshake().write(block(PUMP))


def test_board_that_says_nothing_or_stops() -> None:
    silent = Board(lambda line: [])
    with pytest.raises(NoAnswerError, match="did not answer for 3 s"):
        silent.handshake().present(3)
    assert 9 <= len(silent.heard) <= 11  # every 300 ms
    stops = Board(lambda line: [] if line.startswith(b"@p,24") else [line])
    with pytest.raises(NoAnswerError, match="stopped answering at byte 24"):
        stops.handshake().write(block(PUMP))
    assert [line.startswith(b"!p,24") for line in stops.heard].count(True) == 3


def test_nothing_is_sent_into_a_boot_loader() -> None:
    board = Board()
    board.handshake().settle()
    assert (board.heard, round(board.seconds, 1)) == ([], 2.5)


# ── Ports


class Info(NamedTuple):
    device: str
    description: str
    vid: int | None
    pid: int | None


UNO = Info("/dev/ttyACM0", "Uno", 0x2341, 0x0043)
MEGA = Info("/dev/ttyACM1", "Mega", 0x2341, 0x0042)
CLONE = Info("/dev/ttyUSB0", "USB Serial", 0x1A86, 0x7523)
PICO = Info("/dev/ttyACM2", "Board in FS mode", 0x2E8A, 0x0005)
BUILT_IN = Info("/dev/ttyS0", "ttyS0", None, None)


def test_port_that_says_what_it_is_beats_a_converter() -> None:
    assert choose(BOARDS["uno"], [BUILT_IN, UNO, MEGA, CLONE, PICO]) == "/dev/ttyACM0"
    assert choose(BOARDS["mega"], [UNO, MEGA, CLONE]) == "/dev/ttyACM1"
    assert choose(BOARDS["uno"], [BUILT_IN, MEGA, CLONE]) == "/dev/ttyUSB0"
    assert choose(BOARDS["esp32"], [UNO, CLONE]) == "/dev/ttyUSB0"
    assert choose(BOARDS["pico"], [CLONE, PICO]) == "/dev/ttyACM2"


def test_no_board_and_too_many() -> None:
    with pytest.raises(ConfigurationError, match=r"no Arduino Uno found: no serial port is there; is the cable a data cable?"):
        choose(BOARDS["uno"], [])
    with pytest.raises(ConfigurationError, match=r"only /dev/ttyACM1 \(Arduino Mega 2560\) is there; say --port"):
        choose(BOARDS["uno"], [MEGA])
    with pytest.raises(ConfigurationError, match="no Raspberry Pi Pico"):
        choose(BOARDS["pico"], [CLONE])
    with pytest.raises(ConfigurationError, match=r"2 boards could be the uno; .*: /dev/ttyACM0 .*, /dev/ttyACM9"):
        choose(BOARDS["uno"], [UNO, UNO._replace(device="/dev/ttyACM9"), CLONE])


def test_port_is_lent_as_long_as_its_borrower_lives(tmp_path: Path) -> None:
    folder = str(tmp_path / FOLDER)
    file = lent_file(tmp_path, "/dev/ttyUSB0")
    file.parent.mkdir()
    for text, lent in [(None, False), ("1", True), ("", False), ("x", False), ("0", False), ("-5", False), ("4194305", False)]:
        if text is not None:
            file.write_text(text)
        assert is_lent(folder, "/dev/ttyUSB0") is lent, text
    file.write_text("1")
    assert not is_lent(folder, "/dev/ttyUSB1")
    assert not is_lent("", "/dev/ttyUSB0")


# ── Firmware


def sorted_(board: str, *paths: Path) -> Load:
    return sorted_out(BOARDS[board], [str(path) for path in paths], Path("/nonexistent"), lambda share: None)


def hex_line(address: int, data: bytes, kind: int = 0) -> str:
    row = bytes((len(data), address >> 8, address & 255, kind)) + data
    return f":{row.hex()}{-sum(row) & 255:02x}\n"


def test_hex_file_is_checked_before_the_board_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "a.hex"
    file.write_text(hex_line(0, b"\1\2") + hex_line(0x7DFE, b"\1\2") + hex_line(0, b"", 1))
    assert sorted_("uno", file) == (file, 0, {})
    file.write_text(hex_line(0x7DFF, b"\1\2") + hex_line(0, b"", 1))
    with pytest.raises(ConfigurationError, match="32,257 bytes; a program for the uno has 1 to 32,256"):
        sorted_("uno", file)
    assert sorted_("mega", file).image == file
    file.write_text(hex_line(0, b"\0\3", 4) + hex_line(0, b"\1"))
    assert sorted_("mega", file)[0] == file
    with pytest.raises(ConfigurationError, match="196,609 bytes"):
        sorted_("uno", file)
    for bad in ("", "hello", ":0", hex_line(0, b"\1")[:-3] + "00\n"):
        file.write_text(bad)
        with pytest.raises(ConfigurationError):
            sorted_("uno", file)


@pytest.mark.parametrize(
    ("board", "content", "offset"),
    [
        ("esp8266", b"\xe9" + bytes(40), 0),
        ("esp32", b"\xe9" + bytes(40), 0x1000),
        ("esp32", b"\xe9" + bytes(31) + bytes.fromhex("3254cdab") + bytes(9), 0x10000),
        ("esp32", b"\xff" * 0x1000 + b"\xe9", 0),
    ],
)
def test_image_tells_where_it_belongs(tmp_path: Path, board: str, content: bytes, offset: int) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(content)
    assert sorted_(board, file) == (file, offset, {})


@pytest.mark.parametrize(
    ("board", "names", "why"),
    [
        ("esp32", ["a.bin"], "would begin with the byte e9"),
        ("esp32", ["a.bin", "b.bin"], "one .bin file at most"),
        ("pico", ["a.bin"], "copied to its drive by hand"),
        ("pico", ["a.txt"], "not one of"),
        ("uno", ["a.hex", "b.hex"], "one sketch or one .hex"),
        ("uno", ["sketch/"], "no sketch there; sketch.ino is missing"),
        ("uno", ["none.hex!"], "no such file"),
    ],
)
def test_files_that_do_not_suit_the_board(tmp_path: Path, board: str, names: list[str], why: str) -> None:
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        elif not name.endswith("!"):
            (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match=why):
        sorted_(board, *(tmp_path / name for name in names))


def test_package_keeps_its_folder_on_the_board(tmp_path: Path) -> None:
    package = tmp_path / "spoor"
    (package / "deep").mkdir(parents=True)
    for name in ("a.py", "deep/b.mpy", "README.md"):
        (package / name).write_text("")
    (tmp_path / "main.py").write_text("")
    found = sorted_("pico", tmp_path / "main.py", package)
    assert found.files == {
        "main.py": tmp_path / "main.py", "spoor/a.py": package / "a.py", "spoor/deep/b.mpy": package / "deep" / "b.mpy",
    }  # fmt: skip


# ── Other programs


def test_program_that_never_ends_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; echo working; wait"
    began = time.monotonic()
    outcome = run(["sh", "-c", script], 0.5)
    assert (outcome.code, outcome.text.strip()) == (None, "working")
    assert time.monotonic() - began < 5
    for _ in range(100):
        if not Path(f"/proc/{pid.read_text().strip()}/cmdline").is_file() or not _alive(int(pid.read_text())):
            return
        time.sleep(0.01)
    raise AssertionError("the child lives on")


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_program_that_falls_silent_is_ended() -> None:
    began = time.monotonic()
    assert run(["sh", "-c", "echo a; sleep 60"], 30, silent_s=0.3) == (None, "a\n")
    assert time.monotonic() - began < 20


def test_program_that_closes_its_output_and_stays_is_ended() -> None:
    assert run([sys.executable, "-c", "import os, time; os.close(1); os.close(2); time.sleep(60)"], 0.5).code is None


def test_progress_of_avrdude_and_esptool() -> None:
    shares: list[float] = []
    words = ("'Writing | #####'", "'####################'", "'\\nat 0x1 (75 %%)'")
    script = "".join(f"printf {each}; sleep 0.1; " for each in words) + "exit 3"
    assert run(["sh", "-c", script], 10, shares.append).code == 3
    assert shares == [0.1, 0.5, 0.75]


# ── Names


def test_name_whose_board_never_got_its_secrets_may_be_used_again(tmp_path: Path) -> None:
    with closing(Identities(tmp_path)) as identities:
        assert identities.free("uno") == "uno-1"
        first = identities.secrets("uno-1", "hmac", rotate=False)
        assert identities.free("uno") == "uno-1"
        second = identities.secrets("uno-1", "hmac", rotate=False)
        assert len({first.key, second.key}) == 2
        identities.delivered("uno-1")
        assert identities.free("uno") == "uno-2"
        with pytest.raises(ConfigurationError, match="there is a device uno-1 already; --rotate"):
            identities.secrets("uno-1", "hmac", rotate=False)
        third = identities.secrets("uno-1", "both", rotate=True)
        assert third.key not in (first.key, second.key)


def test_device_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    assert main(["device", "add", "pump-7", "--data", str(tmp_path)]) == 0
    with closing(Identities(tmp_path)) as identities, pytest.raises(ConfigurationError, match="there is a device pump-7 already"):
        identities.check("pump-7", rotate=False)
    assert main(["device", "revoke", "pump-7", "--data", str(tmp_path)]) == 0
    with closing(Identities(tmp_path)) as identities:
        with pytest.raises(ConfigurationError, match="--rotate"):
            identities.check("pump-7", rotate=False)
        assert identities.secrets("pump-7", "hmac", rotate=True).key


# ── The command, before any board


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "say which board"),
        (["uno", "--no-identity"], "nothing to do"),
        (["uno", "--port", "/dev/no-such", "--wait", "0"], "/dev/no-such: there is no such port"),
        (["uno", "--port", "/dev/no-such"], "no gateway runs on"),
        (["uno", "--port", "/dev/null", "--device", "-x"], "is no device name"),
        (["uno", "--port", "/dev/null", "--url", "nowhere"], "address"),
    ],
)
def test_mistakes_are_told_at_once(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "-x" in arguments:
        arguments = [each for each in arguments if each not in ("--device", "-x")] + ["--device=-x"]
    assert main(["flash", *arguments, "--data", str(tmp_path / "data")]) == 1
    assert why in capsys.readouterr().err
    assert not (tmp_path / "data" / "devices.db").exists() or "--wait" in arguments


def test_dry_run_says_all_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, data = tmp_path / "a.hex", tmp_path / "data"
    file.write_text(hex_line(0, b"\1\2"))
    assert main(["flash", "mega", str(file), "--port", "/dev/ttyX", "--dry-run", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert f"avrdude -p m2560 -c wiring -b 115200 -P /dev/ttyX -D -U flash:w:{file}:i" in told
    assert "would make mega-N known and write its secrets into the board's EEPROM block over /dev/ttyX" in told
    assert "would wait 60 s" in told
    assert not data.exists()


# ── What a board says


def test_lines_decoded() -> None:
    template = bundled_template(1, 1)
    assert template is not None
    frame = encode(template, [(900, {"temperature_celsius": 21.5})], 7, 41, 1000)
    inner = json.dumps({"data": {"schema": "s", "data": {"v": 1}}})
    said = b"".join(
        [
            b"boot \x1b[31m\r\n",
            line(Line("h", "pump-7", 7, 1, b"", bytes(16))),
            line(Line("q", "", 7, 2, b"e=se&se_ca=door&se_ac=open&p=iot&tv=x")),
            line(Line("j", "pump-7", 7, 3, json.dumps({"data": [{"e": "ue", "ue_pr": inner}]}).encode())),
            line(Line("c", "pump-7", 7, 4, base64.urlsafe_b64encode(frame).rstrip(b"="))),
            line(Line("j", "pump-7", 7, 5, b"no JSON")),
            b"@q,pump-7,7,6:cut*0000\n",
        ]
    )
    items = device_lines().feed(said)
    assert [type(item) for item in items] == [Text, Line, Line, Line, Line, Line, Damaged]
    texts = [described(item, bundled_template) for item in items]
    assert texts[0] == ["boot \\x1b[31m"]
    assert texts[1] == ["pump-7 boot 7 message 1: hello, signed"]
    assert texts[2] == ["(no name) boot 7 message 2: query, not signed", "  se se_ca=door se_ac=open"]
    assert texts[3][1] == '  ue s {"v": 1}'
    assert texts[4][1].startswith(f"  event 41: {template.schema} ")
    assert "21.5" in texts[4][1]
    assert texts[5][1].startswith("  not read: ")
    assert texts[6] == ["damaged (crc): @q,pump-7,7,6:cut*0000"]
    assert as_object(items[2], bundled_template) == {
        "kind": "q", "device": "", "boot": 7, "sequence": 2, "signed": False,
        "body": "e=se&se_ca=door&se_ac=open&p=iot&tv=x", "events": ["se se_ca=door se_ac=open"],
    }  # fmt: skip
