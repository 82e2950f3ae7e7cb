"""The walk down a MaxMind DB file's tree beside the package's own, with numbers of every size."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

import maxminddb
import pytest
from mmdb_writer import MMDBWriter, TreeWriter
from netaddr import IPNetwork, IPSet

from enrich.networks import Tree, version_and_number


def networks(dice: random.Random, bits: int) -> list[IPNetwork]:
    return [IPNetwork((dice.getrandbits(bits), dice.randrange(4, bits // 2 + 9)), 4 if bits == 32 else 6).cidr for _ in range(60)]


@pytest.mark.parametrize("ip_version", [4, 6])
@pytest.mark.parametrize("record_size", [24, 28, 32])
def test_address_has_the_record_that_the_package_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_size: int, ip_version: int
) -> None:
    counted = TreeWriter._adjust_record_size

    def adjusted(self: TreeWriter) -> None:
        counted(self)  # raises the size only as far as this small tree needs
        self.record_size = record_size
        self.data_offset = record_size * 2 / 8 * self._node_counter

    monkeypatch.setattr(TreeWriter, "_adjust_record_size", adjusted)
    dice = random.Random(record_size + ip_version)
    writer = MMDBWriter(ip_version, "Any", ipv4_compatible=ip_version == 6)
    known = networks(dice, 32) + (networks(dice, 128) if ip_version == 6 else [])
    for network in known:
        writer.insert_network(IPSet([network]), {"name": str(network)})
    path = tmp_path / "any.mmdb"
    writer.to_db_file(str(path))

    with maxminddb.open_database(path, maxminddb.MODE_MEMORY) as reader:
        about = reader.metadata()
        assert (about.record_size, about.ip_version) == (record_size, ip_version)
        tree = Tree(path.read_bytes(), about.node_count, about.record_size, about.ip_version)
        names: dict[int, object] = {}
        for bits, make in ((32, ipaddress.IPv4Address), (128, ipaddress.IPv6Address))[: 1 + (ip_version == 6)]:
            ours = [network for network in known if network.version == (4 if bits == 32 else 6)]
            edges = [edge + step for network in ours for edge in (network.first, network.last) for step in (-1, 0, 1)]
            for number in [*edges, *(dice.getrandbits(bits) for _ in range(300))]:
                address = make(number % (1 << bits))
                record, found = reader.get(address), tree.record(str(address))
                assert (found is None) == (record is None), address
                if found is not None:
                    assert names.setdefault(found, record) == record, address
        assert len(names) > 20


@pytest.mark.parametrize(("record_size", "node"), [(24, "abcdef 123456"), (28, "bcdef1 a2 345678"), (32, "abcdef12 34567890")])
def test_numbers_have_all_their_bits(record_size: int, node: str) -> None:
    """Small trees have small numbers: here is a node with large ones."""
    tree = Tree(bytes.fromhex(node), 1, record_size, 4)
    found = [tree.record(address) for address in ("1.2.3.4", "200.2.3.4")]
    assert found == {24: [0xABCDEF, 0x123456], 28: [0xABCDEF1, 0x2345678], 32: [0xABCDEF12, 0x34567890]}[record_size]


def test_tree_of_old_addresses_knows_no_new_ones(tmp_path: Path) -> None:
    writer = MMDBWriter(4, "Any")
    writer.insert_network(IPSet(["0.0.0.0/1"]), {"name": "half"})
    path = tmp_path / "any.mmdb"
    writer.to_db_file(str(path))
    tree = Tree(path.read_bytes(), 1, 24, 4)
    assert tree.record("1.2.3.4") is not None
    assert tree.record("::1.2.3.4") is None


ADDRESSES = (
    "0.0.0.0", "255.255.255.255", "203.0.113.9", "1.2.3.256", "01.2.3.4", "1.2.3.00", "1.2.3", "1.2.3.4.5", "1.2.3.", "1.2.3.4 ",
    "1.2.3.+4", "1.2.3.\u0664", "1.2.3.\xb2", "203.0.113.x", "", "unknown", "::", "::ffff:1.2.3.4", "2001:db8::9", "fe80::1%eth0",
    "::x",
)  # fmt: skip


@pytest.mark.parametrize("text", ADDRESSES, ids=ascii)
def test_address_is_what_the_library_takes_for_one(text: str) -> None:
    """The quick way with four octets must take no more and no less."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        with pytest.raises(ValueError):
            version_and_number(text)
    else:
        assert version_and_number(text) == (address.version, int(address))
