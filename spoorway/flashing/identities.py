"""A name -> the secrets a board is given. A name that this tool made and whose board never got them may be used again.

So a second try needs no other name and no flag, and nobody else's device loses its secrets unasked.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from gateway.devices import Secrets
from gateway.devices.book import Kind
from gateway.devices.issuing import Issuer
from gateway.devices.limits import Limits
from protocol.seams import ConfigurationError
from spoorway.files import prepare, read_json, write_json

_PENDING = "flash-pending.json"  # name -> generation of the secrets that no board is known to have


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Identities:
    """Of one data folder."""

    def __init__(self, data: Path) -> None:
        """Raises ConfigurationError."""
        prepare(data)
        self._file = data / _PENDING
        self._issuer = Issuer(data, _now_ms, make=True)

    def close(self) -> None:
        self._issuer.close()

    def free(self, board: str) -> str:
        """BOARD-1, BOARD-2, …: the first that nobody has."""
        return next(name for number in count(1) if self._available(name := f"{board}-{number}"))

    def check(self, device: str, *, rotate: bool) -> None:
        """Before anything is written. Raises ConfigurationError."""
        if not rotate and not self._available(device):
            raise ConfigurationError(
                f"there is a device {device} already; --rotate gives this board its name and new secrets, and ends the old ones"
            )

    def secrets(self, device: str, kind: Kind, *, rotate: bool) -> Secrets:
        """New ones. Raises ConfigurationError."""
        self.check(device, rotate=rotate)
        record = self._issuer.book.record(device)
        if record is None or record.state == "revoked":
            # Said before it is done: who is killed in between leaves a name that is free, not one that is taken.
            self._mark(device, record.generation + 1 if record else 1)
            (given,) = self._issuer.add([device], kind, Limits(), again=True)
        else:
            self._mark(device, record.generation + 1)
            (given,) = self._issuer.rotate([device])
        assert isinstance(given, Secrets)
        return given

    def delivered(self, device: str) -> None:
        """The board has them."""
        pending = read_json(self._file) or {}
        if pending.pop(device, None) is not None:
            write_json(self._file, pending)

    def _available(self, device: str) -> bool:
        record = self._issuer.book.record(device)
        return record is None or (read_json(self._file) or {}).get(device) == record.generation

    def _mark(self, device: str, generation: int) -> None:
        write_json(self._file, {**(read_json(self._file) or {}), device: generation})


__all__ = ["Identities"]
