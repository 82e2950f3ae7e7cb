"""The protocol of the ESP8266's boot loader, as esptool speaks it, behind a terminal. A model of a protocol, not of a chip.

Source: Espressif's description of the serial protocol. Takes blocks into `flash`, checks their sums, can fall silent.
"""

from __future__ import annotations

import os
import struct
import threading
import tty

_SYNC, _WRITE_REGISTER, _READ_REGISTER, _BEGIN, _DATA = 0x08, 0x09, 0x0A, 0x02, 0x03
_WITHOUT_EFFECT = (0x04, 0x05, 0x06, 0x07)
_MAGIC = 0x40001000  # tells the family: each has its own value there
_ESP8266, _ESP32 = 0xFFF0C101, 0x00F01D83
_EFUSES = {0x3FF00050: 0x12345600, 0x3FF00054: 0x0200ABCD, 0x3FF00058: 0x9000, 0x3FF0005C: 0x00C44F33}
_SPI = 0x60000200
_COMMAND, _SPI_W0, _SPI_USR2 = _SPI, _SPI + 0x80, _SPI + 0x24
_FLASH_ID = 0x1440EF  # a Winbond of 1 MiB


class Rom:
    """port: its terminal. silent_after: blocks of data, after which nothing is answered any more; None = never."""

    def __init__(self, *, silent_after: int | None = None, other_chip: bool = False) -> None:
        self.flash = bytearray(b"\xff" * (1 << 20))
        self.blocks = 0
        self._silent_after, self._magic = silent_after, _ESP32 if other_chip else _ESP8266
        self._registers: dict[int, int] = {}
        self._at = self._block_bytes = 0
        self._reads_id = False
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self.port = os.ttyname(self._theirs)
        self._thread = threading.Thread(target=self._serve, name="esp rom", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._theirs, b"\xc0quit\xc0")
        self._thread.join(10)
        os.close(self._theirs)
        os.close(self._ours)

    def _serve(self) -> None:
        data = b""
        while True:
            data += os.read(self._ours, 4096)
            while True:
                start = data.find(b"\xc0")
                end = data.find(b"\xc0", start + 1)
                if start < 0 or end < 0:
                    break
                frame = data[start + 1 : end].replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
                data = data[end if not frame else end + 1 :]
                if frame == b"quit":
                    return
                if len(frame) >= 8 and frame[0] == 0:
                    self._answer(*struct.unpack("<BHI", frame[1:8]), frame[8:])

    def _answer(self, command: int, _length: int, check: int, data: bytes) -> None:
        value, failed = 0, b"\0\0"
        if command == _READ_REGISTER:
            value = self._read(*struct.unpack("<I", data[:4]))
        elif command == _WRITE_REGISTER:
            self._write(*struct.unpack("<II", data[:8]))
        elif command == _BEGIN:
            size, _, self._block_bytes, self._at = struct.unpack("<IIII", data[:16])
            self.flash[self._at : self._at + size] = b"\xff" * size
        elif command == _DATA:
            length, number = struct.unpack("<II", data[:8])
            block = data[16 : 16 + length]
            found = 0xEF
            for byte in block:
                found ^= byte
            if found != check:
                failed = b"\1\7"
            else:
                self.blocks += 1
                place = self._at + number * self._block_bytes
                self.flash[place : place + length] = block
        elif command not in (_SYNC, *_WITHOUT_EFFECT):
            failed = b"\1\5"
        if self._silent_after is not None and self.blocks > self._silent_after:
            return
        answer = struct.pack("<BBHI", 1, command, len(failed), value) + failed
        answer = answer.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
        for _ in range(8 if command == _SYNC else 1):
            os.write(self._ours, b"\xc0" + answer + b"\xc0")

    def _read(self, address: int) -> int:
        if address == _MAGIC:
            return self._magic
        if address == _SPI_W0 and self._reads_id:
            return _FLASH_ID
        return _EFUSES.get(address, self._registers.get(address, 0))

    def _write(self, address: int, value: int) -> None:
        if address == _SPI_USR2:
            self._reads_id = value & 0xFF == 0x9F
        if address == _COMMAND:
            value &= ~(1 << 18)  # the command is done at once
        self._registers[address] = value


__all__ = ["Rom"]
