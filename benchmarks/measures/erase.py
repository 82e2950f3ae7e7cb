"""Erasing one person from a SQLite store, beside a plain DELETE; and what the store costs at that size."""

from __future__ import annotations

from typing import Any

from benchmarks import scale
from benchmarks.measures import Effort
from benchmarks.result import Result, Row, Table

# What else `spoorway erase` does.
_WHOLE = "What is timed is the store's part: `spoorway erase` also reads the journal, or what is left of it in the archive."


def measure(effort: Effort) -> Result:
    count = effort.wanted or (250_000 if effort.rounds > 1 else 50_000)
    return told("keeping house in a SQLite store", count, scale.run(effort.folder, count, count // 4))


def told(title: str, count: int, found: dict[str, Any]) -> Result:
    """found: as scale.run answers it."""
    rows: list[Row] = [
        {
            "what": "Spoorway, in pieces",
            "s": found["erasing one person, s"],
            "longest wait of a commit, s": found["erasing, slowest piece s"],
        },
        {
            "what": "one DELETE in SQLite, overwriting nothing",
            "s": found["a plain DELETE, s"],
            "longest wait of a commit, s": found["a plain DELETE, longest wait of a commit s"],
        },
    ]
    rest: list[Row] = [
        {"what": name, "value": value} for name, value in found.items() if "eras" not in name and "DELETE" not in name
    ]
    return Result(
        title,
        f"{count:,} events, {found['bytes'] / count:,.0f} bytes each with their indexes; one person has {found['erased']}.",
        "page views and pings of many people, 27 columns each, generated; nothing is enriched.",
        [Table("Erasing one person", rows), Table("The store", rest)],
        ["`make scale` does the same with ten million events.", _WHOLE],
        found,
    )
