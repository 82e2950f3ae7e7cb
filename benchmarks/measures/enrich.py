"""Events per second from the journal to SQLite on one core, split by stage; the five costliest functions; peers beside it."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from benchmarks import mix, sketch
from benchmarks.measures import Effort
from benchmarks.pinned import pinned
from benchmarks.result import Result, Row, Table
from benchmarks.sampling import Spot, sampled
from benchmarks.server import ROOT
from enrich.pipeline import Pipeline
from gateway.journal import Chunk
from gateway.journal.reader import FileReader
from gateway.journal.writer import FileWriter
from protocol import schemas
from protocol.seams import Cursor, Outcome, RawPayload
from spoorway import building
from spoorway.config import load
from spoorway.files import journal_folder, prepare
from spoorway.loader import BATCH_BYTES, Loader, collect_seldom
from storage.targets import Batch, Counts, Target

_TOP = 5
SKETCH = "a sketch: few rules, nothing checked twice"


def measure(effort: Effort) -> Result:
    folder = effort.folder
    peers: dict[str, Callable[[], dict[str, Any]]] = {SKETCH: lambda: pinned(sketch.load, folder, effort.events)}
    if find_spec("jsonschema"):
        for label, each in (("commits as large as ours", 0), ("one commit per request", 1)):
            peers[f"plain Python, {label}"] = partial(pinned, load_plainly, folder, effort.events / 4, each)
    ours: list[dict[str, Any]] = []
    others: dict[str, list[dict[str, Any]]] = {label: [] for label in peers}
    for turn in range(effort.rounds):
        ours.append(pinned(load_journal, folder, effort.events, turn))
        for label, run in peers.items():
            others[label].append(run())
    loaded = typical(ours)
    looked = pinned(find_costs, folder, effort.events / 2)
    spots = [Spot(*spot) for spot in looked["spots"]]
    µs = 1e6 / loaded["events"]
    seconds = loaded["seconds"]
    stages = {
        "journal: read, check, parse lines": loaded["read_s"],
        "enrichment: split, convert, validate, enrich": loaded["enrich_s"],
        "store: rows, INSERTs, views, COMMIT with fsync": loaded["store_s"],
    }
    rest = seconds - sum(stages.values())
    split: list[Row] = [
        {"stage": stage, "µs/event": spent * µs, "share %": 100 * spent / seconds}
        for stage, spent in {**stages, "loop around them": rest, "all": seconds}.items()
    ]
    alone = without_reading(loaded)
    rows = [_row("Spoorway: journal to SQLite", loaded, None), _row("Spoorway: enrichment and store alone", alone, None)]
    rows += [_row(label, typical(runs), alone) for label, runs in others.items()]
    rate = [loaded["events"] / 4 / one for one in loaded["quarters_s"]]
    return Result(
        "what one core enriches and stores",
        f"The product's loader takes {loaded['events']:,} events from a journal into an empty SQLite file, on core 0, with the "
        f"enrichments that run by default ({loaded['enrichments']}). {effort.rounds} rounds, the peers taking turns with it. "
        "Each row is the median round by processor time, and ÷ compares processor times.",
        f"{mix.DESCRIPTION}; {loaded['payloads']:,} payloads, {loaded['journal_mib']:.0f} MiB of journal.",
        [
            Table("Events per second", rows),
            Table("Where an event's time goes", split),
            Table(f"The {_TOP} costliest functions", [_spot(spot, seconds * µs) for spot in spots[:_TOP]]),
        ],
        [
            "The peers are handed payloads in memory, so they stand beside enrichment and store alone. The sketch "
            "(benchmarks/sketch.py) is the least that fills 131 columns: orjson, compiled schemas, a function per "
            "parameter, URL and campaign split, an MD5 fingerprint, rows of one shape in one INSERT, WAL and "
            "synchronous=FULL. It repairs nothing, keeps no failed events, looks for no duplicates but by an index, makes "
            "no views and keeps no cursor. The goal was set as two thirds of such a sketch's rate: 18,000 events/s where "
            "it reached 27,000.",
            "Plain Python is what one would write: json, jsonschema (validators made once), one INSERT per event into 17 "
            "columns, WAL and synchronous=FULL. It knows neither campaigns, referrers, fingerprints, truncated addresses "
            "nor 131 columns.",
            f"While the file grew from nothing to {loaded['store_mib']:.0f} MiB: {rate[0]:,.0f} events/s in the first quarter, "
            f"{rate[-1]:,.0f} in the last (event ids are random, so their index is written all over).",
            f"Peak memory of the process that loads: {loaded['peak_mib']:.0f} MiB.",
            "The costliest functions come from a sampling run of its own; time in C counts for the Python line that called it.",
        ],
        {"ours": loaded, "rounds": {"ours": ours, **others}, "spots": [spot._asdict() for spot in spots[:25]]},
    )


def typical(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run that is the median by processor time."""
    return sorted(runs, key=lambda run: float(run["processor_s"]))[len(runs) // 2]


def without_reading(run: dict[str, Any]) -> dict[str, Any]:
    """What a run of ours took beside reading the journal: what it shares with a peer that is handed payloads."""
    return {
        "events": run["events"],
        "seconds": run["seconds"] - run["read_s"],
        "processor_s": run["processor_s"] - run["read_processor_s"],
    }


def _row(label: str, run: dict[str, Any], ours: dict[str, Any] | None) -> Row:
    return {
        "what": label,
        "events/s": run["events"] / run["seconds"],
        "µs/event": run["seconds"] / run["events"] * 1e6,
        "of which processor": processor_µs(run),
        "Spoorway ÷ this": None if ours is None else processor_µs(run) / processor_µs(ours),
    }


def processor_µs(run: dict[str, Any]) -> float:
    """Of an event."""
    return float(run["processor_s"] / run["events"] * 1e6)


def _spot(spot: Spot, per_event: float) -> Row:
    return {
        "function": f"`{spot.function}`",
        "share %": 100 * spot.share,
        "µs/event": spot.share * per_event,
        "of which in its costliest line": f"`{spot.line}` {100 * spot.line_share:.0f} %",
    }


# In a process of its own, on core 0 ---------------------------------------------------------------------------------


class Timed:
    """The loader's parts, with a clock around each."""

    def __init__(self, reader: FileReader, pipeline: Pipeline, target: Target) -> None:
        self._reader, self._pipeline, self._target = reader, pipeline, target
        self.read_s = self.read_processor_s = self.enrich_s = self.store_s = 0.0
        self.pending, self.cursor, self.totals, self.close = reader.pending, target.cursor, target.totals, target.close

    def read(self, cursor: Cursor, *, max_payloads: int = 2_000, max_bytes: int = 4_194_304) -> Chunk:
        began, processor = time.perf_counter(), time.process_time()
        chunk = self._reader.read(cursor, max_payloads=max_payloads, max_bytes=max_bytes)
        self.read_s += time.perf_counter() - began
        self.read_processor_s += time.process_time() - processor
        return chunk

    def outcomes(self, payload: RawPayload, now_ms: int) -> Iterator[Outcome]:
        began = time.perf_counter()
        found = list(self._pipeline.outcomes(payload, now_ms))
        self.enrich_s += time.perf_counter() - began
        return iter(found)

    def commit(self, batch: Batch) -> Counts:
        began = time.perf_counter()
        counts = self._target.commit(batch)
        self.store_s += time.perf_counter() - began
        return counts


def load_journal(folder: str, events: float, turn: float) -> dict[str, Any]:
    """The real journal through the real loader; every event must arrive."""
    data, payloads, sent = filled(Path(folder) / f"ours-{turn:.0f}", events)
    settings = load(None, {"data": str(data)})
    (instance,) = settings.targets()
    collect_seldom()
    timed = Timed(FileReader(journal_folder(data)), building.pipeline(settings), building.open_target(settings, instance))
    loader = Loader("sqlite", timed, cast(Pipeline, timed), timed, building.now_ms)
    quarters: list[float] = []
    processor = time.process_time()
    began = last = time.perf_counter()
    while loader.step():
        if loader.status.stored >= sent * (len(quarters) + 1) / 4:
            now = time.perf_counter()
            quarters.append(now - last)
            last = now
    seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
    stored = timed.totals()
    timed.close()
    if stored != Counts(payloads, sent, 0, 0):
        raise RuntimeError(f"{sent} events of {payloads} payloads were sent; the store says {stored}")
    return {
        "events": sent, "payloads": payloads, "seconds": seconds, "processor_s": processor_s, "read_s": timed.read_s,
        "read_processor_s": timed.read_processor_s, "enrich_s": timed.enrich_s, "store_s": timed.store_s,
        "quarters_s": quarters, "journal_mib": _mib(journal_folder(data)),
        "store_mib": (data / "events.db").stat().st_size / (1 << 20),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "enrichments": ", ".join(one.name for one in settings.enrichments()),
    }  # fmt: skip


def find_costs(folder: str, events: float) -> dict[str, Any]:
    data, *_ = filled(Path(folder) / "looked", events)
    settings = load(None, {"data": str(data)})
    (instance,) = settings.targets()
    target = building.open_target(settings, instance)
    loader = Loader("sqlite", FileReader(journal_folder(data)), building.pipeline(settings), target, building.now_ms)
    spots: list[Spot] = []
    with sampled(ROOT, spots):
        while loader.step():
            pass
    target.close()
    return {"spots": spots}


def load_plainly(folder: str, events: float, each: float) -> dict[str, Any]:
    """The peer. each: 1 = a commit per payload, 0 = one per as many bytes as the loader takes at a time."""
    import jsonschema  # type: ignore[import-untyped]  # the checker need not have it

    validators: dict[str, Any] = {}

    def valid(described: dict[str, Any]) -> bool:
        uri = described["schema"]
        if uri not in validators:
            document = {k: v for k, v in (schemas.bundled(uri) or {}).items() if k not in ("$schema", "self")}
            validators[uri] = jsonschema.Draft4Validator(document, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)
        return bool(validators[uri].is_valid(described["data"]))

    payloads = list(mix.payloads(int(events)))
    path = Path(folder) / f"plain{each:.0f}.db"
    path.unlink(missing_ok=True)
    kept = waiting = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(_PLAIN_TABLE)
        began, processor = time.perf_counter(), time.process_time()
        db.execute("BEGIN")
        for payload in payloads:
            assert payload.body is not None
            headers = dict(payload.headers)
            for event in json.loads(payload.body)["data"]:
                described, entities = None, None
                if "ue_pr" in event:
                    described = json.loads(event["ue_pr"])["data"]
                if "cx" in event:
                    entities = json.loads(base64.urlsafe_b64decode(event["cx"] + "==="))["data"]
                if not all(map(valid, [one for one in (described, *(entities or ())) if one])):
                    continue
                db.execute(_PLAIN_INSERT, (*_plain_row(payload, headers, event), _json(described), _json(entities)))
                kept += 1
            waiting += len(payload.body)
            if each or waiting >= BATCH_BYTES:
                db.execute("COMMIT")
                db.execute("BEGIN")
                waiting = 0
        db.execute("COMMIT")
        seconds, processor_s = time.perf_counter() - began, time.process_time() - processor
        (stored,) = db.execute("SELECT count(*) FROM plain").fetchone()
    if stored != kept or kept < events:
        raise RuntimeError(f"{events:.0f} events made, {kept} valid, {stored} stored")
    return {"events": kept, "seconds": seconds, "processor_s": processor_s}


_PLAIN_TABLE = (
    "CREATE TABLE plain (event_id TEXT PRIMARY KEY, received_at INTEGER, created_at TEXT, sent_at TEXT, kind TEXT, app TEXT,"
    " platform TEXT, tracker TEXT, ip TEXT, user_agent TEXT, url TEXT, title TEXT, referrer TEXT, category TEXT, action TEXT,"
    " described TEXT, entities TEXT)"
)
_PLAIN_INSERT = f"INSERT OR IGNORE INTO plain VALUES ({', '.join('?' * 17)})"


def _plain_row(payload: RawPayload, headers: dict[str, str], event: dict[str, str]) -> tuple[Any, ...]:
    get = event.get
    return (
        event["eid"], payload.received_ms, get("dtm"), get("stm"), event["e"], get("aid"), get("p"), get("tv"), payload.ip,
        headers.get("User-Agent"), get("url"), get("page"), get("refr"), get("se_ca"), get("se_ac"),
    )  # fmt: skip


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def filled(data: Path, events: float) -> tuple[Path, int, int]:
    """(data folder with a journal, payloads in it, events in those)."""
    prepare(data)
    return data, *asyncio.run(_fill(journal_folder(data), mix.payloads(int(events))))


async def _fill(journal: Path, payloads: Iterator[RawPayload]) -> tuple[int, int]:
    """(payloads, events) written to the journal."""
    writer = FileWriter.open(journal)
    made = events = 0
    waiting: list[asyncio.Future[None]] = []
    for payload in payloads:
        waiting.append(writer.append(payload))
        made += 1
        events += (payload.body or b"").count(b'"eid"')
        if len(waiting) == 256:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    await writer.close()
    return made, events


def _mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / (1 << 20)
