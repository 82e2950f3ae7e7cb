"""MQTT messages -> payloads: an ingest-only listener for MQTT 3.1.1 and 5, so that a sensor needs no broker.

A PUBACK or PUBREC means that the message is on disk. Nothing is passed on from one client to another; what comes down is the time
and hints to the device itself. The parts live in gateway/mqtt; docs/mqtt.md is the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address

from gateway import stamps
from gateway.devices import Devices
from gateway.mqtt.config import Config
from gateway.mqtt.counters import Counters
from gateway.mqtt.listener import Listener
from gateway.transports import Accept

__all__ = ["Config", "Counters", "Plugin"]

log = logging.getLogger(__name__)


class Plugin:
    """Call order: see gateway.transports. counters: live; addresses and urls: known after start."""

    def __init__(
        self,
        config: Config,
        devices: Devices | None = None,
        *,
        clock_ms: Callable[[], int] = stamps.now_ms,
        new_id: Callable[[], str] = stamps.new_id,
    ) -> None:
        """Raises ConfigurationError. devices: None = no connection can prove a device.

        clock_ms: milliseconds since 1970. new_id: payload ids, by default random ones.
        """
        self.counters = Counters()
        self._config = config
        self._listener = Listener(config, devices, self.counters, clock_ms, new_id)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of every socket it listens on."""
        return self._listener.addresses

    @property
    def scheme(self) -> str:
        return "mqtts" if self._config.tls_certificate else "mqtt"

    async def start(self, accept: Accept) -> None:
        await self._listener.open(accept)
        if not _is_loopback(self._config.host):
            if not self._config.tls_certificate:
                log.warning("mqtt listens beyond this machine without TLS: names, passwords and events can be read on the way")
            if self._config.identity == "optional":
                log.warning('mqtt listens beyond this machine with identity = "optional": anybody may publish')

    async def stop(self) -> None:
        await self._listener.close()

    def hint(self, min_interval_ms: int, device: str | None = None) -> int:
        """Asks a device, or all, for so much time between two messages; to how many connections it was sent."""
        return self._listener.tell(device, b'{"min_interval_ms":%d}' % min_interval_ms)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
