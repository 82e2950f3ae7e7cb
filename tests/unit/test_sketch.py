"""The benchmarks' sketch is a peer only as long as it makes of the same payloads what the product makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import mix, sketch
from enrich.enrichments import defaults
from enrich.pipeline import Options, Pipeline
from protocol import schemas
from protocol.seams import FailedEvent
from protocol.tables import COLUMN_NAMES
from spoorway.world import World
from storage.rows import to_row

_PAYLOADS = list(mix.payloads(90))
# Told by the product alone, or spelled in a way of its own: who made it, which search engine, the scale of a decimal.
_OWN = {"v_collector", "v_etl", "refr_medium", "refr_source", "refr_term", "se_value", "event_fingerprint"}


def test_rows_are_those_of_the_product() -> None:
    pipeline = Pipeline(Options(), schemas.bundled, defaults(World()))
    made = sketch.Sketch().rows(_PAYLOADS, mix.START_MS)
    events = [event for payload in _PAYLOADS for event in pipeline.outcomes(payload, mix.START_MS)]
    assert len(made) == len(events) == 90
    for row, event in zip(made, events, strict=True):
        assert not isinstance(event, FailedEvent)
        ours = dict(zip(COLUMN_NAMES, to_row(event), strict=True))
        assert _compared(row) == _compared(ours)


def test_every_row_is_stored(tmp_path: Path) -> None:
    rows = sketch.Sketch().rows(_PAYLOADS, mix.START_MS)
    with closing(sketch.opened(tmp_path / "events.db")) as db:
        sketch.store(db, rows)
        sketch.store(db, rows[:5])  # come again
        assert db.execute("SELECT count(*), count(page_urlhost), count(contexts) FROM events").fetchone() == (90, 30, 30)


def _compared(row: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in row.items() if value is not None and name not in _OWN}
    return {name: json.loads(value) if name in ("contexts", "unstruct_event") else value for name, value in told.items()}
