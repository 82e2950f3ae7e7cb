"""A cable between a device and the gateway, of two pseudo terminals: it can be pulled out, plugged in again, and be a bad one.

What goes through is carried by a thread of its own. Bytes for which nobody has the other end open are lost, as on a real wire.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_name("serial_device.c")
Damage = Callable[[bytes], bytes]


def build_device(folder: Path) -> Path:
    """The device of serial_device.c, compiled."""
    program = folder / "serial_device"
    flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-format-overflow")
    subprocess.run(["gcc", *flags, "-o", program, SOURCE], check=True)
    return program


class Cable:
    """port: where the gateway finds it while it is plugged in. device: the other end, always there."""

    def __init__(self, port: Path, damage: Damage = bytes) -> None:
        """damage: what becomes of some bytes on their way, in both directions."""
        self.port, self._damage = port, damage
        self._far, self._near = -1, -1
        self._ending = False
        self._lock = threading.Lock()
        self._near, self.device, held = _terminal()
        self._held = held  # so that the device's end lives on between two runs of it
        self.plug()
        self._thread = threading.Thread(target=self._carry, name=f"cable {port.name}", daemon=True)
        self._thread.start()

    def plug(self) -> None:
        with self._lock:
            self._far, path, held = _terminal()
            os.close(held)
        self.port.symlink_to(path)

    def unplug(self) -> None:
        self.port.unlink()
        with self._lock:
            os.close(self._far)
            self._far = -1

    def to_gateway(self, data: bytes) -> None:
        """As if the device had sent it."""
        with self._lock:
            _write(self._far, data)

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        if self._far >= 0:
            self.unplug()
        os.close(self._near)
        os.close(self._held)

    def _carry(self) -> None:
        while not self._ending:
            with self._lock:
                far = self._far
                moved = self._move(self._near, far) + (self._move(far, self._near) if far >= 0 else 0)
            if not moved:  # an end that nobody has open is always "ready": the wire looks again a little later
                time.sleep(0.001)

    def _move(self, source: int, sink: int) -> int:
        try:
            data = os.read(source, 4096)
        except OSError:
            return 0
        if sink >= 0:
            _write(sink, self._damage(data))
        return len(data)


def bad_cable(seed: int, share: float) -> Damage:
    """Of each byte: flipped, lost, doubled, followed by noise, or a NUL, with this probability."""
    chance = random.Random(seed)

    def damage(data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if chance.random() >= share:
                out.append(byte)
                continue
            out += chance.choice(
                (bytes([byte ^ 1 << chance.randrange(8)]), b"", bytes([byte, byte]), b"\0", bytes([byte]) + chance.randbytes(3))
            )
        return bytes(out)

    return damage


def other_speed(data: bytes) -> bytes:
    """What is left of text that is read at another speed: bits are sampled in the wrong places."""
    return bytes((byte << 3 & 0xFF | byte >> 6) ^ 0x80 for byte in data)[::2]


def _terminal() -> tuple[int, str, int]:
    """(our end, the other end's path, the other end opened)."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    tty.setraw(theirs)
    return ours, os.ttyname(theirs), theirs


def _write(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        pass


__all__ = ["Cable", "bad_cable", "build_device", "other_speed"]
