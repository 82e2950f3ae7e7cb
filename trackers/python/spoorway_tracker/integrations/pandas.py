"""A data frame -> an event for each of its rows, for notebooks and scripts.

track_frame(tracker, frame, "iglu:com.acme/reading/jsonschema/1-0-0", time="measured_at")
"""

# pyright: basic
from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from spoorway_tracker.outcomes import Refusal
from spoorway_tracker.tracker import Verbs


def track_frame(tracker: Verbs, frame: Any, schema: str, time: str | None = None) -> Counter[str]:
    """Columns are properties; what is missing (None, NaN, NaT, NA) is not sent. time: a column of times that becomes the
    true time.

    Counts rows: `tracked`, and the values of Refusal. Raises KeyError for a column that is not there.
    """
    names = [str(name) for name in frame.columns]
    at = names.index(time) if time in names else None
    if time is not None and at is None:
        raise KeyError(time)
    counted: Counter[str] = Counter()
    for row in frame.itertuples(index=False, name=None):
        data = {name: plain for name, value in zip(names, row, strict=True) if (plain := _plain(value)) is not None}
        true = data.pop(names[at], None) if at is not None else None
        true_ms = round(true.timestamp() * 1000) if isinstance(true, datetime) else None
        done = tracker.track_self_describing(schema, data, true_ms=true_ms)
        counted[done.value if isinstance(done, Refusal) else "tracked"] += 1
    return counted


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's; None for what is missing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return None
    item = getattr(value, "item", None)
    return item() if callable(item) else value
