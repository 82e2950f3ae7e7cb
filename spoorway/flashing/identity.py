"""Who a board is -> the bytes it keeps: a block in its EEPROM, or a JSON file on MicroPython. docs/devices.md, "Provisioning".

Pure. The block has no counter in it: what a board counts is its tracker's own.
"""

from __future__ import annotations

import json
from binascii import crc_hqx
from typing import NamedTuple
from urllib.parse import urlsplit

from protocol.devices import NAME
from protocol.seams import ConfigurationError

RESERVED = 192  # bytes of the EEPROM
FILE = "spoorway.json"
_MARK = b"SW\x01"
_NAME, _KEY, _PASSWORD, _HOST, _PORT, _WIFI, _PASSPHRASE = range(1, 8)
_LONGEST = RESERVED - len(_MARK) - 1 - 2
_DEFAULT_PORTS = {"http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883}


class Identity(NamedTuple):
    """key: 64 hex digits. url: of the gateway; "" = it speaks over the cable. wifi: name and passphrase. "" = has none."""

    device: str
    key: str = ""
    password: str = ""
    url: str = ""
    wifi: tuple[str, str] = ("", "")

    def checked(self) -> Identity:
        """Itself. Raises ConfigurationError."""
        if not NAME.fullmatch(self.device):
            raise ConfigurationError(f"{self.device!r} is no device name; see docs/devices.md")
        if self.url:
            _host(self.url)
        ssid, passphrase = (text.encode() for text in self.wifi)
        if len(ssid) > 32 or (passphrase and not 8 <= len(passphrase) <= 63):
            raise ConfigurationError("a Wi-Fi has a name of at most 32 bytes and a passphrase of 8 to 63")
        return self


def block(identity: Identity) -> bytes:
    """What lies at the start of the EEPROM. Raises ConfigurationError."""
    identity.checked()
    fields = [(_NAME, identity.device.encode()), (_KEY, bytes.fromhex(identity.key)), (_PASSWORD, identity.password.encode())]
    if identity.url:
        host, port = _host(identity.url)
        fields += [(_HOST, host.encode()), (_PORT, port.to_bytes(2, "big"))]
    fields += [(_WIFI, identity.wifi[0].encode()), (_PASSPHRASE, identity.wifi[1].encode())]
    body = b"".join(bytes((tag, len(value))) + value for tag, value in fields if value)
    if len(body) > _LONGEST:
        raise ConfigurationError(
            f"name, secrets and addresses take {len(body)} bytes; a board has {_LONGEST} for them. Shorten the name or the host"
        )
    whole = _MARK + bytes((len(body),)) + body
    return whole + crc_hqx(whole, 0xFFFF).to_bytes(2, "big")


def document(identity: Identity) -> bytes:
    """What lies in `spoorway.json`. Raises ConfigurationError."""
    identity.checked()
    found: dict[str, object] = {"version": 1, "device": identity.device}
    found |= {name: value for name in ("key", "password", "url") if (value := getattr(identity, name))}
    if identity.wifi[0]:
        found["wifi"] = list(identity.wifi)
    return json.dumps(found).encode() + b"\n"


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not port or not parts.hostname or len(parts.hostname) > 63 or parts.path.strip("/") or parts.query:
        raise ConfigurationError(f"the gateway's address is such as mqtt://192.168.1.10:1883 or http://HOST:8080, not {url!r}")
    return parts.hostname, port


__all__ = ["FILE", "RESERVED", "Identity", "block", "document"]
