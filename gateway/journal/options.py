"""The options of the journal in files, by themselves: they are read where no journal is opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """segment_bytes, segment_age_ms: a segment is finished when it would grow beyond, or has been open for so long.

    min_free_bytes: the journal is full when the file system has less than this left.
    max_bytes: the journal is full when its folder holds this much; 0 = no quota.
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
