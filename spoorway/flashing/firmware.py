"""What the user names -> what goes on the board: firmware as it is, a sketch that is built, or files for MicroPython."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from protocol.seams import ConfigurationError, TransientError
from spoorway.flashing.boards import Board
from spoorway.flashing.tools import Outcome, run

_BUILD_S = 600.0
_SCRIPTS = (".py", ".mpy", ".json")
_ESP_IMAGE = 0xE9
_APPLICATION = (0xABCD5432).to_bytes(4, "little")  # at byte 32 of an ESP32 application; boot loaders have none there
_DEBIAN = Path("/usr/share/arduino/hardware/arduino/avr"), Path("/usr/share/arduino-builder")


class Load(NamedTuple):
    """image: for the flash, at `offset`; None = the board keeps what it has. files: name on the board -> where it is here."""

    image: Path | None
    offset: int
    files: Mapping[str, Path]


def sorted_out(board: Board, sources: Sequence[str], build: Path, share: Callable[[float], None]) -> Load:
    """sources: firmware, a sketch, or files, as given. build: an empty folder. Raises ConfigurationError, TransientError."""
    paths = [Path(source) for source in sources]
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"{path}: there is no such file or folder")
    if board.tool == "avrdude":
        if len(paths) > 1:
            raise ConfigurationError(f"{board.name}: one sketch or one .hex file, not {len(paths)}")
        if not paths:
            return Load(None, 0, {})
        (path,) = paths
        if path.is_dir() or path.suffix == ".ino":
            path = built(board, path if path.is_dir() else path.parent, build, share)
        _check_hex(board, path)
        return Load(path, 0, {})
    images = [path for path in paths if path.suffix == ".bin"]
    if len(images) > 1 or (images and board.tool != "esptool"):
        wrong = "one .bin file at most" if board.tool == "esptool" else "its firmware is copied to its drive by hand"
        raise ConfigurationError(f"{board.name}: {wrong}")
    files = dict(each for path in paths if path not in images for each in _named(path))
    for path in files.values():
        if path.suffix not in _SCRIPTS:
            raise ConfigurationError(f"{path}: not one of .bin, {', '.join(_SCRIPTS)}")
    return Load(images[0] if images else None, _offset(board, images[0]) if images else 0, files)


def _named(path: Path) -> Iterator[tuple[str, Path]]:
    """A file, or all of a package's, under the names they have on the board."""
    if not path.is_dir():
        yield path.name, path
        return
    for each in sorted(path.rglob("*")):
        if each.suffix in _SCRIPTS:
            yield f"{path.resolve().name}/{each.relative_to(path).as_posix()}", each


def built(board: Board, sketch: Path, build: Path, share: Callable[[float], None]) -> Path:
    """The .hex file of a sketch's folder, by arduino-cli or by Debian's arduino-builder."""
    main = sketch / f"{sketch.resolve().name}.ino"
    if not main.is_file():
        raise ConfigurationError(f"{sketch}: no sketch there; {main.name} is missing")
    # A sketch among the examples of a library is built with that library.
    library = next((above for above in sketch.resolve().parents if (above / "library.properties").is_file()), None)
    if program := shutil.which("arduino-cli"):
        command = [program, "compile", "--fqbn", board.fqbn, "--output-dir", str(build)]
        outcome = run([*command, *(["--library", str(library)] if library else []), str(sketch)], _BUILD_S, share)
    elif (program := shutil.which("arduino-builder")) and all(path.is_dir() for path in _DEBIAN):
        outcome = _debian(program, board, main, library, build, share)
    else:
        raise ConfigurationError(
            "a sketch is built by arduino-cli (https://arduino.github.io/arduino-cli) or, on Debian, by arduino-builder with "
            "arduino-core-avr; install one, or name a .hex file"
        )
    if outcome.code != 0:
        why = "took too long" if outcome.code is None else "failed"
        raise TransientError(f"building {main.name} {why}:\n{outcome.text[-4_000:].rstrip()}")
    found = build / f"{main.name}.hex"
    if not found.is_file():
        raise TransientError(f"building {main.name} left no {found.name}")
    return found


def _debian(program: str, board: Board, main: Path, library: Path | None, build: Path, share: Callable[[float], None]) -> Outcome:
    """arduino-builder wants its tools and its hardware in folders of its own."""
    core, builder = _DEBIAN
    tools, hardware, libraries = build / "tools", build / "hardware", build / "libraries"
    for folder in (tools / "avr", hardware / "arduino", libraries, build / "out"):
        folder.mkdir(parents=True)
    (tools / "avr" / "bin").symlink_to("/usr/bin")
    (hardware / "arduino" / "avr").symlink_to(core)
    for each in builder.glob("platform*.txt"):
        shutil.copy(each, hardware)
    if library is not None:
        (libraries / library.name).symlink_to(library)
    # The core of Debian 12 uses a macro that its compiler does not define.
    preferences = ("compiler.cpp.extra_flags=-DDECIMAL_DIG=__DECIMAL_DIG__", "runtime.tools.avr-gcc.path=/usr")
    outcome = run(
        [program, "-compile", "-hardware", str(hardware), "-tools", str(tools), "-libraries", str(libraries),
         "-build-path", str(build / "out"), *(f"-prefs={each}" for each in preferences), "-fqbn", board.fqbn, str(main)],
        _BUILD_S, share,
    )  # fmt: skip
    if (made := build / "out" / f"{main.name}.hex").is_file():
        shutil.copy(made, build)
    return outcome


def _check_hex(board: Board, path: Path) -> None:
    """That avrdude need not find out half-way. Raises ConfigurationError."""
    top, base = 0, 0
    try:
        for line in path.read_text("ascii").split():
            row = bytes.fromhex(line.removeprefix(":"))
            if not line.startswith(":") or len(row) < 5 or len(row) != row[0] + 5 or sum(row) % 256:
                raise ValueError
            if row[3] == 0:
                top = max(top, base + int.from_bytes(row[1:3]) + row[0])
            elif row[3] in (2, 4):
                base = int.from_bytes(row[4:6]) << (4 if row[3] == 2 else 16)
    except (OSError, ValueError):
        raise ConfigurationError(f"{path}: no Intel HEX file") from None
    if not 0 < top <= board.flash_bytes:
        raise ConfigurationError(f"{path}: {top:,} bytes; a program for the {board.name} has 1 to {board.flash_bytes:,}")


def _offset(board: Board, path: Path) -> int:
    """Where an image belongs, as its first bytes tell. Raises ConfigurationError."""
    with path.open("rb") as file:
        head = file.read(0x1001)
    if head[:1] == bytes((_ESP_IMAGE,)):
        if board.chip == "esp8266":
            return 0
        return 0x10000 if head[32:36] == _APPLICATION else 0x1000
    if board.chip == "esp32" and head[:0x1000].strip(b"\xff") == b"" and head[0x1000:] == bytes((_ESP_IMAGE,)):
        return 0
    raise ConfigurationError(f"{path}: no firmware for the {board.name}; it would begin with the byte e9")


def python_tool(name: str) -> list[str]:
    """The command line of esptool or mpremote. Raises ConfigurationError."""
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise ConfigurationError(f"this board needs the package {name}: pip install 'spoorway[flash]'")
    return [sys.executable, "-m", name]


__all__ = ["Load", "built", "python_tool", "sorted_out"]
