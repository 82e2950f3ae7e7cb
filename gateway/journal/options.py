"""The options of the journal in files, by themselves: they are read where no journal is opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """segment_bytes, segment_age_ms: a segment is finished when it would grow beyond, or has been open for so long.

    min_free_bytes: the journal is full when the file system has less than this left.
    max_bytes: the budget of the journal's folder; 0 = none. The oldest segments that all have stored are deleted in time, the
    journal is full when there are none. Segments are then no larger than a quarter of it.
    waiting_bytes: the journal is full when this much waits for the disk.
    block_bytes, gzip_level: a sealed segment's blocks, before compression.
    """

    segment_bytes: int = 64 << 20
    segment_age_ms: int = 3_600_000
    min_free_bytes: int = 64 << 20
    max_bytes: int = 0
    waiting_bytes: int = 64 << 20
    block_bytes: int = 128 << 10
    gzip_level: int = 4

    @property
    def finished_bytes(self) -> int:
        """A segment does not grow beyond."""
        return min(self.segment_bytes, self.max_bytes // 4) if self.max_bytes else self.segment_bytes

    @property
    def kept_bytes(self) -> int | None:
        """What is stored already is deleted beyond this much, so that there is room for what comes until the next round."""
        return max(self.max_bytes // 2, self.max_bytes - 2 * self.finished_bytes) if self.max_bytes else None
