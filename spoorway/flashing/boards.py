"""What each board needs to be found and flashed. A table: no board has code of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tool = Literal["avrdude", "esptool", "mpremote"]

# USB ids (vendor, product) of converters that stand on boards of many makers: they tell that there is a board, not which.
CONVERTERS = frozenset(
    {(0x1A86, 0x7523), (0x1A86, 0x55D4), (0x0403, 0x6001), (0x0403, 0x6015), (0x10C4, 0xEA60), (0x067B, 0x2303)}
)


@dataclass(frozen=True, slots=True)
class Board:
    """usb: ids that only this board has. converters: it is also sold with one of `CONVERTERS`.

    chip: as the tool names it. baud: of the boot loader; 0 = as the tool likes. programmer, fqbn: of avrdude, of Arduino builds.
    flash_bytes: what a program may fill, without the boot loader.
    """

    name: str
    title: str
    tool: Tool
    chip: str
    usb: frozenset[tuple[int, int]] = frozenset()
    converters: bool = True
    baud: int = 0
    programmer: str = ""
    fqbn: str = ""
    flash_bytes: int = 0


def _arduino(*products: int) -> frozenset[tuple[int, int]]:
    return frozenset((vendor, product) for vendor in (0x2341, 0x2A03) for product in products)


BOARDS = {
    board.name: board
    for board in (
        Board("uno", "Arduino Uno", "avrdude", "m328p", _arduino(0x0043, 0x0001, 0x0243), baud=115_200, programmer="arduino",
              fqbn="arduino:avr:uno", flash_bytes=32_256),
        Board("nano", "Arduino Nano (old boot loader)", "avrdude", "m328p", baud=57_600, programmer="arduino",
              fqbn="arduino:avr:nano:cpu=atmega328old", flash_bytes=30_720),
        Board("mega", "Arduino Mega 2560", "avrdude", "m2560", _arduino(0x0042, 0x0010, 0x0242),
              baud=115_200, programmer="wiring",
              fqbn="arduino:avr:mega:cpu=atmega2560", flash_bytes=253_952),
        Board("esp32", "ESP32", "esptool", "esp32", baud=460_800),
        Board("esp8266", "ESP8266", "esptool", "esp8266", baud=460_800),
        Board("pico", "Raspberry Pi Pico with MicroPython", "mpremote", "rp2", frozenset({(0x2E8A, 0x0005)}), converters=False),
    )
}  # fmt: skip

__all__ = ["BOARDS", "CONVERTERS", "Board", "Tool"]
