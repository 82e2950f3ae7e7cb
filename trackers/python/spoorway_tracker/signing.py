"""A message -> the headers that prove which device sends it, and that it is no old one.

The numbers live in one file for all processes that share a folder: they count on after exit, fork and kill. A gateway that calls
one of them old gets a new boot: the next message is above all that it has seen, as long as this clock or this file is right.
Source: docs/devices.md, "Signed messages".
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,62}[A-Za-z0-9])?")
_KEY = re.compile(r"[0-9a-fA-F]{64}")
_LARGEST = 0xFFFF_FFFF
_SIGNATURE_DIGITS = 32


class Signer:
    """device, key: as `spoorway device add` prints them. folder: for the numbers. Raises ValueError, without the key in it."""

    def __init__(self, device: str, key: str, folder: Path, clock_ms: Callable[[], int]) -> None:
        if not _NAME.fullmatch(device):
            raise ValueError(f"{device!r} is no device's name: 1 to 64 of A-Z a-z 0-9 . _ : -")
        if not _KEY.fullmatch(key):
            raise ValueError("a device's key has 64 hex digits")
        self._device, self._key, self._clock_ms = device, bytes.fromhex(key), clock_ms
        self._file = folder / f"numbers-{device}"
        self._boot = self._refused = 0

    def headers(self, target: str, body: bytes) -> dict[str, str]:
        """Of one message, with the next number. target: path and query. body: as it is sent. Raises OSError."""
        self._boot, sequence = self._next()
        text = f"{self._device}\n{self._boot}\n{sequence}\n{target}\n".encode() + body
        return {
            "Spoorway-Device": self._device,
            "Spoorway-Boot": str(self._boot),
            "Spoorway-Sequence": str(sequence),
            "Spoorway-Signature": hmac.digest(self._key, text, "sha256").hex()[:_SIGNATURE_DIGITS],
        }

    def refused(self) -> None:
        """The gateway knows a higher number: this boot is over, unless another process has noticed it before."""
        self._refused = self._boot

    def _next(self) -> tuple[int, int]:
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            boot, sequence = _numbers(os.pread(fd, 64, 0))
            begin = boot in (0, self._refused) or sequence >= _LARGEST  # 0: there was none
            if begin:  # seconds: above all earlier ones even where the file is lost
                boot, sequence = max(boot + 1, self._clock_ms() // 1000), 0
            text = b"%010d %010d" % (boot, sequence + 1)
            os.pwrite(fd, b"%b %08x\n" % (text, crc32(text)), 0)
            if begin:  # a power cut may take sequences back, which the gateway notices, but never a boot
                os.fsync(fd)
            return boot, sequence + 1
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked by another thread just now has a copy, which would keep it
            os.close(fd)


def _numbers(data: bytes) -> tuple[int, int]:
    """(boot, sequence) as they were written; zeros for anything else."""
    text, _, check = data.rstrip().rpartition(b" ")
    try:
        boot, sequence = text.split(b" ")
        return (int(boot), int(sequence)) if int(check, 16) == crc32(text) else (0, 0)
    except ValueError:
        return 0, 0
