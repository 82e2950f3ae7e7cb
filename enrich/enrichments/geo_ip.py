"""Place and network of the client's address, from MaxMind DB files of yours: geo_ and ip_ columns, an `asn` entity.

Does nothing without a file. Must run before anon_ip. Never fails an event: what a file does not know stays empty.
Files are held in memory, so that one that is overwritten in place cannot hurt; the last good one stays until a new one is good.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from enrich.conversions import text
from enrich.enrichments import RawEvent, World
from enrich.lengths import fitting
from enrich.networks import Tree
from protocol.seams import ConfigurationError, Event, Json, RawPayload, Reason

if TYPE_CHECKING:
    from maxminddb.reader import Reader

_ASN_SCHEMA = "iglu:com.snowplowanalytics.snowplow/asn/jsonschema/1-0-1"
_MOST_ASN = 2_147_483_647

_MOST_RECORDS = 4_000

Record = Mapping[str, Any]
# The columns of a record, and its network: shared by all events from there.
_Said = tuple[Event, dict[str, Json] | None]
_NOTHING: _Said = Event(), None


@dataclass(frozen=True, slots=True)
class Config:
    """Paths of MaxMind DB files by what they hold; of several the first that knows the address says it. city: or country.

    bot_asns: numbers of networks where robots live, not people; not said of events from the platforms of bot_asns_except.
    cache: addresses whose result is kept.
    """

    city: tuple[str, ...] = ()
    isp: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    connection_type: tuple[str, ...] = ()
    asn: tuple[str, ...] = ()
    bot_asns: frozenset[int] = frozenset()
    bot_asns_except: tuple[str, ...] = ("srv", "iot")
    cache: int = 10_000


class Plugin:
    def __init__(self, config: Config, world: World) -> None:
        self._files: list[tuple[str, Callable[[], _Database]]] = []
        for kind in _COLUMNS:
            paths: tuple[str, ...] = getattr(config, kind)
            self._files += [(kind, world.watch(path, partial(_Database, kind, reading(kind)))) for path in paths]
        self._bot_asns, self._except = config.bot_asns, frozenset(config.bot_asns_except)
        self._databases: list[_Database] = []
        self._payload: RawPayload | None = None
        self._ip, self._said = "", _NOTHING
        self._known = lru_cache(max(0, config.cache))(self._look_up)

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        ip = event.get("user_ipaddress")
        if not self._files or ip is None:
            return {}
        if raw.payload is not self._payload or ip != self._ip:  # the events of one payload share their address
            self._payload, self._ip = raw.payload, ip
            databases = [current() for _, current in self._files]
            if databases != self._databases:  # a file has changed
                self._databases = databases
                self._known.cache_clear()
            self._said = self._known(ip)
        columns, network = self._said
        if network is None:
            return columns
        data = network.copy()
        if self._bot_asns and event.get("platform") not in self._except:
            data["likelyBot"] = data["number"] in self._bot_asns
        return {**columns, "derived_contexts": [{"schema": _ASN_SCHEMA, "data": data}]}

    def _look_up(self, ip: str) -> _Said:
        answered: dict[str, _Said] = {}
        try:
            for (kind, _), database in zip(self._files, self._databases, strict=True):
                if kind not in answered and (found := database.says(ip)) is not None:
                    answered[kind] = found
        except ValueError:  # "unknown", masked, or whatever a tracker sent as `ip`
            return _NOTHING
        if len(answered) == 1:  # most have one file: what it says of a record is kept once, not for each address
            return next(iter(answered.values()))
        columns, network = Event(), None
        for found in answered.values():
            columns.update(found[0])
            network = found[1] or network
        return columns, network


class _Database:
    """One file, and what was made of its records."""

    def __init__(self, kind: str, read: Callable[[bytes], Reader], data: bytes) -> None:
        """Raises ValueError for what is no such file."""
        self._reader = read(data)
        about = self._reader.metadata()
        self._tree = Tree(data, about.node_count, about.record_size, about.ip_version)
        self._columns = _COLUMNS[kind]
        self._known: dict[int, _Said | None] = {}

    def says(self, ip: str) -> _Said | None:
        """To be read, not to be changed. None where the file does not know the address. Raises ValueError for what is none."""
        number = self._tree.record(ip)
        if number is None:
            return None
        if number not in self._known:
            if len(self._known) >= _MOST_RECORDS:
                self._known.clear()
            record = _record(self._reader, ip)
            self._known[number] = None if record is None else (fitting(self._columns(record)), _network(record))
        return self._known[number]


def reading(kind: str) -> Callable[[bytes], Reader]:
    """A function from a file's bytes to its reader; raises ValueError for what is no such file."""
    try:
        from maxminddb import MODE_FD, InvalidDatabaseError
        from maxminddb.reader import Reader
    except ModuleNotFoundError:
        raise ConfigurationError("geo_ip needs the package maxminddb; install spoorway[geo]") from None

    def build(data: bytes) -> Reader:
        try:
            reader = Reader(cast(Any, _Bytes(data)), MODE_FD)
            _look(reader, "0.0.0.0")
        except (InvalidDatabaseError, *_DAMAGE) as error:
            raise ValueError(f"not a MaxMind DB file: {error}") from None
        type_ = reader.metadata().database_type.lower()
        if not any(word in type_ for word in _TYPES[kind]) and any(word in type_ for words in _TYPES.values() for word in words):
            raise ValueError(f"holds {reader.metadata().database_type}, which is no file for geo_ip.{kind}")
        return reader

    return build


class _Bytes:
    """What the reader takes for an open file."""

    name = "database"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        return self._data


# What a damaged file makes the reader raise, besides its own error, which is a RuntimeError.
_DAMAGE = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error)


def _look(reader: Reader, ip: str) -> object:
    return cast(Any, reader).get(ip)


def _record(reader: Reader, ip: str) -> Record | None:
    try:
        found = _look(reader, ip)
    except _DAMAGE:
        return None
    return cast(Record, found) if isinstance(found, dict) else None


def _place(record: Record) -> Event:
    """Of a nested record (GeoIP2, GeoLite2) or a flat one (DB-IP Lite)."""
    nested = isinstance(record.get("country"), dict)
    if nested:
        places = record.get("subdivisions")
        region = cast(object, places[-1]) if isinstance(places, list) and places else None
        where = record.get("location")
        found = {
            "geo_country": _inner(record, "country", "iso_code"),
            "geo_region": _inner(region, "iso_code"),
            "geo_region_name": _inner(region, "names", "en"),
            "geo_city": _inner(record, "city", "names", "en"),
            "geo_zipcode": _inner(record, "postal", "code"),
            "geo_timezone": _inner(where, "time_zone"),
        }
    else:
        where = record
        found = {
            "geo_country": record.get("country_code"),
            "geo_region_name": record.get("state1"),
            "geo_city": record.get("city"),
            "geo_zipcode": record.get("postcode"),
            "geo_timezone": record.get("timezone"),
        }
    columns = _texts(found)
    latitude, longitude = _degrees(_inner(where, "latitude"), 90), _degrees(_inner(where, "longitude"), 180)
    if latitude is not None and longitude is not None:
        columns["geo_latitude"], columns["geo_longitude"] = latitude, longitude
    return columns


def _isp(record: Record) -> Event:
    return _texts({"ip_isp": record.get("isp"), "ip_organization": record.get("organization")})


def _domain(record: Record) -> Event:
    return _texts({"ip_domain": record.get("domain")})


def _connection_type(record: Record) -> Event:
    return _texts({"ip_netspeed": record.get("connection_type")})


def _nothing(record: Record) -> Event:
    return {}


_COLUMNS: dict[str, Callable[[Record], Event]] = {
    "city": _place,
    "isp": _isp,
    "domain": _domain,
    "connection_type": _connection_type,
    "asn": _nothing,
}
# Words in a file's own name of its type, so that one in the wrong place is told at the start.
_TYPES = {
    "city": ("city", "country", "enterprise", "location"),
    "isp": ("isp",),
    "domain": ("domain",),
    "connection_type": ("connection",),
    "asn": ("asn", "isp"),
}


def _network(record: Record) -> dict[str, Json] | None:
    """ASN and ISP files hold both fields under the same names."""
    number, name = record.get("autonomous_system_number"), record.get("autonomous_system_organization")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MOST_ASN:
        return None
    return {"number": number, "organization": text(name) if isinstance(name, str) else None}


def _texts(found: Mapping[str, object]) -> Event:
    texts = {name: text(value) for name, value in found.items() if isinstance(value, str)}
    return cast(Event, {name: value for name, value in texts.items() if value is not None})


def _inner(value: object, *names: str) -> object:
    """What lies below `names` in nested tables; None where one is missing."""
    for name in names:
        value = cast(dict[str, object], value).get(name) if isinstance(value, dict) else None
    return value


def _degrees(value: object, most: int) -> float | None:
    """The shortest decimal that names the same 32-bit float, as the reference's columns do; it has nine digits at most."""
    if not isinstance(value, int | float) or not -most <= value <= most:
        return None
    packed = struct.pack("<f", value)
    (single,) = struct.unpack("<f", packed)  # its digits, not the value's: rounding twice may end on a neighbour
    return next(n for n in (float(f"{single:.{d}g}") for d in range(6, 10)) if struct.pack("<f", n) == packed) + 0.0
