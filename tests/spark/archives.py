"""Archives with everything in them that makes one event depend on another, and what a place holds, to be compared.

The payloads of a seed are the same ones at every run. Segments are sealed and archived by the product.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.mix import payloads as mixed
from gateway.journal.disk import DISK
from gateway.journal.lanes import plain, sealed
from gateway.journal.lines import encode
from gateway.journal.sealing import seal
from protocol.devices import DEVICE_CLOCK, TP2_PATH
from protocol.seams import RawPayload
from spoorway.archiving import contents
from storage import lake
from storage.archive import Archive
from storage.duplicates import synthetic_id
from storage.lake.parquet import pa, pq
from storage.objects import Objects, open_objects

SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
START_MS = 1_795_300_000_000
LANES = ("0a0b0c0d", "1a1b1c1d", "2a2b2c2d")


def payloads(events: int, seed: int) -> list[RawPayload]:
    """About so many events: the mix of the benchmarks, and among it all that one event can mean for another."""
    chance = random.Random(seed)
    found: list[RawPayload] = []
    devices = [_Device(f"pump-{number}", chance.randrange(1_000)) for number in range(max(3, events // 2_000))]
    for number, payload in enumerate(mixed(events, seed)):
        found.append(payload)
        at, what = payload.received_ms, chance.random()
        if what < 0.05:
            found.append(chance.choice(devices).payload(chance, at, _id(chance)))
        elif what < 0.08:  # the same request once more, by another way: its failed events too
            found.append(replace(chance.choice(found), received_ms=at, id=_id(chance)))
        elif what < 0.10:  # the same payload, as a relay may leave it
            found.append(replace(chance.choice(found), received_ms=at))
        elif what < 0.13:  # somebody's ids, under other events
            eid = f"00000000-0000-4000-8000-{chance.randrange(200):012d}"
            found.append(_view(_id(chance), at, eid, f"page {chance.randrange(3)}"))
        elif what < 0.16:
            found.append(_click(chance, at))
        elif what < 0.17:
            found.append(RawPayload(_id(chance), at, "http", "/nobody/knows", body=b"\xff\x00"))
        elif what < 0.18:
            found.append(_get(_id(chance), at, {"e": "pv", "tv": "t", "p": "nobody", "url": "no url", "dtm": "yesterday"}))
        elif what < 0.19:
            found.append(replace(payload, id=_id(chance), query="", body=None, erased=(0, 1)))
        elif what < 0.20 and payload.body is not None and payload.body.count(b'"eid"') == 3:
            found.append(replace(payload, id=_id(chance), erased=(1,)))
        if number % 500 == 17:
            found += _derived(chance, at)
    return found


def _derived(chance: random.Random, at: int) -> Iterator[RawPayload]:
    """Two events with one id, and a third whose tracker made up the very id that the second gets."""
    eid = f"11111111-0000-4000-8000-{chance.getrandbits(40):012x}"
    one, two = _view(_id(chance), at, eid, "one"), _view(_id(chance), at, eid, "two")
    three = _view(_id(chance), at, synthetic_id(eid, fingerprint(two)), chance.choice(("three", "four")))
    some = [one, two, three, replace(two, id=_id(chance)), replace(three, id=_id(chance))]
    chance.shuffle(some)
    yield from some


def fingerprint(payload: RawPayload) -> str:
    from enrich.enrichments import RawEvent, event_fingerprint
    from spoorway.world import World

    fields = dict(pair.split("=", 1) for pair in payload.query.split("&"))
    parameters = {name: value.replace("+", " ") for name, value in fields.items()}
    plugin = event_fingerprint.Plugin(event_fingerprint.Config(), World())
    return str(plugin({}, RawEvent(payload, 0, parameters))["event_fingerprint"])  # type: ignore[index,typeddict-item]


class _Device:
    """Has no clock, starts anew now and then, sends some readings late, and counts its starts from 1 again once."""

    def __init__(self, name: str, boot: int) -> None:
        self._name, self._boot, self._sequence, self._began = name, boot, 0, START_MS

    def payload(self, chance: random.Random, at: int, identity: str) -> RawPayload:
        if chance.random() < 0.1:
            self._boot = 1 if chance.random() < 0.1 else self._boot + 1
            self._sequence, self._began = 0, at - chance.randrange(5_000)
        events: list[dict[str, str]] = []
        for _ in range(chance.randrange(1, 4)):
            self._sequence += 1
            uptime = max(0, at - self._began - chance.randrange(900))
            clock = {"boot_id": self._boot, "sequence": self._sequence, "uptime_ms": uptime, "device_id": self._name}
            entities = {"schema": f"{SNOWPLOW}/contexts/jsonschema/1-0-1", "data": [{"schema": DEVICE_CLOCK, "data": clock}]}
            event = {"e": "se", "se_ca": "pump", "se_ac": "turn", "p": "iot", "tv": "t-1", "dtm": str(uptime)}
            event["co"] = json.dumps(entities)
            if chance.random() < 0.6:  # otherwise it waited where nobody knows how long
                event["stm"] = str(at - self._began)
            events.append(event)
        body = {"schema": f"{SNOWPLOW}/payload_data/jsonschema/1-0-4", "data": events}
        return RawPayload(identity, at, "http", TP2_PATH, "", json.dumps(body).encode(), "application/json")


def _click(chance: random.Random, at: int) -> RawPayload:
    """One of a few links of a few copies, within moments: only together do they look like a machine's."""
    data = {"campaign": "spring", "message": f"copy-{chance.randrange(6)}", "link": f"link-{chance.randrange(5)}"}
    if chance.random() < 0.1:
        data["honeypot"] = True  # type: ignore[assignment]
    event = {"schema": f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0"}
    event["data"] = {"schema": "iglu:io.spoorway/email_click/jsonschema/1-0-0", "data": data}  # type: ignore[assignment]
    query = urlencode({"e": "ue", "tv": "t", "p": "web", "aid": "mail", "ue_pr": json.dumps(event)})
    agent = (("User-Agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36"),)
    return RawPayload(_id(chance), at, "http", "/i", query, headers=agent, ip=f"203.0.113.{chance.randrange(9)}")


def _view(identity: str, at: int, eid: str, title: str) -> RawPayload:
    return _get(identity, at, {"e": "pv", "tv": "t", "p": "web", "aid": "copies", "eid": eid, "page": title})


def _get(identity: str, at: int, fields: dict[str, str]) -> RawPayload:
    return RawPayload(identity, at, "http", "/i", urlencode(fields), ip="203.0.113.9")


def _id(chance: random.Random) -> str:
    return f"{chance.getrandbits(128):032x}"


def written(url: str, every: Sequence[RawPayload], seed: int, folder: Path, segments: int, damaged: float = 0.001) -> None:
    """An archive of so many segments in three lanes. damaged: the share of lines that are."""
    archive, chance = Archive(open_objects(url)), random.Random(seed)
    numbers = Counter[str]()
    cuts = sorted(chance.sample(range(1, len(every)), segments - 1))
    for at, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(every)], strict=True)):
        lane = LANES[at % len(LANES)]
        numbers[f"{lane}/segment"] += 1
        path = plain(folder / lane, segment := numbers[f"{lane}/segment"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for payload in every[start:end]:
                numbers[lane] += 1
                line = bytearray(encode(payload, numbers[lane]))
                if chance.random() < damaged:
                    line[len(line) // 2] ^= 0x15
                file.write(line)
        seal(path, DISK, block_bytes=128 << 10, level=4, pause=lambda _: False)
        archive.add(lane, segment, sealed(folder / lane, segment), contents(sealed(folder / lane, segment)))


def geo_database(path: Path) -> None:
    """Where half of the addresses are that the payloads come from."""
    writer: Any = import_module("mmdb_writer").MMDBWriter(4, "GeoIP2-City", languages=["en"], description="made by a test")
    networks = import_module("netaddr").IPSet(["203.0.0.0/17"])
    writer.insert_network(networks, {"country": {"iso_code": "DE"}, "city": {"names": {"en": "Berlin"}}})
    writer.to_db_file(str(path))


# What a place holds ----------------------------------------------------------------------------------------------------

# When it was enriched, which no two runs have in common. A damage has no time but that.
_OF_THE_RUN = ("etl_tstamp",)


def rows(url: str) -> list[dict[str, Any]]:
    """Of every event that counts, with its partition, sorted."""
    objects = open_objects(url)
    found: list[dict[str, Any]] = []
    for piece in _live(objects, lake.EVENTS):
        for row in pq.read_table(pa.BufferReader(objects.get(piece.name))).to_pylist():
            found.append({name: value for name, value in row.items() if name not in _OF_THE_RUN} | {"partition": piece.partition})
    return sorted(found, key=lambda row: (row["event_id"], repr(row)))


def failures(url: str) -> list[dict[str, Any]]:
    """Of every failed event, likewise."""
    objects = open_objects(url)
    found: list[dict[str, Any]] = []
    for piece in _live(objects, lake.FAILED):
        for line in gzip.decompress(objects.get(piece.name)).splitlines():
            row = json.loads(line) | {"partition": piece.partition}
            del row["failed_tstamp"]
            row["event"] = {name: value for name, value in json.loads(row["event"]).items() if name not in _OF_THE_RUN}
            if row["kind"] == "journal_damage":
                del row["collector_tstamp"], row["partition"]
                row["payload"] = {name: value for name, value in json.loads(row["payload"]).items() if name != "at"}
            found.append(row)
    return sorted(found, key=lambda row: str(row["failed_id"]))


def _live(objects: Objects, kind: str) -> list[lake.Piece]:
    return lake.sorted_out(objects.list(f"{kind}/"))[0]
