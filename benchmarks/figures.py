"""What the results say about one event -> spoorway/simulate/measured.json, which `spoorway simulate --plan` counts with.

Picks and divides; measures nothing. `python -m benchmarks` calls it after every measurement that it writes down.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MEASURED = HERE.parent / "spoorway" / "simulate" / "measured.json"
_Result = dict[str, Any]


def _cell(title: str, name: str, column: str) -> Callable[[_Result], float]:
    """The number in a table of the result: of the row whose first cell is `name`."""

    def look(result: _Result) -> float:
        rows = next(table["rows"] for table in result["tables"] if table["title"] == title)
        return float(next(row[column] for row in rows if next(iter(row.values())) == name))

    return look


_post = _cell("POST of 10 events", "Spoorway gateway", "processor µs/request")
_get = _cell("GET of a pixel", "Spoorway gateway", "processor µs/request")
_STAGES = "Where an event's time goes"
_S3, _POSTGRES = "Spoorway: Parquet in a bucket", "Spoorway's target"
_EVENTS = "Events per second"


def _first(result: _Result) -> float:
    """A request of one event costs request_us + event_us, one of ten request_us + 10 · event_us."""
    return _get(result) - _next(result)


def _next(result: _Result) -> float:
    return (_post(result) - _get(result)) / 9


# name -> (result, unit, what it is, where in the result)
FIGURES: dict[str, tuple[str, str, str, Callable[[_Result], float]]] = {
    "request_us": ("gateway", "µs", "processor of the gateway for a request, whatever is in it", _first),
    "event_us": ("gateway", "µs", "and for each event in it", _next),
    "gateway_mib": ("gateway", "MiB", "memory of a gateway under load", lambda r: r["raw"]["memory_pss_mib"]["Spoorway gateway"]),
    "read_us": ("enrich", "µs", "a worker reads an event", _cell(_STAGES, "journal: read, check, parse lines", "µs/event")),
    "enrich_us": (
        "enrich",
        "µs",
        "and finds out what it means",
        _cell(_STAGES, "enrichment: split, convert, validate, enrich", "µs/event"),
    ),
    "loop_us": ("enrich", "µs", "and what is around both", _cell(_STAGES, "loop around them", "µs/event")),
    "worker_mib": ("enrich", "MiB", "most memory of a worker", lambda r: r["raw"]["ours"]["peak_mib"]),
    "raw_bytes": (
        "enrich",
        "B",
        "an event in the journal, with its share of the request",
        lambda r: r["raw"]["ours"]["journal_mib"] * (1 << 20) / r["raw"]["ours"]["events"],
    ),
    "sqlite_us": (
        "enrich",
        "µs",
        "a worker stores an event in SQLite",
        _cell(_STAGES, "store: rows, INSERTs, views, COMMIT with fsync", "µs/event"),
    ),
    "sqlite_bytes": (
        "enrich",
        "B",
        "an event in SQLite",
        lambda r: r["raw"]["ours"]["store_mib"] * (1 << 20) / r["raw"]["ours"]["events"],
    ),
    "s3_us": ("s3", "µs", "a worker writes an event to a bucket, as Parquet", _cell(_EVENTS, _S3, "processor µs/event")),
    "s3_bytes": ("s3", "B", "an event in Parquet", _cell(_EVENTS, _S3, "bytes/event")),
    "postgres_us": (
        "postgres",
        "µs",
        "a worker hands an event to PostgreSQL",
        _cell(_EVENTS, _POSTGRES, "client's processor µs/event"),
    ),
    "postgres_server_us": ("postgres", "µs", "PostgreSQL itself stores an event", _cell(_EVENTS, _POSTGRES, "server's")),
    "postgres_bytes": (
        "postgres",
        "B",
        "an event in PostgreSQL, with indexes",
        _cell(_EVENTS, _POSTGRES, "bytes/event, with indexes"),
    ),
    "together_events": (
        "processes",
        "events/s",
        "what `spoorway run` loads on two cores while it is flooded",
        _cell(
            "As fast as it answers: 64 connections, all cores shared with wrk",
            "two processes (the product)",
            "events/s loaded meanwhile",
        ),
    ),
}


def pick(results: Path) -> dict[str, Any]:
    """Every figure with its unit, its result, and that result's date and machine."""
    found: dict[str, Any] = {}
    read = {name: json.loads((results / f"{name}.json").read_text("utf-8")) for name, *_ in FIGURES.values()}
    for name, (source, unit, about, look) in FIGURES.items():
        result = read[source]
        found[name] = {
            "value": float(f"{look(result):.4g}"),
            "unit": unit,
            "about": about,
            "measured": f"benchmarks/results/{source}.json, {result['date']}",
            "busy": bool(result["was_busy"]),
            "machine": result["machine"],
        }
    return found


def write(results: Path = HERE / "results", into: Path = MEASURED) -> None:
    into.write_text(json.dumps(pick(results), indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(write())
