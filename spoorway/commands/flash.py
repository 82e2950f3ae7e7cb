"""`spoorway flash`: firmware, a name and a key on a board, until its first authenticated event is in the journal.

The order of the steps; each lives in spoorway/flashing. Everything that can be refused is refused before anything is written.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from protocol.seams import ConfigurationError, TransientError
from spoorway.commands import Subparsers, command, settings
from spoorway.console import Progress
from spoorway.flashing.boards import BOARDS, Board

_PASSPHRASE = "SPOORWAY_WIFI_PASSPHRASE"
_GREETING_S = 20.0
_ROTATED_MS = 1_000  # so long the old secrets of a name may still be good


def add(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "flash",
        "put firmware, a name and a key on a board, and wait for its first event",
        "spoorway flash uno trackers/arduino/examples/NamedByCable\n"
        "spoorway flash mega meter.hex --device meter-7 --port /dev/ttyACM0\n"
        "spoorway flash esp32 ESP32_GENERIC.bin main.py spoor --url mqtt://192.168.1.10:1883 --wifi shed\n"
        "spoorway flash pico main.py spoor --url http://192.168.1.10:8080 --wifi shed\n"
        "spoorway flash uno --device meter-7 --rotate      # keeps the firmware\n"
        "spoorway flash --ports",
    )
    parser.add_argument("board", metavar="BOARD", nargs="?", choices=(*BOARDS,), help=", ".join(BOARDS))
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="*", help="a sketch, .hex or .bin; .py, .mpy, .json or a package for MicroPython"
    )
    parser.add_argument("--ports", action="store_true", help="list the serial ports, and end")
    parser.add_argument("--port", help="where the board is (default: the one port it can be at)")
    parser.add_argument("--device", metavar="NAME", help="its name (default: the first free of BOARD-1, BOARD-2, …)")
    parser.add_argument("--rotate", action="store_true", help="a name that exists: new secrets for it, the old ones end")
    parser.add_argument("--no-identity", action="store_true", help="firmware and files only")
    parser.add_argument("--url", help="the gateway, for boards that speak over a network: http, https, mqtt or mqtts://HOST:PORT")
    parser.add_argument("--wifi", metavar="NAME", default="", help=f"its Wi-Fi; the passphrase is in {_PASSPHRASE}, or asked for")
    parser.add_argument("--micropython", action="store_true", help="the board runs MicroPython already")
    parser.add_argument("--baud", type=int, default=115_200, help="of the sketch's serial line (default: 115200)")
    parser.add_argument("--wait", metavar="S", type=float, default=60.0, help="for the first event; 0 = do not (default: 60)")
    parser.add_argument("--tool-options", metavar="WORDS", default="", help="more options for avrdude or esptool")
    parser.add_argument("--limit", metavar="S", type=float, help="time for each run of a tool (default: 120, ESP: 300)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, touch nothing")
    parser.add_argument("--json", action="store_true", help="one object a step")
    parser.set_defaults(do=_flash)


def _flash(args: argparse.Namespace) -> int:
    from spoorway.flashing import firmware, ports

    if args.ports:
        for each in ports.listed():
            row = {"port": each.device, "about": each.description}
            print(json.dumps(row) if args.json else "  ".join(row.values()))
        return 0
    if args.board is None:
        raise ConfigurationError("say which board: " + ", ".join(BOARDS))
    if args.no_identity and not args.sources:
        raise ConfigurationError("neither firmware nor an identity: there is nothing to do")
    board = BOARDS[args.board]
    told = Steps(as_json=args.json)
    port = args.port or ports.choose(board, ports.listed())
    with TemporaryDirectory(prefix="spoorway-flash-") as folder:
        load = firmware.sorted_out(board, args.sources, Path(folder), told.share("building"))
        _Run(args, board, port, load, told).all()
    return 0


class Steps:
    """What the user sees: a line for each step that is done, a bar for the one under way."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._began = time.monotonic()

    def done(self, step: str, message: str, **facts: Any) -> None:
        if self._json:
            since_s = round(time.monotonic() - self._began, 2)
            print(json.dumps({"step": step, "message": message, "s": since_s, **facts}), flush=True)
        else:
            print(f"✓ {message}", flush=True)

    def line(self, text: str) -> None:
        """Of the board."""
        if not self._json:
            print(f"  | {text}", flush=True)

    def share(self, label: str) -> Any:
        """A function that is told how much is done, 0 to 1."""
        progress, reached = Progress(label, 100), [0]

        def show(share: float) -> None:
            step = round(share * 100) - reached[0]
            reached[0] += step
            progress.advance(step)

        return show


class _Run:
    """One board, from here to its first event."""

    def __init__(self, args: argparse.Namespace, board: Board, port: str, load: Any, told: Steps) -> None:
        from spoorway.flashing.identity import Identity

        self._args, self._board, self._port, self._load, self._told = args, board, port, load, told
        self._found = settings(args)
        self._options = shlex.split(args.tool_options)
        self._scripted = board.tool == "mpremote" or bool(load.files) or args.micropython or _is_micropython(load.image)
        self._watches = args.wait > 0 and not args.no_identity
        # Whatever is wrong with names and addresses is said before the board is touched.
        Identity(args.device or "board", "", "", args.url or "", (args.wifi, "")).checked()

    def all(self) -> None:
        from spoorway.flashing.identities import Identities
        from spoorway.flashing.ports import borrowed
        from spoorway.flashing.watching import gateway_runs

        if self._args.dry_run:
            self._say()
            return
        if self._watches and not gateway_runs(self._found.data):
            raise ConfigurationError(
                f"no gateway runs on {self._found.data}, so no event can arrive: start `spoorway run --serial {self._port}`, "
                "or say --wait 0"
            )
        if self._args.no_identity:
            with borrowed(self._found.data, self._port):
                self._write_firmware()
                self._write_files({})
            return
        with closing(Identities(self._found.data)) as identities:
            device = self._args.device or identities.free(self._board.name)
            identities.check(device, rotate=self._args.rotate)
            with borrowed(self._found.data, self._port):
                self._write_firmware()
                watch = self._give_identity(identities, device)
            self._first_event(watch, device)

    def _say(self) -> None:
        from spoorway.flashing import writing

        port, load = self._port, self._load
        if load.image is not None:
            if self._board.tool == "avrdude":
                made = writing.avr_command(self._board, port, load.image, self._options)
            else:
                made = writing.esp_command(self._board, port, load.image, load.offset, self._options)
            self._told.done("firmware", f"would run: {shlex.join(made)}", dry_run=True)
        if load.files:
            self._told.done("files", "would copy: " + ", ".join(load.files), dry_run=True)
        if not self._args.no_identity:
            device = self._args.device or f"{self._board.name}-N"
            where = "spoorway.json" if self._scripted else "the board's EEPROM block"
            self._told.done("identity", f"would make {device} known and write its secrets into {where} over {port}", dry_run=True)
        if self._watches:
            self._told.done("event", f"would wait {self._args.wait:g} s for its first authenticated event", dry_run=True)

    def _write_firmware(self) -> None:
        from spoorway.flashing import writing

        board, load = self._board, self._load
        if load.image is None:
            return
        share = self._told.share("flashing")
        if board.tool == "avrdude":
            writing.avr(board, self._port, load.image, self._options, share, self._args.limit or writing.AVR_S)
            proved = "read back and verified"
        else:
            limit_s = self._args.limit or writing.ESP_S
            sure = writing.esp(board, self._port, load.image, load.offset, self._options, share, limit_s)
            proved = "its digest verified" if sure else "block by block; the boot loader cannot read it back"
        size = load.image.stat().st_size
        self._told.done("firmware", f"{load.image.name} is on the {board.title} at {self._port}, {proved}", file_bytes=size)

    def _write_files(self, more: dict[str, bytes]) -> None:
        from spoorway.flashing import writing

        contents = {name: path.read_bytes() for name, path in self._load.files.items()} | more
        if contents:
            writing.files(self._port, contents, self._told.share("copying"), self._args.limit or writing.FILES_S)
            self._told.done("files", f"copied and read back: {', '.join(contents)}")

    def _give_identity(self, identities: Any, device: str) -> Any:
        """The watch for its events."""
        from spoorway.flashing.handshake import Handshake
        from spoorway.flashing.identity import FILE, Identity, block, document
        from spoorway.flashing.ports import open_here
        from spoorway.flashing.watching import Watch

        args = self._args
        over_mqtt = (args.url or "").startswith("mqtt")
        passphrase = _passphrase() if args.wifi else ""
        port, board = None, None
        try:
            if not self._scripted:
                # Asked first: secrets are made only for a board that can take them.
                port = open_here(self._port, args.baud)
                board = Handshake(port, time.monotonic, self._told.share("naming"))
                board.settle()
                board.present(_GREETING_S)
            given = identities.secrets(device, "both" if over_mqtt else "hmac", rotate=args.rotate)
            # Begun before the board can send under its name, and not before what it replaces was told to end.
            watch = Watch(self._found.data, _ROTATED_MS if args.rotate else 0)
            identity = Identity(device, given.key, given.password, args.url or "", (args.wifi, passphrase))
            if board is None:
                self._write_files({FILE: document(identity)})
            else:
                board.write(block(identity))
        except OSError as error:
            raise TransientError(f"{self._port}: {error}") from None
        finally:
            if port is not None:
                port.close()
        identities.delivered(device)
        self._told.done("identity", f"its name is {device}", device=device)
        if not self._scripted:
            self._greet(device)
        return watch

    def _greet(self, device: str) -> None:
        """Opening the port restarts most boards; the first line under its name shows that it kept it. Only told, not required."""
        from protocol.lines import Line
        from spoorway import building
        from spoorway.flashing.decoding import described
        from spoorway.flashing.listening import listen

        templates = building.templates(self._found)
        for item in listen(self._port, self._args.baud, _GREETING_S if self._args.wait else 3.0):
            for text in described(item, templates):
                self._told.line(text)
            if isinstance(item, Line) and item.device == device:
                return

    def _first_event(self, watch: Any, device: str) -> None:
        with closing(watch):
            if not self._watches:
                return
            found = watch.first(device, self._args.wait)
        if found is None:
            raise TransientError(
                f"{device} has its name, but no authenticated event of it came within {self._args.wait:g} s: does the gateway "
                f"{'listen there' if self._args.url else f'read {self._port} (spoorway run --serial {self._port})'}? "
                "`spoorway monitor` shows what the board says"
            )
        self._told.done("event", f"the first authenticated event of {device} is in the journal", device=device, payload=found.id)


def _is_micropython(image: Path | None) -> bool:
    return image is not None and image.suffix == ".bin" and b"MicroPython" in image.read_bytes()


def _passphrase() -> str:
    found = os.environ.get(_PASSPHRASE)
    if found is None and sys.stdin.isatty():
        from getpass import getpass

        found = getpass("passphrase of the Wi-Fi: ")
    if found is None:
        raise ConfigurationError(f"--wifi needs the passphrase in {_PASSPHRASE}")
    return found


__all__ = ["add"]
