"""The mark of a batch: what a target keeps of the newest one, to know it when it is offered again. Pure."""

from __future__ import annotations

import hashlib

from storage.targets import Batch


def mark_of(batch: Batch) -> str:
    """Names a batch by what is in it and where it ends: 32 hex digits."""
    names = [
        repr(sorted(batch.cursor.items())),
        *[event.get("event_id", "") for event in batch.events],
        *[event.get("event_fingerprint", "") for event in batch.events],
        *[failed.id for failed in batch.failed],
    ]
    return hashlib.blake2b("\n".join(names).encode(errors="replace"), digest_size=16).hexdigest()
