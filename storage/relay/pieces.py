"""What a request is put together from, and the contract of those who speak an upstream's language."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from protocol.seams import RawPayload
from storage.relay.upstream import Answer, Request


class Piece(NamedTuple):
    """What is sent of a payload: all of it, or one event. alone: the request it needs for itself; None = data shares one."""

    payload: RawPayload
    data: bytes = b""
    alone: Request | None = None


class Language(Protocol):
    def pieces(self, payload: RawPayload) -> list[Piece]:
        """Raises ValueError when the upstream has no words for it; the message says why."""
        ...

    def request(self, pieces: Sequence[Piece]) -> Request: ...

    def took(self, answer: Answer, pieces: Sequence[Piece]) -> bool:
        """Whether the answer says that all of them were taken."""
        ...

    def begin_anew(self) -> None:
        """The upstream thinks that it has seen later messages than ours."""
        ...


def groups(pieces: Sequence[Piece], most: int, most_bytes: int) -> Iterator[list[Piece]]:
    """In order, each for one request: at least one piece, otherwise no more than that."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        full = len(group) >= most or size + len(piece.data) > most_bytes
        if group and (full or piece.alone is not None or group[-1].alone is not None):
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece.data)
    if group:
        yield group
