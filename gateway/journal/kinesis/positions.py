"""Sequence numbers <-> positions, shards -> lanes, payloads -> keys. Pure.

Kinesis numbers the records of a shard with up to 186 bits, rising but not counting. A position has three numbers that every
store can keep as 64 signed bits: the number's three parts of 63 bits, highest first, so that positions compare as numbers do.
"""

from __future__ import annotations

import hashlib

from protocol.seams import PermanentError, Position, RawPayload

_BITS = 63
_PART = (1 << _BITS) - 1
_LONGEST_KEY = 256


def position_of(number: str) -> Position:
    """The position after the record of this sequence number. Raises PermanentError when it is none that fits."""
    value = int(number) if number.isascii() and number.isdigit() else -1
    if value <= 0 or value >> 3 * _BITS:
        raise PermanentError(f"Kinesis gave the sequence number {number!r}: not one of 1 to {3 * _BITS} bits")
    return Position(value >> 2 * _BITS, value >> _BITS & _PART, value & _PART)


def number_of(position: Position) -> str:
    """The sequence number of the record before a position that is not START."""
    high, middle, low = position
    return str(high << 2 * _BITS | middle << _BITS | low)


def stream_name(arn: str, created_s: int) -> str:
    """The first part of the lanes' names. A stream that was deleted and made anew has the same ARN, and is another."""
    return hashlib.sha256(f"{arn}/{created_s}".encode()).hexdigest()[:12]


def lane_of(stream: str, shard_id: str) -> str:
    """stream: of `stream_name`."""
    return f"{stream}-{shard_id.removeprefix('shardId-').lower()}"


def key_of(payload: RawPayload) -> str:
    """What must stay in order has the same key: a device's payloads, or a browser's; all others spread by their id."""
    key = payload.device or payload.network_userid or payload.id
    return key if len(key) <= _LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()


__all__ = ["key_of", "lane_of", "number_of", "position_of", "stream_name"]
