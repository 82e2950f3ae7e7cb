"""What enrichments cost: events per second from the journal to SQLite with the usual ones on, and each one's own time."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from benchmarks import mix, sketch
from benchmarks.measures import Effort
from benchmarks.measures.enrich import SKETCH, Timed, filled, processor_µs, typical, without_reading
from benchmarks.pinned import pinned
from benchmarks.result import Result, Row, Table
from enrich.enrichments import Enrichment, RawEvent, Step
from enrich.pipeline import Pipeline
from gateway.journal.reader import FileReader
from protocol.seams import Event, Reason
from spoorway import building
from spoorway.config import load
from spoorway.files import journal_folder
from spoorway.loader import Loader, collect_seldom
from spoorway.world import World
from storage.targets import Counts

USUAL = ("geo_ip", "referer", "user_agent", "campaign", "bots", "event_fingerprint", "anon_ip")


def measure(effort: Effort) -> Result:
    runs: dict[str, list[dict[str, Any]]] = {"none": [], "usual": [], "sketch": []}
    for turn in range(effort.rounds):
        runs["none"].append(pinned(load_with, effort.folder, effort.events / 2, "", 0, turn))
        runs["usual"].append(pinned(load_with, effort.folder, effort.events / 2, ",".join(USUAL), 0, turn))
        runs["sketch"].append(pinned(sketch.load, effort.folder, effort.events / 2))
    without, loaded, plain = [typical(each) for each in runs.values()]
    timed = pinned(load_with, effort.folder, effort.events / 4, ",".join(USUAL), 1, effort.rounds)
    rates: list[Row] = [
        {
            "enrichments": label,
            "events/s": one["events"] / one["seconds"],
            "µs/event": one["seconds"] / one["events"] * 1e6,
            "of which processor": processor_µs(one),
            "without the journal": None if one is plain else processor_µs(without_reading(one)),
            f"÷ {SKETCH}": None if one is plain else processor_µs(plain) / processor_µs(without_reading(one)),
        }
        for label, one in (("none", without), (", ".join(USUAL), loaded), (SKETCH, plain))
    ]
    costs: list[Row] = [
        {
            "enrichment": name,
            "µs/event": timed["spent"][name] / timed["events"] * 1e6,
            "first event, ms": timed["first"][name] * 1e3,
            "answered, % of events": share,
        }
        for name, share in ((name, 100 * timed["answered"][name] / timed["events"]) for name in USUAL)
    ]
    return Result(
        "what enrichments cost",
        f"The product's loader takes {loaded['events']:,} events from a journal into an empty SQLite file, on core 0; "
        f"{effort.rounds} rounds, taking turns with the sketch that `enrich` describes; the median round by processor time.",
        f"{mix.DESCRIPTION}; a city database of 256 networks made for the run.",
        [Table("Events per second, journal to SQLite", rates), Table("Each enrichment's own time", costs)],
        [
            "The sketch is handed payloads in memory, splits URLs and campaigns, masks addresses and makes a fingerprint, "
            "and knows neither places, user agents, robots nor search engines. What is compared with it is processor time "
            "without the journal; lists that are read when they are first needed were read before. With all seven the "
            "goal was 14,000 events/s where such a sketch reached 27,000: 0.52 of its rate.",
            "Own times come from a run of its own with a clock around each call, which adds a tenth of a microsecond to each.",
        ],
        {"none": without, "usual": loaded, "rounds": runs, "timed": timed},
    )


class _Timed:
    """An enrichment with a clock around it."""

    def __init__(self, enrichment: Enrichment) -> None:
        self._enrichment: Callable[[Event, RawEvent], Event | Reason] = enrichment
        self.first_s: float | None = None  # what it loads when it is first needed, told apart
        self.spent_s, self.answered = 0.0, 0

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        began = time.perf_counter()
        added = self._enrichment(event, raw)
        spent_s = time.perf_counter() - began
        if self.first_s is None:
            self.first_s = spent_s
        else:
            self.spent_s += spent_s
        self.answered += bool(added)
        return added


def load_with(folder: str, events: float, names: str, with_clock: float, turn: float) -> dict[str, Any]:
    """In a process of its own, on core 0; every event must arrive. names: separated by commas."""
    data, payloads, sent = filled(Path(folder) / f"with-{len(names)}-{turn:.0f}", events)
    city = data / "city.mmdb"
    city.write_bytes(_city())
    wanted = [name for name in names.split(",") if name]
    config = data / "spoorway.toml"
    tables = [f"[enrich.enrichments.{name}]" + (f'\ncity = ["{city}"]' if name == "geo_ip" else "") for name in wanted]
    config.write_text("\n".join(["[enrich.enrichments]", *tables]))
    settings = load(config, {"data": str(data)})
    (instance,) = settings.targets()
    world, clocks = World(), dict[str, _Timed]()
    steps: list[Step] = []
    for one in settings.enrichments():
        enrichment = one.plugin(world)
        if with_clock:
            enrichment = clocks[one.name] = _Timed(enrichment)
        steps.append(Step(one.name, enrichment, one.on_error))
    pipeline = Pipeline(building.enrich_options(settings), building.schema_lookup(settings), steps)
    parts = Timed(FileReader(journal_folder(data)), pipeline, building.open_target(settings, instance))
    loader = Loader("sqlite", parts, cast(Pipeline, parts), parts, building.now_ms)
    collect_seldom()
    if not with_clock:
        list(pipeline.outcomes(next(mix.payloads(1)), building.now_ms()))
    began, processor = time.perf_counter(), time.process_time()
    while loader.step():
        pass
    seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
    stored = parts.totals()
    parts.close()
    if stored != Counts(payloads, sent, 0, 0):
        raise RuntimeError(f"{sent} events of {payloads} payloads were sent; the store says {stored}")
    return {
        "events": sent, "seconds": seconds, "processor_s": processor_s, "read_s": parts.read_s,
        "read_processor_s": parts.read_processor_s, "spent": {name: one.spent_s for name, one in clocks.items()},
        "first": {name: one.first_s for name, one in clocks.items()},
        "answered": {name: one.answered for name, one in clocks.items()},
    }  # fmt: skip


def _city() -> bytes:
    """A city database: a place for each of the 256 first octets."""
    import tempfile

    from mmdb_writer import MMDBWriter
    from netaddr import IPSet  # type: ignore[import-untyped]  # the checker need not have it

    writer = MMDBWriter(4, "GeoLite2-City", languages=["en"])
    for octet in range(256):
        record = {
            "country": {"iso_code": "GB"},
            "city": {"names": {"en": f"Town {octet}"}},
            "location": {"latitude": 51.5, "longitude": -octet / 10, "time_zone": "Europe/London"},
            "postal": {"code": str(octet)},
            "subdivisions": [{"iso_code": "ENG", "names": {"en": "England"}}],
        }
        writer.insert_network(IPSet([str(ipaddress.ip_network(f"{octet}.0.0.0/8"))]), record)
    with tempfile.NamedTemporaryFile(suffix=".mmdb") as file:
        writer.to_db_file(file.name)
        return Path(file.name).read_bytes()
