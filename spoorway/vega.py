"""A chart of an answer as a Vega-Lite document, for whoever draws it: the report, notebooks, other tools. Pure.

Colours are names of the page's own (`ink`, `c1` to `c7`, see COLORS), so that one drawing is legible by day
and by night.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from storage.sql import Chart

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
SERIES = 7  # colours; what is beyond them is one more, "other"
BARS = 14
# Vega-Lite wants colours, so that each of the page's names has a stand-in, which nobody would choose.
COLORS: dict[str, str] = {"ink": "#010101", "faint": "#020202", "line": "#030303"} | {
    f"c{number}": f"#0{number}0{number}0f" for number in range(1, SERIES + 1)
}
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": COLORS["faint"], "labelFontSize": 11, "titleColor": COLORS["faint"], "titleFontSize": 11,
        "titleFontWeight": "normal",
        "grid": True, "gridColor": COLORS["line"], "domain": False, "ticks": False, "labelPadding": 6,
    },
    "axisBand": {"grid": False},
    "legend": {
        "labelColor": COLORS["ink"], "labelFontSize": 11, "labelLimit": 150, "title": None, "orient": "top",
        "symbolType": "square", "symbolSize": 70, "columns": 4, "offset": 8,
    },
    "bar": {"cornerRadiusEnd": 2, "color": COLORS["c1"]},
    "line": {"strokeWidth": 2, "color": COLORS["c1"]},
    "rect": {"color": COLORS["c1"]},
    "range": {"category": [COLORS[f"c{number}"] for number in range(1, SERIES + 1)]},
}  # fmt: skip
_TIME = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d(:\d\d(\.\d+)?)?)?")
_OTHER = "other"
_SHORT = "abs(datum.value) >= 10000 ? format(datum.value, '~s') : format(datum.value, ',')"


def document(chart: Chart, names: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 540) -> dict[str, Any]:
    """With its data. names, rows: as answered; width: pixels of the drawing."""
    x, y = names.index(chart.x), names.index(chart.y)
    color = names.index(chart.color) if chart.color else None
    points = [
        {"x": "" if row[x] is None else row[x], "y": row[y]} | ({} if color is None else {"color": _text(row[color])})
        for row in rows
        if isinstance(row[y], int | float)
    ]
    timed = bool(points) and all(_TIME.fullmatch(_text(point["x"])) for point in points)
    encoding, height = _DRAWINGS[chart.kind](chart, points, timed)
    return {
        "$schema": SCHEMA,
        "width": width,
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 2,
        "data": {"values": points},
        "config": CONFIG,
        **encoding,
    }


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _when(timed: bool, axis: dict[str, Any]) -> dict[str, Any]:
    # A date alone would be taken for local time; "utc" draws it where it lies.
    scale = {"scale": {"type": "utc"}} if timed else {}
    return {"field": "x", "type": "temporal" if timed else "ordinal", "title": None, "axis": axis | {"grid": False}, **scale}


def _values(title: str, place: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"field": "y", "type": "quantitative", "title": _title(title), "axis": {"tickCount": 5, "labelExpr": _SHORT}} | (
        place or {}
    )


def _colored(points: list[dict[str, Any]]) -> dict[str, Any]:
    """What is seldom becomes one; changes the points. No legend for a single one."""
    sizes: Counter[str] = Counter()
    for point in points:
        sizes[point["color"]] += abs(point["y"])
    kept = [name for name, _ in sizes.most_common(SERIES if len(sizes) <= SERIES else SERIES - 1)]
    for point in points:
        if point["color"] not in kept:
            point["color"] = _OTHER
    order = kept + ([_OTHER] if len(sizes) > len(kept) else [])
    legend: dict[str, Any] | None = None if len(order) == 1 else {}
    return {"field": "color", "type": "nominal", "scale": {"domain": order}, "sort": order, "legend": legend}


def _line(chart: Chart, points: list[dict[str, Any]], timed: bool) -> tuple[dict[str, Any], int]:
    series = {point.get("color") for point in points}
    at = _when(timed, {"format": "%-d %b", "tickCount": 6} if timed else {})
    value = _values(chart.y, {"stack": None})
    if any(isinstance(point["y"], float) and point["y"] % 1 for point in points) and chart.color:
        value["scale"] = {"zero": False}
    if len(series) > SERIES:  # too many to tell apart: all of them, faintly
        lines = {"opacity": {"value": 0.35}, "detail": {"field": "color", "type": "nominal"}}
        return {"mark": {"type": "line", "strokeWidth": 1}, "encoding": {"x": at, "y": value, **lines}}, 200
    color = {"color": _colored(points)} if chart.color else {}
    mark: dict[str, Any] = (
        {"type": "line", "point": {"size": 26, "filled": True}} if len(points) < 60 * len(series) else {"type": "line"}
    )
    if len(series) == 1 and len(points) > 1:  # a single point has no area
        mark = {"type": "area", "line": True, "fillOpacity": 0.14, "color": CONFIG["line"]["color"]}
        color = {}
    return {"mark": mark, "encoding": {"x": at, "y": value, **color}}, 200


def _bar(chart: Chart, points: list[dict[str, Any]], timed: bool) -> tuple[dict[str, Any], int]:
    if timed:
        color = {"color": _colored(points)} if chart.color else {}
        days = {point["x"] for point in points}
        thick = max(2, min(34, 420 // max(1, len(days))))
        at = _when(True, {"format": "%-d %b", "tickCount": 6})
        return {"mark": {"type": "bar", "width": thick}, "encoding": {"x": at, "y": _values(chart.y), **color}}, 200
    sizes: Counter[str] = Counter()
    for point in points:
        point["x"] = _text(point["x"]) or "(none)"
        sizes[point["x"]] += abs(point["y"])
    order = [name for name, _ in sizes.most_common(BARS)]
    if chart.x in ("name", "level"):  # steps, in their own order
        order = [name for name in dict.fromkeys(point["x"] for point in points) if name in order]
        order = sorted(order) if chart.x == "level" else order
    points[:] = [point for point in points if point["x"] in order]
    color = {"color": _colored(points)} if chart.color else {}
    label = {"labelLimit": 210, "labelColor": COLORS["ink"]}
    what = {"field": "x", "type": "nominal", "title": None, "sort": order, "axis": label}
    return {"mark": "bar", "encoding": {"y": what, "x": _values(chart.y), **color}}, 24 * len(order)


def _heat(chart: Chart, points: list[dict[str, Any]], timed: bool) -> tuple[dict[str, Any], int]:
    """A row for each x, a column for each color, denser for more."""
    rows = {point["x"] for point in points}
    most = max((point["y"] for point in points), default=1)
    label = {"labelColor": COLORS["ink"], "labelAngle": 0}
    encoding = {
        "y": {"field": "x", "type": "ordinal", "title": None, "axis": label},
        "x": {"field": "color", "type": "ordinal", "title": _title(chart.color), "axis": label, "sort": None},
    }
    dense = {"field": "y", "type": "quantitative", "legend": None, "scale": {"domain": [0, most], "range": [0.03, 0.85]}}
    cells = {"mark": {"type": "rect", "cornerRadius": 2}, "encoding": {"opacity": dense}}
    text = {
        "mark": {"type": "text", "fontSize": 11, "color": COLORS["ink"]},
        "encoding": {"text": {"field": "y", "format": ".3~r"}},
    }
    return {"encoding": encoding, "layer": [cells, text]}, 30 * max(1, len(rows))


_DRAWINGS = {"line": _line, "bar": _bar, "heat": _heat}
