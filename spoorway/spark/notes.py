"""What an enrichment that remembers was asked, in every stretch -> what it would have known on one machine when it came to each.

The facts of two stretches cannot simply be joined: what is learned depends on what was known. So the questions about one key (a
device, a copy of an email) come together, in the order of the archive, and are asked again, of the enrichment itself. Tasks.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from enrich.enrichments import RawEvent, Step
from gateway.journal import Chunk, Damage
from protocol.seams import Event, Reason
from spoorway.loader import outcomes
from spoorway.spark import bundle, staging
from spoorway.spark.bundle import Enriching, Recall
from spoorway.spark.engine import Keys, Told
from spoorway.spark.staging import Job
from storage.lake.parquet import pa

# step: its place among the enrichments. place: stretch << 32 | the note's number in it. asked: an event and what it was made of.
NOTES = Keys(
    pa.schema([("step", pa.int32()), ("key", pa.string()), ("place", pa.int64()), ("asked", pa.binary())]),
    ("step", "key"),
    ("step", "key", "place"),
)
# What was known of a key before a stretch that asks of it; value: null = nothing.
KNOWN = Keys(
    pa.schema([("stretch", pa.int32()), ("memory", pa.string()), ("key", pa.string()), ("value", pa.binary())]),
    ("stretch",),
    ("stretch",),
)
_ROWS = 10_000


def taken(job: Job, enriching: Enriching, stretch: int, chunks: Iterable[Chunk]) -> int:
    """Writes down what is asked from there on; how often that is. Enriches no further than the last step that remembers."""
    rows: list[dict[str, Any]] = []
    made: list[Any] = []

    def note(step: int, key: str, event: Event, raw: RawEvent) -> None:
        # The body may hold a hundred events, and no enrichment that remembers looks at it.
        payload = dataclasses.replace(raw.payload, query="", body=None)
        asked = pickle.dumps((event, dataclasses.replace(raw, payload=payload)), pickle.HIGHEST_PROTOCOL)
        rows.append({"step": step, "key": key, "place": stretch << 32 | len(made) * _ROWS + len(rows), "asked": asked})
        if len(rows) == _ROWS:
            made.append(pa.Table.from_pylist(rows, NOTES.schema))
            rows.clear()

    steps = list(enriching.steps[: max(enriching.remembering, default=-1) + 1])
    for place, name in enriching.remembering.items():
        enriching.memories[name].begin(())
        steps[place] = steps[place]._replace(enrichment=_Noted(place, steps[place], enriching.memories[name], note))
    pipeline = enriching.pipeline(steps)
    for chunk in chunks:
        for item in chunk.items:
            if not isinstance(item, Damage):
                outcomes(pipeline, item, job.now_ms)
    made.append(pa.Table.from_pylist(rows, NOTES.schema))
    table = pa.concat_tables(made)
    staging.write(job.objects(), job.name("notes", stretch), table)
    return int(table.num_rows)


@dataclasses.dataclass(frozen=True, slots=True)
class _Noted:
    """An enrichment that is listened to."""

    place: int
    step: Step
    recall: Recall[Any]
    note: Any

    def __call__(self, event: Event, raw: RawEvent) -> Event | Reason:
        self.recall.asked.clear()
        before = dict(event)
        added = self.step.enrichment(event, raw)
        for key in self.recall.asked:
            self.note(self.place, key, before, raw)
        return added


def read(job: Job, stretch: int) -> Iterator[Any]:
    """The notes of a stretch: tables of pyarrow."""
    return staging.tables(job.objects(), job.name("notes", stretch))


def folded(job: Job, part: int, batches: Iterator[Any]) -> Iterator[Told]:
    """The notes of some keys, sorted -> what was known of each before each stretch that asks of it, staged."""
    enriching = bundle.opened(job.bundle())
    rows: list[dict[str, Any]] = []
    asked: Iterator[dict[str, Any]] = (row for batch in batches for row in batch.to_pylist())
    for (place, key), some in groupby(asked, lambda row: (int(row["step"]), str(row["key"]))):
        name, step = enriching.remembering[place], enriching.steps[place]
        recall = enriching.memories[name]
        recall.begin(())
        for stretch, notes in groupby(some, lambda row: int(row["place"]) >> 32):
            rows.append({"stretch": stretch, "memory": name, "key": key, "value": recall.written(key)})
            for note in notes:
                _ask(step, note["asked"])
    if rows:
        staging.write(job.objects(), job.name("known", part), pa.Table.from_pylist(rows, KNOWN.schema))
        yield {"part": part}


def _ask(step: Step, asked: bytes) -> None:
    event, raw = pickle.loads(asked)
    try:
        step.enrichment(event, raw)
    except Exception:  # in the pipeline it fails the event, and what was learned until then stays
        return


def known(job: Job, part: int) -> Iterator[Any]:
    """What a part staged of it: tables of pyarrow."""
    return staging.tables(job.objects(), job.name("known", part))


def by_stretch(batches: Iterator[Any]) -> Iterator[tuple[int, list[tuple[str, str, bytes]]]]:
    """Of sorted rows of KNOWN: (stretch, (memory, key, value) of all that was known before it)."""
    rows = (row for batch in batches for row in batch.to_pylist())
    for stretch, some in groupby(rows, lambda row: row["stretch"]):
        yield stretch, [(row["memory"], row["key"], row["value"]) for row in some if row["value"] is not None]


__all__ = ["KNOWN", "NOTES", "by_stretch", "folded", "known", "read", "taken"]
