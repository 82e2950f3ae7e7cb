"""Answers -> one HTML page with charts and tables that needs nothing else: no script, no font, no request. Asks no store.

Every text that comes from an event is escaped; the page forbids itself everything that is not in it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from string import Template
from typing import Any

from protocol.seams import ConfigurationError
from spoorway import vega
from spoorway.asking import Answer, Value
from spoorway.console import printable
from storage.sql import GROUPS

_SHOWN = 8  # rows of a table before it is unfolded
_MOST = 200  # rows at all
_LONGEST = 120  # characters of a cell


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's answer. since, until: the period it is of, as text. command: what asks it again."""

    answer: Answer
    since: str
    until: str
    command: str


@dataclass(frozen=True, slots=True)
class _Tile:
    """A number at the top. of: from the rows, by column name."""

    label: str
    question: str
    of: Callable[[list[dict[str, Any]]], float]


def _sum(name: str) -> Callable[[list[dict[str, Any]]], float]:
    return lambda rows: sum(row[name] or 0 for row in rows)


_TILES = (
    _Tile("events", "volume", _sum("events")),
    _Tile("visits", "sessions", _sum("sessions")),
    _Tile("orders", "orders", _sum("orders")),
    _Tile("revenue", "orders", _sum("revenue")),
    _Tile("mails clicked by people", "email_campaigns", _sum("clicked")),
    _Tile("levels completed", "levels", _sum("completed")),
    _Tile("devices heard", "device_health", lambda rows: len(rows)),
    _Tile("events missing", "device_health", _sum("missing")),
    _Tile("failed events", "failed", _sum("events")),
)


def page(title: str, asked: Sequence[Asked], unanswered: Sequence[str], made_at: str) -> str:
    """unanswered: names of questions without rows, told at the end. made_at: UTC. Raises ConfigurationError."""
    try:
        draw: Any = import_module("vl_convert")
    except ModuleNotFoundError:
        raise ConfigurationError("the report's charts are drawn by vl-convert; install spoorway[report]") from None
    found = [one for one in asked if one.answer.rows]
    groups = [(name, heading, [one for one in found if one.answer.question.group == name]) for name, heading in GROUPS.items()]
    sections = [
        f'<section id="{name}"><h2>{_escaped(heading)}</h2><div class="cards">'
        + "".join(_card(one, draw) for one in members)
        + "</div></section>"
        for name, heading, members in groups
        if members
    ]
    links = [f'<a href="#{name}">{_escaped(heading)}</a>' for name, heading, members in groups if members]
    silent = ", ".join(unanswered)
    template = Template(files("spoorway").joinpath("report.html").read_text("utf-8"))
    return template.substitute(
        title=_escaped(title),
        made_at=_escaped(made_at),
        tiles="".join(_tile(tile, found) for tile in _TILES),
        links="".join(links),
        sections="".join(sections) or "<p>Nothing was received in this time.</p>",
        silent=f"<p>Nothing to say on: {_escaped(silent)}.</p>" if silent else "",
    )


def _tile(tile: _Tile, found: Sequence[Asked]) -> str:
    for one in found:
        if one.answer.question.name == tile.question:
            number = tile.of([dict(zip(one.answer.names, row, strict=True)) for row in one.answer.rows])
            return f'<div class="tile"><b>{_number(round(number))}</b><span>{_escaped(tile.label)}</span></div>'
    return ""


def _card(one: Asked, draw: Any) -> str:
    question = one.answer.question
    notes = re.sub("`([^`]+)`", r"<code>\1</code>", _escaped(question.notes))
    drawing = ""
    if question.chart is not None:
        document = vega.document(question.chart, one.answer.names, one.answer.rows)
        if document["data"]["values"]:
            drawing = f"<figure>{_themed(draw.vegalite_to_svg(json.dumps(document)))}</figure>"
    return (
        f'<article id="{question.name}"><h3>{_escaped(question.about)}</h3>'
        f"<p class=period>{_escaped(one.since)} to {_escaped(one.until)} UTC · <code>{_escaped(one.command)}</code></p>"
        f"{drawing}{_table(one.answer)}{f'<p class=notes>{notes}</p>' if notes else ''}</article>"
    )


def _themed(svg: str) -> str:
    """The stand-ins of colours become the page's own."""
    for name, color in vega.COLORS.items():
        svg = svg.replace(f'"{color}"', f'"var(--{name})"')
    return svg


def _table(answer: Answer) -> str:
    about = {column.name: column.about for column in answer.question.columns}
    right = [all(isinstance(row[place], int | float | None) for row in answer.rows) for place in range(len(answer.names))]
    head = "".join(
        f'<th{" class=n" if number else ""} title="{_escaped(about.get(name, ""))}">{_escaped(name.replace("_", " "))}</th>'
        for name, number in zip(answer.names, right, strict=True)
    )

    def lines(rows: Sequence[Sequence[Value]]) -> str:
        return "".join(
            "<tr>" + "".join(f"<td{' class=n' if n else ''}>{_cell(v)}</td>" for v, n in zip(row, right, strict=True)) + "</tr>"
            for row in rows
        )

    def table(rows: Sequence[Sequence[Value]]) -> str:
        return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{lines(rows)}</tbody></table></div>"

    if len(answer.rows) <= _SHOWN:
        return table(answer.rows)
    count = f"{len(answer.rows):,} rows" + (f", the first {_MOST}" if len(answer.rows) > _MOST else "")
    return f"<details><summary>{count}</summary>{table(answer.rows[:_MOST])}</details>"


def _cell(value: Value) -> str:
    if isinstance(value, int | float):
        return _number(value)
    text = value or ""
    return _escaped(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _number(value: float) -> str:
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.01 else f"{value:.3g}"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
