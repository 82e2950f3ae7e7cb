"""A CONNECT -> whether it may stay, under which name, and what it is told. Looks into the register, touches no socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.devices import Devices, Refusal
from gateway.mqtt.config import Config
from gateway.mqtt.packets import V5, Connack, Connect, encode
from gateway.mqtt.properties import Value

UNSUPPORTED_VERSION, BAD_IDENTIFIER, BAD_LOGIN, NOT_AUTHORIZED, UNAVAILABLE = 0x84, 0x85, 0x86, 0x87, 0x88
BAD_METHOD, QUOTA, NO_RETAIN = 0x8C, 0x97, 0x9A
# Of MQTT 3.1.1, by the reason code of MQTT 5; a refusal that is not here closes without a word.
_OLD = {UNSUPPORTED_VERSION: 1, BAD_IDENTIFIER: 2, UNAVAILABLE: 3, QUOTA: 3, BAD_LOGIN: 4, NOT_AUTHORIZED: 5}
_CODES: dict[Refusal, int] = {"revoked": NOT_AUTHORIZED, "busy": UNAVAILABLE}
_LONGEST_CLIENT_ID = 256


class Admitted(NamedTuple):
    """device: the one that proved who it is; None = nobody did. assigned: the client had no identifier of its own."""

    client_id: str
    device: str | None
    expiry_s: int
    keep_alive_s: int
    assigned: bool


async def admit(
    connect: Connect, config: Config, devices: Devices | None, certificate: str | None, new_id: Callable[[], str]
) -> Admitted | int:
    """Admitted, or the reason code of the refusal. certificate: common name of a verified client certificate."""
    properties = connect.properties
    if "authentication_method" in properties:
        return BAD_METHOD
    if connect.version == V5 and connect.will is not None and connect.will.retain:
        return NO_RETAIN
    if len(connect.client_id) > _LONGEST_CLIENT_ID or (not connect.client_id and connect.version != V5 and not connect.clean):
        return BAD_IDENTIFIER
    device = await _prove(connect, devices, certificate)
    if isinstance(device, int):
        return device
    if device is None and config.identity == "required":
        return NOT_AUTHORIZED
    if connect.version == V5:
        wanted = properties.get("session_expiry_s", 0)
        expiry_s = min(wanted if isinstance(wanted, int) else 0, config.session_expiry_s)
    else:
        expiry_s = 0 if connect.clean else config.session_expiry_s
    keep_alive_s = min(connect.keep_alive_s or config.max_keep_alive_s, config.max_keep_alive_s)
    assigned = not connect.client_id
    return Admitted(connect.client_id or f"auto-{new_id()}", device, expiry_s, keep_alive_s, assigned)


async def _prove(connect: Connect, devices: Devices | None, certificate: str | None) -> str | int | None:
    """The name, None where nothing was to be proved, or the reason code of the refusal."""
    if devices is not None and certificate is not None:
        verdict = devices.certified(certificate)
        if connect.user not in (None, certificate):
            return BAD_LOGIN
    elif connect.user is not None:
        if devices is None:
            return BAD_LOGIN
        try:
            secret = (connect.password or b"").decode()
        except UnicodeDecodeError:
            return BAD_LOGIN
        verdict = await devices.login(connect.user, secret)
    elif connect.password is not None:  # MQTT 5 allows a password without a name: it proves nothing here
        return BAD_LOGIN
    else:
        return None
    return _CODES.get(verdict.refusal, BAD_LOGIN) if verdict.refusal else verdict.device


def welcome(connect: Connect, admitted: Admitted, config: Config, *, session_present: bool) -> bytes:
    """The CONNACK; in version 5 with what this server does not do, and its limits."""
    if connect.version != V5:
        return encode(Connack(0, session_present))
    properties: dict[str, Value] = {
        "receive_maximum": config.max_in_flight,
        "maximum_packet_size": config.max_packet_bytes,
        "topic_alias_maximum": config.max_topic_aliases,
        **dict.fromkeys(("retain_available", "wildcards_available", "shared_available"), 0),
        "subscription_identifiers_available": 0,
    }
    if admitted.expiry_s != connect.properties.get("session_expiry_s", 0):
        properties["session_expiry_s"] = admitted.expiry_s
    if admitted.keep_alive_s != connect.keep_alive_s:
        properties["server_keep_alive_s"] = admitted.keep_alive_s
    if admitted.assigned:
        properties["assigned_client_id"] = admitted.client_id
    return encode(Connack(0, session_present, properties), V5)


def refusal(version: int, code: int) -> bytes:
    """The CONNACK that says no. version: 0 = one that is not spoken here."""
    if version == V5:
        return encode(Connack(code), V5)
    return encode(Connack(_OLD[code])) if code in _OLD else b""
