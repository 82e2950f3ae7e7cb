"""A chart of an answer, in characters: what `spoorway ask run --chart` prints. Pure: rows in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from spoorway.console import printable
from storage.sql import Chart

Rows = Sequence[Sequence[object]]

WIDTH, HEIGHT = 72, 10  # characters of the drawing itself
_MOST = 30  # bars, series or lines of a map; what is more is said
_LABEL = 34
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"
_SHADES = " ░▒▓█"


def drawn(chart: Chart, names: Sequence[str], rows: Rows) -> str:
    """names, rows: as answered. Rows whose y is no number are left out."""
    x, y = names.index(chart.x), names.index(chart.y)
    color = names.index(chart.color) if chart.color else None
    points = [
        (_text(row[x]), "" if color is None else _text(row[color]), float(value))
        for row in rows
        if isinstance(value := row[y], int | float)
    ]
    if not points:
        return "nothing to draw"
    if chart.kind == "bar":
        return _bars(chart, points)
    if chart.kind == "heat":
        return _heat(chart, points)
    series: dict[str, list[tuple[str, float]]] = {}
    for at, of, value in points:
        series.setdefault(of, []).append((at, value))
    return _curve(chart, next(iter(series.values()))) if len(series) == 1 else _sparks(chart, series)


def _text(value: object) -> str:
    return "" if value is None else printable(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def _more(count: int) -> list[str]:
    return [f"… and {count - _MOST:,} more"] if count > _MOST else []


def _bars(chart: Chart, points: Sequence[tuple[str, str, float]]) -> str:
    bars = [(at, value) for at, _, value in points]
    if chart.color:  # what a bar is made of is not told apart here
        totals: dict[str, float] = {}
        for at, value in bars:
            totals[at] = totals.get(at, 0) + value
        bars = list(totals.items())
    shown = bars[:_MOST]
    widest = max(len(_cut(at)) for at, _ in shown)
    most = max(*(abs(value) for _, value in shown), 1e-12)
    lines = [f"{chart.y} by {chart.x}"]
    for at, value in shown:
        eighths = round(abs(value) / most * WIDTH * 8)
        bar = "█" * (eighths // 8) + _PARTS[eighths % 8].strip()
        lines.append(f"{_cut(at).ljust(widest)}  {bar} {_number(value)}")
    return "\n".join(lines + _more(len(bars)))


def _columns(values: Sequence[float], width: int) -> list[float]:
    """At most so many values: neighbours are averaged."""
    if len(values) <= width:
        return list(values)
    edges = [round(place * len(values) / width) for place in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _curve(chart: Chart, series: Sequence[tuple[str, float]]) -> str:
    values = _columns([value for _, value in series], WIDTH)
    values = [value for value in values for _ in range(max(1, WIDTH // len(values) // 2))]
    low, high = min(0.0, *values), max(0.0, *values)
    if low == 0 and min(values) > 0.5 * high and any(value % 1 for _, value in series):  # temperatures, not counts
        low = min(values) - 0.1 * (high - min(values) or 1)
    step = (high - low or 1) / (HEIGHT * 8)
    heights = [round((value - low) / step) for value in values]
    left = max(len(_number(high)), len(_number(low)))
    lines = [f"{chart.y} by {chart.x}"]
    for row in reversed(range(HEIGHT)):
        label = _number(high) if row == HEIGHT - 1 else _number(low) if row == 0 else ""
        lines.append(
            f"{label.rjust(left)} ┤" + "".join(_EIGHTHS[max(0, min(8, height - 8 * row))] for height in heights).rstrip()
        )
    first, last = series[0][0], series[-1][0]
    return "\n".join([*lines, f"{' ' * left} └{'─' * len(heights)}", f"{' ' * left}  {first} … {last}"])


def _sparks(chart: Chart, series: dict[str, list[tuple[str, float]]]) -> str:
    shown = list(series.items())[:_MOST]
    widest = max(len(_cut(of)) for of, _ in shown)
    low = min(value for _, points in shown for _, value in points)
    high = max(value for _, points in shown for _, value in points)
    lines = [f"{chart.y} by {chart.x}, from {_number(low)} to {_number(high)}"]
    for of, points in shown:
        values = _columns([value for _, value in points], WIDTH)
        spark = "".join(_EIGHTHS[1 + round((value - low) / (high - low or 1) * 7)] for value in values)
        lines.append(f"{_cut(of).ljust(widest)}  {spark}  {_number(points[-1][1])}")
    return "\n".join([*lines, f"{min(p[0][0] for _, p in shown)} … {max(p[-1][0] for _, p in shown)}", *_more(len(series))])


def _heat(chart: Chart, points: Sequence[tuple[str, str, float]]) -> str:
    """A line for each x, a character for each color, darker for more."""
    across = list(dict.fromkeys(of for _, of, _ in points))
    down = list(dict.fromkeys(at for at, _, _ in points))
    cells = {(at, of): value for at, of, value in points}
    most = max(*cells.values(), 1e-12)
    widest = max(len(_cut(at)) for at in down[:_MOST])
    wide = max(3, min(6, WIDTH // len(across)))
    lines = [f"{chart.y} by {chart.x} (down) and {chart.color} (across)"]
    lines.append(" " * (widest + 2) + "".join(of[-wide + 1 :].rjust(wide) for of in across))
    for at in down[:_MOST]:
        shades = [_SHADES[min(4, round(4 * max(0.0, cells.get((at, of), 0)) / most))] * (wide - 1) for of in across]
        lines.append(f"{_cut(at).ljust(widest)}  " + "".join(f" {shade}" for shade in shades))
    return "\n".join(lines + _more(len(down)))
