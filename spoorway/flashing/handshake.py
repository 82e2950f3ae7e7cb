"""The identity block -> a board's EEPROM, over the serial line of a sketch that runs. docs/devices.md, "Provisioning".

One line, one answer; each line may be sent twice and means the same. What else the board says meanwhile is skipped.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable
from typing import Protocol

from protocol.seams import TransientError

PIECE = 8  # bytes a line: such a line fits in the receive buffer of every board
_ASK_EVERY_S = 0.3
_ASKED = 10  # times without an answer, then a pause
_ANSWER_S = 1.0
_TRIES = 3
_ANSWER = re.compile(rb"@(p,(0|[1-9][0-9]{0,2}),([0-9a-f]{4})?)\*([0-9a-f]{4})")


class Stream(Protocol):
    """An open port: `read` waits some tenths of a second at most, and gives b"" when there was nothing."""

    def read(self, size: int = 1, /) -> bytes: ...
    def write(self, data: bytes, /) -> int | None: ...


class NoAnswerError(TransientError):
    """Nobody speaks this protocol at the other end, or stopped doing so."""


class Handshake:
    """share: told how much of a block has arrived, 0 to 1. clock_s: monotonic."""

    def __init__(self, port: Stream, clock_s: Callable[[], float], share: Callable[[float], None] = lambda share: None) -> None:
        self._port, self._clock_s, self._share = port, clock_s, share
        self._rest = b""

    def settle(self, limit_s: float = 2.5) -> None:
        """Returns when the board has said a line, or after limit_s: bytes that reach a boot loader keep some from ending."""
        end, said = self._clock_s() + limit_s, b""
        while b"\n" not in said and self._clock_s() < end:
            said = (said + self._port.read(256))[-4_096:]

    def present(self, limit_s: float, wanted: bytes | None = None) -> bytes | None:
        """The last two bytes of the block the board has; None where it has none. wanted: what they are to be in the end.

        Raises NoAnswerError after limit_s.
        """
        end, asked = self._clock_s() + limit_s, 0
        while self._clock_s() < end:
            answer = self._answer(0, b"", _ASK_EVERY_S, wanted)
            if answer is not None:
                return bytes.fromhex(answer.decode()) or None
            asked += 1
            if asked % _ASKED == 0:  # a boot loader that was slower than we thought may be listening still
                self.settle()
        raise NoAnswerError(
            f"the board did not answer for {limit_s:g} s: does its sketch use the Spoorway library on this port, at this speed?"
        )

    def write(self, block: bytes, limit_s: float = 10.0) -> None:
        """Returns once the board has the block, read back and whole. Raises NoAnswerError, TransientError."""
        self.present(limit_s)
        for offset in range(0, len(block), PIECE):
            piece = block[offset : offset + PIECE]
            self._write(offset, piece)
            self._share((offset + len(piece)) / len(block))
        if self.present(limit_s, block[-2:].hex().encode()) != block[-2:]:
            raise TransientError("the board has another block than the one it was given; is its EEPROM worn out?")

    def _write(self, offset: int, piece: bytes) -> None:
        wanted, found = b"%04x" % crc_hqx(piece, 0xFFFF), None
        for _ in range(_TRIES):
            found = self._answer(offset, piece, _ANSWER_S, wanted)
            if found == wanted:
                return
        if found is None:
            raise NoAnswerError(f"the board stopped answering at byte {offset} of its block")
        if not found:
            raise TransientError(f"the board refuses byte {offset} of its block: it keeps less than docs/devices.md says")
        raise TransientError(f"byte {offset} of the board's block reads back as something else; is its EEPROM worn out?")

    def _answer(self, offset: int, piece: bytes, limit_s: float, wanted: bytes | None) -> bytes | None:
        """SUM of the answer to one line; b"" is one too. None: there was none in time.

        wanted: an answer that says something else may belong to an earlier line, so it counts only if no other follows.
        """
        line = b"!p,%d,%s" % (offset, piece.hex().encode())
        self._port.write(b"%s*%04x\n" % (line, crc_hqx(line[1:], 0xFFFF)))
        end, other = self._clock_s() + limit_s, None
        while self._clock_s() < end:
            *lines, self._rest = (self._rest + self._port.read(256)).split(b"\n")
            self._rest = self._rest[-4_096:]
            for found in (found for each in lines for found in _ANSWER.finditer(each)):
                if int(found[2]) != offset or crc_hqx(found[1], 0xFFFF) != int(found[4], 16):
                    continue
                other = found[3] or b""
                if wanted is None or other == wanted:
                    return other
        return other


__all__ = ["PIECE", "Handshake", "NoAnswerError", "Stream"]
