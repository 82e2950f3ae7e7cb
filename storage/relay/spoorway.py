"""Payloads -> signed requests to another Spoorway, which journals them as they are: id, time, address and all.

One line of protocol.payloads each, gzip, to /io.spoorway/relay. Only an answer that counts what was taken counts as one: a 200
of somebody in between is none.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from protocol.devices import (
    BOOT_HEADER,
    DEVICE_HEADER,
    LARGEST,
    NAME,
    RELAY_PATH,
    SEQUENCE_HEADER,
    SIGNATURE_HEADER,
    signature,
)
from protocol.payloads import to_json
from protocol.seams import ConfigurationError, RawPayload
from storage.relay.pieces import Piece
from storage.relay.upstream import Answer, Request

_GZIP_LEVEL = 6


class Signed:
    """next_boot: a boot number of which none was used before, at least its argument."""

    def __init__(self, device: str, key_file: str, base: str, next_boot: Callable[[], int], compress: bool) -> None:
        """base: the path of the upstream's URL, which is signed too. Raises ConfigurationError."""
        if not NAME.fullmatch(device):
            raise ConfigurationError(f"device: the name that the upstream knows this relay by, not {device!r}")
        self._device, self._key, self._base, self._compress = device, _key(key_file), base, compress
        self._next_boot, self._boot, self._sequence = next_boot, 0, 0

    def pieces(self, payload: RawPayload) -> list[Piece]:
        return [Piece(payload, to_json(payload) + b"\n")]

    def request(self, pieces: Sequence[Piece]) -> Request:
        if not self._boot or self._sequence >= LARGEST:
            self.begin_anew()
        self._sequence += 1
        body = b"".join([piece.data for piece in pieces])
        headers = [("Content-Type", "application/x-ndjson")]
        if self._compress:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        signed = signature(self._key, self._device, self._boot, self._sequence, self._base + RELAY_PATH, body)
        headers += [
            (DEVICE_HEADER, self._device),
            (BOOT_HEADER, str(self._boot)),
            (SEQUENCE_HEADER, str(self._sequence)),
            (SIGNATURE_HEADER, signed.hex()),
        ]
        return Request("POST", RELAY_PATH, tuple(headers), body)

    def took(self, answer: Answer, pieces: Sequence[Piece]) -> bool:
        if answer.status != 200:
            return False
        try:
            told: object = json.loads(answer.body)
        except ValueError:
            return False
        return isinstance(told, dict) and told == {"accepted": len(pieces)}

    def begin_anew(self) -> None:
        """The next message is the first of a new boot."""
        self._boot, self._sequence = self._next_boot(), 0


def _key(path: str) -> bytes:
    if not path:
        raise ConfigurationError("key_file: the file that holds this relay's key, as 64 hex digits")
    try:
        text = Path(path).expanduser().read_text("ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise ConfigurationError(f"key_file: {path}: {error.strerror}") from None
    except ValueError:  # never with its text: it is a secret
        raise ConfigurationError(f"key_file: {path} does not hold 64 hex digits") from None
    if len(key) != 32:
        raise ConfigurationError(f"key_file: {path} does not hold 64 hex digits")
    return key
