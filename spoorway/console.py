"""What people see in a terminal: tables, progress, one-line errors. Human form on a terminal, plain lines otherwise."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

Format = Literal["table", "json", "csv"]
_WIDEST_CELL = 60

T = TypeVar("T")


def printable(text: str) -> str:
    """Control characters written out, so that no event can talk to the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e15 else repr(value)
    text = printable(str(value))
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 1] + "…"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns aligned, numbers to the right, long cells cut with an ellipsis."""
    kept = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in kept]
    right = [bool(kept) and all(isinstance(row[i], int | float | None) for row in kept) for i in range(len(names))]
    widths = [max(len(str(name)), *(len(row[i]) for row in cells)) if cells else len(name) for i, name in enumerate(names)]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(list(names)), line(["─" * w for w in widths]), *map(line, cells)])


def write_rows(names: Sequence[str], rows: Iterable[Sequence[object]], form: Format) -> None:
    """Every row to standard output. json: one object a line."""
    out = sys.stdout
    if form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
    elif form == "json":
        keys = _apart(names)
        for row in rows:
            told = dict(zip(keys, map(_json, row), strict=True))
            out.write(json.dumps(told, ensure_ascii=False, default=_bytes) + "\n")
    else:
        out.write(table(names, rows) + "\n")


def _apart(names: Sequence[str]) -> list[str]:
    """One that comes again gets a number: an object has a name once."""
    keys: list[str] = []
    for name in names:
        key, number = name, 1
        while key in keys:
            number += 1
            key = f"{name}_{number}"
        keys.append(key)
    return keys


def _json(value: object) -> object:
    """JSON has no number for what is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bytes(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")


class Progress:
    """A bar on standard error while long work runs; silent where standard error is no terminal."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._began = time.monotonic()
        self._shown = 0.0
        self._live = sys.stderr.isatty()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._live and now - self._shown > 0.1:
            self._shown = now
            self._draw()

    def close(self) -> None:
        if self._live:
            self._draw()
            sys.stderr.write("\n")

    def _draw(self) -> None:
        share = min(1.0, self._done / self._total) if self._total else 1.0
        bar = "█" * round(share * 30)
        rate = self._done / max(0.001, time.monotonic() - self._began)
        sys.stderr.write(f"\r{self._label} {bar:<30} {share:4.0%}  {self._done:,} of {self._total:,}  {rate:,.0f}/s ")
        sys.stderr.flush()


def tracked(label: str, items: Sequence[T]) -> Iterator[T]:
    """The items, with a progress bar beside them."""
    progress = Progress(label, len(items))
    for item in items:
        yield item
        progress.advance(1)
    progress.close()


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"spoorway: {message}", file=sys.stderr)


def host_text(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
