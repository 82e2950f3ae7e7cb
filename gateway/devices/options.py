"""The options of [gateway.devices]. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Limits of every device that has none of its own; 0 = no limit.

    burst_s: so many seconds' worth may come at once, after silence. A day's payloads may always come at once.
    claims_over_plain_http: hand secrets to any address that shows a claim code, without TLS.
    """

    payloads_per_s: float = 0
    bytes_per_s: float = 0
    payloads_per_day: float = 0
    burst_s: float = 10
    claims_over_plain_http: bool = False
