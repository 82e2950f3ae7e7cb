"""The journal -> the first event that a device proved to be its own. Reads from where the journal ended when watching began."""

from __future__ import annotations

import time
from pathlib import Path

from gateway.journal.lanes import lanes, segments
from gateway.journal.reader import FileReader
from protocol.seams import Cursor, Position, RawPayload
from spoorway.files import journal_folder, read_json, running

_LOOK_EVERY_S = 0.1


def gateway_runs(data: Path) -> bool:
    return read_json(running(data)) is not None


class Watch:
    """Used from one thread. Call order: made before the device can send; `first` once; `close`."""

    def __init__(self, data: Path, after_ms: int = 0) -> None:
        """after_ms: from now; what was received before does not count. Raises PermanentError."""
        self._reader = FileReader(journal_folder(data))
        # Old events need not be read: of each lane the newest segment is enough, and of it what comes from now on.
        self._since_ms = time.time_ns() // 1_000_000 + after_ms
        self._cursor: Cursor = {}
        for lane in lanes(journal_folder(data)):
            plain, sealed = segments(lane)
            self._cursor[lane.name] = Position(max((*plain, *sealed), default=0), 0, 0)

    def first(self, device: str, limit_s: float) -> RawPayload | None:
        """None when none came in time. Raises PermanentError."""
        end = time.monotonic() + limit_s
        while True:
            chunk = self._reader.read(self._cursor)
            self._cursor = chunk.cursor
            for item in chunk.items:
                if isinstance(item, RawPayload) and item.device == device and item.received_ms >= self._since_ms:
                    return item
            if not chunk.more:
                if time.monotonic() > end:
                    return None
                time.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        self._reader.close()


__all__ = ["Watch", "gateway_runs"]
