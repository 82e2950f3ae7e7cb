"""Which events of a batch are new, which came before, and which only borrowed another event's id.

Pure but for the look-up it is handed. Natural duplicate: same event_id and same event_fingerprint (no fingerprint counts as
a fingerprint of its own); it is dropped. Synthetic duplicate: same id, other fingerprint; it is another event, so it is
kept under an id derived from both and says where it came from. The derived id is the same at every resend, so a resend
of a synthetic duplicate is a natural one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from protocol.seams import Event, SelfDescribing
from storage.rows import clean

DUPLICATE = "iglu:com.snowplowanalytics.snowplow/duplicate/jsonschema/1-0-0"
_NAMESPACE = uuid.UUID("6f0c4f0e-2b0e-5b7c-9a53-3d4d1f0a7c11")

# Stored event_id -> event_fingerprint, for those of the given ids that the target has.
Stored = Callable[[Sequence[str]], Mapping[str, str | None]]


def synthetic_id(event_id: str, fingerprint: str | None) -> str:
    """The id of an event that came with an id another event already has. Deterministic."""
    return str(uuid.uuid5(_NAMESPACE, f"{event_id} {fingerprint or ''}"))


def identity(event: Event) -> tuple[str, str | None]:
    """(event_id, event_fingerprint) as they are stored. Every event that left enrichment has an event_id."""
    fingerprint = event.get("event_fingerprint")
    return clean(event["event_id"]), fingerprint and clean(fingerprint)  # pyright: ignore[reportTypedDictNotRequiredAccess]


def sort_out(events: Sequence[Event], stored: Stored) -> tuple[list[Event], int]:
    """The events to store, ids made unique, and how many natural duplicates were dropped."""
    ids = [event["event_id"] for event in events]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    if not "".join(ids).isprintable():
        ids = list(map(clean, ids))
    seen = dict(stored(ids))
    if not seen and len(set(ids)) == len(ids):
        return list(events), 0
    kept: list[Event] = []
    for event in events:
        original, fingerprint = identity(event)
        event_id = original
        # Nearly always no turn. One for a synthetic duplicate; more only if someone took the derived id as well.
        while event_id in seen and seen[event_id] != fingerprint:
            event_id = synthetic_id(event_id, fingerprint)
            if event_id not in seen:
                seen.update(stored([event_id]))
        if event_id not in seen:
            seen[event_id] = fingerprint
            kept.append(event if event_id == original else _renamed(event, event_id, original))
    return kept, len(events) - len(kept)


def _renamed(event: Event, event_id: str, original: str) -> Event:
    note: SelfDescribing = {"schema": DUPLICATE, "data": {"originalEventId": original}}
    return {**event, "event_id": event_id, "derived_contexts": [*event.get("derived_contexts", ()), note]}
