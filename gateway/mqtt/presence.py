"""A device that comes or goes -> the payload of a device_presence event. Pure."""

from __future__ import annotations

from typing import Literal

import orjson

from protocol.devices import DEVICE_HEADER, DEVICE_PRESENCE, IGLU_PATH
from protocol.seams import RawPayload

# Why a connection began or ended.
Reason = Literal[
    "connect", "disconnect", "will", "keep_alive", "connection_lost", "taken_over", "revoked", "gateway_stopped"
]  # fmt: skip


def presence(*, id: str, received_ms: int, device: str, reason: Reason, ip: str | None) -> RawPayload:
    """device: the one that proved who it is."""
    state = "online" if reason == "connect" else "offline"
    body = orjson.dumps({"schema": DEVICE_PRESENCE, "data": {"state": state, "reason": reason}})
    headers = ((DEVICE_HEADER, device),)
    return RawPayload(id, received_ms, "mqtt", IGLU_PATH, "p=iot", body, "application/json", headers, ip, device=device)
