"""Socket peer and forwarding header -> the client's address, or None when nobody we trust says what it is.

The header is read from the right, the end our own proxies wrote, through addresses that are proxies of ours;
what stands left of the first stranger is hearsay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol

from protocol.seams import ConfigurationError

Address = IPv4Address | IPv6Address

# Longest text of an address with zone, brackets, quotes and port; anything longer is none.
_LONGEST = 128


class Headers(Protocol):
    def getall(self, key: str, default: tuple[str, ...]) -> Sequence[str]: ...


class ClientAddresses:
    def __init__(self, trusted_proxies: Sequence[str], forwarded_header: str, *, truncate: bool) -> None:
        """trusted_proxies: networks such as 10.0.0.0/8 or single addresses. Raises ConfigurationError."""
        self._trusted: list[IPv4Network | IPv6Network] = []
        for text in trusted_proxies:
            try:
                self._trusted.append(ip_network(text))
            except ValueError as error:
                raise ConfigurationError(f"trusted_proxies: {error}; write networks like 10.0.0.0/8 or ::1/128") from error
        self._header = forwarded_header.lower()
        self._truncate = truncate
        self._known = lru_cache(maxsize=4096)(self._judge)

    def of(self, peer: str | None, headers: Headers) -> str | None:
        """The address to record for a request that came from `peer`."""
        found, trusted = self._known(peer or "")
        if not trusted or not (values := headers.getall(self._header, ())):
            return found
        for hop in reversed(",".join(values).split(",")):
            text = _forwarded_for(hop) if self._header == "forwarded" else hop.strip()
            found, trusted = self._known(text) if len(text) <= _LONGEST else (None, False)
            if not trusted:
                break
        return found

    def trusts(self, peer: str) -> bool:
        """Whether it is a proxy of ours."""
        return self._known(peer)[1]

    def _judge(self, text: str) -> tuple[str | None, bool]:
        """(the address as it is recorded or None, whether it is a proxy of ours)."""
        address = parse_address(text)
        if address is None:
            return None, False
        trusted = any(address in network for network in self._trusted)
        return str(truncate(address) if self._truncate else address), trusted


def parse_address(text: str) -> Address | None:
    """Also with port, brackets, quotes or zone. An IPv4 address inside IPv6 is the IPv4 address."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def truncate(address: Address) -> Address:
    """The network's first address: /24 of IPv4, /48 of IPv6."""
    if isinstance(address, IPv4Address):
        return IPv4Address(int(address) & (0xFFFFFF << 8))
    return IPv6Address(int(address) & (((1 << 48) - 1) << 80))


def _forwarded_for(element: str) -> str:
    """The `for` of one element of a Forwarded header; "" when it has none. Source: RFC 7239."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip()
    return ""
