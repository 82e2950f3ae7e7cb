"""The journal in an Amazon Kinesis stream: the options. Nothing here imports boto3; what does is `writer`, `reader` and below.

A payload is one record; a shard is a lane. `positions` has the names and numbers, `service` the calls, `writer` hands payloads
over, `shards` and `reader` get them back, `leases` shares the shards between workers, in the rows of `table`.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.seams import ConfigurationError

# A request holds no more than this; one record alone may be larger where the stream allows it. Amazon takes 10 MiB by now.
REQUEST_RECORDS = 500
REQUEST_BYTES = 5 << 20
LARGEST_RECORD_BYTES = 10 << 20
_LEAST = {"create": 0, "delivery_ms": 100, "max_record_bytes": 1024, "waiting_bytes": 1, "poll_ms": 1, "lease_ms": 500}


@dataclass(frozen=True, slots=True)
class Config:
    """stream: its name. region, profile: "" = as the AWS command line finds them. endpoint: of services that are not Amazon's.

    create: where the stream does not exist it is made with so many shards, and the table of leases too; 0 = they must exist.
    delivery_ms: when Kinesis has refused a payload for so long, it and all that waits are kept here (see `overflow`).
    max_record_bytes: payload and key; more than 1 MiB only where the stream was set to it. waiting_bytes: the journal is full
    when so much waits for Kinesis.
    group, leases: workers of one group share the shards, in this DynamoDB table. lease_ms: a worker that has not been heard of
    for so long has lost its shards. poll_ms: how often a reader asks each of its shards for more; all readers of a shard
    together may five times a second.
    """

    stream: str = ""
    region: str = ""
    endpoint: str = ""
    profile: str = ""
    create: int = 0
    delivery_ms: int = 5_000
    max_record_bytes: int = 1_048_576
    waiting_bytes: int = 64 << 20
    group: str = "spoorway"
    leases: str = "spoorway-leases"
    lease_ms: int = 20_000
    poll_ms: int = 1_000

    def check(self) -> None:
        """Raises ConfigurationError."""
        if not self.stream:
            raise ConfigurationError('journal.kinesis.stream: no stream is named; for example stream = "spoorway"')
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"journal.kinesis.{name} = {getattr(self, name)}: it must be at least {least}")
        if self.max_record_bytes > LARGEST_RECORD_BYTES:
            raise ConfigurationError(
                f"journal.kinesis.max_record_bytes = {self.max_record_bytes}: Kinesis has at most {LARGEST_RECORD_BYTES}"
            )


__all__ = ["LARGEST_RECORD_BYTES", "REQUEST_BYTES", "REQUEST_RECORDS", "Config"]
