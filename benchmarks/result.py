"""Results: one JSON file per measurement, and the README.md that shows all of them as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Cell = str | float | None
Row = dict[str, Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """rows: column name (with its unit) -> value; all rows have the first row's columns, None where there is nothing."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Result:
    """what: what was asked of the machine. input: what it was fed. notes: how to read the figures, and their limits."""

    title: str
    what: str
    input: str
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])


def save(folder: Path, name: str, result: Result, circumstances: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"name": name, **circumstances, **asdict(result)}, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", "utf-8")


def write_readme(folder: Path, order: Sequence[str]) -> None:
    """README.md from the JSON files that are there; those in `order` first."""
    found = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))]
    found.sort(key=lambda one: order.index(one["name"]) if one["name"] in order else len(order))
    machines = list(dict.fromkeys(one["machine"] for one in found))
    lines = ["# What it costs", "", "Written by `make bench`; the JSON files beside this one hold the same and more.", ""]
    lines += [f"Machine: {machine}." for machine in machines]
    for one in found:
        lines += ["", f"## {one['name']}: {one['title']}", "", f"{one['what']}", "", f"Input: {one['input']}", ""]
        for table in one["tables"]:
            lines += [f"**{table['title']}**", "", *_markdown(table["rows"]), ""]
        lines += [f"- {note}" for note in one["notes"]]
        where = f" on {one['machine']}" if len(machines) > 1 else ""
        lines += ["", f"*{one['date']}, commit {one['commit']}{where}; {one['busy']}.{_doubt(one)}*"]
    (folder / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


def _doubt(one: Mapping[str, Any]) -> str:
    return " **The machine was busy with other work: compare with care.**" if one["was_busy"] else ""


def plain(result: Result) -> str:
    """The tables for a terminal."""
    lines: list[str] = []
    for table in result.tables:
        cells = [list(table.rows[0]), *([show(value) for value in row.values()] for row in table.rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
        lines += ["", f"  {table.title}"]
        for row in cells:
            first, *rest = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
            lines.append("  " + "  ".join([first.strip().ljust(widths[0]), *rest]))
    return "\n".join(lines + [f"  - {note}" for note in result.notes])


def _markdown(rows: Sequence[Row]) -> list[str]:
    names = list(rows[0])
    head = ["| " + " | ".join(names) + " |", "|" + "|".join([" --- ", *([" ---: "] * (len(names) - 1))]) + "|"]
    return head + ["| " + " | ".join(show(row[name]).replace("|", "\\|") for name in names) + " |" for row in rows]


def show(value: Cell) -> str:
    """Three significant digits are more than a shared machine is good for."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
