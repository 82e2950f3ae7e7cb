"""The contract of a transport, and what both share. A transport makes one attempt; it never waits, repeats or decides.

Call order: send … send, close. Only one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
_BEGIN = b'{"schema":"%b","data":[' % PAYLOAD_DATA.encode()


class Answer(NamedTuple):
    """status: as in HTTP; 0 = no answer, and `why` says what happened instead.

    taken, about: where records go one by one, how many were taken before this answer, and 1; else 0 and 0 = all of them.
    """

    status: int
    why: str = ""
    retry_after_s: float = 0.0
    taken: int = 0
    about: int = 0


class Transport(Protocol):
    def send(self, records: Sequence[bytes], sent_ms: int, timeout_s: float) -> Answer:
        """timeout_s: for each step on the network. Raises nothing."""
        ...

    def close(self) -> None: ...


def body_of(records: Sequence[bytes], sent_ms: int) -> bytes:
    """payload_data. `stm` is added here, because it is the moment of this attempt."""
    stamp = b',"stm":"%d"}' % sent_ms
    return _BEGIN + b",".join([record[:-1] + stamp for record in records]) + b"]}"


def transport_for(url: str, **options: object) -> Transport:
    """http, https: spoorway_tracker.http; mqtt, mqtts: spoorway_tracker.mqtt. Raises ValueError for another, and for wrong
    options."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        from spoorway_tracker.http import Http  # imported by who uses it: half of an import's time

        return Http(url, **options)  # type: ignore[arg-type]  # the options are the transport's own
    if scheme in ("mqtt", "mqtts"):
        from spoorway_tracker.mqtt import Mqtt

        return Mqtt(url, **options)  # type: ignore[arg-type]
    raise ValueError(f"{url!r}: not an address that begins with http://, https://, mqtt:// or mqtts://")
