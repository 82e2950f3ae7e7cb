"""A rate of events -> processes, nodes, disks and money, from what was measured of one event and what is assumed.

Counts; measures and looks up nothing. The formulas are text: what is computed is what is shown.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, NamedTuple, get_args

from protocol.seams import ConfigurationError
from spoorway.options import build

Log = Literal["kafka", "kinesis"]
Store = Literal["s3", "postgres"]
LOGS: tuple[str, ...] = get_args(Log)
STORES: tuple[str, ...] = get_args(Store)
RATES = (1_000, 100_000, 1_000_000)
MOST_EVENTS = 1_000_000_000  # a second; beyond that no figure means anything


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What nobody can measure for you. Prices are examples, not anybody's offer: put in your own.

    utilisation: the share of its core that a process is planned to use. spare: processes of each kind that may be gone.
    node_cores, node_gib: of one node. partitions_per_worker: room to add workers without adding partitions.
    broker_mib_s: what one broker writes, copies included. compression: of the log. log_hours: how long it is kept.
    outage_hours: how long gateways keep payloads on their own disks while the log is gone.
    kept_days: how long events are stored.
    node_hour, broker_hour, shard_hour, core_hour (of a database), disk_gib_month, object_gib_month, million_records: money.
    """

    events_per_request: float = 10
    utilisation: float = 0.6
    spare: int = 1
    node_cores: int = 4
    node_gib: float = 16
    partitions_per_worker: int = 2
    replicas: int = 3
    broker_mib_s: float = 50
    compression: float = 1
    log_hours: float = 24
    outage_hours: float = 1
    kept_days: float = 365
    node_hour: float = 0.20
    broker_hour: float = 0.25
    shard_hour: float = 0.015
    core_hour: float = 0.10
    disk_gib_month: float = 0.08
    object_gib_month: float = 0.023
    million_records: float = 0.014


class Formula(NamedTuple):
    """Of one line of the plan; `how` is Python. Names in it: measured figures, assumptions, lines before it."""

    name: str
    unit: str
    how: str


_GATEWAYS = (
    Formula("requests", "1/s", "rate / events_per_request"),
    Formula("gateway_cores", "busy cores", "requests * (request_us + event_us * events_per_request) / 1e6"),
    Formula("gateways", "processes", "max(2, ceil(gateway_cores / utilisation)) + spare"),
)
_WORKERS = (
    Formula("worker_cores", "busy cores", "rate * (read_us + enrich_us + loop_us + store_us) / 1e6"),
    Formula("workers", "processes", "max(2, ceil(worker_cores / utilisation)) + spare"),
    Formula("memory", "GiB", "(gateways * gateway_mib + workers * worker_mib) / 1024"),
    Formula("nodes", "machines", "max(2, ceil((gateways + workers) / node_cores), ceil(memory / (node_gib * utilisation)))"),
    Formula("raw", "MiB/s", "rate * raw_bytes / 2**20"),
    Formula("overflow", "GiB/gateway", "raw * 3600 * outage_hours / 1024 / (gateways - spare)"),
)
_LOG: Mapping[str, tuple[Formula, ...]] = {
    "kafka": (
        Formula("partitions", "", "workers * partitions_per_worker"),
        Formula("brokers", "machines", "max(replicas, ceil(raw / compression * replicas / broker_mib_s))"),
        Formula("log_disk", "GiB", "raw / compression * 3600 * log_hours * replicas / 1024"),
        Formula("log_cost", "$/month", "brokers * broker_hour * 730 + log_disk * disk_gib_month"),
    ),
    # A shard takes 1 MiB/s or 1,000 records/s, whichever is reached first; a payload is a record, paid for in units of 25 KB.
    "kinesis": (
        Formula("shards", "", "max(workers, ceil(raw / utilisation), ceil(requests / 1000 / utilisation))"),
        Formula("records", "million/month", "requests * ceil(raw_bytes * events_per_request / 25e3) * 730 * 3600 / 1e6"),
        Formula("log_cost", "$/month", "shards * shard_hour * 730 + records * million_records"),
    ),
}
_STORE: Mapping[str, tuple[Formula, ...]] = {
    "s3": (
        Formula("stored", "GiB", "rate * stored_bytes * 86400 * kept_days / 2**30"),
        Formula("store_cost", "$/month", "stored * object_gib_month"),
    ),
    "postgres": (
        Formula("database_cores", "busy cores", "rate * postgres_server_us / 1e6"),
        Formula("stored", "GiB", "rate * stored_bytes * 86400 * kept_days / 2**30"),
        Formula("store_cost", "$/month", "ceil(database_cores / utilisation) * core_hour * 730 + stored * disk_gib_month"),
    ),
}
_COST = (
    Formula("node_cost", "$/month", "nodes * node_hour * 730 + gateways * overflow * disk_gib_month"),
    Formula("cost", "$/month", "node_cost + log_cost + store_cost"),
    Formula("cost_million", "$/million events", "cost / (rate * 730 * 3600 / 1e6)"),
)  # fmt: skip


def measured() -> dict[str, dict[str, Any]]:
    """Name -> value, unit, what it is, and which measurement said so, when, on which machine."""
    found: dict[str, dict[str, Any]] = json.loads(files("spoorway.simulate").joinpath("measured.json").read_text("utf-8"))
    return found


def assumptions(given: Mapping[str, str]) -> Assumptions:
    """Raises ConfigurationError."""
    found = build(Assumptions, given, "--assume")
    for name, value in dataclasses.asdict(found).items():
        if not math.isfinite(value) or value < 0 or (value == 0 and name in _DIVISORS):
            raise ConfigurationError(f"--assume {name}: expected a number above 0, not {given[name]}")
    if found.utilisation > 1:
        raise ConfigurationError(f"--assume utilisation: a share of 1, not {found.utilisation:g}")
    return found


_DIVISORS = {"events_per_request", "utilisation", "node_cores", "node_gib", "broker_mib_s", "compression", "replicas"}


def formulas(log: Log, store: Store) -> tuple[Formula, ...]:
    """In the order in which they are computed: each may use those before it."""
    return (*_GATEWAYS, *_WORKERS, *_LOG[log], *_STORE[store], *_COST)


def plan(rate: float, assumed: Assumptions, log: Log = "kafka", store: Store = "s3") -> dict[str, float]:
    """Every line of the plan by its name. rate: events per second, lasting."""
    figures = {name: figure["value"] for name, figure in measured().items()}
    known: dict[str, float] = {"rate": rate, **figures, **dataclasses.asdict(assumed)}
    known |= {"store_us": figures[f"{store}_us"], "stored_bytes": figures[f"{store}_bytes"]}
    found: dict[str, float] = {}
    for name, _, how in formulas(log, store):
        # Of this module's own text, in which nobody has a say; the numbers were checked.
        found[name] = known[name] = eval(how, {"__builtins__": {}, "max": max, "ceil": math.ceil}, known)
    return found


def remarks(rate: float, found: Mapping[str, float], assumed: Assumptions) -> list[str]:
    """What the numbers do not say by themselves."""
    said: list[str] = []
    alone = measured()["together_events"]["value"] * assumed.utilisation
    if rate <= alone:
        said.append(f"{rate:,.0f} events/s: one machine with two cores and `spoorway run` is enough; it takes {alone:,.0f}")
    if found.get("database_cores", 0) / assumed.utilisation > 32:
        said.append(f"{rate:,.0f} events/s: no usual PostgreSQL server has so many cores; store in S3, or split by application")
    return said
