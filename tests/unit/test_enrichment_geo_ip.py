"""geo_ip with MaxMind DB files that each test writes: every kind of record, reloads, damage, and addresses of every sort."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from enrich.enrichments import RawEvent, anon_ip, geo_ip
from enrich.lengths import LIMITS, Lengths
from enrich.validators import Validators
from protocol.schemas import bundled
from protocol.seams import ConfigurationError, Event, RawPayload
from spoorway.world import World

ASN = "iglu:com.snowplowanalytics.snowplow/asn/jsonschema/1-0-1"


def raw() -> RawEvent:
    """Of a payload of its own: the events of one are looked up in the same files."""
    return RawEvent(RawPayload("0" * 32, 0, "http", "/i"), 0, {})


RAW = raw()

# A record as GeoIP2 and GeoLite2 have it, of a place that does not exist.
CITY = {
    "city": {"geoname_id": 1, "names": {"de": "Musterstadt", "en": "Sampleton"}},
    "continent": {"code": "EU", "names": {"en": "Europe"}},
    "country": {"iso_code": "GB", "names": {"en": "United Kingdom"}},
    "location": {"latitude": 51.5142, "longitude": -0.0931, "time_zone": "Europe/London", "accuracy_radius": 10},
    "postal": {"code": "SA1"},
    "subdivisions": [{"iso_code": "ENG", "names": {"en": "England"}}, {"iso_code": "SMP", "names": {"en": "Sampleshire"}}],
}
# And as DB-IP Lite has it.
FLAT = {
    "country_code": "AU",
    "state1": "Queensland",
    "state2": "",
    "city": "Sample Beach",
    "postcode": "",
    "latitude": -27.4679,
    "longitude": 153.0281,
    "timezone": "",
}


def mmdb(path: Path, records: Mapping[str, Any], type_: str = "GeoIP2-City", version: int = 6) -> Path:
    """A database of these records, by network."""
    writer = MMDBWriter(version, type_, languages=["en"], description="made by a test", ipv4_compatible=version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


class Clock:
    """Seconds; `later()` is when files are looked at again."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def later(self) -> None:
        self.now += 3_600


def geo(*city: Path, clock: Clock | None = None, **options: Any) -> geo_ip.Plugin:
    return geo_ip.Plugin(geo_ip.Config(city=tuple(map(str, city)), **options), World(clock or Clock()))


def found(plugin: geo_ip.Plugin, ip: str, **event: str) -> dict[str, Any]:
    columns = plugin(cast(Event, {"user_ipaddress": ip, **event}), raw())
    assert isinstance(columns, dict)
    return dict(columns)


def test_nested_record_fills_the_columns(tmp_path: Path) -> None:
    plugin = geo(mmdb(tmp_path / "c.mmdb", {"192.0.2.0/25": CITY, "2001:db8::/48": CITY}))
    expected = {
        "geo_country": "GB",
        "geo_region": "SMP",
        "geo_region_name": "Sampleshire",
        "geo_city": "Sampleton",
        "geo_zipcode": "SA1",
        "geo_timezone": "Europe/London",
        "geo_latitude": 51.5142,
        "geo_longitude": -0.0931,
    }
    for ip in ("192.0.2.1", "192.0.2.127", "2001:db8::7", "2001:db8:0:ffff::"):
        assert found(plugin, ip) == expected
    for ip in ("192.0.2.128", "2001:db8:1::", "::1", "0.0.0.0"):
        assert found(plugin, ip) == {}


def test_flat_record_fills_what_it_knows(tmp_path: Path) -> None:
    assert found(geo(mmdb(tmp_path / "c.mmdb", {"198.51.100.0/24": FLAT}, "city ipv4", 4)), "198.51.100.9") == {
        "geo_country": "AU",
        "geo_region_name": "Queensland",
        "geo_city": "Sample Beach",
        "geo_latitude": -27.4679,
        "geo_longitude": 153.0281,
    }


def test_country_alone_is_a_place(tmp_path: Path) -> None:
    nested, flat = {"country": {"iso_code": "SE"}}, {"country_code": "NO"}
    plugin = geo(mmdb(tmp_path / "c.mmdb", {"192.0.2.0/25": nested, "192.0.2.128/25": flat}, "GeoLite2-Country"))
    assert [found(plugin, ip) for ip in ("192.0.2.1", "192.0.2.200")] == [{"geo_country": "SE"}, {"geo_country": "NO"}]


def test_name_that_fits_no_column_is_left_out(tmp_path: Path) -> None:
    record = {"country_code": "AUS", "city": "Q" * 76, "state1": "R" * 100, "postcode": "😀" * 8}
    assert found(geo(mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": record})), "192.0.2.1") == {"geo_region_name": "R" * 100}


def test_one_file_for_each_version_of_addresses(tmp_path: Path) -> None:
    four = mmdb(tmp_path / "4.mmdb", {"192.0.2.0/24": {"country_code": "AU"}}, "city ipv4", 4)
    six = mmdb(tmp_path / "6.mmdb", {"2001:db8::/32": {"country_code": "NZ"}}, "city ipv6", 6)
    for plugin in (geo(four, six), geo(six, four)):
        assert found(plugin, "192.0.2.1") == {"geo_country": "AU"}
        assert found(plugin, "2001:db8::1") == {"geo_country": "NZ"}


def test_first_file_that_knows_the_address_says_it(tmp_path: Path) -> None:
    mine = mmdb(tmp_path / "mine.mmdb", {"192.0.2.0/28": {"country_code": "CH"}})
    theirs = mmdb(tmp_path / "theirs.mmdb", {"192.0.2.0/24": {"country_code": "DE", "city": "Nowhere"}})
    plugin = geo(mine, theirs)
    assert found(plugin, "192.0.2.1") == {"geo_country": "CH"}
    assert found(plugin, "192.0.2.77") == {"geo_country": "DE", "geo_city": "Nowhere"}


def every_kind(tmp_path: Path) -> dict[str, Any]:
    asn = {"autonomous_system_number": 64_496, "autonomous_system_organization": "Sample Net"}
    files = {
        "isp": mmdb(tmp_path / "i.mmdb", {"192.0.2.0/24": {"isp": "Sample ISP", "organization": "Sample Org"}}, "GeoIP2-ISP"),
        "domain": mmdb(tmp_path / "d.mmdb", {"192.0.2.0/24": {"domain": "sample.example"}}, "GeoIP2-Domain"),
        "connection_type": mmdb(
            tmp_path / "t.mmdb", {"192.0.2.0/24": {"connection_type": "Cable/DSL"}}, "GeoIP2-Connection-Type"
        ),
        "asn": mmdb(tmp_path / "a.mmdb", {"192.0.2.0/24": asn}, "GeoLite2-ASN"),
    }
    return {kind: (str(path),) for kind, path in files.items()}


def test_network_columns_and_entity(tmp_path: Path) -> None:
    columns = found(geo(**every_kind(tmp_path)), "192.0.2.1")
    assert columns == {
        "ip_isp": "Sample ISP",
        "ip_organization": "Sample Org",
        "ip_domain": "sample.example",
        "ip_netspeed": "Cable/DSL",
        "derived_contexts": [{"schema": ASN, "data": {"number": 64_496, "organization": "Sample Net"}}],
    }
    assert not Validators(bundled).reasons(ASN, columns["derived_contexts"][0]["data"], "")


@pytest.mark.parametrize(("platform", "expected"), [("web", True), ("srv", None), ("iot", None), (None, True)])
def test_networks_of_robots_are_said_except_of_servers(tmp_path: Path, platform: str | None, expected: bool | None) -> None:
    event = {"platform": platform} if platform else {}
    plugin = geo(**every_kind(tmp_path), bot_asns=frozenset({64_496}))
    assert found(plugin, "192.0.2.1", **event)["derived_contexts"][0]["data"].get("likelyBot") is expected
    other = geo(**every_kind(tmp_path), bot_asns=frozenset({64_497}))
    assert found(other, "192.0.2.1", **event)["derived_contexts"][0]["data"].get("likelyBot") is (
        None if expected is None else False
    )


def test_entity_of_the_isp_file_is_what_the_asn_file_does_not_know(tmp_path: Path) -> None:
    both = {"isp": "X", "autonomous_system_number": 64_500, "autonomous_system_organization": "Of ISP"}
    isp = mmdb(tmp_path / "i.mmdb", {"192.0.2.0/24": both}, "GeoIP2-ISP")
    asn = mmdb(tmp_path / "a.mmdb", {"192.0.2.0/25": {"autonomous_system_number": 64_501}}, "GeoLite2-ASN")
    plugin = geo(isp=(str(isp),), asn=(str(asn),))
    data = [found(plugin, ip)["derived_contexts"][0]["data"] for ip in ("192.0.2.1", "192.0.2.200")]
    assert data == [{"number": 64_501, "organization": None}, {"number": 64_500, "organization": "Of ISP"}]


def test_nothing_is_looked_up_without_a_file() -> None:
    assert found(geo(), "192.0.2.1") == {}


def test_truncated_address_is_looked_up_and_a_masked_one_is_not(tmp_path: Path) -> None:
    plugin = geo(mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": CITY}))
    assert found(plugin, "192.0.2.0")["geo_city"] == "Sampleton"
    masked = anon_ip.Plugin(anon_ip.Config(), World())({"user_ipaddress": "192.0.2.1"}, RAW)
    assert masked == {"user_ipaddress": "192.0.2.x"}
    assert found(plugin, "192.0.2.x") == {}


def test_events_of_one_payload_may_have_addresses_of_their_own(tmp_path: Path) -> None:
    """A server-side tracker sends `ip` with each."""
    plugin = geo(mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": {"country_code": "AU"}, "198.51.100.0/24": {"country_code": "NZ"}}))
    said = [plugin({"user_ipaddress": ip}, RAW) for ip in ("192.0.2.1", "198.51.100.1", "10.0.0.1", "192.0.2.1")]
    assert said == [{"geo_country": "AU"}, {"geo_country": "NZ"}, {}, {"geo_country": "AU"}]


@pytest.mark.parametrize(
    ("octets", "segments", "four", "eight"),
    [
        (1, 5, "192.0.2.x", "fe80:0:0:x:x:x:x:x"),
        (2, 1, "192.0.x.x", "fe80:0:0:0:0:0:0:x"),
        (4, 8, "x.x.x.x", "x:x:x:x:x:x:x:x"),
    ],
)
def test_address_is_masked_from_its_end(octets: int, segments: int, four: str, eight: str) -> None:
    mask = anon_ip.Plugin(anon_ip.Config(octets, segments), World())
    for ip, masked in {"192.0.2.1": four, "fe80::1": eight, "fe80::1%eth0": eight}.items():
        assert mask({"user_ipaddress": ip}, RAW) == {"user_ipaddress": masked}
    assert [mask({"user_ipaddress": ip}, RAW) for ip in ("unknown", "1.2.3", "::x")] == [{}] * 3


# Files that change


def test_new_file_is_taken(tmp_path: Path) -> None:
    clock, path = Clock(), mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": {"country_code": "AU"}})
    plugin = geo(path, clock=clock)
    assert found(plugin, "192.0.2.1") == {"geo_country": "AU"}
    mmdb(tmp_path / "new.mmdb", {"192.0.2.0/24": {"country_code": "NZ", "city": "New"}}).replace(path)
    assert found(plugin, "192.0.2.1") == {"geo_country": "AU"}
    clock.later()
    assert found(plugin, "192.0.2.1") == {"geo_country": "NZ", "geo_city": "New"}


def test_last_good_file_stays_when_the_new_one_is_damaged_or_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, path = Clock(), mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": CITY})
    plugin = geo(path, clock=clock)
    whole, before = path.read_bytes(), found(plugin, "192.0.2.1")
    for damage in (b"", b"not a database", whole[: len(whole) // 2]):
        path.write_bytes(damage)  # in place, as cp does it
        clock.later()
        assert found(plugin, "192.0.2.1") == before
        assert found(plugin, "192.0.2.2") == before  # not from what was remembered of the address either
    assert "what was read before stays in use" in caplog.text
    path.unlink()
    clock.later()
    assert found(plugin, "192.0.2.3") == before
    mmdb(path, {"192.0.2.0/24": {"country_code": "NZ"}})
    clock.later()
    assert found(plugin, "192.0.2.1") == {"geo_country": "NZ"}


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xab\xcd\xefMaxMind.com", b"\xab\xcd\xefMaxMind.com\xe0", b"\xab\xcd\xefMaxMind.com\xff\xff"]
)
def test_file_that_is_no_database_stops_the_start(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.mmdb").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"c\.mmdb: not a MaxMind DB file"):
        geo(tmp_path / "c.mmdb")


def test_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.mmdb: .*No such file"):
        geo(tmp_path / "none.mmdb")


def test_file_in_the_wrong_place_stops_the_start(tmp_path: Path) -> None:
    path = mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": CITY})
    with pytest.raises(ConfigurationError, match=r"holds GeoIP2-City, which is no file for geo_ip\.domain"):
        geo(domain=(str(path),))


def test_name_of_a_type_nobody_knows_is_believed(tmp_path: Path) -> None:
    assert found(geo(mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": FLAT}, "My-Offices")), "192.0.2.1")["geo_country"] == "AU"


def test_damage_inside_a_file_never_raises(tmp_path: Path) -> None:
    """Any byte of it may be wrong: the file is refused at the start, or what cannot be read stays empty."""
    whole = mmdb(tmp_path / "c.mmdb", {"192.0.2.0/24": CITY, "2001:db8::/32": FLAT}).read_bytes()
    dice = random.Random(1)
    path, started = tmp_path / "damaged.mmdb", 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            plugin = geo(path)
        except ConfigurationError:
            continue
        started += 1
        for ip in ("192.0.2.1", "2001:db8::1", "10.0.0.1"):
            assert Lengths(LIMITS)(cast(Event, found(plugin, ip))) == []
    assert started > 50


# Any address, any record


@pytest.fixture(scope="module")
def plugin_of_all(tmp_path_factory: pytest.TempPathFactory) -> geo_ip.Plugin:
    folder = tmp_path_factory.mktemp("mmdb")
    return geo(mmdb(folder / "c.mmdb", {"0.0.0.0/1": CITY, "8000::/1": FLAT}), **every_kind(folder))


@given(st.text(max_size=60) | st.ip_addresses().map(str) | st.text("0123456789abcdef:.%x", max_size=40))
def test_any_address_is_looked_up(plugin_of_all: geo_ip.Plugin, ip: str) -> None:
    event = Event(user_ipaddress=ip)
    columns = plugin_of_all(event, RAW)
    assert isinstance(columns, dict) and event == {"user_ipaddress": ip}
    assert all(name.startswith(("geo_", "ip_")) for name in columns.keys() - {"derived_contexts"})


SHAPES = st.recursive(
    st.text(max_size=200) | st.integers(0, 2**32) | st.floats(allow_nan=True) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["iso_code", "names", "en", "latitude"]), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*CITY, *FLAT, "autonomous_system_number", "autonomous_system_organization", "isp", "domain", "connection_type"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.dictionaries(FIELDS, SHAPES, min_size=1))
def test_any_record_is_read(tmp_path: Path, record: dict[str, Any]) -> None:
    path = str(mmdb(tmp_path / "any.mmdb", {"192.0.2.0/24": record}, "Anything"))
    kinds: dict[str, Any] = dict.fromkeys(("city", "isp", "domain", "connection_type", "asn"), (path,))
    columns = found(geo_ip.Plugin(geo_ip.Config(**kinds), World()), "192.0.2.1")
    assert Lengths(LIMITS)(cast(Event, columns)) == []
    assert all(isinstance(columns[name], float) for name in columns if name in ("geo_latitude", "geo_longitude"))
    assert all(value not in (None, "") for value in columns.values())
    for entity in columns.get("derived_contexts", ()):
        assert not Validators(bundled).reasons(entity["schema"], entity["data"], "")


@given(st.floats(-90, 90))
@example(16.08376788226557)
def test_degrees_are_as_precise_as_32_bits(degrees: float) -> None:
    single = geo_ip._degrees(degrees, 90)
    assert single is not None
    assert struct.pack("<f", single) == struct.pack("<f", degrees + 0.0 if single else 0.0)
    assert len(repr(abs(single)).replace(".", "").split("e")[0].strip("0")) <= 9


def test_remembered_answer_is_nobodys_to_change(tmp_path: Path) -> None:
    plugin = geo(**every_kind(tmp_path))
    first = found(plugin, "192.0.2.1")
    first["derived_contexts"][0]["data"].clear()
    first.clear()
    assert found(plugin, "192.0.2.1")["derived_contexts"][0]["data"]["number"] == 64_496
