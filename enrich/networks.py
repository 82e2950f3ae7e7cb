"""The search tree of a MaxMind DB file: an address -> the number of the record that its network has.

Many networks share a record, so what was made of a record can be kept by its number. Pure, and as calm about damaged bytes as
about good ones: a wrong number is the worst that comes out. (The package's compiled reader dies of them, with the process.)
Source: the MaxMind DB file format specification 2.0.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# Of an address by version: all its bits, and the upper ones, behind which the walk can begin where it was before.
_BITS = {4: 32, 6: 128}
_UPPER = {4: 16, 6: 48}
_MOST_KEPT = 4_096
_OCTETS = {str(number): number for number in range(256)}


def version_and_number(address: str) -> tuple[int, int]:
    """What `ipaddress` reads from an address; it takes long over the four octets that most are. Raises ValueError."""
    try:
        first, second, third, fourth = [_OCTETS[octet] for octet in address.split(".")]
    except (KeyError, ValueError):
        read = ipaddress.ip_address(address)
        return read.version, int(read)
    return 4, first << 24 | second << 16 | third << 8 | fourth


class Tree:
    """data: the whole file. node_count, record_size (24, 28 or 32 bits), ip_version: as its metadata has them."""

    def __init__(self, data: bytes, node_count: int, record_size: int, ip_version: int) -> None:
        self._data, self._nodes, self._bits = data, node_count, record_size
        self._holds_6 = ip_version == 6
        # In a tree of IPv6 addresses IPv4 ones are those that begin with 96 zeros.
        self._roots = {4: self._walk(0, 0, 96) if self._holds_6 else 0, 6: 0}
        self._upper = lru_cache(_MOST_KEPT)(self._walk_upper)

    def record(self, address: str) -> int | None:
        """Larger than node_count; None where the file knows nothing. Raises ValueError for what is no address."""
        version, number = version_and_number(address)
        if version == 6 and not self._holds_6:
            return None
        rest = _BITS[version] - _UPPER[version]
        found = self._walk(self._upper(version, number >> rest), number, rest)
        return found if found > self._nodes else None

    def _walk_upper(self, version: int, upper: int) -> int:
        return self._walk(self._roots[version], upper, _UPPER[version])

    def _walk(self, node: int, bits: int, count: int) -> int:
        """Down from `node` along the lowest `count` bits, the highest of them first; ends at a record."""
        data, nodes, size = self._data, self._nodes, self._bits
        width = size // 4  # bytes of a node, which is two numbers
        while count and node < nodes:
            count -= 1
            both = int.from_bytes(data[node * width : node * width + width], "big")
            if bits >> count & 1:
                node = both & (1 << size) - 1
            elif size == 28:  # the upper four bits of the left number lie behind its others
                node = both >> 32 | (both >> 28 & 0xF) << 24
            else:
                node = both >> size
        return node
