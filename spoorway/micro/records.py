"""Payload -> records: what is kept of each of its events, written as JSON once.

Knows no clock and no network; it reads schemas, and what the enrichments read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from enrich.enrichments import RawEvent, Step
from protocol.seams import Event, FailedEvent, RawPayload
from spoorway import building
from spoorway.badrows import bad_rows
from spoorway.config import Settings
from spoorway.loader import outcomes
from spoorway.micro import shapes
from spoorway.micro.shapes import to_json
from storage import failed as failures

_SENTENCES = {
    "collector_payload_format_violation": "The payload could not be read",
    "adapter_failures": "No events could be taken out of the payload",
    "tracker_protocol_violations": "No events could be taken out of the payload",
    "schema_violations": "The event is not valid",
    "enrichment_failures": "The event could not be enriched",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One event, good or bad.

    parts: joined they are the GoodEvent or BadEvent. The bad events of one payload share the part that is the payload.
    columns: its canonical columns as JSON, where a good event has them within its only part; b"" where there are none,
    because its payload was never taken apart. label: for people, one line.
    """

    good: bool
    event_id: str | None
    received_ms: int
    event_type: str | None
    schema: str | None
    contexts: tuple[str, ...]
    vendor: str
    version: str
    columns: bytes | slice
    parts: tuple[bytes, ...]
    label: str

    @property
    def size(self) -> int:
        """Bytes, were nothing shared."""
        return sum(map(len, self.parts)) + (len(self.columns) if isinstance(self.columns, bytes) else 0)

    @property
    def has_columns(self) -> bool:
        return self.columns != b""

    def column_values(self) -> dict[str, Any]:
        text = self.columns if isinstance(self.columns, bytes) else self.parts[0][self.columns]
        return orjson.loads(text) if text else {}


class Recorder:
    """Makes records of payloads, with the pipeline that the product runs."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError."""
        self.schemas = building.schema_lookup(settings)
        self._sent: dict[int, Mapping[str, str]] = {}
        self._pipeline = building.pipeline(settings, self.schemas, [Step("micro", self._note, "fail")], remember=False)
        self._mark = 0

    def records(self, payload: RawPayload, now_ms: int) -> tuple[int, Iterator[Record]]:
        """How many events the payload holds, and a record of each, the last first, made when it is asked for."""
        self.schemas.look()  # a schema file that was written a moment ago counts
        self._mark, changed = self.schemas.changes(self._mark)
        if changed:
            self._pipeline.forget_schemas(changed)
        self._sent.clear()
        found = outcomes(self._pipeline, payload, now_ms)
        return len(found), self._newest_first(payload, found)

    def _newest_first(self, payload: RawPayload, found: list[Event | FailedEvent]) -> Iterator[Record]:
        shared = b""
        for outcome in reversed(found):
            if isinstance(outcome, FailedEvent):
                shared = shared or to_json(shapes.collector_payload(payload))
                yield _bad(outcome, shared)
            else:
                yield _good(payload, outcome, self._sent[id(outcome)])

    def _note(self, event: Event, raw: RawEvent) -> Event:
        """The last step: what a tracker sent is not in the event, and is kept by the event's identity."""
        self._sent[id(event)] = raw.parameters
        return {}


def _good(payload: RawPayload, event: Event, parameters: Mapping[str, str]) -> Record:
    columns = to_json(shapes.columns(event))
    kind, schema = event.get("event"), shapes.schema_of(event)
    contexts = tuple([entity["schema"] for entity in event.get("contexts", ())])
    path = shapes.api(payload.path)
    raw = to_json(shapes.raw_event(payload, parameters))
    about = b',"eventType":%b,"schema":%b,"contexts":%b,"event":' % (to_json(kind), to_json(schema), to_json(contexts))
    head = b'{"rawEvent":' + raw + about
    return Record(
        True,
        event.get("event_id"),
        payload.received_ms,
        kind,
        schema,
        contexts,
        path["vendor"],
        path["version"],
        slice(len(head), len(head) + len(columns)),
        (head + columns + b',"incomplete":false}',),
        f"GOOD  id:{event.get('event_id')}  app_id:{event.get('app_id')}  type:{kind} ({schema})",
    )


def _bad(failed: FailedEvent, payload: bytes) -> Record:
    incomplete = shapes.incomplete_columns(failed)
    raw = shapes.raw_event(failed.payload, failed.parameters) if failed.index is not None else None
    why = "; ".join([f"{r.field}: {r.message}" if r.field else r.message for r in failed.reasons])
    errors = [f"{_SENTENCES.get(failed.kind, 'The event failed')}: {why}", *_bad_rows(failed)]
    path = shapes.api(failed.payload.path)
    event = failed.event
    event_id = failed.parameters.get("eid") or event.get("event_id")
    return Record(
        False,
        event_id and event_id.lower(),
        failed.payload.received_ms,
        event.get("event"),
        shapes.schema_of(event),
        (),
        path["vendor"],
        path["version"],
        b"" if incomplete is None else to_json(incomplete),
        (b'{"collectorPayload":', payload, b',"rawEvent":' + to_json(raw) + b',"errors":' + to_json(errors) + b"}"),
        f"BAD   id:{event_id}  app_id:{failed.parameters.get('aid')}  {failed.kind}: {why}",
    )


def _bad_rows(failed: FailedEvent) -> list[str]:
    payload = failed.payload
    if failed.index is not None and payload.body is not None:
        # Of a batch this one object: were the whole body in each, a batch of bad objects would grow by its square.
        payload = replace(payload, body=to_json(dict(failed.parameters)))
    return [to_json(row).decode() for row in bad_rows(failures.to_json(failures.to_row(failed)), payload)]
