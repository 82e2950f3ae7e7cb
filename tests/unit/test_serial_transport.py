"""The serial transport on real pseudo terminals: what waits, what is answered at the end, what is told of a lost port."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import glob
import grp
import logging
import os
import subprocess
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.serial.config import Settled
from gateway.serial.wire import UnopenedError, _cure, open_port
from gateway.transports.serial import Config, Plugin, Port
from protocol.lines import Answer, Deframer, Line, encode, gateway_lines
from protocol.seams import ConfigurationError, RawPayload

PLAIN = Settled("", 115_200, True, True, True)
LONGEST_S = 10


class Terminal(NamedTuple):
    """master: the board's end; path: the gateway's."""

    master: int
    path: str


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = os.openpty()
    tty.setraw(slave)
    path = os.ttyname(slave)
    os.close(slave)
    os.set_blocking(master, False)
    yield Terminal(master, path)
    with suppress(OSError):
        os.close(master)


class Journal:
    """Takes payloads once it is open."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.offered: list[RawPayload] = []
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def accept(self, payload: RawPayload) -> None:
        self.offered.append(payload)
        await self.open.wait()


def lines(amount: int) -> bytes:
    return b"".join(encode(Line("q", "uno-1", 1, sequence, b"e=pv")) for sequence in range(1, amount + 1))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_S):
        while not true():  # noqa: ASYNC110 - what a kernel does has no event
            await asyncio.sleep(0.002)


def heard(terminal: Terminal, reader: Deframer[Answer]) -> list[object]:
    with suppress(BlockingIOError, OSError):
        return list(reader.feed(os.read(terminal.master, 65_536)))
    return []


def running(test: Callable[[Plugin], Awaitable[None]], config: Config, journal: Callable[[], Journal] = Journal) -> None:
    async def run() -> None:
        ids = count()
        plugin = Plugin(config, new_id=lambda: f"{next(ids):032x}")
        taking = journal()
        plugin.journal = taking  # type: ignore[attr-defined]
        await plugin.start(taking.accept)
        try:
            await test(plugin)
        finally:
            taking.open.set()
            await plugin.stop()

    asyncio.run(run())


async def opened(plugin: Plugin) -> None:
    await until(lambda: plugin.counters.open_ports > 0)


def test_lines_beyond_the_window_wait_and_are_answered_in_their_order(terminal: Terminal) -> None:
    async def test(plugin: Plugin) -> None:
        journal: Journal = plugin.journal  # type: ignore[attr-defined]
        await opened(plugin)
        os.write(terminal.master, lines(100))
        await until(lambda: len(journal.offered) >= 4)
        await asyncio.sleep(0.05)  # time in which more would have come
        assert len(journal.offered) <= 4 + 2  # the window, the one that is answered next, the one that waits for its place
        journal.open.set()
        reader, answers = gateway_lines(), list[object]()
        await until(lambda: len(answers.__iadd__(heard(terminal, reader))) == 100)
        assert answers == [Answer("a", 1, sequence) for sequence in range(1, 101)]

    running(test, Config(ports=(terminal.path,), window=4), lambda: Journal(is_open=False))


def test_what_is_under_way_is_answered_before_the_end(terminal: Terminal) -> None:
    async def test(plugin: Plugin) -> None:
        journal: Journal = plugin.journal  # type: ignore[attr-defined]
        await opened(plugin)
        os.write(terminal.master, lines(2))
        await until(lambda: len(journal.offered) == 2)
        stopping = asyncio.create_task(plugin.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        journal.open.set()
        reader, answers = gateway_lines(), list[object]()
        await until(lambda: len(answers.__iadd__(heard(terminal, reader))) == 2)
        await stopping
        assert answers == [Answer("a", 1, 1), Answer("a", 1, 2)]

    running(test, Config(ports=(terminal.path,)), lambda: Journal(is_open=False))


def test_device_that_never_reads_costs_its_answers_and_no_event(terminal: Terminal) -> None:
    async def test(plugin: Plugin) -> None:
        journal: Journal = plugin.journal  # type: ignore[attr-defined]
        await opened(plugin)
        data, amount = lines(12_000), 12_000
        while data:
            with suppress(BlockingIOError):
                data = data[os.write(terminal.master, data[:2_000]) :]
            await asyncio.sleep(0)
        await until(lambda: len(journal.offered) == amount)
        await until(lambda: plugin.counters.lines[terminal.path, "taken"] == amount)
        assert plugin.counters.unsent[terminal.path] > 0

    running(test, Config(ports=(terminal.path,)))


def test_two_names_of_a_port_are_one_port(terminal: Terminal, tmp_path: Path) -> None:
    by_id = tmp_path / "usb-Arduino-if00"
    by_id.symlink_to(terminal.path)
    (tmp_path / "ttyUSB0").symlink_to(terminal.path)

    async def test(plugin: Plugin) -> None:
        await opened(plugin)
        os.write(terminal.master, lines(1))
        await until(lambda: plugin.counters.lines[str(by_id), "taken"] == 1)
        await asyncio.sleep(0.1)  # some looks for more ports
        assert dict(plugin.counters.openings) == {str(by_id): 1}
        assert plugin.journal.offered[0].device == "shed"  # type: ignore[attr-defined]

    running(test, Config(ports=(f"{tmp_path}/tty*",), rescan_s=0.01, port={f"{tmp_path}/usb-*": Port(device="shed")}))


def test_name_that_a_port_gets_later_opens_nothing(terminal: Terminal, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = tmp_path / "ttyUSB0"
    first.symlink_to(terminal.path)

    async def test(plugin: Plugin) -> None:
        await opened(plugin)
        (tmp_path / "by-id-Arduino").symlink_to(terminal.path)
        await asyncio.sleep(0.4)  # some looks for more ports, some tries to open one
        assert dict(plugin.counters.openings) == {str(first): 1}

    with caplog.at_level(logging.INFO):
        running(test, Config(ports=(f"{tmp_path}/*",), rescan_s=0.01))
    assert "in use" not in caplog.text


def test_port_in_use_is_told_with_the_program_that_has_it(terminal: Terminal, caplog: pytest.LogCaptureFixture) -> None:
    hold = (
        "import fcntl, sys, time; port = open(sys.argv[1], 'rb+', buffering=0); fcntl.flock(port, fcntl.LOCK_EX); "
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, terminal.path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()

        async def test(plugin: Plugin) -> None:
            try:
                await until(lambda: "in use by" in caplog.text)
            finally:
                holder.kill()
            holder.wait()
            await opened(plugin)  # and taken as soon as it is free

        with caplog.at_level(logging.INFO):
            running(test, Config(ports=(terminal.path,), longest_pause_s=0.2))
    assert f"(process {holder.pid})" in caplog.text
    assert caplog.text.count("in use by") == 1


def test_port_is_ours_alone(terminal: Terminal) -> None:
    _, close, real = open_port(terminal.path, PLAIN)
    with pytest.raises(UnopenedError, match="in use by another program"):
        open_port(terminal.path, PLAIN)
    with open(terminal.path, "rb+", buffering=0) as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert real == terminal.path
    close()


@pytest.mark.parametrize(("baud", "speed"), [(9_600, termios.B9600), (115_200, termios.B115200), (2_000_000, termios.B2000000)])
def test_speed_and_lines_are_as_configured(terminal: Terminal, baud: int, speed: int) -> None:
    with open(terminal.path, "rb+", buffering=0) as port:
        settings = termios.tcgetattr(port)
        settings[2] |= termios.HUPCL  # as a port has it at first, and a pseudo terminal has not
        termios.tcsetattr(port, termios.TCSANOW, settings)
    for hang_up in (True, False):
        fd, close, _ = open_port(terminal.path, Settled("", baud, True, False, hang_up))
        settings = termios.tcgetattr(fd)
        assert settings[5] == speed
        assert bool(settings[2] & termios.HUPCL) == hang_up
        assert not settings[3] & (termios.ECHO | termios.ICANON)
        close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel as Linux is asked")
def test_speed_without_a_name_outlives_the_other_settings(terminal: Terminal) -> None:
    fd, close, _ = open_port(terminal.path, Settled("", 250_000, True, True, False))
    state = bytearray(44)  # struct termios2: its last field is the speed in bits per second
    fcntl.ioctl(fd, 0x802C542A, state)  # TCGETS2
    assert int.from_bytes(state[40:44], sys.byteorder) == 250_000
    close()


def test_what_is_no_port_is_told(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").write_text("")
    with pytest.raises(UnopenedError):
        open_port(str(tmp_path / "ttyUSB0"), PLAIN)


def test_permission_names_the_group(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    port.write_text("")
    with suppress(PermissionError, KeyError):
        os.chown(port, -1, grp.getgrnam("dialout").gr_gid)
    group = grp.getgrgid(port.stat().st_gid).gr_name
    text = _cure(str(port), PermissionError(errno.EACCES, "Permission denied"))
    assert text == f"permission denied; its group is {group}: sudo usermod -aG {group} USER, then log in again"


def test_without_pyserial_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'spoorway\[serial\]'"):
        asyncio.run(Plugin(Config()).start(Journal().accept))


def test_no_port_at_all_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="ports names none"):
        Plugin(Config(ports=()))


def test_port_that_appears_while_we_look_has_the_options_that_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its first opening would speak for nobody, at a speed of others."""
    port, look = tmp_path / "ttyACM0", glob.glob

    def plugged_in_after_the_first_look(pattern: str) -> list[str]:
        found = look(pattern)
        port.touch()
        return found

    monkeypatch.setattr(glob, "glob", plugged_in_after_the_first_look)
    own = {f"{tmp_path}/ttyACM*": Port(device="greenhouse", baud=9600)}
    plugin = Plugin(Config(ports=(f"{tmp_path}/tty*",), port=own))
    ((path, options),) = plugin._found().values()
    assert (path, options.device, options.baud) == (str(port), "greenhouse", 9600)
