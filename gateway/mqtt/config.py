"""Every option of the MQTT listener, with its default. Values only; each part checks the options it uses when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.mqtt.topics import READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Options of `[gateway.transports.mqtt]`. Sizes in bytes, times in seconds unless the name says otherwise.

    port: 0 lets the system choose.
    tls_client_ca: PEM; clients may then prove themselves by a certificate of it, whose common name is the device.
    websocket: the same port takes MQTT over WebSocket too.
    identity: "required" = nobody publishes without a password or a certificate.
    topics: filters of topics besides our own -> paths of adapters.
    presence: a device that logs in and leaves is an event.
    min_interval_ms: told to every device that listens: the least time between two of its messages; 0 = nothing is told.
    sessions: file of what outlives a connection; "" = mqtt.db in the data folder.
    max_in_flight: publishes of a connection that are not acknowledged yet, and QoS 2 ones that are not released.
    max_buffered_bytes: of packets that are not complete, all connections together.
    max_keep_alive_s: the longest silence of a connection, whatever its client asks for.
    accept_timeout_s: how long the journal may refuse before the connection is closed without an acknowledgement.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    backlog: int = 1024
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    websocket: bool = False

    identity: Literal["optional", "required"] = "optional"
    topics: Mapping[str, str] = field(default_factory=lambda: READY)
    presence: bool = True
    min_interval_ms: int = 0
    truncate_ip: bool = False

    sessions: str = ""
    session_expiry_s: int = 604_800
    max_sessions: int = 10_000

    max_connections: int = 1_024
    max_packet_bytes: int = 262_144
    max_buffered_bytes: int = 67_108_864
    max_in_flight: int = 1_024
    max_topic_aliases: int = 16
    max_keep_alive_s: int = 3_600
    connect_timeout_s: float = 10
    accept_timeout_s: float = 30
    write_timeout_s: float = 30
    stop_timeout_s: float = 10
